"""Inputs for the compiled CPU scan, its call, and the gradients of what it returns."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from recbole_m3rec.ops.cpu import selective_scan

# About the lengths at which the kernels change course.
RAGGED = [3, 1, 47, 5, 28, 29, 57, 48, 49, 2, 90]
NAMES = ("x", "dt", "A", "B", "C", "D")


def inputs(
    lengths: Sequence[int], d_inner: int = 37, d_state: int = 8, seed: int = 0
) -> tuple[list[Tensor], Tensor]:
    """Random x, dt, A, B, C, D of plausible sizes, and cu_seqlens."""
    generator = torch.Generator().manual_seed(seed)
    n_tokens = sum(lengths)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    dt = torch.nn.functional.softplus(normal(n_tokens, d_inner) - 1)
    A = -torch.arange(1.0, d_state + 1) * (normal(d_inner, d_state) * 0.3).exp()
    tensors = [normal(n_tokens, d_inner), dt, A, normal(n_tokens, d_state)]
    tensors += [normal(n_tokens, d_state), normal(d_inner)]
    return tensors, ends_of(lengths)


def ends_of(lengths: Sequence[int]) -> Tensor:
    return torch.tensor([0, *torch.tensor(lengths).cumsum(0)], dtype=torch.int32)


def raw_inputs(lengths: Sequence[int], last_only: bool = False) -> tuple[list[Tensor], Tensor]:
    """The same as `inputs`, with dt before its softplus, its bias, and z."""
    (x, dt, *others), ends = inputs(lengths)
    generator = torch.Generator().manual_seed(2)
    n_results = len(lengths) if last_only else len(x)
    raw = 4 * torch.randn(dt.shape, generator=generator) - 2
    bias = torch.randn(dt.shape[1], generator=generator)
    z = 4 * torch.randn(n_results, dt.shape[1], generator=generator)
    return [x, raw, *others, bias, z], ends


def with_gradients(
    function: Callable[..., Tensor],
    tensors: Sequence[Tensor],
    ends: Tensor,
    last_only: bool = False,
) -> list[Tensor]:
    """The function's result and the gradients of a fixed random weighting of it."""
    leaves = [tensor.detach().requires_grad_() for tensor in tensors]
    y = function(leaves, ends, last_only)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    return [y.detach(), *torch.autograd.grad(y, leaves, weights.to(y.dtype))]


def compiled(tensors: Sequence[Tensor], ends: Tensor, last_only: bool = False) -> Tensor:
    return selective_scan.selective_scan_cpu(*tensors, ends, last_only)
