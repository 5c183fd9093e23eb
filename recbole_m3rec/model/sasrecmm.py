"""SASRecMM: SASRec over ID and content fused into one vector per item, or over IDs alone.

SASRec is Kang & McAuley, ICDM 2018. Fusing modalities before the sequence model is the usual strong
baseline for models that keep them apart, as M3Rec does. Histories are packed, and everything about
training is M3Rec's: loss, targets at every position, held-out items. With ``modalities: []`` it is
RecBole's SASRec trained that way, which shows what M3Rec's network adds to M3Rec's recipe.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from recbole.model.sequential_recommender.sasrec import SASRec
from torch import Tensor, nn

from recbole_m3rec.model.m3rec import LOSSES, PackedRecommender
from recbole_m3rec.network.item_encoder import ContentModalities, ItemVectors
from recbole_m3rec.network.m3rec import ID, M3RecConfig, M3RecNetwork
from recbole_m3rec.network.packed import PackedSequences
from recbole_m3rec.network.projectors import init_linear
from recbole_m3rec.network.repetition import Repetition
from recbole_m3rec.network.sampled_softmax import SampledSoftmax
from recbole_m3rec.network.settings import check_choice
from recbole_m3rec.network.untrained_items import UntrainedItems
from recbole_m3rec.ops.matmul import Linear
from recbole_m3rec.ops.scores.unit_blocks import unit_blocks

FUSIONS = ("sum", "concat")
SHARED = (  # M3Rec's settings, which mean the same here
    *("hidden_size", "projector", "projector_experts", "score", "temperature", "repetition"),
    *("softmax_items", "shard_softmax", "id_updates"),
)


class FusedItems(UntrainedItems):
    """What SASRec takes for its item embedding: a table of fused vectors, ``[n_items, H]``.

    ``sum`` adds the projected features, each times a learned weight, to the ID's embedding;
    ``concat`` maps all of them side by side back to ``H`` numbers. An item without a feature has a
    learned vector in its place. Without content it is the ID's embedding alone.
    """

    def __init__(self, embedding: nn.Embedding, content: ContentModalities, fusion: str) -> None:
        super().__init__()
        self.id, self.content = embedding, content
        width = embedding.embedding_dim
        if fusion == "concat" and len(content):
            self.merge: nn.Module | None = init_linear(Linear((len(content) + 1) * width, width))
        else:
            self.merge = None

    @property
    def weight(self) -> Tensor:
        """The table, as an embedding has it; fused at every use."""
        return self.fused(None)

    def fused(self, items: Tensor | None) -> Tensor:
        """Fuse the vectors of some items ``[n]``, or None for all in order, to ``[n, H]``."""
        parts = [content.weight * content(items)[0] for content in self.content.values()]
        parts.append(self.id_vectors([self.id], items))
        if self.merge is None:
            return torch.stack(parts).sum(0) if len(parts) > 1 else parts[0]
        merged: Tensor = self.merge(torch.cat(parts, dim=1))
        return merged

    def forward(self, items: Tensor) -> Tensor:
        """Look vectors up, ``[...]`` int64 to ``[..., H]``."""
        return F.embedding(items, self.weight)


class SASRecMM(PackedRecommender, SASRec, SampledSoftmax):  # type: ignore[misc]
    """RecBole's SASRec, whose items are more than their ID; it is its own network."""

    n_items: int
    hidden_size: int
    item_embedding: FusedItems
    position_embedding: nn.Embedding
    LayerNorm: nn.LayerNorm
    dropout: nn.Dropout
    trm_encoder: Any

    def __init__(self, config: Any, dataset: Any) -> None:
        """Build the model from RecBole's configuration and the dataset's item features.

        Raises:
            ModelConfigError: a setting is out of its range.
        """
        check_choice("loss_type", config["loss_type"], LOSSES)
        check_choice("fusion", config["fusion"], FUSIONS)
        settings = M3RecConfig(**{name: config[name] for name in SHARED})
        super().__init__(config, dataset)
        self.config = settings
        content = ContentModalities(
            *(dataset.item_features, self.n_items, self.hidden_size),
            *(settings.projector, settings.projector_experts),
        )
        ids = cast(nn.Embedding, self.item_embedding)  # SASRec's, initialised
        ids.sparse = settings.id_updates == "sparse"
        self.item_embedding = FusedItems(ids, content, config["fusion"])
        self.repeats = Repetition() if settings.repetition else None
        self.prepare_training(config, dataset)

    @property
    def network(self) -> SASRecMM:
        """The model itself, so that its weights keep SASRec's names."""
        return self

    def hold_out(self, untrained: Tensor) -> None:
        """Name the items that training is not to see, ``[n_items]`` bool."""
        super().hold_out(untrained)
        self.item_embedding.hold_out(untrained)

    def item_vectors(self, items: Tensor | None = None) -> ItemVectors:
        """Fuse every item's vector; histories and scores use the same.

        Args:
            items: ids ``[n]``, or None for all in order.
        """
        embedding = self.item_embedding
        table = embedding.weight if items is None else embedding.fused(items)
        return ItemVectors({ID: table}, self._for_score(table, 1 / self.config.temperature))

    def encode(
        self, rows: PackedSequences, vectors: ItemVectors, scored: Tensor | None = None
    ) -> Tensor:
        """Encode packed histories; see :meth:`M3RecNetwork.encode`. ``[n_queries, H]``."""
        lengths = rows.cu_seqlens.diff().long()
        row = torch.repeat_interleave(torch.arange(len(lengths), device=lengths.device), lengths)
        place = row, torch.arange(len(row), device=row.device) - rows.cu_seqlens[row]
        x = F.embedding(rows.values, vectors.sequence[ID]) + self.position_embedding(place[1])
        x = self.dropout(self.LayerNorm(x))
        for layer in self.trm_encoder.layer:
            x = layer.feed_forward(_attend(layer.multi_head_attention, x, place, lengths))
        encoded: Tensor = self._for_score(x[rows.last if scored is None else scored])
        return encoded

    def _for_score(self, x: Tensor, length: float = 1.0) -> Tensor:
        """Return rows ``[n, H]`` as scores use them: of this length for cosines."""
        is_cosine = self.config.score == "cosine"
        return unit_blocks([x], x.new_full((1,), length)) if is_cosine else x

    # Losses and scores are made of these two alone.
    repetition = M3RecNetwork.repetition
    cross_entropy = M3RecNetwork.cross_entropy
    bpr = M3RecNetwork.bpr
    query = M3RecNetwork.query
    score_items = M3RecNetwork.score_items
    _vectors_of = M3RecNetwork._vectors_of


def _attend(block: Any, x: Tensor, place: tuple[Tensor, Tensor], lengths: Tensor) -> Tensor:
    """RecBole's ``MultiHeadAttention`` on packed histories, each token to itself and those before.

    Args:
        block: its weights and settings.
        x: ``[n_tokens, H]``.
        place: sequence and position of each token, ``[n_tokens]`` int64 each.
        lengths: of the sequences, ``[B]``.
    """
    shape = len(lengths), int(lengths.max()), block.num_attention_heads, block.attention_head_size

    def padded(linear: nn.Module) -> Tensor:
        heads = linear(x).view(-1, *shape[2:])
        return heads.new_zeros(shape).index_put(place, heads).transpose(1, 2)

    # Padding is on the right, where no token of a history looks.
    context = F.scaled_dot_product_attention(
        padded(block.query),
        padded(block.key),
        padded(block.value),
        dropout_p=block.attn_dropout.p if block.training else 0.0,
        is_causal=True,
    )
    hidden = block.out_dropout(block.dense(context.transpose(1, 2)[place].flatten(1)))
    attended: Tensor = block.LayerNorm(hidden + x)
    return attended
