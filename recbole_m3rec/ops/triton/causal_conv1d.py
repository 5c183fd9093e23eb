"""The causal convolution with SiLU on a GPU, as a differentiable operator.

Sums are float32 and made in a fixed order: two runs give the same bits.
"""

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
from recbole_m3rec.ops.triton.device import groups_of, next_power_of_2, on_device

BLOCK_T = 16  # tokens of a tile


def _block_d(d_inner: int) -> int:
    return min(max(2, next_power_of_2(d_inner)), 64)


@torch.library.custom_op(
    "recbole_m3rec::causal_conv1d_silu_triton",
    mutates_args=(),
    schema=CONVOLUTION_SCHEMA,
)
def _convolve(x: Tensor, weight: Tensor, bias: Tensor, cu_seqlens: Tensor) -> Tensor:
    y = x.new_empty(x.shape)
    if y.numel() == 0:
        return y
    from recbole_m3rec.ops.triton.causal_conv1d_kernels import forward

    x, block_d = rows(x), _block_d(x.shape[1])
    with on_device(x):
        forward[(cu_seqlens.shape[0] - 1, -(-x.shape[1] // block_d))](
            *(x, weight.contiguous(), bias.contiguous(), cu_seqlens.contiguous(), y),
            *(x.stride(0), x.shape[1]),
            D_CONV=weight.shape[1],
            BLOCK_T=BLOCK_T,
            BLOCK_D=block_d,
        )
    return y


@torch.library.custom_op(
    "recbole_m3rec::causal_conv1d_silu_triton_backward",
    mutates_args=(),
    schema=CONVOLUTION_BACKWARD_SCHEMA,
)
def _convolve_backward(
    grad_y: Tensor, x: Tensor, weight: Tensor, bias: Tensor, cu_seqlens: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    grad_x = x.new_empty(x.shape)
    if grad_x.numel() == 0:
        return grad_x, torch.zeros_like(weight), torch.zeros_like(bias)
    from recbole_m3rec.ops.triton.causal_conv1d_kernels import backward

    x, grad_y, cu_seqlens = rows(x), rows(grad_y), cu_seqlens.contiguous()
    (n_tokens, d_inner), d_conv = x.shape, weight.shape[1]
    groups, block_d = groups_of(cu_seqlens, n_tokens), _block_d(d_inner)
    n_groups = groups.shape[0] - 1
    part_weight, part_bias = (
        torch.empty(n_groups, *like.shape, dtype=torch.float32, device=x.device)
        for like in (weight, bias)
    )
    with on_device(x):
        backward[(n_groups, -(-d_inner // block_d))](
            *(grad_y, x, weight.contiguous(), bias.contiguous(), cu_seqlens, groups),
            *(grad_x, part_weight, part_bias, grad_y.stride(0), x.stride(0), d_inner),
            D_CONV=d_conv,
            BLOCK_T=BLOCK_T,
            BLOCK_D=block_d,
            BLOCK_K=max(2, next_power_of_2(d_conv)),
        )
    return grad_x, part_weight.sum(0).to(weight.dtype), part_bias.sum(0).to(bias.dtype)


register_convolution(_convolve, _convolve_backward)


def causal_conv1d_silu_triton(
    x: Tensor, weight: Tensor, bias: Tensor, cu_seqlens: Tensor
) -> Tensor:
    """Convolve every channel of every sequence with its own causal filter, then apply SiLU.

    Args and result as in :func:`recbole_m3rec.ops.causal_conv1d_silu`; float32, bfloat16 or
    float16, summed in float32. The values of ``cu_seqlens`` are not checked.

    Raises:
        ValueError: shapes, dtypes or devices do not fit.
    """
    check_sequences(cu_seqlens, x.device)
    check_convolution(x.device, x, weight, bias)
    y: Tensor = _convolve(x, weight, bias, cu_seqlens)
    return y
