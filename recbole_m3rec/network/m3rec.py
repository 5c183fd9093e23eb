"""M3RecNetwork: the model in plain PyTorch, without RecBole."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_m3rec.features.align import ItemFeatures
from recbole_m3rec.network.item_encoder import ContentModalities
from recbole_m3rec.network.layers import (
    GRADIENT_RULES,
    NORM_EPS,
    Expert,
    M3RecLayer,
    SharedBlock,
    drop_and_norm,
)
from recbole_m3rec.network.packed import PackedSequences, pack
from recbole_m3rec.network.projectors import INIT_STD, PROJECTORS
from recbole_m3rec.network.settings import ModelConfigError, check_choice, check_size
from recbole_m3rec.ops.dropout import Dropout
from recbole_m3rec.ops.linear_cross_entropy import linear_cross_entropy
from recbole_m3rec.ops.selective_scan import check_backend

ID = "id"
MAMBA_INITS = ("mamba", "normal")

# Below this share of the catalogue it pays to project the items of a batch instead of all.
FEW_ITEMS = 0.25


class ItemVectors(NamedTuple):
    """The vectors of some items, each projected once.

    Attributes:
        sequence: what sequences read, ``[n, H]`` by modality.
        table: what scores use, ``[n, (M + 1) · H]``: content modalities in order, then id.
    """

    sequence: dict[str, Tensor]
    table: Tensor


class M3RecNetwork(nn.Module):
    """Score every item as a user's next, from ID, image, text, … histories (paper, section 2).

    Shape letters: ``B`` sequences, ``L`` greatest length, ``H`` hidden size, ``M`` content
    modalities.
    """

    def __init__(
        self,
        n_items: int,
        features: Mapping[str, ItemFeatures] | None = None,
        *,
        hidden_size: int = 64,
        num_layers: int = 2,
        d_state: int = 32,
        d_conv: int = 4,
        expand: int = 2,
        dropout_prob: float = 0.5,
        modality_gradient: str = "frozen",
        mamba_init: str = "mamba",
        projector: str = "mlp",
        projector_experts: int = 8,
        share_mamba: bool = True,
        share_experts: bool = False,
        scan_backend: str = "auto",
    ) -> None:
        """Create the network.

        Args:
            n_items: items, padding (id 0) included.
            features: content modalities by name, in the order of fusion; ``[n_items, d]`` each.
            hidden_size: width ``H`` of an item vector.
            num_layers: shared Mamba blocks, each followed by one expert per modality.
            d_state: state size of the selective scan.
            d_conv: width of the causal convolution, in items.
            expand: inner width of Mamba in multiples of ``H``.
            dropout_prob: share of activations dropped in training.
            modality_gradient: what content sequences teach the shared block: ``frozen`` (nothing,
                but gradient flows through), ``detached`` (no gradient at all) or ``shared``.
            mamba_init: ``mamba`` or ``normal``.
            projector: one of :data:`recbole_m3rec.network.projectors.PROJECTORS`.
            projector_experts: of ``moe_whitening``.
            share_mamba: False gives each content modality Mamba blocks of its own, which learn from
                it whatever ``modality_gradient`` says (for ablations).
            share_experts: one expert a layer for all modalities (for ablations).
            scan_backend: one of :data:`recbole_m3rec.ops.BACKENDS`.

        Raises:
            ModelConfigError: a setting is out of its range; it is named with what was found.
        """
        super().__init__()
        sizes = {
            "hidden_size": hidden_size,
            "num_layers": num_layers,
            "d_state": d_state,
            "d_conv": d_conv,
            "expand": expand,
            "projector_experts": projector_experts,
        }
        for name, size in sizes.items():
            check_size(name, size)
        if not isinstance(dropout_prob, int | float) or not 0 <= dropout_prob < 1:
            raise ModelConfigError(f"dropout_prob must be in [0, 1), found {dropout_prob!r}")
        check_choice("modality_gradient", modality_gradient, GRADIENT_RULES)
        check_choice("mamba_init", mamba_init, MAMBA_INITS)
        check_choice("projector", projector, PROJECTORS)
        for name, flag in {"share_mamba": share_mamba, "share_experts": share_experts}.items():
            check_choice(name, flag, (True, False))
        check_backend(scan_backend)

        features = features or {}
        self.content_modalities = tuple(features)
        self.modalities = (*self.content_modalities, ID)
        self.n_items, self.hidden_size, self.num_layers = n_items, hidden_size, num_layers
        self.modality_gradient = modality_gradient if share_mamba else "shared"

        self.item_embedding = nn.Embedding(n_items, hidden_size)
        nn.init.normal_(self.item_embedding.weight, 0.0, INIT_STD)
        self.content = ContentModalities(
            features, n_items, hidden_size, projector, projector_experts
        )
        self.input_norms = nn.ModuleDict(
            {m: nn.LayerNorm(hidden_size, eps=NORM_EPS) for m in self.modalities}
        )
        self.dropout = Dropout(dropout_prob)
        make_block = partial(
            SharedBlock,
            *(hidden_size, dropout_prob),
            residual=num_layers > 1,
            d_state=d_state,
            d_conv=d_conv,
            expand=expand,
            init=mamba_init,
            scan_backend=scan_backend,
        )
        make_expert = partial(Expert, hidden_size, dropout_prob)
        self.layers = nn.ModuleList(
            M3RecLayer(self.modalities, make_block, make_expert, share_mamba, share_experts)
            for _ in range(num_layers)
        )

    def item_vectors(self, items: Tensor | None = None) -> ItemVectors:
        """Embed and project items, each once.

        Args:
            items: ids ``[n]``, or None for all in order.
        """
        embedded = self.item_embedding.weight if items is None else self.item_embedding(items)
        sequence, blocks = {ID: embedded}, []
        for name, content in self.content.items():
            sequence[name], scored = content(items)
            blocks.append(content.weight * scored)
        return ItemVectors(sequence, torch.cat([*blocks, embedded], dim=1) if blocks else embedded)

    def encode(
        self, rows: PackedSequences, vectors: ItemVectors, scored: Tensor | None = None
    ) -> Tensor:
        """Encode packed sequences into fused query vectors.

        Args:
            rows: row numbers of ``vectors``, ``[n_tokens]``, and ``cu_seqlens``.
            vectors: from :meth:`item_vectors`.
            scored: tokens whose query is wanted, ``[n_queries]``, or None for every last one.

        Returns:
            ``[n_queries, (M + 1) · H]``: content modalities in order, then id.
        """
        blocks = []
        for name in self.modalities:
            rule = "shared" if name == ID else self.modality_gradient
            table = vectors.sequence[name]
            x = F.embedding(rows.values, table.detach() if rule == "detached" else table)
            norm = cast(nn.LayerNorm, self.input_norms[name])
            x = drop_and_norm(x, None, self.dropout, norm)
            for depth, layer in enumerate(self.layers):
                is_last = depth == self.num_layers - 1
                x = layer(x, rows.cu_seqlens, name, rule, read_last=is_last and scored is None)
            if scored is not None:
                x = x[scored]
            blocks.append(x if name == ID else cast(Tensor, self.content[name].weight) * x)
        return torch.cat(blocks, dim=1)

    def query(self, item_seq: Tensor, item_seq_len: Tensor) -> Tensor:
        """Encode right-padded histories ``[B, L]`` of lengths ``[B]`` into ``[B, (M + 1) · H]``."""
        packed = pack(item_seq, item_seq_len)
        rows, vectors = self._vectors_of(packed.values)
        return self.encode(PackedSequences(rows[0], packed.cu_seqlens), vectors)

    def item_table(self) -> Tensor:
        """Return every item's vector for scoring, ``[n_items, (M + 1) · H]``."""
        return self.item_vectors().table

    def _vectors_of(self, *items: Tensor) -> tuple[list[Tensor], ItemVectors]:
        """Project a batch's items, or all where that is hardly more; say which row is whose."""
        together = torch.cat([i.flatten() for i in items])
        unique, rows = torch.unique(together, return_inverse=True)
        if unique.numel() > FEW_ITEMS * self.n_items:
            return list(items), self.item_vectors()
        parts = rows.split([i.numel() for i in items])
        return [part.view(i.shape) for part, i in zip(parts, items, strict=True)], (
            self.item_vectors(unique)
        )

    def score_items(self, item_seq: Tensor, item_seq_len: Tensor, items: Tensor) -> Tensor:
        """Score one item ``[B]`` for each right-padded history; ``[B]``."""
        packed = pack(item_seq, item_seq_len)
        (values, wanted), vectors = self._vectors_of(packed.values, items)
        query = self.encode(PackedSequences(values, packed.cu_seqlens), vectors)
        return (query * vectors.table[wanted]).sum(1)

    def cross_entropy(
        self, packed: PackedSequences, targets: Tensor, scored: Tensor | None = None
    ) -> Tensor:
        """Mean softmax cross-entropy over all items, padding included.

        Args:
            packed: histories of item ids.
            targets: the next item of every query, ``[n_queries]`` int64.
            scored: tokens the queries are read at, or None for every last one.
        """
        vectors = self.item_vectors()
        return linear_cross_entropy(self.encode(packed, vectors, scored), vectors.table, targets)

    def bpr(
        self,
        packed: PackedSequences,
        targets: Tensor,
        negatives: Tensor,
        scored: Tensor | None = None,
    ) -> Tensor:
        """Mean Bayesian personalised ranking loss of targets against one negative each.

        Args:
            packed, targets, scored: as in :meth:`cross_entropy`.
            negatives: ``[n_queries]`` int64.
        """
        (values, positive, negative), vectors = self._vectors_of(packed.values, targets, negatives)
        query = self.encode(PackedSequences(values, packed.cu_seqlens), vectors, scored)
        difference = (query * (vectors.table[positive] - vectors.table[negative])).sum(1)
        return -F.logsigmoid(difference).mean()
