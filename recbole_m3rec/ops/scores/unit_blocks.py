"""Rows scaled to a length, block by block, side by side: what cosine scores are products of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

SHORTEST = 1e-12  # what a shorter row is divided by; zeros stay zeros


def unit_blocks(blocks: Sequence[Tensor], lengths: Tensor) -> Tensor:
    """Return ``[x / |x| * length for each block x]`` side by side, in few passes over memory.

    Args:
        blocks: ``[n, D_b]`` each.
        lengths: of each block's rows, ``[n_blocks]``.

    Returns:
        ``[n, sum of D_b]``, in the widest dtype given. It can be differentiated once.
    """
    result: Tensor = _UnitBlocks.apply(lengths, *blocks)
    return result


class _UnitBlocks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, lengths: Tensor, *blocks: Tensor) -> Tensor:
        dtype = lengths.dtype
        for x in blocks:
            dtype = torch.promote_types(dtype, x.dtype)
        norms = [
            torch.linalg.vector_norm(x, dim=1, keepdim=True, dtype=dtype).clamp_min(SHORTEST)
            for x in blocks
        ]
        scaled = [x * (w / norm) for x, w, norm in zip(blocks, lengths, norms, strict=True)]
        ctx.save_for_backward(lengths, *blocks, *norms)
        return torch.cat(scaled, dim=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        lengths, *saved = ctx.saved_tensors
        blocks, norms = saved[: len(lengths)], saved[len(lengths) :]
        by_lengths, by_blocks = torch.empty_like(lengths), []
        parts = grad.split([x.shape[1] for x in blocks], dim=1)
        for place, (slope, x, norm) in enumerate(zip(parts, blocks, norms, strict=True)):
            along = (slope * x).sum(1, keepdim=True) / norm  # [n, 1]
            by_lengths[place] = along.sum()
            scale = lengths[place] / norm
            # Only what is across the row turns it; a row that is too short is not of that length.
            turned = (along * scale / norm).masked_fill_(norm <= SHORTEST, 0.0)
            by_blocks.append((slope * scale).addcmul_(x, turned, value=-1).to(x.dtype))
        return by_lengths, *by_blocks
