"""What a job asks of the place where its pieces run, and this process as such a place.

A piece is a call of a plain function, one of a module's, with plain data. Pieces only read files:
what they make comes back, and the job writes it, so that a piece may run twice.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator
from itertools import starmap
from pathlib import Path
from typing import Any, Protocol, TypeVar

R = TypeVar("R")


class Cluster(Protocol):
    """A place where pieces run.

    Attributes:
        n_workers: how many pieces run at once, at least.
        is_remote: whether pieces run in other processes, so that data have to travel.
    """

    @property
    def n_workers(self) -> int: ...

    @property
    def is_remote(self) -> bool: ...

    def map(self, function: Callable[..., R], pieces: Iterable[tuple[Any, ...]]) -> Iterator[R]:
        """Yield ``function(*piece)`` of each piece, in their order."""

    def keep(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function; return a handle of its result, which stays where it was made.

        Arguments of pieces, and of other functions, may be handles.
        """


def check_size(path: Path, size: int, found: int | None = None) -> None:
    """Compare the size of a piece's file with what it has where the job runs.

    Raises:
        OSError: it is another; a cluster says of which worker.
    """
    found = path.stat().st_size if found is None else found
    if found != size:
        raise OSError(errno.EIO, f"it holds {found:,} bytes in place of {size:,}", str(path))


class ThisProcess:
    """Runs pieces here, one after the other, when they are asked for."""

    n_workers = 1
    is_remote = False

    def map(self, function: Callable[..., R], pieces: Iterable[tuple[Any, ...]]) -> Iterator[R]:
        """Yield the results as an iterator of Python does."""
        return starmap(function, pieces)

    def keep(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return the result itself."""
        return function(*arguments)


THIS_PROCESS = ThisProcess()
