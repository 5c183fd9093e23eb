"""A value that is computed once inside a context, such as the item table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

T = TypeVar("T")


class Kept(Generic[T]):
    """A value that depends on weights alone, such as a projected catalogue.

    It is computed at every use, but inside :meth:`kept` only at the first; no weight may change
    there. Afterwards nothing is kept.
    """

    def __init__(self, compute: Callable[[], T]) -> None:
        self._compute = compute
        self._keeps = False
        self._value: T | None = None

    def __call__(self) -> T:
        """Return the value."""
        if not self._keeps:
            return self._compute()
        if self._value is None:
            self._value = self._compute()
        return self._value

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Compute it at most once inside; a context inside another changes nothing."""
        if self._keeps:
            yield
            return
        self._keeps = True
        try:
            yield
        finally:
            self._keeps, self._value = False, None
