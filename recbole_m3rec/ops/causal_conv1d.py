"""The causal depthwise convolution with SiLU, on packed sequences."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from recbole_m3rec.ops import mamba_ssm
from recbole_m3rec.ops.cpu.causal_conv1d import causal_conv1d_silu_cpu
from recbole_m3rec.ops.selective_scan import choose_backend
from recbole_m3rec.ops.triton.causal_conv1d import causal_conv1d_silu_triton


def causal_conv1d_silu(
    x: Tensor, weight: Tensor, bias: Tensor, cu_seqlens: Tensor, *, backend: str = "auto"
) -> Tensor:
    """Convolve every channel of every sequence with its own causal filter, then apply SiLU.

    Each sequence has zero history before its first token; nothing crosses from one to the next.

    Args:
        x: ``[n_tokens, d_inner]``.
        weight: ``[d_inner, d_conv]``, the last column weighs the current token.
        bias: ``[d_inner]``.
        cu_seqlens: first token of each sequence and the total, ``[n_sequences + 1]`` int32.
        backend: one of :data:`recbole_m3rec.ops.selective_scan.BACKENDS`; mamba_ssm means
            causal-conv1d, or plain PyTorch where that is missing or ``d_conv`` is none of 2, 3, 4.

    Returns:
        ``[n_tokens, d_inner]`` in the dtype of ``x``.
    """
    chosen = choose_backend(backend, x)
    if chosen == "cpu":
        return causal_conv1d_silu_cpu(x, weight, bias, cu_seqlens)
    if chosen == "triton":
        return causal_conv1d_silu_triton(x, weight, bias, cu_seqlens)
    if chosen == "mamba_ssm" and mamba_ssm.convolves(weight):
        return mamba_ssm.causal_conv1d_silu_mamba_ssm(x, weight, bias, cu_seqlens)
    starts = cu_seqlens[:-1].long()
    lengths = cu_seqlens[1:].long() - starts
    token = torch.arange(x.shape[0], device=x.device)
    position = token - torch.repeat_interleave(starts, lengths, output_size=x.shape[0])
    d_conv = weight.shape[1]
    out = torch.addcmul(bias, x, weight[:, -1])
    for lag in range(1, d_conv):
        # `where`, not a product with a mask: a NaN must stay inside its own sequence.
        history = torch.where((position >= lag)[:, None], x.roll(lag, 0), 0)
        out = torch.addcmul(out, history, weight[:, d_conv - 1 - lag])
    return F.silu(out).to(x.dtype)
