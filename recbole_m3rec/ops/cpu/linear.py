"""A linear layer for many rows, where torch's own product is slow."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from recbole_m3rec.ops.checks import rows
from recbole_m3rec.ops.cpu import library as cpu_library
from recbole_m3rec.ops.cpu.operator import operator

FEWEST_ROWS = 256  # below, packing the weight costs more than the product
LARGEST_OUTPUT = 1024  # of a layer; oneDNN is the faster with wider ones
LANES = 16  # of the kernel's vectors; the weight's gradient is made of whole ones


@operator(
    "recbole_m3rec::linear",
    "(Tensor x, Tensor weight, Tensor? bias) -> Tensor",
)
def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    y = x.new_empty(x.shape[0], weight.shape[0])
    _multiply(rows(x), weight.t(), None if bias is None else bias.contiguous(), y)
    return y


def _multiply(x: Tensor, right: Tensor, bias: Tensor | None, y: Tensor) -> None:
    """``y = x @ right + bias``; ``right`` may have any strides."""
    cpu_library.call_on_threads(
        "m3rec_matmul",
        *(x.data_ptr(), x.stride(0), right.data_ptr(), *right.stride()),
        None if bias is None else bias.data_ptr(),
        *(x.shape[0], *right.shape, y.data_ptr()),
    )


@_linear.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[0])


@operator(
    "recbole_m3rec::linear_backward",
    "(Tensor grad_y, Tensor x, Tensor weight, bool to_x, bool to_weight, bool to_bias)"
    " -> (Tensor, Tensor, Tensor)",
)
def _linear_backward(
    grad_y: Tensor, x: Tensor, weight: Tensor, to_x: bool, to_weight: bool, to_bias: bool
) -> tuple[Tensor, Tensor, Tensor]:
    grad_y, x = grad_y.contiguous(), rows(x)
    grad_x, grad_weight, grad_bias = _empty_gradients(grad_y, x, weight, to_x, to_weight, to_bias)
    if to_x:
        _multiply(grad_y, weight, None, grad_x)
    if x.shape[1] % LANES == 0 and (to_weight or to_bias):
        _sum_products(grad_y, x, grad_weight, grad_bias)
    elif to_weight or to_bias:  # the other way round
        turned, of_no_use = x.new_empty(weight.shape[::-1]), x.new_empty(x.shape[1])
        _sum_products(x.contiguous(), grad_y, turned, of_no_use)
        grad_weight.copy_(turned.t())
        if to_bias:
            torch.sum(grad_y, 0, out=grad_bias)
    return grad_x, grad_weight, grad_bias


def _sum_products(left: Tensor, right: Tensor, product: Tensor, total: Tensor) -> None:
    """``product = left.T @ right`` and ``total = left.sum(0)``; ``right`` has whole vectors."""
    cpu_library.call_on_threads(
        "m3rec_matmul_backward",
        *(left.data_ptr(), right.data_ptr(), right.stride(0)),
        *(*right.shape, left.shape[1], product.data_ptr(), total.data_ptr()),
    )


def _empty_gradients(
    grad_y: Tensor, x: Tensor, weight: Tensor, to_x: bool, to_weight: bool, to_bias: bool
) -> tuple[Tensor, Tensor, Tensor]:
    return (
        x.new_empty(x.shape if to_x else (0,)),
        x.new_empty(weight.shape if to_weight or to_bias else (0,)),
        x.new_empty(weight.shape[:1] if to_weight or to_bias else (0,)),
    )


_linear_backward.register_fake(_empty_gradients)


def _save_inputs(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:2])


def _gradients(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
    wanted = ctx.needs_input_grad
    found = _linear_backward(grad_y, *ctx.saved_tensors, *wanted)
    return tuple(gradient if asked else None for gradient, asked in zip(found, wanted, strict=True))


_linear.register_autograd(_gradients, setup_context=_save_inputs)


@cpu_library.assume_constant_result
@functools.cache
def is_faster() -> bool:
    """Whether the kernel is here and faster than torch's product, as with AVX-512 on AMD's."""
    library, _ = cpu_library.load()
    return library is not None and bool(library.m3rec_matmul_pays(cpu_library.instruction_set()))


def is_supported(x: Tensor, weight: Tensor) -> bool:
    """Whether the kernel is made for these matrices, and pays."""
    return (
        x.dim() == 2
        and x.shape[0] >= FEWEST_ROWS
        and (x.shape[1] % LANES == 0 or weight.shape[0] % LANES == 0)
        and 0 < weight.shape[0] <= LARGEST_OUTPUT
        and x.dtype == weight.dtype == torch.float32
        and x.is_cpu
        and weight.is_cpu
        and not torch.is_autocast_enabled("cpu")
        and is_faster()
    )


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x @ weight.T + bias`` by the compiled kernel; bits do not depend on the number of threads.

    Args:
        x: ``[n, in]`` float32; rows may be parts of longer ones.
        weight: ``[out, in]`` float32; ``in`` or ``out`` is a multiple of 16.
        bias: ``[out]`` or None.

    Returns:
        ``[n, out]``; it can be differentiated once.
    """
    result: Tensor = _linear(x, weight, bias)
    return result
