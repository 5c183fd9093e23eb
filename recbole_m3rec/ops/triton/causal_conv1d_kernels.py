"""Triton kernels of the causal convolution with SiLU.

A program walks along one sequence (forward) or a group of sequences (backward) in tiles of
``BLOCK_T`` tokens by ``BLOCK_D`` channels, and reads the tokens before its own again for each tap.
"""
# The types of a kernel's parameters are Triton's business:
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls

import triton
import triton.language as tl


@triton.jit
def tile(matrix, stride, t, d, mask):
    return tl.load(matrix + t[:, None] * stride + d[None, :], mask=mask, other=0.0).to(tl.float32)


@triton.jit
def before_silu(x, stride, weight, bias, t, start, end, d, in_d, D_CONV: tl.constexpr):
    """The convolution at tokens ``t``, of which those in ``[start, end)`` mean anything."""
    total = tl.zeros([t.shape[0], d.shape[0]], tl.float32)
    total += tl.load(bias + d, mask=in_d, other=0.0).to(tl.float32)[None, :]
    for lag in tl.static_range(D_CONV):
        known = (t - lag >= start) & (t - lag < end)
        tap = tl.load(weight + d * D_CONV + D_CONV - 1 - lag, mask=in_d, other=0.0)
        history = tile(x, stride, t - lag, d, known[:, None] & in_d[None, :])
        total += history * tap.to(tl.float32)[None, :]
    return total


@triton.jit
def forward(
    x, weight, bias, cu_seqlens, y, x_stride, d_inner,
    D_CONV: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    sequence = tl.program_id(0)
    d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    in_d = d < d_inner
    start = tl.load(cu_seqlens + sequence).to(tl.int64)
    end = tl.load(cu_seqlens + sequence + 1).to(tl.int64)
    for first in range(start, end, BLOCK_T):
        t = first + tl.arange(0, BLOCK_T)
        total = before_silu(x, x_stride, weight, bias, t, start, end, d, in_d, D_CONV)
        at = t[:, None] * d_inner + d[None, :]
        tl.store(y + at, total * tl.sigmoid(total), mask=(t < end)[:, None] & in_d[None, :])


@triton.jit
def grad_before_silu(
    grad_y, grad_y_stride, x, x_stride, weight, bias, t, start, end, d, in_d,
    D_CONV: tl.constexpr,
):  # fmt: skip
    total = before_silu(x, x_stride, weight, bias, t, start, end, d, in_d, D_CONV)
    gate = tl.sigmoid(total)
    known = (t < end)[:, None] & in_d[None, :]
    grad = tile(grad_y, grad_y_stride, t, d, known) * gate * (1.0 + total * (1.0 - gate))
    return tl.where(known, grad, 0.0)


@triton.jit
def backward(
    grad_y, x, weight, bias, cu_seqlens, groups, grad_x, part_weight, part_bias,
    grad_y_stride, x_stride, d_inner,
    D_CONV: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Gradients of the sequences of a group, ``groups[g]`` to ``groups[g + 1]``."""
    group = tl.program_id(0).to(tl.int64)
    d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    k = tl.arange(0, BLOCK_K)
    in_d = d < d_inner
    sum_weight = tl.zeros([BLOCK_D, BLOCK_K], tl.float32)
    sum_bias = tl.zeros([BLOCK_D], tl.float32)
    for sequence in range(tl.load(groups + group), tl.load(groups + group + 1)):
        start = tl.load(cu_seqlens + sequence).to(tl.int64)
        end = tl.load(cu_seqlens + sequence + 1).to(tl.int64)
        for first in range(start, end, BLOCK_T):
            t = first + tl.arange(0, BLOCK_T)
            total = tl.zeros([BLOCK_T, BLOCK_D], tl.float32)
            for lag in tl.static_range(D_CONV):
                # A token reaches the results of the next ones, and this one those before it.
                later = grad_before_silu(
                    grad_y, grad_y_stride, x, x_stride, weight, bias, t + lag, start, end, d, in_d,
                    D_CONV,
                )  # fmt: skip
                tap = tl.load(weight + d * D_CONV + D_CONV - 1 - lag, mask=in_d, other=0.0)
                total += later * tap.to(tl.float32)[None, :]
                here = tile(x, x_stride, t, d, (t < end)[:, None] & in_d[None, :])
                of_tap = tl.sum(later * here, 0)
                sum_weight += tl.where((k == D_CONV - 1 - lag)[None, :], of_tap[:, None], 0.0)
                if lag == 0:
                    sum_bias += tl.sum(later, 0)
            at = t[:, None] * d_inner + d[None, :]
            tl.store(grad_x + at, total, mask=(t < end)[:, None] & in_d[None, :])
    at = (group * d_inner + d[:, None]) * D_CONV + k[None, :]
    tl.store(part_weight + at, sum_weight, mask=in_d[:, None] & (k < D_CONV)[None, :])
    tl.store(part_bias + group * d_inner + d, sum_bias, mask=in_d)
