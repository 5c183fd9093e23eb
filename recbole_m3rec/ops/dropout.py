"""Dropout with a counter-based mask that is never stored."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_m3rec.ops.cpu import library
from recbole_m3rec.ops.cpu.operator import operator

KEEP_STEPS = 65536  # 16 random bits decide about an element


def new_seed() -> Tensor:
    """Draw the seed of one mask from torch's default generator; a scalar int64 on the CPU."""
    return torch.randint(2**63 - 1, (), dtype=torch.int64, device="cpu")


def keep_steps(p: float) -> int:
    """The probability of being kept, in steps of 1/65536."""
    return round((1.0 - p) * KEEP_STEPS)


def compiled_for(x: Tensor) -> bool:
    """Whether the compiled kernels are here and made for such a tensor."""
    short = x.dtype in (torch.float32, torch.bfloat16, torch.float16)
    return short and x.device.type == "cpu" and library.available()[0]


def where_masks_are_drawn(device: torch.device | str) -> str:
    """Say which kernels draw the masks of float32 tensors on a device.

    They are two streams of random numbers: with equal seeds the masks, and so the results, differ.
    """
    compiled = compiled_for(torch.empty(0, device=device))
    return "compiled kernels" if compiled else "torch's dropout"


@operator("recbole_m3rec::dropout", "(Tensor x, Tensor seed, int keep) -> Tensor")
def _dropout(x: Tensor, seed: Tensor, keep: int) -> Tensor:
    x = x.contiguous()
    y = torch.empty_like(x)
    library.call_on_threads(
        "m3rec_dropout",
        *(x.data_ptr(), x.numel(), int(seed), keep, y.data_ptr()),
    )
    return y


@_dropout.register_fake
def _(x: Tensor, seed: Tensor, keep: int) -> Tensor:
    return x.new_empty(x.shape)


def _save_mask(ctx: Any, inputs: tuple[Tensor, Tensor, int], output: Tensor) -> None:
    _, seed, ctx.keep = inputs
    ctx.save_for_backward(seed)


def _gradients(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
    (seed,) = ctx.saved_tensors
    return _dropout(grad_y, seed, ctx.keep), None, None


_dropout.register_autograd(_gradients, setup_context=_save_mask)


def dropout(x: Tensor, p: float) -> Tensor:
    """Zero each element with probability ``p`` and scale the others up to keep the mean.

    On the CPU the mask is a function of a seed, drawn from torch's default generator at every call,
    and of the element's number: it does not depend on the number of threads or the processor, and
    the backward pass makes it anew. There ``p`` is rounded to 1/65536. Elsewhere, in float64 and
    without the compiled kernels this is torch's own dropout, whose masks are others: with equal
    seeds two such runs end with other numbers. Trainings log which masks they draw.

    Args:
        x: any shape; bfloat16 and float16 are computed in float32 and returned in kind.
        p: share that is dropped, 0 to 1.
    """
    if p == 0.0:
        return x
    if not compiled_for(x):
        return F.dropout(x, p)
    y: Tensor = _dropout(x.float(), new_seed(), keep_steps(p))
    return y.to(x.dtype)


class Dropout(nn.Dropout):
    """``nn.Dropout`` by :func:`dropout`; the identity in evaluation."""

    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.p if self.training else 0.0)
