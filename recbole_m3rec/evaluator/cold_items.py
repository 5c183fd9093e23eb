"""Metrics of a test on its targets that training knew, and on those that were held out of it.

RecBole's evaluator computes them, from its own collected results of the rows in question. In its
result they stand beside those of all targets, as ``warm ndcg@10`` and ``cold ndcg@10``.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

WARM, COLD = "warm", "cold"


def warm_and_cold(
    measure: Callable[[Any], Mapping[str, float]], collected: Any, is_cold: Tensor
) -> dict[str, float]:
    """Measure the targets that training knew and the held-out ones apart.

    Args:
        measure: RecBole's evaluator, from what it collected to metrics by name.
        collected: of all targets.
        is_cold: ``[n_targets]`` bool.
    """
    return {
        f"{name} {metric}": value
        for name, rows in ((WARM, ~is_cold), (COLD, is_cold))
        for metric, value in measure(rows_of(collected, rows)).items()
    }


def cold_targets(loader: Any) -> Tensor | None:
    """Tell of each row of a loader whether its target was held out, None where none was.

    With several processes each has some of the rows, and only all targets together are measured.
    """
    from recbole.data.dataloader.general_dataloader import FullSortEvalDataLoader

    if not isinstance(loader, FullSortEvalDataLoader) or not loader.config["single_spec"]:
        return None
    dataset = loader._dataset
    cold_items = getattr(dataset, "cold_items", None)
    if cold_items is None:
        return None
    is_cold: Tensor = cold_items[dataset.inter_feat[dataset.iid_field]]
    return is_cold if 0 < int(is_cold.sum()) < len(is_cold) else None


def rows_of(collected: Any, rows: Tensor) -> Any:
    """Return what RecBole collected of some rows of an evaluation."""
    part = copy.copy(collected)
    part._data_dict = {
        name: value[rows] if name.startswith("rec.") else value
        for name, value in collected._data_dict.items()
    }
    return part


def split_name(metric: str) -> tuple[str, str]:
    """Return the part of the targets that a metric is of, ``""`` for all, and its plain name."""
    part, _, name = metric.rpartition(" ")
    return part, name
