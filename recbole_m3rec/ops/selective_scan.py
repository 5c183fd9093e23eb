"""``selective_scan`` and its choice of backend."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from recbole_m3rec.ops import mamba_ssm
from recbole_m3rec.ops.cpu import library
from recbole_m3rec.ops.cpu import selective_scan as cpu
from recbole_m3rec.ops.reference import selective_scan_reference, selective_step_reference
from recbole_m3rec.ops.scan_inputs import ScanInputs
from recbole_m3rec.ops.triton import device as triton_device
from recbole_m3rec.ops.triton import selective_scan as triton_scan
from recbole_m3rec.support.suggestions import expected_one_of

_logger = logging.getLogger(__name__)


class ScanBackendError(ValueError):
    """A scan backend that does not exist, or not here."""


@dataclass(frozen=True)
class ScanBackend:
    """An implementation of the scan; to add one, write its functions and put it into the registry.

    Args:
        device: the type of device whose tensors it takes; None for any.
        available: returns True and what runs it, or False and the reason.
        scan: takes the arguments of :func:`selective_scan` and returns ``y``, differentiable.
        scan_states: without gradients, returns ``y`` and the states after the last tokens,
            ``[n_sequences, d_inner, d_state]`` float32.
        step: without gradients, takes states of that shape, which it overwrites, and a token per
            sequence; returns ``y``. None: steps are taken in PyTorch.
        install: how to make it available, for an error message.
    """

    device: str | None
    available: Callable[[], tuple[bool, str]]
    scan: Callable[[ScanInputs], Tensor]
    scan_states: Callable[[ScanInputs], tuple[Tensor, Tensor]]
    step: Callable[[Tensor, ScanInputs], Tensor] | None
    install: str = ""


def _in_torch(inputs: ScanInputs, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The reference scan, or a step on a state, with the options of the others.

    In float32 at least.
    """
    *six, cu_seqlens, last_only, dt_bias, z = inputs
    dtype = torch.promote_types(inputs.x.dtype, torch.float32)
    with torch.autocast(inputs.x.device.type, enabled=False):
        x, dt, A, B, C, D = (tensor.to(dtype) for tensor in six)
        steps = dt if dt_bias is None else F.softplus(dt + dt_bias.to(dtype))
        if state is not None:
            y, states = selective_step_reference(state, x, steps, A, B, C, D)
        else:
            assert cu_seqlens is not None
            y, states = selective_scan_reference(x, steps, A, B, C, D, cu_seqlens)
            y = y[cu_seqlens[1:].long() - 1] if last_only else y
        y = y if z is None else y * F.silu(z.to(dtype))
    return y.to(inputs.x.dtype), states


SCAN_BACKENDS = {
    "reference": ScanBackend(
        device=None,
        available=lambda: (True, "pure PyTorch, any device"),
        scan=lambda inputs: _in_torch(inputs)[0],
        scan_states=_in_torch,
        step=None,
    ),
    "cpu": ScanBackend(
        device="cpu",
        available=library.available,
        scan=cpu.selective_scan_cpu,
        scan_states=cpu.selective_scan_states_cpu,
        step=cpu.selective_step_cpu,
        install="Install a C++ compiler (gcc or clang)",
    ),
    "triton": ScanBackend(
        device="cuda",
        available=triton_device.available,
        scan=triton_scan.selective_scan_triton,
        scan_states=triton_scan.selective_scan_states_triton,
        step=triton_scan.selective_step_triton,
        install="It needs a CUDA device, a CUDA build of torch, a C compiler and "
        + triton_device.NEEDED,
    ),
    "mamba_ssm": ScanBackend(
        device="cuda",
        available=mamba_ssm.available,
        scan=mamba_ssm.selective_scan_mamba_ssm,
        scan_states=mamba_ssm.selective_scan_states_mamba_ssm,
        step=None,
        install="It needs a CUDA device, a CUDA build of torch and the packages of the extra "
        "cuda, compiled for them: pip install --no-build-isolation 'recbole_m3rec[cuda]'",
    ),
}
BACKENDS = ("auto", *SCAN_BACKENDS)
_FASTEST = {"cpu": "cpu", "cuda": "triton"}  # of a type of device, for "auto"


def backends() -> dict[str, str]:
    """Return for each backend what it is, or why it cannot be used here."""
    status = {name: backend.available() for name, backend in SCAN_BACKENDS.items()}
    return {
        name: f"available: {what}" if here else f"absent: {what}"
        for name, (here, what) in status.items()
    }


def check_backend(name: str) -> None:
    """Raise ScanBackendError unless ``name`` is a backend that can be used here."""
    if name not in BACKENDS:
        raise ScanBackendError(expected_one_of("scan_backend", name, BACKENDS))
    here, what = (True, "") if name == "auto" else SCAN_BACKENDS[name].available()
    if not here:
        raise ScanBackendError(
            f"scan_backend: {name} is not available: {what}. {SCAN_BACKENDS[name].install}, "
            "or set scan_backend: auto"
        )


def choose_backend(name: str, x: Tensor) -> str:
    """Resolve ``auto`` for a tensor: the kernels for its device where they work, or ``reference``.

    Raises:
        ScanBackendError: the backend is unknown or absent, or runs on another device.
    """
    check_backend(name)
    device = x.device.type
    if name == "auto":
        return _choose(device, x.dtype == torch.float64)
    home = SCAN_BACKENDS[name].device or device
    if device != home and not (name == "triton" and triton_device.interpreted()):
        raise ScanBackendError(
            f"scan_backend: {name} runs on {home} tensors, found one on {device}. "
            "Move the model, or set scan_backend: auto"
        )
    return name


def _choose(device: str, is_double: bool) -> str:
    fast = None if is_double else _FASTEST.get(device)
    here, what = (False, "") if fast is None else SCAN_BACKENDS[fast].available()
    chosen = fast if here and fast is not None else "reference"
    if not torch.compiler.is_compiling():
        _tell_once(chosen, device, what if here or not what else f"{fast} is absent: {what}")
    return chosen


@functools.cache
def _tell_once(chosen: str, device: str, why: str) -> None:
    _logger.info(f"scan_backend auto: {chosen} for tensors on {device}" + (why and f" ({why})"))


def selective_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    cu_seqlens: Tensor,
    *,
    last_only: bool = False,
    dt_bias: Tensor | None = None,
    z: Tensor | None = None,
    backend: str = "auto",
) -> Tensor:
    """Run Mamba's selective scan over packed sequences (Gu & Dao 2023, Algorithm 2).

    ``s_t = exp(dt_t · A) ∘ s_{t-1} + (dt_t · x_t) ⊗ B_t`` from ``s_0 = 0`` in every sequence, and
    ``y_t = s_t · C_t + D ∘ x_t``. Differentiable once, in all arguments but ``cu_seqlens``.
    Computed in float32, whatever shorter floats come in (and in float64 where ``x`` is that).

    Args:
        x: ``[n_tokens, d_inner]``.
        dt: step sizes, already positive (or before their softplus, see ``dt_bias``),
            ``[n_tokens, d_inner]``.
        A: ``[d_inner, d_state]``, negative.
        B: ``[n_tokens, d_state]``.
        C: ``[n_tokens, d_state]``.
        D: ``[d_inner]``.
        cu_seqlens: first token of each sequence and the total, ``[n_sequences + 1]`` int32; no
            sequence is empty.
        last_only: compute ``y`` at the last token of each sequence alone.
        dt_bias: if given, ``[d_inner]``, the step sizes are ``softplus(dt + dt_bias)``.
        z: if given, the gate, shaped like the result, which is multiplied by ``SiLU(z)``.
        backend: one of ``BACKENDS``.

    Returns:
        ``y [n_tokens, d_inner]``, or ``[n_sequences, d_inner]`` with ``last_only``; dtype of ``x``.

    Raises:
        ScanBackendError: the backend is unknown or absent, or runs on another device.
    """
    scan = SCAN_BACKENDS[choose_backend(backend, x)].scan
    return scan(ScanInputs(x, dt, A, B, C, D, cu_seqlens, last_only, dt_bias, z))


@torch.no_grad()
def selective_scan_states(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    cu_seqlens: Tensor,
    *,
    last_only: bool = False,
    dt_bias: Tensor | None = None,
    z: Tensor | None = None,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Like :func:`selective_scan`, without gradients, but return the last states as well.

    Returns:
        The result, and the states after the sequences' last tokens,
        ``[n_sequences, d_inner, d_state]``, float32 (float64 where ``x`` is that).
    """
    scan = SCAN_BACKENDS[choose_backend(backend, x)].scan_states
    return scan(ScanInputs(x, dt, A, B, C, D, cu_seqlens, last_only, dt_bias, z))


@torch.no_grad()
def selective_step(
    state: Tensor,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    *,
    dt_bias: Tensor | None = None,
    z: Tensor | None = None,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Take one token per sequence on kept states, without gradients.

    Args:
        state: ``[n, d_inner, d_state]``, left as it is.
        x: ``[n, d_inner]``, and so on as in :func:`selective_scan`, a row a sequence. The backend
            mamba_ssm takes its steps in plain PyTorch.

    Returns:
        ``y [n, d_inner]`` in the dtype of ``x``, and the new states.
    """
    kernel = SCAN_BACKENDS[choose_backend(backend, x)].step
    inputs = ScanInputs(x, dt, A, B, C, D, dt_bias=dt_bias, z=z)
    if kernel is None:
        return _in_torch(inputs, state)
    new_state = state.clone(memory_format=torch.contiguous_format)  # the kernel writes into it
    return kernel(new_state, inputs), new_state
