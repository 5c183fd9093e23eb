"""``selective_scan``: one function over all the implementations there are."""

from __future__ import annotations

import difflib

import torch
import torch.nn.functional as F
from torch import Tensor

from . import cpu
from .reference import selective_scan_reference

BACKENDS = ("auto", "reference", "cpu")


class ScanBackendError(ValueError):
    """A scan backend that does not exist, or not here."""


def backends() -> dict[str, str]:
    """Tell of every backend what it is, or why it cannot be used here."""
    built, why = cpu.available()
    return {
        "reference": "available: pure PyTorch, any device",
        "cpu": "available: compiled kernels, float32 on the CPU" if built else f"absent: {why}",
    }


def check_backend(name: str) -> None:
    """Raise ScanBackendError unless ``name`` is a backend that can be used here."""
    if name not in BACKENDS:
        near = difflib.get_close_matches(str(name), BACKENDS, n=1)
        raise ScanBackendError(
            f"scan_backend must be one of {', '.join(BACKENDS)}, found {name!r}"
            + (f". Did you mean {near[0]}?" if near else "")
        )
    if name == "cpu" and not cpu.available()[0]:
        raise ScanBackendError(
            f"scan_backend: cpu is not available: {cpu.available()[1]}. Install a C++ compiler "
            "and reinstall the package, or set scan_backend: auto"
        )


def choose_backend(name: str, x: Tensor) -> str:
    """Resolve ``auto`` for a tensor: ``cpu`` where it is built and fits, or ``reference``."""
    check_backend(name)
    if name != "auto":
        return name
    fits = x.device.type == "cpu" and x.dtype != torch.float64
    return "cpu" if fits and cpu.available()[0] else "reference"


def selective_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    cu_seqlens: Tensor,
    *,
    read_last: bool = False,
    dt_bias: Tensor | None = None,
    z: Tensor | None = None,
    backend: str = "auto",
) -> Tensor:
    """Run Mamba's selective scan over packed sequences (Gu & Dao 2023, Algorithm 2).

    ``s_t = exp(dt_t · A) ∘ s_{t-1} + (dt_t · x_t) ⊗ B_t`` from ``s_0 = 0`` in every sequence, and
    ``y_t = s_t · C_t + D ∘ x_t``. Differentiable once, in all arguments but ``cu_seqlens``.

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
        read_last: compute ``y`` at the last token of each sequence alone.
        dt_bias: if given, ``[d_inner]``, the step sizes are ``softplus(dt + dt_bias)``.
        z: if given, the gate, shaped like the result, which is multiplied by ``SiLU(z)``.
        backend: one of ``BACKENDS``.

    Returns:
        ``y [n_tokens, d_inner]``, or ``[n_sequences, d_inner]`` with ``read_last``.

    Raises:
        ScanBackendError: the backend is unknown or absent.
    """
    if choose_backend(backend, x) == "cpu":
        return cpu.selective_scan_cpu(x, dt, A, B, C, D, cu_seqlens, read_last, dt_bias, z)
    if dt_bias is not None:
        dt = F.softplus(dt + dt_bias)
    y, _ = selective_scan_reference(x, dt, A, B, C, D, cu_seqlens)
    y = y[cu_seqlens[1:].long() - 1] if read_last else y
    return y if z is None else y * F.silu(z)
