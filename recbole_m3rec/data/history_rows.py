"""RecBole's interactions with the history of each row, which takes room where it is looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_m3rec.data.augmentation import PrefixLists

ORDER = "order of the rows"


class HistoryRows(Interaction):
    """RecBole's ``Interaction`` of fields and lists; a list is laid out when it is looked at.

    Rows that are picked, split or sorted stay as they are. Whatever else RecBole does finds all
    lists laid out, as RecBole keeps them: so a batch is laid out when it goes to its device.

    Args:
        fields: ``[R, ...]`` each.
        lists: of ``R`` rows each.
    """

    def __init__(self, fields: Mapping[str, Tensor], lists: Mapping[str, PrefixLists]) -> None:
        self._fields, self._lists = dict(fields), dict(lists)
        self.length = len(next(iter(self._fields.values())))

    @property
    def interaction(self) -> dict[str, Tensor]:
        """All fields as RecBole keeps them."""
        for name in list(self._lists):
            self._lay_out(name)
        return self._fields

    @interaction.setter
    def interaction(self, fields: dict[str, Tensor]) -> None:
        self._fields, self._lists = fields, {}

    def _lay_out(self, name: str) -> Tensor:
        self._fields[name] = self._lists.pop(name).laid_out()
        return self._fields[name]

    def change(self, name: str, how: Callable[[Tensor], Tensor]) -> None:
        """Change every value of a field or a list; ``how`` is a function that keeps 0 and shape."""
        if name in self._lists:
            self._lists[name] = self._lists[name].of_values(how)
        else:
            self._fields[name] = how(self._fields[name])

    @property
    def columns(self) -> list[str]:
        return [*self._fields, *self._lists]

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)

    def __contains__(self, name: object) -> bool:
        return name in self._fields or name in self._lists

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in self:
            raise AttributeError(f"{type(self).__name__} has no attribute or field {name!r}")
        return self[name]

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, str):
            return self._lay_out(index) if index in self._lists else self._fields[index]
        if not isinstance(index, slice):
            index = index if isinstance(index, Tensor) else torch.from_numpy(np.array(index))
            if index.dtype != torch.bool:
                index = index.long()  # where bytes would be a mask, and nothing a float
            if index.dim() == 0:
                row = self[index[None]].interaction
                return Interaction({name: values[0] for name, values in row.items()})
        return HistoryRows(
            {name: values[index] for name, values in self._fields.items()},
            {name: lists.taken(index) for name, lists in self._lists.items()},
        )

    def __setitem__(self, name: str, values: Tensor) -> None:
        self._lists.pop(name, None)
        self._fields[name] = values

    def drop(self, column: str) -> None:
        """Drop a field or a list, as RecBole does."""
        if column not in self:
            super().drop(column)  # says so
        self._lists.pop(column, None)
        self._fields.pop(column, None)

    def sort(self, by: Any, ascending: Any = True) -> None:
        """Sort the rows, as RecBole does."""
        for name in {by} if isinstance(by, str) else set(by):
            if name in self._lists:
                self._lay_out(name)
        keys = Interaction({**self._fields, ORDER: torch.arange(self.length)})
        keys.sort(by, ascending)
        self._reindex(keys[ORDER])

    def _reindex(self, index: Any) -> None:
        picked = self[index]
        self._fields, self._lists = picked._fields, picked._lists

    def __deepcopy__(self, memo: Any) -> HistoryRows:
        fields = {name: values.clone() for name, values in self._fields.items()}
        return HistoryRows(fields, self._lists)  # which nobody changes in place

    def __reduce__(self) -> Any:
        return Interaction, (self.interaction,)


def entries(rows: Interaction, name: str, row: Tensor, column: Tensor) -> Tensor:
    """Return single entries of a list, before its padding begins; it is not laid out for them.

    Args:
        rows: of a sequential dataset.
        name: of the list.
        row: numbers of rows, ``[n]`` int64.
        column: places in their histories, likewise.

    Returns:
        ``[n, ...]``.
    """
    if isinstance(rows, HistoryRows) and name in rows._lists:
        return rows._lists[name].at(row, column)
    values: Tensor = rows[name]
    return values[row, column]
