"""Histories as people have them: lists, mappings, frames, or users of the bundle."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

Histories = Any  # lists of item ids, {user: item ids}, user ids, or a frame of user, item, time


class RequestError(ValueError):
    """A question that has no meaning; says what was expected."""


def read_histories(
    given: Histories, users: Container[str], history_of: Callable[[str], Sequence[str]]
) -> dict[Any, Sequence[str]]:
    """Return item ids by user, oldest first.

    Args:
        given: lists of item ids (their users are then 0, 1, …); a mapping of users to such lists;
            ids of users of the bundle; or a frame of user, item and time, in this order or with
            such names (``user_id``, ``item_id``, ``timestamp``).
        users: those of the bundle.
        history_of: returns the history of one of them.

    Raises:
        RequestError: none of these, or a user whom the bundle does not know.
    """
    if isinstance(given, Mapping):
        return dict(given)
    if hasattr(given, "columns"):
        return _from_frame(given)
    if isinstance(given, str):
        raise RequestError(
            f"histories must be a list, found the string {given!r}: write [{given!r}]"
        )
    given = list(given)
    if given and all(isinstance(entry, str) for entry in given):
        for user in given:
            if user not in users:
                raise RequestError(
                    f"user {user!r} is not in the bundle. Give the user's items as a list, or "
                    "export --with-histories"
                )
        return {user: history_of(user) for user in given}
    return dict(enumerate(given))


def _from_frame(frame: pd.DataFrame) -> dict[Any, Sequence[str]]:
    names = [str(name) for name in frame.columns]
    known = [("user", "user_id"), ("item", "item_id"), ("time", "timestamp")]
    columns = [next((name for name in pair if name in names), None) for pair in known]
    if None in columns:
        if len(names) != 3:
            raise RequestError(f"expected a frame of user, item, time, found the columns {names}")
        columns = list(names)
    user, item, time = (frame[name] for name in columns)
    ordered = frame.iloc[np.argsort(time.to_numpy(), kind="stable")]
    items = ordered[columns[1]].astype(str)
    return {
        key: list(part) for key, part in items.groupby(ordered[columns[0]].to_numpy(), sort=True)
    }
