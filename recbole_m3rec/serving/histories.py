"""Histories as people have them: lists, mappings, frames, or users of the bundle."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from recbole_m3rec.serving.arguments import RequestError, as_list, is_id, shown

if TYPE_CHECKING:
    import pandas as pd

Histories = Any  # lists of item ids, {user: item ids}, user ids, or a frame of user, item, time


def read_histories(
    given: Histories, users: Container[str], history_of: Callable[[str], Sequence[str]]
) -> dict[Any, Sequence[str]]:
    """Return item ids by user, oldest first.

    Args:
        given: lists of item ids (their users are then 0, 1, …); a mapping of users to such lists,
            or a pandas series of them by user; ids of users of the bundle; or a pandas frame of
            user, item and time, in this order or with such names (``user_id``, ``item_id``,
            ``timestamp``). Times are numbers or datetimes; at equal times the order of rows counts.
        users: those of the bundle.
        history_of: returns the history of one of them.

    Raises:
        RequestError: none of these, a user whom the bundle does not know, or rows of a frame that
            lack a value or have one of another kind.
    """
    if isinstance(given, Mapping):
        return dict(given)
    if hasattr(given, "columns"):
        return _from_frame(given)
    unordered = isinstance(given, set | frozenset)
    users_given = given.index if hasattr(given, "iloc") else None
    given = as_list(given, "histories", "users or histories", is_ordered=False)
    if given and all(isinstance(entry, str) for entry in given):
        for user in given:
            if user not in users:
                raise RequestError(
                    f"user {user!r} is not in the bundle. Give the user's items as a list, or "
                    "export --with-histories"
                )
        return {user: history_of(user) for user in given}
    if unordered:
        raise RequestError("histories must be a list, found a set, in which they have no number")
    if users_given is None:
        return dict(enumerate(given))
    if not users_given.is_unique:
        twice = shown(users_given[users_given.duplicated()][0])
        raise RequestError(f"histories have the user {twice} twice: group them by user")
    return dict(zip(users_given, given, strict=True))


def _from_frame(frame: pd.DataFrame) -> dict[Any, Sequence[str]]:
    from pandas.api.types import infer_dtype

    if not hasattr(frame, "iloc"):
        raise RequestError(
            f"expected a pandas frame, found {type(frame).__name__}: give frame.to_pandas()"
        )
    if not len(frame):
        return {}
    user, item, time = (frame.iloc[:, place] for place in _places(list(map(str, frame.columns))))
    for column in (user, item, time):
        missing = column.isna().to_numpy(bool)
        _refuse(column, missing, "a value", "Drop such rows with frame.dropna(), or fill them in")
    time = time.infer_objects()
    _refuse(
        time,
        np.full(len(time), time.dtype.kind not in "iufM"),
        "numbers or datetimes",
        f"Convert frame[{time.name!r}] with pd.to_numeric or pd.to_datetime",
    )
    if infer_dtype(item, skipna=False) not in ("string", "integer"):
        is_wrong = np.array([not is_id(value) for value in item])
        fix = f"Convert them, such as by frame[{item.name!r}].astype('int64').astype(str)"
        _refuse(item, is_wrong, "item ids, texts or whole numbers", fix)
    order = time.array.argsort(kind="stable")
    items, users = item.astype(str).iloc[order], user.to_numpy()[order]
    return {key: list(part) for key, part in items.groupby(users, sort=True)}


def _places(names: Sequence[str]) -> list[int]:
    """Return where user, item and time are: by name, or the only three columns in this order."""
    known = (("user", "user_id"), ("item", "item_id"), ("time", "timestamp"))
    found = [[n for n, name in enumerate(names) if name in pair] for pair in known]
    if all(len(places) == 1 for places in found):
        return [place for [place] in found]
    if len(names) == 3 and all(places in ([], [n]) for n, places in enumerate(found)):
        return [0, 1, 2]
    raise RequestError(
        "expected a frame of user, item, time, or with one column each of user_id, item_id, "
        f"timestamp; found the columns {list(names)}"
    )


def _refuse(column: pd.Series, is_wrong: np.ndarray, expected: str, fix: str) -> None:
    """Raise where rows of a frame are wrong; names how many, and the first."""
    if is_wrong.any():
        first = int(is_wrong.argmax())
        raise RequestError(
            f"column {column.name!r}: expected {expected} in every row, not so in "
            f"{is_wrong.sum():,} of {len(column):,}; the first is row {first}: "
            f"{shown(column.iloc[[first]].tolist()[0])}. {fix}"
        )
