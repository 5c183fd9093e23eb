"""In-place softmax cross-entropy: overwrites the logits with their gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from recbole_m3rec.ops.cpu import library


def softmax_loss_(logits: Tensor, targets: Tensor, wants_gradient: bool) -> Tensor:
    """Cross-entropy of each row against its target; its gradient takes the place of the logits.

    Args:
        logits: ``[n, n_items]``; overwritten, with the gradient if ``wants_gradient``.
        targets: ``[n]`` int64, each in ``0..n_items - 1``.
        wants_gradient: whether the logits become ``softmax(logits) - one_hot(targets)``.

    Returns:
        ``[n]``, float32 for bfloat16 and float32, which are computed in float32.

    Raises:
        ValueError: the targets are not ``[n]`` int64.
        IndexError: a target is out of range (on the CPU).
    """
    if targets.dtype != torch.int64 or targets.shape != logits.shape[:1]:
        raise ValueError(
            f"targets: expected int64 of shape [{len(logits)}], "
            f"found {targets.dtype} of shape {list(targets.shape)}"
        )
    if _compiled_for(logits):
        targets = targets.contiguous()
        losses = logits.new_empty(len(logits), dtype=torch.float32)
        library.call_on_threads(
            "m3rec_softmax_loss",
            *(logits.data_ptr(), logits.dtype == torch.bfloat16, targets.data_ptr()),
            *(*logits.shape, wants_gradient, losses.data_ptr()),
        )
        return losses
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    highest = wide.amax(dim=1, keepdim=True)
    target_logits = wide.gather(1, targets[:, None]) - highest
    exponentials = wide.sub_(highest).exp_()
    total = exponentials.sum(dim=1, keepdim=True)
    if wants_gradient:
        exponentials.div_(total)
        exponentials.scatter_add_(1, targets[:, None], torch.full_like(total, -1.0))
        if exponentials is not logits:
            logits.copy_(exponentials)
    return (total.log() - target_logits)[:, 0]


def _compiled_for(logits: Tensor) -> bool:
    return (
        logits.is_cpu
        and logits.dtype in (torch.float32, torch.bfloat16)
        and logits.is_contiguous()
        and not torch.compiler.is_compiling()
        and library.available()[0]
    )
