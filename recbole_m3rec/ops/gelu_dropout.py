"""GELU and dropout in one pass each way, on the CPU."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from recbole_m3rec.ops.cpu import library
from recbole_m3rec.ops.cpu.operator import operator
from recbole_m3rec.ops.dropout import compiled_for, dropout, keep_steps, new_seed


@operator(
    "recbole_m3rec::gelu_dropout",
    "(Tensor x, Tensor seed, int keep) -> Tensor",
)
def _gelu_dropout(x: Tensor, seed: Tensor, keep: int) -> Tensor:
    x = x.contiguous()
    y = torch.empty_like(x)
    library.call_on_threads(
        "m3rec_gelu_dropout",
        *(x.data_ptr(), x.numel(), int(seed), keep, y.data_ptr()),
    )
    return y


@_gelu_dropout.register_fake
def _(x: Tensor, seed: Tensor, keep: int) -> Tensor:
    return x.new_empty(x.shape)


@operator(
    "recbole_m3rec::gelu_dropout_backward",
    "(Tensor grad_y, Tensor x, Tensor seed, int keep) -> Tensor",
)
def _gelu_dropout_backward(grad_y: Tensor, x: Tensor, seed: Tensor, keep: int) -> Tensor:
    grad_y, x = grad_y.contiguous(), x.contiguous()
    grad_x = torch.empty_like(x)
    library.call_on_threads(
        "m3rec_gelu_dropout_backward",
        *(grad_y.data_ptr(), x.data_ptr(), x.numel(), int(seed), keep, grad_x.data_ptr()),
    )
    return grad_x


@_gelu_dropout_backward.register_fake
def _(grad_y: Tensor, x: Tensor, seed: Tensor, keep: int) -> Tensor:
    return x.new_empty(x.shape)


def _save_input(ctx: Any, inputs: tuple[Tensor, Tensor, int], output: Tensor) -> None:
    x, seed, ctx.keep = inputs
    ctx.save_for_backward(x, seed)


def _gradients(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
    return _gelu_dropout_backward(grad_y, *ctx.saved_tensors, ctx.keep), None, None


_gelu_dropout.register_autograd(_gradients, setup_context=_save_input)


def gelu_dropout(x: Tensor, p: float) -> Tensor:
    """``dropout(gelu(x), p)`` with the exact GELU, as :func:`recbole_m3rec.ops.dropout.dropout`.

    The compiled kernel keeps nothing but ``x`` for the backward pass; it is 1e-7 of
    ``max(1, |x|)`` from the true value. Elsewhere, in float64 and for ``p`` 0 it is torch's own.

    Args:
        x: any shape; bfloat16 and float16 are computed in float32 and returned in kind.
        p: share that is dropped, 0 to 1.
    """
    if p == 0.0 or not compiled_for(x):
        return dropout(F.gelu(x), p)
    y: Tensor = _gelu_dropout(x.float(), new_seed(), keep_steps(p))
    return y.to(x.dtype)
