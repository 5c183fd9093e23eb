"""Argument checks and gradient plumbing shared by all scan and convolution backends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


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


def check_sequences(cu_seqlens: Tensor, device: torch.device) -> None:
    """Raise ValueError unless shape, dtype and device are right.

    The values are not looked at: on CUDA the host would have to wait for them, and the library for
    the CPU does so itself.
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


def check_scan(
    device: torch.device,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    dt_bias: Tensor | None,
    z: Tensor | None,
    n_results: int,
) -> None:
    """Raise ValueError unless the arguments of a scan fit together and are on ``device``."""
    if x.dim() != 2 or A.dim() != 2 or A.shape[1] == 0:
        raise ValueError(
            "x and A: expected [n, d_inner] and [d_inner, d_state], "
            f"found {list(x.shape)} and {list(A.shape)}"
        )
    (n, d_inner), d_state = x.shape, A.shape[1]
    check_tensors(
        device,
        x=(x, (n, d_inner)),
        dt=(dt, (n, d_inner)),
        A=(A, (d_inner, d_state)),
        B=(B, (n, d_state)),
        C=(C, (n, d_state)),
        D=(D, (d_inner,)),
        dt_bias=(dt_bias, (d_inner,)),
        z=(z, (n_results, d_inner)),
    )


def check_state(name: str, state: Tensor, like: Tensor, n_sequences: int) -> None:
    """Raise ValueError unless a state is contiguous float32 ``[n_sequences, *like.shape]``.

    Args:
        name: of the argument.
        state: what was given.
        like: ``A``, on whose device it has to be.
        n_sequences: sequences, or rows of a step.
    """
    shape = (n_sequences, *like.shape)
    check_tensors(like.device, **{name: (state, shape)})
    if state.dtype != torch.float32 or not state.is_contiguous():
        raise ValueError(
            f"{name}: expected a contiguous float32 tensor {list(shape)}, "
            f"found {state.dtype}, strides {list(state.stride())}"
        )


def save_inputs(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    """Keep a scan's inputs for its gradients."""
    *tensors, ctx.last_only, dt_bias, z = inputs
    ctx.save_for_backward(*tensors, dt_bias, z)


def gradients_by(
    scan_backward: Callable[..., tuple[Tensor, ...]],
) -> Callable[[Any, Tensor], tuple[Tensor | None, ...]]:
    """Return the gradient function of a scan whose backward operator this is."""

    def gradients(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        *tensors, dt_bias, z = ctx.saved_tensors
        *grad_six, grad_bias, grad_z = scan_backward(grad_y, *tensors, ctx.last_only, dt_bias, z)
        # Nothing for cu_seqlens and last_only.
        return (
            *grad_six,
            None,
            None,
            None if dt_bias is None else grad_bias,
            None if z is None else grad_z,
        )

    return gradients


def rows(matrix: Tensor) -> Tensor:
    """The matrix itself where each of its rows is contiguous, else a contiguous copy."""
    return matrix if matrix.stride(-1) == 1 else matrix.contiguous()
