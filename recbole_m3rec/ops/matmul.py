"""Matrix products by whichever of torch's libraries is fast on this processor."""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from recbole_m3rec.ops.cpu.linear import is_supported, linear

# Rows of a product that go to oneDNN at a time. It prepares itself for each shape anew and keeps
# what it prepared, some megabytes a shape, so shapes must recur.
ROWS = 2048


def matmul(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, rows_at_a_time: int = ROWS
) -> Tensor:
    """Return ``x @ weight.T + bias``, which can be differentiated once; ``[n, D]``, ``[m, D]``.

    float32 on the CPU goes to oneDNN, which uses a processor's widest vectors whoever made it; the
    library behind ``torch.mm`` does so on some makes alone, and is two and a half times slower on
    others. Linear layers over many rows go to this package's own kernel, which is faster still for
    the gradients of the weight, where it was compiled and that library is slow.

    Args:
        x: ``[n, D]``.
        weight: ``[m, D]``.
        bias: ``[m]`` or None.
        rows_at_a_time: rows that make a shape which recurs; the rest goes to ``torch.mm``.

    Returns:
        ``[n, m]``.
    """
    if is_supported(x, weight):
        return linear(x, weight, bias)
    if not _fits(x, weight, rows_at_a_time):
        return F.linear(x, weight, bias)
    if torch.is_grad_enabled() and any(
        tensor is not None and tensor.requires_grad for tensor in (x, weight, bias)
    ):
        result: Tensor = _Product.apply(x, weight, bias, rows_at_a_time)
        return result
    return _multiply(x, weight, bias, rows_at_a_time)


class Linear(nn.Linear):
    """``nn.Linear`` by :func:`matmul`."""

    def forward(self, input: Tensor) -> Tensor:
        return matmul(input, self.weight, self.bias)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, rows: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.rows = rows
        return _multiply(x, weight, bias, rows)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        needs_x, needs_weight, needs_bias, _ = ctx.needs_input_grad
        return (
            _multiply(grad, weight.T, None, ctx.rows) if needs_x else None,
            grad.T @ x if needs_weight else None,
            grad.sum(0) if needs_bias else None,
            None,
        )


def _fits(x: Tensor, weight: Tensor, rows: int) -> bool:
    return (
        x.dim() == 2
        and x.is_cpu
        and x.dtype == weight.dtype == torch.float32
        and x.shape[0] >= rows  # not len, which torch.export takes for a constant
        and weight.numel() > 0
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and _onednn_multiplies()
    )


def _multiply(x: Tensor, weight: Tensor, bias: Tensor | None, rows: int) -> Tensor:
    if len(x) == rows:
        return _by_onednn(x, weight, bias)
    result = x.new_empty(len(x), len(weight))
    whole = len(x) - len(x) % rows
    for first in range(0, whole, rows):
        part = slice(first, first + rows)
        result[part] = _by_onednn(x[part], weight, bias)
    if whole < len(x):
        result[whole:] = F.linear(x[whole:], weight, bias)
    return result


def _by_onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    result: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return result


@functools.cache
def _onednn_multiplies() -> bool:
    """Tell whether this torch has oneDNN's product, which is no part of its public interface."""
    x = torch.arange(6.0).view(3, 2)
    try:
        found = _by_onednn(x, x, None)
    except (AttributeError, RuntimeError, TypeError):
        return False
    return torch.equal(found, x @ x.T)
