"""Patches for what RecBole counts wrong."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from recbole_m3rec.hooks import wrap


def count_every_interaction() -> None:
    """Fix pop.py:42, which counts an item once a batch, and drawn negatives like interactions.

    It counts the training data when it is made, the same in each of several processes.
    """
    from recbole.model.general_recommender import Pop

    @wrap(Pop, "__init__")
    def init(original: Callable[..., None], self: Any, config: Any, dataset: Any) -> None:
        original(self, config, dataset)
        rows, label = dataset.inter_feat, config["LABEL_FIELD"]
        items = torch.as_tensor(np.asarray(rows[self.ITEM_ID]))
        if label in rows:
            items = items[torch.as_tensor(np.asarray(rows[label])) > 0]
        counts = torch.bincount(items, minlength=self.n_items)
        self.item_cnt = counts[:, None].to(self.device)
        self.max_cnt = self.item_cnt.max(dim=0).values

    @wrap(Pop, "calculate_loss")
    def loss(original: Callable[..., Any], self: Any, interaction: Any) -> Any:
        counts, most = self.item_cnt, self.max_cnt
        self.item_cnt = counts.clone()
        nothing = original(self, interaction)
        self.item_cnt, self.max_cnt = counts, most
        return nothing


def measure_whole_entropy() -> None:
    """Fix metrics.py:630, which divides the entropy by the number of recommended items."""
    from recbole.evaluator.metrics import ShannonEntropy

    if math.isclose(ShannonEntropy.get_entropy(None, np.array([[1, 2]])), math.log(2)):
        return

    @wrap(ShannonEntropy, "get_entropy")
    def entropy(original: Callable[..., float], self: Any, items: np.ndarray) -> float:
        return original(self, items) * len(Counter(items.flatten()))


def leave_padding_out() -> None:
    """Fix collector.py:87: the catalogue's size, for coverage and Gini, counts padding as item."""
    from recbole.evaluator.metrics import GiniIndex, ItemCoverage

    for metric in (GiniIndex, ItemCoverage):

        @wrap(metric, "used_info")
        def used(original: Callable[..., Any], self: Any, collected: Any) -> tuple[Any, int]:
            items, n_items = original(self, collected)
            return items, n_items - 1
