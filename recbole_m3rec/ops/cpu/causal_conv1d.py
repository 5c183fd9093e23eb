"""The causal convolution with SiLU on the CPU, as a differentiable operator."""

from __future__ import annotations

import torch
from torch import Tensor

from recbole_m3rec.ops.checks import (
    CONVOLUTION_BACKWARD_SCHEMA,
    CONVOLUTION_SCHEMA,
    check_convolution,
    check_sequences,
    register_convolution,
    rows,
)
from recbole_m3rec.ops.cpu import library
from recbole_m3rec.ops.cpu.operator import operator


def _arguments(x: Tensor, weight: Tensor, bias: Tensor, cu_seqlens: Tensor) -> list[int]:
    n_tokens, d_inner = x.shape
    return [
        *(x.data_ptr(), x.stride(0), weight.data_ptr(), bias.data_ptr(), cu_seqlens.data_ptr()),
        *(cu_seqlens.numel() - 1, n_tokens, d_inner, weight.shape[1]),
    ]


@operator("recbole_m3rec::causal_conv1d_silu", CONVOLUTION_SCHEMA)
def _convolve(x: Tensor, weight: Tensor, bias: Tensor, cu_seqlens: Tensor) -> Tensor:
    x, weight, bias, ends = rows(x), weight.contiguous(), bias.contiguous(), cu_seqlens.contiguous()
    y = x.new_empty(x.shape)
    library.call_on_threads(
        "m3rec_convolve",
        *_arguments(x, weight, bias, ends),
        y.data_ptr(),
    )
    return y


@operator("recbole_m3rec::causal_conv1d_silu_backward", CONVOLUTION_BACKWARD_SCHEMA)
def _convolve_backward(
    grad_y: Tensor, x: Tensor, weight: Tensor, bias: Tensor, cu_seqlens: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    x, weight, bias, ends = rows(x), weight.contiguous(), bias.contiguous(), cu_seqlens.contiguous()
    grad_y = rows(grad_y)
    gradients = x.new_empty(x.shape), x.new_empty(weight.shape), x.new_empty(bias.shape)
    library.call_on_threads(
        "m3rec_convolve_backward",
        grad_y.data_ptr(),
        grad_y.stride(0),
        *_arguments(x, weight, bias, ends),
        *(gradient.data_ptr() for gradient in gradients),
    )
    return gradients


register_convolution(_convolve, _convolve_backward)


def causal_conv1d_silu_cpu(x: Tensor, weight: Tensor, bias: Tensor, cu_seqlens: Tensor) -> Tensor:
    """Convolve every channel of every sequence with its own causal filter, then apply SiLU.

    Args and result as in :func:`recbole_m3rec.ops.causal_conv1d_silu`; ``x`` may be a slice of the
    columns of a wider matrix. float32 throughout; bfloat16 and float16 inputs are converted, and
    the result is converted back.

    Raises:
        ValueError: shapes, dtypes or ``cu_seqlens`` do not fit.
        RuntimeError: the kernels were not built; the message says why.
    """
    check_sequences(cu_seqlens, torch.device("cpu"))
    check_convolution(torch.device("cpu"), x, weight, bias)
    y: Tensor = _convolve(x.float(), weight.float(), bias.float(), cu_seqlens)
    return y.to(x.dtype)
