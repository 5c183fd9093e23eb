"""What a run's test says of each user, and what it recommended to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

SEVERAL = -1  # the popularity of several targets


@dataclass(frozen=True)
class UserValues:
    """The test of ``n`` users, a row each (several where several of a user's items are tested).

    Attributes:
        users: tokens, ``[n]`` str.
        targets: tokens of the tested items, of several the one that ranks best, ``[n]`` str.
        history: interactions of the user before the test, ``[n]`` int64.
        popularity: interactions of the target in the training data, ``SEVERAL`` where there are
            several targets, ``[n]`` int64.
        cold: whether the target was held out of training (``cold_items``), ``[n]`` bool.
        rank: the target's place among all candidates, from 1, ``[n]`` int64; the number of items,
            padding included, where ``mask_seen`` puts it out of reach.
        metrics: names of the columns of ``values``, such as ``ndcg@10``.
        values: ``[n, n_metrics]`` float64.
    """

    users: np.ndarray
    targets: np.ndarray
    history: np.ndarray
    popularity: np.ndarray
    cold: np.ndarray
    rank: np.ndarray
    metrics: tuple[str, ...]
    values: np.ndarray


@dataclass(frozen=True)
class Lists:
    """What was recommended in ``n`` tests.

    Attributes:
        top: ids of the ``k`` best items in order, ``[n, k]`` int32.
        items: tokens by id, the first is padding, ``[n_items]`` str.
        popularity: interactions of each item in the training data, ``[n_items]`` int64.
    """

    top: np.ndarray
    items: np.ndarray
    popularity: np.ndarray


def target_keys(rows: torch.Tensor, items: torch.Tensor, n_items: int) -> torch.Tensor:
    """Return each pair of a batch's row and its target once, ``row * n_items + item``, ascending.

    Args:
        rows: ``[P]`` int64.
        items: ``[P]`` int64.
        n_items: how many items there are, padding included.
    """
    return torch.unique(rows.cpu() * n_items + items.cpu())


def listed_before(scores: torch.Tensor, rows: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Count the items before each target: of a higher score, or of the same and a lower id.

    Args:
        scores: ``[B, n_items]``.
        rows: the row of each target, ``[P]`` int64.
        targets: item ids, ``[P]`` int64.

    Returns:
        ``[P]`` int64.
    """
    counted = []
    for some_rows, some in zip(rows.split(256), targets.split(256), strict=True):
        all_scores = scores[some_rows]
        own = all_scores.gather(1, some[:, None])
        lower = torch.arange(scores.shape[1], device=scores.device) < some[:, None]
        counted.append(((all_scores > own) | ((all_scores == own) & lower)).sum(dim=1))
    return torch.cat(counted)


def agreeing(rank: np.ndarray, hits: np.ndarray) -> np.ndarray:
    """Return ranks that are the places in RecBole's lists, whose order of equal scores is chance.

    Args:
        rank: by score and item id, from 1, ``[n]`` int64.
        hits: 1 where a list has a target, ``[n, k]``.
    """
    listed = hits.any(axis=1)
    return np.where(listed, hits.argmax(axis=1) + 1, np.maximum(rank, hits.shape[1] + 1))


def counts(dataset: Any, log: Any, valid: Any, test: Any) -> tuple[np.ndarray, np.ndarray]:
    """Count each user's interactions before the test and each item's in the training data.

    Returns:
        Two arrays over internal ids, int64.
    """
    users, items = log
    history = np.bincount(users, minlength=dataset.user_num)
    popularity = np.bincount(items, minlength=dataset.item_num)
    for loader in (valid, test):
        held_out = loader._dataset.inter_feat
        tested = np.asarray(held_out[dataset.iid_field], dtype=np.int64)
        popularity = popularity - np.bincount(tested, minlength=dataset.item_num)
    of_users = np.asarray(test._dataset.inter_feat[dataset.uid_field], dtype=np.int64)
    history = history - np.bincount(of_users, minlength=dataset.user_num)
    cold_items = getattr(dataset, "cold_items", None)
    if cold_items is not None:
        popularity[cold_items.numpy()] = 0
    if getattr(dataset, "train_counts", None) is not None:  # counted up to a moment in time
        popularity = dataset.train_counts.numpy()
    return np.maximum(history, 0), np.maximum(popularity, 0)
