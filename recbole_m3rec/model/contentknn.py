"""ContentKNN: the items whose content is nearest to that of the history, and nothing learned.

What a model of content has to beat on items that nobody bought: an item's score is the mean over
the history of the cosines of their features, added up over the modalities.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from recbole.model.abstract_recommender import SequentialRecommender
from torch import Tensor, nn

from recbole_m3rec.network.settings import ModelConfigError


class ContentKNN(SequentialRecommender):  # type: ignore[misc]
    """Content nearest neighbours; items without a feature score 0."""

    content_modalities = True
    vectors: Tensor

    def __init__(self, config: Any, dataset: Any) -> None:
        """Scale the features.

        Raises:
            ModelConfigError: there are no features.
        """
        super().__init__(config, dataset)
        if not dataset.item_features:
            raise ModelConfigError(
                f"ContentKNN has nothing but content, found modalities: {config['modalities']}. "
                "Name at least one"
            )
        parts = []
        for features in dataset.item_features.values():
            values = features.values.float().masked_fill(~features.present[:, None], 0.0)
            parts.append(F.normalize(values, dim=1))
        vectors = torch.cat(parts, dim=1)
        vectors[0] = 0
        self.register_buffer("vectors", vectors, persistent=False)
        self.nothing = nn.Parameter(torch.zeros(1))  # RecBole's optimisers want a parameter

    def calculate_loss(self, interaction: Any) -> Tensor:
        """Return 0: nothing is learned."""
        return 0 * self.nothing.sum()

    def predict(self, interaction: Any) -> Tensor:
        """Score the item of each row for its history, ``[B]``."""
        return (self.queries(interaction) * self.vectors[interaction[self.ITEM_ID]]).sum(1)

    def full_sort_predict(self, interaction: Any) -> Tensor:
        """Score every item for each history, ``[B, n_items]``."""
        return self.queries(interaction) @ self.item_table().T

    def cached_items(self) -> AbstractContextManager[None]:
        """There is nothing to compute."""
        return nullcontext()

    def item_table(self) -> Tensor:
        """Return every item's features, each modality of length 1, ``[n_items, D]``."""
        return self.vectors

    def queries(self, interaction: Any) -> Tensor:
        """Return the mean features of each history, ``[B, D]``."""
        lengths = interaction[self.ITEM_SEQ_LEN]
        summed = F.embedding_bag(interaction[self.ITEM_SEQ], self.vectors, mode="sum")
        return summed / lengths[:, None]
