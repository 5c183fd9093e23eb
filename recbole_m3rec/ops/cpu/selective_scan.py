"""The selective scan on the CPU, as differentiable operators.

Beside the scan itself the same pass can take the step sizes before their softplus (``dt_bias``) and
multiply the result by the gate (``z``).
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor

from recbole_m3rec.ops.checks import (
    check_scan,
    check_sequences,
    check_state,
    gradients_by,
    rows,
    save_inputs,
)
from recbole_m3rec.ops.cpu import library
from recbole_m3rec.ops.cpu.library import available
from recbole_m3rec.ops.cpu.operator import operator

__all__ = ["available", "selective_scan_cpu", "selective_scan_states_cpu", "selective_step_cpu"]

_INPUTS = "Tensor x, Tensor dt, Tensor A, Tensor B, Tensor C, Tensor D, Tensor cu_seqlens"
_CPU = torch.device("cpu")
_OPTIONS = "bool last_only, Tensor? dt_bias, Tensor? z"


class _Call:
    """The operator's inputs as the library takes them; keeps copies of them alive meanwhile."""

    def __init__(self, inputs: tuple[Any, ...], initial_state: Tensor | None = None) -> None:
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


def _empty_result(x: Tensor, cu_seqlens: Tensor, last_only: bool) -> Tensor:
    return x.new_empty(cu_seqlens.shape[0] - 1 if last_only else x.shape[0], x.shape[1])


def _empty_gradients(
    x: Tensor, A: Tensor, dt_bias: Tensor | None, z: Tensor | None
) -> tuple[Tensor, ...]:
    (n_tokens, d_inner), d_state = x.shape, A.shape[1]
    shapes = [(n_tokens, d_inner), (n_tokens, d_inner), (d_inner, d_state)]
    shapes += [(n_tokens, d_state), (n_tokens, d_state), (d_inner,)]  # type: ignore[list-item]
    shapes += [(0,) if dt_bias is None else (d_inner,)]  # type: ignore[list-item]
    shapes += [(0,) if z is None else (z.shape[0], d_inner)]  # type: ignore[list-item]
    return tuple(x.new_empty(shape) for shape in shapes)


@operator(
    "recbole_m3rec::selective_scan",
    f"({_INPUTS}, {_OPTIONS}) -> Tensor",
)
def _scan(*inputs: Any) -> Tensor:
    x, _, _, _, _, _, cu_seqlens, last_only, _, _ = inputs
    y = _empty_result(x, cu_seqlens, last_only)
    _Call(inputs).run("m3rec_scan_forward", y.data_ptr(), None)
    return y


@_scan.register_fake
def _(*inputs: Any) -> Tensor:
    x, _, _, _, _, _, cu_seqlens, last_only, _, _ = inputs
    return _empty_result(x, cu_seqlens, last_only)


@operator(
    "recbole_m3rec::selective_scan_backward",
    f"(Tensor grad_y, {_INPUTS}, {_OPTIONS})"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def _scan_backward(grad_y: Tensor, *inputs: Any) -> tuple[Tensor, ...]:
    x, _, A, _, _, _, _, _, dt_bias, z = inputs
    grad_y = rows(grad_y)
    gradients = _empty_gradients(x, A, dt_bias, z)
    _Call(inputs).run(
        "m3rec_scan_backward",
        grad_y.data_ptr(),
        grad_y.stride(0),
        *(gradient.data_ptr() for gradient in gradients),
    )
    return gradients


@_scan_backward.register_fake
def _(grad_y: Tensor, *inputs: Any) -> tuple[Tensor, ...]:
    x, _, A, _, _, _, _, _, dt_bias, z = inputs
    return _empty_gradients(x, A, dt_bias, z)


_scan.register_autograd(gradients_by(_scan_backward), setup_context=save_inputs)


def _floats(*tensors: Tensor | None) -> tuple[Tensor | None, ...]:
    return tuple(None if tensor is None else tensor.float() for tensor in tensors)


def selective_scan_cpu(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    cu_seqlens: Tensor,
    last_only: bool = False,
    dt_bias: Tensor | None = None,
    z: Tensor | None = None,
) -> Tensor:
    """Run the selective scan over packed sequences, differentiable in its floating-point inputs.

    float32 throughout; bfloat16 and float16 inputs are converted, and the result is converted back.
    Matrices may be slices of the columns of wider ones, which are read in place.

    Args:
        x: ``[n_tokens, d_inner]``.
        dt: step sizes, ``[n_tokens, d_inner]``.
        A: decay rates, ``[d_inner, d_state]``, usually negative.
        B: ``[n_tokens, d_state]``.
        C: ``[n_tokens, d_state]``.
        D: ``[d_inner]``.
        cu_seqlens: first token of each sequence and the total, ``[n_sequences + 1]`` int32; every
            sequence has at least one token.
        last_only: compute the result for the last token of each sequence only, which is cheaper.
        dt_bias: ``[d_inner]``; the step sizes are then ``softplus(dt + dt_bias)``.
        z: like the result, which is then multiplied by ``SiLU(z)``.

    Returns:
        ``[n_tokens, d_inner]``, or ``[n_sequences, d_inner]`` with ``last_only``; dtype of ``x``.

    Raises:
        ValueError: shapes, dtypes or ``cu_seqlens`` do not fit.
        RuntimeError: the kernels were not built; the message says why.
    """
    check_sequences(cu_seqlens, _CPU)
    n_results = cu_seqlens.shape[0] - 1 if last_only else x.shape[0]
    check_scan(_CPU, x, dt, A, B, C, D, dt_bias, z, n_results)
    y: Tensor = _scan(*_floats(x, dt, A, B, C, D), cu_seqlens, last_only, *_floats(dt_bias, z))
    return y.to(x.dtype)


@torch.no_grad()
def selective_scan_states_cpu(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    cu_seqlens: Tensor,
    last_only: bool = False,
    dt_bias: Tensor | None = None,
    z: Tensor | None = None,
    initial_state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Like :func:`selective_scan_cpu`, without gradients, but return the last states as well.

    Args:
        initial_state: states before the first tokens, ``[n_sequences, d_inner, d_state]`` float32;
            None is zeros.

    Returns:
        The result, and the states after the sequences' last tokens,
        ``[n_sequences, d_inner, d_state]`` float32.
    """
    check_sequences(cu_seqlens, _CPU)
    n_sequences = cu_seqlens.shape[0] - 1
    check_scan(_CPU, x, dt, A, B, C, D, dt_bias, z, n_sequences if last_only else x.shape[0])
    last_state = torch.empty(n_sequences, *A.shape)
    if initial_state is not None:
        check_state("initial_state", initial_state, A, n_sequences)
    floats = _floats(x, dt, A, B, C, D)
    options = _floats(dt_bias, z)
    y = torch.empty(n_sequences if last_only else x.shape[0], x.shape[1])
    call = _Call((*floats, cu_seqlens, last_only, *options), initial_state)
    call.run("m3rec_scan_forward", y.data_ptr(), last_state.data_ptr())
    return y.to(x.dtype), last_state


@torch.no_grad()
def selective_step_cpu(
    state: Tensor,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    dt_bias: Tensor | None = None,
    z: Tensor | None = None,
) -> Tensor:
    """Take one token per sequence on kept states, without gradients.

    Args:
        state: ``[n, d_inner, d_state]`` float32, contiguous; changed in place.
        x: ``[n, d_inner]``, and so on as in :func:`selective_scan_cpu`, a row a sequence.

    Returns:
        ``[n, d_inner]`` in the dtype of ``x``.
    """
    check_scan(_CPU, x, dt, A, B, C, D, dt_bias, z, x.shape[0])
    check_state("state", state, A, x.shape[0])
    floats = _floats(x, dt, A, B, C, D)
    options = _floats(dt_bias, z)
    y = torch.empty(x.shape)
    call = _Call((*floats, None, False, *options))
    call.run("m3rec_scan_step", state.data_ptr(), y.data_ptr())
    return y.to(x.dtype)
