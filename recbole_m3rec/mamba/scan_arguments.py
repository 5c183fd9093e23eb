"""What the scans on CUDA take: shapes, dtypes, devices, checked before anything is launched."""

from __future__ import annotations

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

    The values are not looked at: they are on the device, and the host would have to wait for them.
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


def check_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    dt_bias: Tensor | None,
    z: Tensor | None,
    n_results: int,
    state: Tensor | None = None,
    n_sequences: int = 0,
) -> None:
    """Raise ValueError unless the arguments of a scan fit together; ``state`` must be float32."""
    if x.dim() != 2 or A.dim() != 2 or A.shape[1] == 0:
        raise ValueError(
            "x and A: expected [n, d_inner] and [d_inner, d_state], "
            f"found {list(x.shape)} and {list(A.shape)}"
        )
    (n, d_inner), d_state = x.shape, A.shape[1]
    check_tensors(
        x.device,
        x=(x, (n, d_inner)),
        dt=(dt, (n, d_inner)),
        A=(A, (d_inner, d_state)),
        B=(B, (n, d_state)),
        C=(C, (n, d_state)),
        D=(D, (d_inner,)),
        dt_bias=(dt_bias, (d_inner,)),
        z=(z, (n_results, d_inner)),
        state=(state, (n_sequences, d_inner, d_state)),
    )
    if state is not None and (state.dtype != torch.float32 or not state.is_contiguous()):
        raise ValueError(
            "state: expected a contiguous float32 tensor, "
            f"found {state.dtype}, strides {list(state.stride())}"
        )


def rows(matrix: Tensor) -> Tensor:
    """The matrix itself where each of its rows is contiguous, else a contiguous copy."""
    return matrix if matrix.stride(-1) == 1 else matrix.contiguous()
