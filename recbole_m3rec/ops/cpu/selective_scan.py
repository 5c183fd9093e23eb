"""The selective scan on the CPU, as differentiable operators.

Beside the scan itself the same pass can take the step sizes before their softplus (``dt_bias``) and
multiply the result by the gate (``z``).
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor

from recbole_m3rec.ops.checks import rows
from recbole_m3rec.ops.cpu import library
from recbole_m3rec.ops.cpu.operator import operator
from recbole_m3rec.ops.scan_inputs import (
    BACKWARD_SCHEMA,
    SCHEMA,
    ScanInputs,
    check_scan,
    check_state,
    register,
)

_CPU = torch.device("cpu")


class _Call:
    """The operator's inputs as the library takes them; keeps copies of them alive meanwhile."""

    def __init__(self, inputs: ScanInputs, initial_state: Tensor | None = None) -> None:
        x, dt, A, B, C, D, cu_seqlens, last_only, dt_bias, z = inputs
        x, dt, B, C, A, D = rows(x), rows(dt), rows(B), rows(C), A.contiguous(), D.contiguous()
        cu_seqlens = None if cu_seqlens is None else cu_seqlens.contiguous()
        dt_bias = None if dt_bias is None else dt_bias.contiguous()
        z = None if z is None else rows(z)
        initial_state = None if initial_state is None else initial_state.contiguous()
        self.inputs = (x, dt, A, B, C, D, dt_bias, z, initial_state, cu_seqlens)
        self.arguments = library.ScanArguments(
            *(None if tensor is None else tensor.data_ptr() for tensor in self.inputs),
            *(x.stride(0), dt.stride(0), B.stride(0), C.stride(0)),
            0 if z is None else z.stride(0),
            0 if cu_seqlens is None else cu_seqlens.numel() - 1,
            *x.shape,
            A.shape[1],
            last_only,
            torch.get_num_threads(),
            library.instruction_set(),
        )

    def run(self, function: str, *outputs: int | None) -> None:
        library.call(function, ctypes.byref(self.arguments), *outputs)


@operator("recbole_m3rec::selective_scan", SCHEMA)
def _scan(*arguments: Any) -> Tensor:
    inputs = ScanInputs(*arguments)
    y = inputs.new_result()
    _Call(inputs).run("m3rec_scan_forward", y.data_ptr(), None)
    return y


@operator("recbole_m3rec::selective_scan_backward", BACKWARD_SCHEMA)
def _scan_backward(grad_y: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    inputs = ScanInputs(*arguments)
    grad_y = rows(grad_y)
    gradients = inputs.new_gradients()
    _Call(inputs).run(
        "m3rec_scan_backward",
        grad_y.data_ptr(),
        grad_y.stride(0),
        *(gradient.data_ptr() for gradient in gradients),
    )
    return gradients


register(_scan, _scan_backward)


def _in_float32(inputs: ScanInputs) -> ScanInputs:
    floats: Any = (
        value.float() if isinstance(value, Tensor) and value.is_floating_point() else value
        for value in inputs
    )
    return ScanInputs(*floats)


def selective_scan_cpu(inputs: ScanInputs) -> Tensor:
    """Run the selective scan over packed sequences, differentiable in its floating-point inputs.

    float32 throughout; bfloat16 and float16 inputs are converted, and the result is converted back.

    Raises:
        ValueError: shapes, dtypes or ``cu_seqlens`` do not fit.
        RuntimeError: the kernels were not built; the message says why.
    """
    check_scan(inputs, _CPU)
    y: Tensor = _scan(*_in_float32(inputs))
    return y.to(inputs.x.dtype)


@torch.no_grad()
def selective_scan_states_cpu(
    inputs: ScanInputs, initial_state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """``scan_states`` of a ``ScanBackend``; ``initial_state`` is shaped like its last states."""
    check_scan(inputs, _CPU)
    if initial_state is not None:
        check_state("initial_state", initial_state, inputs.A, inputs.n_sequences())
    floats = _in_float32(inputs)
    y, last_state = floats.new_result(), torch.empty(inputs.n_sequences(), *inputs.A.shape)
    call = _Call(floats, initial_state)
    call.run("m3rec_scan_forward", y.data_ptr(), last_state.data_ptr())
    return y.to(inputs.x.dtype), last_state


@torch.no_grad()
def selective_step_cpu(state: Tensor, inputs: ScanInputs) -> Tensor:
    """``step`` of a ``ScanBackend``."""
    check_scan(inputs, _CPU)
    check_state("state", state, inputs.A, inputs.n_sequences())
    floats = _in_float32(inputs)
    y = floats.new_result()
    _Call(floats).run("m3rec_scan_step", state.data_ptr(), y.data_ptr())
    return y.to(inputs.x.dtype)
