"""Patches for RecBole's tables under pandas 3 and unstable sorting."""

from __future__ import annotations

import builtins
import contextlib
import functools
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pandas as pd

from recbole_m3rec.hooks import wrap


def columns_are_copies() -> bool:
    """Tell whether filling ``frame[column]`` in place leaves the frame as it was (pandas 3)."""
    frame = pd.DataFrame({"column": [None, 1.0]})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        frame["column"].fillna(value=0.0, inplace=True)
    return bool(frame["column"].isna().any())


def fill_blanks_by_assignment() -> None:
    """Fix data/dataset/dataset.py:648 and 650, which fill missing values in a copy.

    Unpatched, and silently, the padding row of every user and item table stays NaN. The blanks are
    filled by assignment first, so that RecBole's own pass finds none.
    """
    if not columns_are_copies():
        return
    from recbole.data.dataset import Dataset
    from recbole.utils import FeatureType

    @wrap(Dataset, "_fill_nan")
    def fill(original: Callable[..., None], self: Any) -> None:
        for name in self.feat_name_list:
            table = getattr(self, name)
            for field in table:
                if self.field2type[field] == FeatureType.TOKEN:
                    table[field] = table[field].fillna(value=0)
                elif self.field2type[field] == FeatureType.FLOAT:
                    table[field] = table[field].fillna(value=table[field].mean())
        with silent_about_copies():
            original(self)


@contextlib.contextmanager
def silent_about_copies() -> Iterator[None]:
    """Keep pandas from warning of RecBole's fills in a copy, which have been done by then."""
    with warnings.catch_warnings():
        if columns_are_copies():  # known to every pandas that warns of it
            warnings.simplefilter("ignore", category=getattr(pd.errors, "ChainedAssignmentError"))  # noqa: B009
        yield


def measure_each_list() -> None:
    """Fix dataset.py:712, 792, 809, 1217, kg_dataset.py:316 and sequential_dataset.py:165.

    ``column.agg(len)`` used to give the length of every list in a column; pandas 3 gives that of
    the column. Those modules see a ``len`` that measures the lists of a column, and everything else
    as ever; none of them measures a column itself.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=FutureWarning)
        if isinstance(pd.Series([[1], [2, 3]]).agg(len), pd.Series):
            return
    from recbole.data.dataset import dataset, kg_dataset, sequential_dataset

    def measure(value: Any) -> Any:
        return value.map(builtins.len) if isinstance(value, pd.Series) else builtins.len(value)

    for module in (dataset, kg_dataset, sequential_dataset):
        module.len = measure


def sort_stably() -> None:
    """Fix data/dataset/dataset.py:853, which sorts by time before it drops duplicates.

    The sort is unstable, so interactions of equal time land differently with every numpy, and a
    different duplicate is dropped. For that call the table sorts stably.
    """
    from recbole.data.dataset import Dataset

    @wrap(Dataset, "_remove_duplication")
    def remove(original: Callable[..., None], self: Any) -> None:
        table = self.inter_feat
        object.__setattr__(
            table, "sort_values", functools.partial(table.sort_values, kind="stable")
        )
        try:
            original(self)
        finally:
            object.__delattr__(table, "sort_values")
