"""Projectors from a feature to an item vector."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from recbole_m3rec.ops.matmul import Linear

INIT_STD = 0.02

PROJECTORS = ("mlp", "moe_whitening")


def init_linear(layer: Linear) -> Linear:
    """Start a layer from N(0, 0.02) with bias 0."""
    nn.init.normal_(layer.weight, 0.0, INIT_STD)
    nn.init.zeros_(layer.bias)
    return layer


def make_projector(kind: str, width: int, hidden_size: int, n_experts: int) -> nn.Module:
    """Make a projector from features of ``width`` columns to ``hidden_size`` numbers.

    Args:
        kind: ``mlp`` (the paper's: Linear, LeakyReLU, Linear) or ``moe_whitening``.
        n_experts: of ``moe_whitening``.
    """
    if kind == "moe_whitening":
        return WhiteningExperts(width, hidden_size, n_experts)
    return nn.Sequential(
        init_linear(Linear(width, hidden_size)),
        nn.LeakyReLU(0.01),
        init_linear(Linear(hidden_size, hidden_size)),
    )


class WhiteningExperts(nn.Module):
    """Parametric whitening by a mixture of experts (UniSRec: Hou et al., KDD 2022, section 2.1).

    Each expert shifts and maps features linearly, and a softmax over the features weighs them. The
    shift is a bias here, which comes to the same: ``(f - b) W = f W - b W``. UniSRec adds noise to
    the weights and drops features in training; neither is done, so that an item has one vector in a
    step, however often it occurs.
    """

    def __init__(self, width: int, hidden_size: int, n_experts: int) -> None:
        super().__init__()
        self.experts = init_linear(Linear(width, n_experts * hidden_size))
        self.gate = Linear(width, n_experts)
        nn.init.zeros_(self.gate.weight)
        nn.init.zeros_(self.gate.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Map ``[n, width]`` to ``[n, hidden_size]``."""
        weights = torch.softmax(self.gate(features), dim=1)
        mapped = self.experts(features).view(*weights.shape, -1)
        return torch.einsum("neh,ne->nh", mapped, weights)
