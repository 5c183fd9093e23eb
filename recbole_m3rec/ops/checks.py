"""Argument checks and gradient plumbing shared by all scan and convolution backends."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
CONVOLUTION_SCHEMA = "(Tensor x, Tensor weight, Tensor bias, Tensor cu_seqlens) -> Tensor"
CONVOLUTION_BACKWARD_SCHEMA = (
    "(Tensor grad_y, Tensor x, Tensor weight, Tensor bias, Tensor cu_seqlens)"
    " -> (Tensor, Tensor, Tensor)"
)


def check_tensors(device: torch.device, **expected: tuple[Tensor | None, tuple[int, ...]]) -> None:
    """Raise ValueError unless each tensor that is there has its shape, a short float, the device.

    Args:
        device: where all have to be.
        expected: by name, a tensor (or None, which is passed over) and its shape.
    """
    for name, (tensor, shape) in expected.items():
        if tensor is None:
            continue
        if tensor.shape != shape:
            raise ValueError(f"{name}: expected shape {list(shape)}, found {list(tensor.shape)}")
        if tensor.dtype not in DTYPES:
            raise ValueError(f"{name}: expected float32, bfloat16 or float16, found {tensor.dtype}")
        if tensor.device != device:
            raise ValueError(f"{name}: expected a tensor on {device}, found it on {tensor.device}")


UNSOUND = "cu_seqlens: expected 0, then each sequence's end, increasing, to n_tokens"


def check_ends(cu_seqlens: Tensor, n_tokens: int) -> None:
    """Raise ValueError unless the values describe the tokens, for which the host waits."""
    lengths = cu_seqlens.diff()
    if cu_seqlens[0] != 0 or cu_seqlens[-1] != n_tokens or (lengths <= 0).any():
        raise ValueError(UNSOUND)


def check_sequences(cu_seqlens: Tensor, device: torch.device) -> None:
    """Raise ValueError unless shape, dtype and device are right.

    The values are not looked at: on CUDA the host would have to wait for them, and the library for
    the CPU does so itself, as the reference does by :func:`check_ends`.
    """
    if cu_seqlens.dim() != 1 or cu_seqlens.dtype != torch.int32 or cu_seqlens.shape[0] == 0:
        raise ValueError(
            "cu_seqlens: expected [n_sequences + 1] int32, "
            f"found {list(cu_seqlens.shape)} {cu_seqlens.dtype}"
        )
    if cu_seqlens.device != device:
        raise ValueError(
            f"cu_seqlens: expected a tensor on {device}, found it on {cu_seqlens.device}"
        )


def check_convolution(device: torch.device, x: Tensor, weight: Tensor, bias: Tensor) -> None:
    """Raise ValueError unless the arguments of a convolution fit together and are on ``device``."""
    if x.dim() != 2 or weight.dim() != 2 or weight.shape[1] == 0:
        raise ValueError(
            "x and weight: expected [n_tokens, d_inner] and [d_inner, d_conv], "
            f"found {list(x.shape)} and {list(weight.shape)}"
        )
    n_tokens, d_inner = x.shape
    check_tensors(
        device,
        x=(x, (n_tokens, d_inner)),
        weight=(weight, (d_inner, weight.shape[1])),
        bias=(bias, (d_inner,)),
    )


def register_convolution(convolve: Any, convolve_backward: Any) -> None:
    """Tell torch the shapes of a convolution's operators, and that one gives the other's gradients.

    Their arguments are as in ``CONVOLUTION_SCHEMA`` and ``CONVOLUTION_BACKWARD_SCHEMA``.
    """
    convolve.register_fake(lambda x, *_: x.new_empty(x.shape))
    convolve_backward.register_fake(
        lambda _, *inputs: tuple(tensor.new_empty(tensor.shape) for tensor in inputs[:3])
    )
    convolve.register_autograd(
        lambda ctx, grad_y: (*convolve_backward(grad_y, *ctx.saved_tensors), None),
        setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs),
    )


def rows(matrix: Tensor) -> Tensor:
    """The matrix itself where each of its rows is contiguous, else a contiguous copy."""
    return matrix if matrix.stride(-1) == 1 else matrix.contiguous()
