"""``LayerNorm(Dropout(x) + residual)`` in one pass each way, on the CPU."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from recbole_m3rec.ops.cpu import library
from recbole_m3rec.ops.cpu.operator import operator
from recbole_m3rec.ops.dropout import KEEP_STEPS, compiled_for, dropout, keep_steps, new_seed


def _pointer(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _has_own_gradient(residual: Tensor | None, keep: int) -> bool:
    """Whether the residual's gradient differs from that of ``x``."""
    return residual is not None and keep < KEEP_STEPS


@operator(
    "recbole_m3rec::dropout_norm",
    "(Tensor x, Tensor? residual, Tensor weight, Tensor bias, Tensor seed, int keep,"
    " float eps) -> Tensor",
)
def _dropout_norm(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    seed: Tensor,
    keep: int,
    eps: float,
) -> Tensor:
    x, weight, bias = x.contiguous(), weight.contiguous(), bias.contiguous()
    residual = None if residual is None else residual.contiguous()
    columns, y = x.shape[-1], torch.empty_like(x)
    library.call_on_threads(
        "m3rec_norm",
        *(x.data_ptr(), _pointer(residual), weight.data_ptr(), bias.data_ptr()),
        *(x.numel() // columns, columns, int(seed), keep, eps, y.data_ptr()),
    )
    return y


@_dropout_norm.register_fake
def _(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    seed: Tensor,
    keep: int,
    eps: float,
) -> Tensor:
    return x.new_empty(x.shape)


@operator(
    "recbole_m3rec::dropout_norm_backward",
    "(Tensor grad_y, Tensor x, Tensor? residual, Tensor weight, Tensor seed, int keep,"
    " float eps) -> (Tensor, Tensor, Tensor, Tensor)",
)
def _dropout_norm_backward(
    grad_y: Tensor,
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor,
    seed: Tensor,
    keep: int,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    grad_y, x, weight = grad_y.contiguous(), x.contiguous(), weight.contiguous()
    residual = None if residual is None else residual.contiguous()
    columns, two = x.shape[-1], _has_own_gradient(residual, keep)
    grad_x, grad_residual = torch.empty_like(x), x.new_empty(x.shape if two else 0)
    grad_weight, grad_bias = weight.new_empty(columns), weight.new_empty(columns)
    library.call_on_threads(
        "m3rec_norm_backward",
        *(grad_y.data_ptr(), x.data_ptr(), _pointer(residual), weight.data_ptr()),
        *(x.numel() // columns, columns, int(seed), keep, eps),
        *(grad_x.data_ptr(), grad_residual.data_ptr() if two else None),
        *(grad_weight.data_ptr(), grad_bias.data_ptr()),
    )
    return grad_x, grad_residual, grad_weight, grad_bias


@_dropout_norm_backward.register_fake
def _(
    grad_y: Tensor,
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor,
    seed: Tensor,
    keep: int,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    shape = x.shape if _has_own_gradient(residual, keep) else (0,)
    gradients = x.new_empty(x.shape), x.new_empty(shape)
    return *gradients, weight.new_empty(weight.shape), weight.new_empty(weight.shape)


def _save_inputs(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, residual, weight, _, seed, ctx.keep, ctx.eps = inputs
    ctx.save_for_backward(x, residual, weight, seed)


def _gradients(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
    x, residual, weight, seed = ctx.saved_tensors
    grad_x, grad_residual, grad_weight, grad_bias = _dropout_norm_backward(
        grad_y, x, residual, weight, seed, ctx.keep, ctx.eps
    )
    if residual is None:
        return grad_x, None, grad_weight, grad_bias, None, None, None
    if not _has_own_gradient(residual, ctx.keep):
        grad_residual = grad_x
    return grad_x, grad_residual, grad_weight, grad_bias, None, None, None


_dropout_norm.register_autograd(_gradients, setup_context=_save_inputs)


def dropout_norm(
    x: Tensor, residual: Tensor | None, p: float, weight: Tensor, bias: Tensor, eps: float
) -> Tensor:
    """``layer_norm(dropout(x, p) + residual)`` over the last dimension.

    The compiled kernel, for float32 on the CPU, keeps nothing but its inputs for the backward pass.
    The sums of the parameters' gradients run in a fixed order: no result depends on the number of
    threads. A constant row gives exactly ``bias``, whatever ``eps``.

    Args:
        x: ``[..., H]``.
        residual: like ``x``, or None for zeros.
        p: share of ``x`` that is dropped, 0 to 1; the mask is that of
            :func:`recbole_m3rec.ops.dropout.dropout`.
        weight, bias: ``[H]``.
        eps: added to the variance.

    Raises:
        ValueError: shapes do not fit.
    """
    shapes = [weight.shape, bias.shape, x.shape[-1:]]
    if x.dim() == 0 or len(set(shapes)) > 1 or shapes[0] == (0,):
        raise ValueError(
            f"x, weight and bias: expected [..., H], [H] and [H] with H at least 1, "
            f"found {list(x.shape)}, {list(weight.shape)} and {list(bias.shape)}"
        )
    if residual is not None and residual.shape != x.shape:
        raise ValueError(f"residual: expected {list(x.shape)} as x, found {list(residual.shape)}")
    tensors = [x, weight, bias] if residual is None else [x, residual, weight, bias]
    if not all(compiled_for(tensor) for tensor in tensors):
        h = dropout(x, p)
        return F.layer_norm(
            h if residual is None else h + residual, weight.shape, weight, bias, eps
        )
    dtype = x.dtype if residual is None else torch.promote_types(x.dtype, residual.dtype)
    y: Tensor = _dropout_norm(
        x.float(),
        None if residual is None else residual.float(),
        weight.float(),
        bias.float(),
        new_seed() if p > 0.0 else torch.zeros((), dtype=torch.int64),
        keep_steps(p),
        eps,
    )
    return y.to(dtype)
