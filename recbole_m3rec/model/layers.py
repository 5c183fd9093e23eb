"""The parts of M3Rec: projector, shared block, expert and one layer of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from recbole_m3rec.data.features import ItemFeatures
from recbole_m3rec.mamba import Dropout, Linear, MambaBlock, dropout_norm, gelu_dropout

NORM_EPS = 1e-12
INIT_STD = 0.02

# Feature values that are projected at a time; 64 MB as float32.
PROJECTED_AT_A_TIME = 2**24

GRADIENT_RULES = ("frozen", "detached", "shared")


def init_linear(layer: Linear) -> Linear:
    """Start a layer from N(0, 0.02) with bias 0."""
    nn.init.normal_(layer.weight, 0.0, INIT_STD)
    nn.init.zeros_(layer.bias)
    return layer


def drop_and_norm(
    x: Tensor, residual: Tensor | None, dropout: Dropout, norm: nn.LayerNorm
) -> Tensor:
    """``norm(dropout(x) + residual)`` in as few passes as there are kernels for."""
    return dropout_norm(x, residual, dropout.share, norm.weight, norm.bias, norm.eps)


class ContentModality(nn.Module):
    """The item side of a content modality: frozen features, projector, fusion weight.

    The features are buffers that no initialisation touches and no checkpoint carries.
    """

    features: Tensor
    is_missing: Tensor

    def __init__(self, item_features: ItemFeatures, hidden_size: int) -> None:
        super().__init__()
        self.register_buffer("features", item_features.values, persistent=False)
        self.register_buffer("is_missing", ~item_features.present, persistent=False)
        self.fingerprint = item_features.fingerprint
        self.any_missing = bool(self.is_missing.any())
        self.projector = nn.Sequential(
            init_linear(Linear(item_features.values.shape[1], hidden_size)),
            nn.LeakyReLU(0.01),
            init_linear(Linear(hidden_size, hidden_size)),
        )
        self.weight = nn.Parameter(torch.ones(1))  # alpha, beta of the paper
        if self.any_missing:
            # Zeros would explode in a norm of eps 1e-12.
            self.missing = nn.Parameter(torch.empty(hidden_size).normal_(0.0, INIT_STD))

    def forward(self, items: Tensor | None) -> tuple[Tensor, Tensor]:
        """Project items, each once.

        Args:
            items: ids ``[n]``, or None for the whole catalogue in order.

        Returns:
            The vectors that sequences read, where missing items have the learned one, and those
            that scores use, where missing items have zeros; both ``[n, hidden_size]``.
        """
        vectors = self._project(self.features if items is None else self.features[items])
        if not self.any_missing:
            return vectors, vectors
        missing = (self.is_missing if items is None else self.is_missing[items])[:, None]
        return torch.where(missing, self.missing, vectors), vectors.masked_fill(missing, 0.0)

    def _project(self, features: Tensor) -> Tensor:
        """Run the projector, over some rows at a time where there are many.

        Then only features and results are kept, and what lies between is computed again for the
        gradient, which takes one more pass through the projector.
        """

        def project(rows: Tensor) -> Tensor:
            projected: Tensor = self.projector(rows.to(self.weight.dtype))
            return projected

        if features.numel() <= PROJECTED_AT_A_TIME:
            return project(features)
        rows_at_a_time = max(1, PROJECTED_AT_A_TIME // features.shape[1])
        return torch.cat(
            [
                checkpoint(project, rows, use_reentrant=False, preserve_rng_state=False)
                for rows in features.split(rows_at_a_time)
            ]
        )


class SharedBlock(nn.Module):
    """The Mamba block and norm that all modalities share: ``LayerNorm(Dropout(Mamba(x)) + x)``."""

    def __init__(self, hidden_size: int, dropout_prob: float, residual: bool, **mamba: Any) -> None:
        super().__init__()
        self.mamba = MambaBlock(hidden_size, **mamba)
        self.norm = nn.LayerNorm(hidden_size, eps=NORM_EPS)
        self.dropout = Dropout(dropout_prob)
        self.residual = residual

    def forward(self, x: Tensor, cu_seqlens: Tensor, read_last: bool) -> Tensor:
        residual = (x[cu_seqlens[1:].long() - 1] if read_last else x) if self.residual else None
        h: Tensor = self.mamba(x, cu_seqlens, read_last)
        return drop_and_norm(h, residual, self.dropout, self.norm)


class Expert(nn.Module):
    """A modality's own feed-forward network: ``LayerNorm(Dropout(W2 Dropout(GELU(W1 h))) + h)``."""

    def __init__(self, hidden_size: int, dropout_prob: float) -> None:
        super().__init__()
        self.w_1 = init_linear(Linear(hidden_size, 4 * hidden_size))
        self.w_2 = init_linear(Linear(4 * hidden_size, hidden_size))
        self.norm = nn.LayerNorm(hidden_size, eps=NORM_EPS)
        self.dropout = Dropout(dropout_prob)

    def forward(self, h: Tensor) -> Tensor:
        inner = gelu_dropout(self.w_1(h), self.dropout.share)
        return drop_and_norm(self.w_2(inner), h, self.dropout, self.norm)


class M3RecLayer(nn.Module):
    """One shared block and one expert per modality."""

    def __init__(self, modalities: Iterable[str], shared: SharedBlock, dropout_prob: float) -> None:
        super().__init__()
        self.shared = shared
        hidden_size = shared.norm.normalized_shape[0]
        self.experts = nn.ModuleDict({m: Expert(hidden_size, dropout_prob) for m in modalities})

    def forward(
        self, x: Tensor, cu_seqlens: Tensor, modality: str, gradient: str, read_last: bool
    ) -> Tensor:
        """Run one modality's sequences through the layer.

        Args:
            x: ``[n_tokens, hidden_size]``.
            cu_seqlens: ``[n_sequences + 1]`` int32.
            modality: whose expert follows the shared block.
            gradient: the gradient rule for this modality, ``shared`` for the one that teaches.
            read_last: compute what only the last tokens need at those alone.

        Returns:
            ``[n_tokens, hidden_size]``, or ``[n_sequences, hidden_size]`` with ``read_last``.
        """
        if gradient == "shared":
            h = self.shared(x, cu_seqlens, read_last)
        elif gradient == "frozen":
            weights = {name: weight.detach() for name, weight in self.shared.named_parameters()}
            h = functional_call(self.shared, weights, (x, cu_seqlens, read_last))
        else:
            with torch.no_grad():
                h = self.shared(x, cu_seqlens, read_last)
        out: Tensor = self.experts[modality](h)
        return out
