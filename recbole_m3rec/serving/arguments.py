"""Arguments of a question: item ids, numbers, weights."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from recbole_m3rec.support.suggestions import expected_one_of

LARGEST_WEIGHT = 10**6  # scores are float32


class RequestError(ValueError):
    """A question that has no meaning; says what was expected."""


def as_list(
    given: Iterable[Any], name: str, of: str = "item ids", *, is_ordered: bool = True
) -> Sequence[Any]:
    """Return what is given for a list, as one.

    Raises:
        RequestError: a text, whose letters would be read as ids; a mapping, a frame or no iterable
            at all; or a set where the order counts.
    """
    if isinstance(given, list | tuple):
        return given
    if is_ordered and isinstance(given, set | frozenset):
        raise RequestError(f"{name} must be a list, oldest first, found a set, which has no order")
    wrong = isinstance(given, str | bytes | Mapping) or hasattr(given, "columns")
    if wrong or not isinstance(given, Iterable) or getattr(given, "ndim", 1) == 0:
        fix = f": write [{given!r}]" if isinstance(given, str) else ""
        raise RequestError(f"{name} must be a list of {of}, found {shown(given)}{fix}")
    return list(given)


def is_id(value: object) -> bool:
    """Whether it can be read as an item id: a text or a whole number."""
    return isinstance(value, str | int | np.integer) and not isinstance(value, bool)


def as_id(value: object, name: str) -> str:
    """Return an item id as text: of a whole number its digits.

    Raises:
        RequestError: neither a text nor a whole number.
    """
    if not is_id(value):
        raise RequestError(
            f"{name} must be an item id, a text or a whole number, found {shown(value)}"
        )
    return str(value)


def shown(value: object) -> str:
    """Return what an error says of a value that was found."""
    return f"{' '.join(reprlib.repr(value).split())} ({type(value).__name__})"


def at_least_1(name: str, value: object) -> int:
    """Return a whole number of at least 1.

    Raises:
        RequestError: it is none.
    """
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 1:
        raise RequestError(f"{name} must be a whole number of at least 1, found {value!r}")
    return int(value)


def weights_of(given: Mapping[str, float] | None, names: Iterable[str]) -> np.ndarray | None:
    """Return weights in the order of ``names``, 1 where not given; None for none.

    Raises:
        RequestError: none of the names, or no number from 0 to :data:`LARGEST_WEIGHT`.
    """
    if given is None:
        return None
    if not isinstance(given, Mapping):
        raise RequestError(f"weights must be a mapping by modality, found {shown(given)}")
    if not given:
        return None
    weights = dict.fromkeys(names, 1.0)
    for name, weight in given.items():
        if name not in weights:
            raise RequestError(expected_one_of("a weight's modality", name, weights))
        is_number = isinstance(weight, int | float | np.floating | np.integer) and not isinstance(
            weight, bool
        )
        if not is_number or not 0 <= weight <= LARGEST_WEIGHT:  # NaN is not, either
            raise RequestError(
                f"the weight of {name} must be a number from 0 to {LARGEST_WEIGHT:,},"
                f" found {shown(weight)}"
            )
        weights[name] = float(weight)
    return np.array(list(weights.values()))
