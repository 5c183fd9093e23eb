"""The arguments of a selective scan, which every backend takes as one object."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from recbole_m3rec.ops.checks import check_sequences, check_tensors

# Of operators whose arguments are the fields of ScanInputs.
_FIELDS = (
    "Tensor x, Tensor dt, Tensor A, Tensor B, Tensor C, Tensor D, Tensor cu_seqlens, "
    "bool last_only, Tensor? dt_bias, Tensor? z"
)
SCHEMA = f"({_FIELDS}) -> Tensor"
BACKWARD_SCHEMA = f"(Tensor grad_y, {_FIELDS}) -> ({', '.join(['Tensor'] * 8)})"


class ScanInputs(NamedTuple):
    """The arguments of :func:`recbole_m3rec.ops.selective_scan`; of a step without ``cu_seqlens``.

    Backends read matrices in place that are slices of the columns of wider ones.
    """

    x: Tensor
    dt: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor
    cu_seqlens: Tensor | None = None
    last_only: bool = False
    dt_bias: Tensor | None = None
    z: Tensor | None = None

    def n_sequences(self) -> int:
        """Count the sequences; every token of a step is one."""
        return self.x.shape[0] if self.cu_seqlens is None else self.cu_seqlens.shape[0] - 1

    def new_result(self) -> Tensor:
        """Return a tensor to write the result into, ``[n_tokens or n_sequences, d_inner]``."""
        n_results = self.n_sequences() if self.last_only else self.x.shape[0]
        return self.x.new_empty(n_results, self.x.shape[1])

    def new_gradients(self) -> tuple[Tensor, ...]:
        """Return tensors for the gradients of all floating-point inputs, empty for missing ones."""
        tensors = (*self[:6], self.dt_bias, self.z)
        return tuple(self.x.new_empty(0) if t is None else t.new_empty(t.shape) for t in tensors)


def check_scan(inputs: ScanInputs, device: torch.device) -> None:
    """Raise ValueError unless the arguments of a scan fit together and are on ``device``."""
    x, dt, A, B, C, D, cu_seqlens, last_only, dt_bias, z = inputs
    if cu_seqlens is not None:
        check_sequences(cu_seqlens, device)
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
        z=(z, (inputs.n_sequences() if last_only else n, d_inner)),
    )


def check_state(name: str, state: Tensor, like: Tensor, n_sequences: int) -> None:
    """Raise ValueError unless a state is contiguous float32 ``[n_sequences, *like.shape]``.

    Args:
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


def register(scan: Any, scan_backward: Any) -> None:
    """Tell torch the shapes of a scan's two operators, and that one gives the other's gradients."""
    scan.register_fake(lambda *arguments: ScanInputs(*arguments).new_result())
    scan_backward.register_fake(lambda _, *arguments: ScanInputs(*arguments).new_gradients())

    def save_inputs(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        *tensors, ctx.last_only, dt_bias, z = inputs
        ctx.save_for_backward(*tensors, dt_bias, z)

    def gradients(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        *tensors, dt_bias, z = ctx.saved_tensors
        *grad_six, grad_bias, grad_z = scan_backward(grad_y, *tensors, ctx.last_only, dt_bias, z)
        # Nothing for cu_seqlens and last_only.
        options = None if dt_bias is None else grad_bias, None if z is None else grad_z
        return *grad_six, None, None, *options

    scan.register_autograd(gradients, setup_context=save_inputs)
