"""Interactions in the order of the exact times in the file; equal times in the order of the file.

RecBole turns times into float32 and sorts those: at 1.6e9 seconds that is 128 seconds to a step,
and within a step the order of the file stands in for that of time. Here, with ``time_order:
exact``, interactions are put into the exact order once they are filtered, and while RecBole sorts
and splits, the time column holds each time's rank. Then models get the float32 times that RecBole
would give them. ``time_order: recbole`` keeps RecBole's order.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from recbole_m3rec.atomic.atomic_file import read_columns, read_header
from recbole_m3rec.atomic.exact_times import CONVERT, TimesError, check_times, exact_order
from recbole_m3rec.hooks import wrap

KEY = "time_order"


def install() -> None:
    """Put the order under every dataset of RecBole's."""
    from recbole.data.dataset import Dataset
    from recbole.utils import FeatureSource

    @wrap(Dataset, "_load_feat")
    def load(original: Callable[..., Any], self: Any, filepath: Any, source: Any) -> Any:
        order = None
        if source == FeatureSource.INTERACTION and self.time_field is not None:
            order = read_order(Path(filepath), self)
        frame = original(self, filepath, source)
        if order is not None and frame is not None and self.time_field in frame:
            self._time_order = order
        return frame

    @wrap(Dataset, "_reset_index")
    def reset(original: Callable[..., None], self: Any) -> None:
        if hasattr(self, "_time_order"):  # by the rows that are left, in their order
            self._time_order = self._time_order[self.inter_feat.index.to_numpy()]
        original(self)

    @wrap(Dataset, "_remove_duplication")
    def remove(original: Callable[..., None], self: Any) -> None:
        exact = self.config[KEY] == "exact" and hasattr(self, "_time_order")
        if self.config["rm_dup_inter"] is not None and exact:
            # RecBole's own sort, by float64 and made stable, finds the rows in order.
            order = self._time_order[self.inter_feat.index.to_numpy()]
            self.inter_feat = self.inter_feat.iloc[np.argsort(order, kind="stable")]
        original(self)

    @wrap(Dataset, "_data_processing")
    def process(original: Callable[..., None], self: Any) -> None:
        original(self)
        put_in_order(self)

    @wrap(Dataset, "_change_feat_format")
    def change(original: Callable[..., None], self: Any) -> None:
        original(self)
        if self.__dict__.get("_building") and self._time_ranks is not None:
            self.inter_feat[self.time_field] = torch.from_numpy(self._time_ranks)


def build(original: Callable[..., list[Any]], self: Any) -> list[Any]:
    """Build the three parts of a dataset while the ranks of times stand in their place."""
    ranks = self.__dict__.get("_time_ranks")
    if ranks is None:
        return original(self)
    # The value of each rank; rank 0 is the padding of a list.
    values = np.zeros(ranks[-1] + 1, np.float32)
    values[ranks] = self.inter_feat[self.time_field].to_numpy()
    self._building = True
    try:
        datasets = original(self)
    finally:
        self._building = False
    for dataset in (self, *datasets):
        restore_times(dataset, torch.from_numpy(values))
    return datasets


def read_order(path: Path, dataset: Any) -> np.ndarray | None:
    """Return what orders the rows of an ``.inter`` file; None where its times are not read.

    Raises:
        TimesError: a time is missing, infinite or no number, or the field's type is not float.
    """
    field, config = dataset.time_field, dataset.config
    load, unload = ((config[key] or {}).get("inter") for key in ("load_col", "unload_col"))
    if config["load_col"] is not None and load != "*" and field not in (load or ()):
        return None
    header = read_header(path, config["field_separator"], config["encoding"])
    if field not in header or field in (unload or ()):
        return None
    if header[field] != "float":
        raise TimesError(
            f"{path}, line 1: the time field is {field}:{header[field]}, by which nothing can be"
            f" put in the order of time. Expected {field}:float and a number in every row, such as"
            f" seconds since 1970. {CONVERT}"
        )
    [strings] = read_columns(path, [field], config["field_separator"], config["encoding"])
    check_times(path, field, strings, config["encoding"])
    return exact_order(strings)


def put_in_order(dataset: Any) -> None:
    """Sort the frame of interactions by time, and note the rank of each.

    Only where they are split in the order of time, and not where splits are given as files.

    Raises:
        TimesError: they have no times.
    """
    order = dataset.__dict__.pop("_time_order", None)
    dataset._time_ranks = None
    if dataset.benchmark_filename_list is not None:
        return
    if (dataset.config["eval_args"] or {}).get("order") != "TO":
        return
    frame = dataset.inter_feat
    if dataset.time_field not in frame:
        raise TimesError(
            f"{dataset.dataset_name}: no column {dataset.time_field} among the interactions that"
            f" are loaded, {', '.join(frame)}, so they have no order of time. Name yours by"
            " TIME_FIELD, load it (load_col), or give a model without histories eval_args:"
            " {order: RO}"
        )
    if order is None:
        return
    order = order[frame.index.to_numpy()]
    values = frame[dataset.time_field]
    is_number = pd.api.types.is_float_dtype(values)  # else a number and its bucket
    coarse = values.to_numpy(np.float32) if is_number else order
    if dataset.config[KEY] == "exact":
        if dataset.uid_field is not None and is_number:
            report(dataset, frame[dataset.uid_field].to_numpy(), order, coarse)
        chosen = np.argsort(order, kind="stable")
        if is_number:
            _, ranks = np.unique(order[chosen], return_inverse=True)
            dataset._time_ranks = (ranks + 1).astype(np.int32)
    else:  # also a configuration saved before there was a choice
        chosen = np.argsort(coarse, kind="stable")
    dataset.inter_feat = frame.iloc[chosen].reset_index(drop=True)


def report(dataset: Any, users: np.ndarray, order: np.ndarray, coarse: np.ndarray) -> None:
    """Log for how many users RecBole's float32 times would have given another order."""
    n_users, n_targets = users_in_another_order(users, order, coarse)
    if n_users:
        total = len(np.unique(users))
        dataset.logger.warning(
            f"Times of `{dataset.dataset_name}`: as float32, by which RecBole sorts, they would put"
            f" the interactions of {n_users:,} of {total:,} users in another order, and for"
            f" {n_targets:,} of them another one last. They are in the order of the exact times in"
            f" the file; {KEY}: recbole gives RecBole's."
        )


def users_in_another_order(
    users: np.ndarray, order: np.ndarray, coarse: np.ndarray
) -> tuple[int, int]:
    """Count the users whose interactions, or whose last ones, two orders put differently.

    Args:
        users: ``[n]`` ids.
        order: ``[n]`` exact times, or what compares as they do.
        coarse: ``[n]`` other times; equal ones of either stay as they are.
    """
    exact, other = np.lexsort((order, users)), np.lexsort((coarse, users))
    of_user = users[exact]
    differs = exact != other
    last = np.append(of_user[1:] != of_user[:-1], True)
    return len(np.unique(of_user[differs])), int((differs & last).sum())


def restore_times(dataset: Any, values: torch.Tensor) -> None:
    """Replace ranks in a built dataset by the times they stand for, in lists too."""
    from recbole_m3rec.data.history_rows import HistoryRows

    def times(ranks: torch.Tensor) -> torch.Tensor:
        ranks = ranks.to(torch.int32)  # some of RecBole's models make float lists
        return values.index_select(0, ranks.flatten()).view(ranks.shape)

    feat = dataset.inter_feat
    for field in (dataset.time_field, dataset.time_field + dataset.config["LIST_SUFFIX"]):
        if field not in feat:
            continue
        if isinstance(feat, HistoryRows):
            feat.change(field, times)
        else:
            feat.interaction[field] = times(feat[field])
    dataset._time_ranks, dataset._building = None, False
