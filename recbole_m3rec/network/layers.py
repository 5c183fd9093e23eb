"""The parts of M3Rec's sequence side: shared block, expert and one layer of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from recbole_m3rec.network.mamba import MambaBlock
from recbole_m3rec.network.projectors import init_linear
from recbole_m3rec.ops.dropout import Dropout
from recbole_m3rec.ops.dropout_layer_norm import dropout_norm
from recbole_m3rec.ops.gelu_dropout import gelu_dropout
from recbole_m3rec.ops.matmul import Linear

NORM_EPS = 1e-12

GRADIENT_RULES = ("frozen", "detached", "shared")


def drop_and_norm(
    x: Tensor, residual: Tensor | None, dropout: Dropout, norm: nn.LayerNorm
) -> Tensor:
    """``norm(dropout(x) + residual)`` in as few passes as there are kernels for."""
    return dropout_norm(x, residual, dropout.share, norm.weight, norm.bias, norm.eps)


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
    """One shared block and one expert per modality; or, for ablations, the sharing turned about.

    ``own`` holds the blocks of content modalities that do not share the ID's, which is the last of
    ``modalities``.
    """

    def __init__(
        self,
        modalities: Sequence[str],
        make_block: Callable[[], SharedBlock],
        make_expert: Callable[[], Expert],
        share_mamba: bool = True,
        share_experts: bool = False,
    ) -> None:
        super().__init__()
        *content, _ = modalities
        self.shared = make_block()
        self.own = nn.ModuleDict({} if share_mamba else {name: make_block() for name in content})
        n_experts = 1 if share_experts else len(modalities)
        experts = [make_expert() for _ in range(n_experts)]
        self.experts = nn.ModuleDict(
            {name: experts[i % n_experts] for i, name in enumerate(modalities)}
        )

    def forward(
        self, x: Tensor, cu_seqlens: Tensor, modality: str, gradient: str, read_last: bool
    ) -> Tensor:
        """Run one modality's sequences through the layer.

        Args:
            x: ``[n_tokens, hidden_size]``.
            cu_seqlens: ``[n_sequences + 1]`` int32.
            modality: whose expert follows the shared block.
            gradient: the gradient rule for this modality, ``shared`` for the one that teaches; a
                block of its own learns from it in any case.
            read_last: compute what only the last tokens need at those alone.

        Returns:
            ``[n_tokens, hidden_size]``, or ``[n_sequences, hidden_size]`` with ``read_last``.
        """
        if modality in self.own:
            h = self.own[modality](x, cu_seqlens, read_last)
        elif gradient == "shared":
            h = self.shared(x, cu_seqlens, read_last)
        elif gradient == "frozen":
            weights = {name: weight.detach() for name, weight in self.shared.named_parameters()}
            h = functional_call(self.shared, weights, (x, cu_seqlens, read_last))
        else:
            with torch.no_grad():
                h = self.shared(x, cu_seqlens, read_last)
        out: Tensor = self.experts[modality](h)
        return out
