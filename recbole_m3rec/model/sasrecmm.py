"""SASRecMM: SASRec over ID and content fused into one vector per item.

SASRec is Kang & McAuley, ICDM 2018. Fusing modalities before the sequence model is the usual strong
baseline for models that keep them apart, as M3Rec does.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, cast

import torch
import torch.nn.functional as F
from recbole.model.sequential_recommender.sasrec import SASRec
from torch import Tensor, nn

from recbole_m3rec.model.item_cache import Kept
from recbole_m3rec.network.item_encoder import ContentModalities
from recbole_m3rec.network.projectors import PROJECTORS, init_linear
from recbole_m3rec.network.settings import ModelConfigError, check_choice, check_size
from recbole_m3rec.ops.matmul import Linear

FUSIONS = ("sum", "concat")


class FusedItems(nn.Module):
    """What SASRec takes for its item embedding: a table of fused vectors, ``[n_items, H]``.

    ``sum`` adds the projected features, each times a learned weight, to the ID's embedding;
    ``concat`` maps all of them side by side back to ``H`` numbers. An item without a feature has a
    learned vector in its place.
    """

    def __init__(self, embedding: nn.Embedding, content: ContentModalities, fusion: str) -> None:
        super().__init__()
        self.id, self.content = embedding, content
        width = embedding.embedding_dim
        if fusion == "concat":
            self.merge: nn.Module | None = init_linear(Linear((len(content) + 1) * width, width))
        else:
            self.merge = None
        self.table = Kept(self._fuse)

    def _fuse(self) -> Tensor:
        parts = [content.weight * content(None)[0] for content in self.content.values()]
        parts.append(self.id.weight)
        if self.merge is None:
            return torch.stack(parts).sum(0)
        merged: Tensor = self.merge(torch.cat(parts, dim=1))
        return merged

    @property
    def weight(self) -> Tensor:
        """The table, as an embedding has it."""
        return self.table()

    def forward(self, items: Tensor) -> Tensor:
        """Look vectors up, ``[...]`` int64 to ``[..., H]``."""
        return F.embedding(items, self.table())


class SASRecMM(SASRec):  # type: ignore[misc]
    """RecBole's SASRec, whose items are more than their ID."""

    content_modalities = True

    def __init__(self, config: Any, dataset: Any) -> None:
        """Build the model from RecBole's configuration and the dataset's item features.

        Raises:
            ModelConfigError: a setting is out of its range, or there is no content modality.
        """
        super().__init__(config, dataset)
        check_choice("fusion", config["fusion"], FUSIONS)
        check_choice("projector", config["projector"], PROJECTORS)
        check_size("projector_experts", config["projector_experts"])
        if not dataset.item_features:
            raise ModelConfigError(
                "SASRecMM without a content modality is SASRec, found modalities: "
                f"{config['modalities']}. Use --model=SASRec"
            )
        content = ContentModalities(
            *(dataset.item_features, self.n_items, self.hidden_size),
            *(config["projector"], config["projector_experts"]),
        )
        ids = cast(nn.Embedding, self.get_submodule("item_embedding"))  # SASRec's, initialised
        self.item_embedding = FusedItems(ids, content, config["fusion"])

    def calculate_loss(self, interaction: Any) -> Tensor:
        """Return SASRec's loss; items are fused once for histories and targets alike."""
        with self.items_kept():
            loss: Tensor = super().calculate_loss(interaction)
        return loss

    # The parts of SASRec's full_sort_predict, which evaluation in blocks calls one by one

    def items_kept(self) -> AbstractContextManager[None]:
        """Fuse the catalogue once for all that is scored inside; no weight may change there."""
        return self.item_embedding.table.kept()

    @torch.no_grad()
    def item_table(self) -> Tensor:
        """Return every item's vector, ``[n_items, H]``."""
        table: Tensor = self.item_embedding.weight
        return table

    @torch.no_grad()
    def queries(self, interaction: Any) -> Tensor:
        """Encode the history of each row, ``[B, H]``."""
        queries: Tensor = self.forward(interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN])
        return queries

    def full_sort_predict(self, interaction: Any) -> Tensor:
        """Score every item for each history, ``[B, n_items]``."""
        with self.items_kept():
            return self.queries(interaction) @ self.item_table().T
