"""The compiled CPU scan and its gradients against a per-step float64 loop, with any kernels."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from recbole_m3rec.ops.cpu import selective_scan
from tests.ops.cpu_scan_cases import (
    NAMES,
    RAGGED,
    compiled,
    ends_of,
    inputs,
    raw_inputs,
    with_gradients,
)

built, why = selective_scan.available()
pytestmark = pytest.mark.skipif(not built, reason=why)


def reference(tensors: Sequence[Tensor], ends: Tensor, last_only: bool = False) -> Tensor:
    """The recurrence, one step of one sequence at a time."""
    x, dt, A, B, C, D = tensors
    rows = []
    for start, end in itertools.pairwise(ends.tolist()):
        state = torch.zeros_like(A)
        for t in range(start, end):
            state = torch.exp(dt[t, :, None] * A) * state + (dt[t] * x[t])[:, None] * B[t]
            if not last_only or t == end - 1:
                rows.append(state @ C[t] + D * x[t])
    return torch.stack(rows)


def assert_as_reference(
    tensors: Sequence[Tensor], ends: Tensor, last_only: bool = False, tolerance: float = 2e-6
) -> None:
    """Every value within ``tolerance`` of the largest one of its tensor."""
    found = with_gradients(compiled, tensors, ends, last_only)
    doubled = [tensor.double() for tensor in tensors]
    expected = with_gradients(reference, doubled, ends, last_only)
    for name, got, want in zip(("y", *NAMES), found, expected, strict=True):
        error = (got - want).abs().max() / want.abs().max().clamp(min=1e-30)
        assert got.isfinite().all(), name
        assert error < tolerance, f"{name}: {error:.1e}"


@pytest.mark.parametrize("last_only", [False, True])
@pytest.mark.parametrize("d_inner", [1, 7, 16, 37, 64])
def test_ragged_sequences_match_the_reference(kernels: str, d_inner: int, last_only: bool) -> None:
    assert_as_reference(*inputs(RAGGED, d_inner), last_only)


@pytest.mark.parametrize("last_only", [False, True])
@pytest.mark.parametrize("d_state", [1, 2, 3, 5, 8, 16, 17, 32, 64])
def test_every_state_size_matches_the_reference(
    kernels: str, d_state: int, last_only: bool
) -> None:
    assert_as_reference(*inputs([4, 33, 1, 60], 18, d_state), last_only)


@pytest.mark.parametrize("length", [1, 2, 27, 28, 29, 48, 49, 56, 57, 211])
def test_one_sequence_of_any_length_matches_the_reference(kernels: str, length: int) -> None:
    assert_as_reference(*inputs([length], 40, 24), tolerance=5e-6)


def softplus_and_gate(tensors: Sequence[Tensor], ends: Tensor, last_only: bool = False) -> Tensor:
    *six, dt_bias, z = tensors
    six[1] = torch.nn.functional.softplus(six[1] + dt_bias)
    return reference(six, ends, last_only) * torch.nn.functional.silu(z)


def fused(tensors: Sequence[Tensor], ends: Tensor, last_only: bool = False) -> Tensor:
    *six, dt_bias, z = tensors
    return selective_scan.selective_scan_cpu(*six, ends, last_only, dt_bias, z)


@pytest.mark.parametrize("last_only", [False, True])
def test_softplus_and_gate_within_the_scan_match_the_reference(
    kernels: str, last_only: bool
) -> None:
    tensors, ends = raw_inputs(RAGGED, last_only)
    found = with_gradients(fused, tensors, ends, last_only)
    doubled = [tensor.double() for tensor in tensors]
    expected = with_gradients(softplus_and_gate, doubled, ends, last_only)
    for name, got, want in zip(("y", *NAMES, "dt_bias", "z"), found, expected, strict=True):
        error = (got - want).abs().max() / want.abs().max()
        assert error < 2e-6, f"{name}: {error:.1e}"


@pytest.mark.parametrize("of", [-100.0, -30.0, -8.0, 0.0, 8.0, 30.0, 100.0])
def test_softplus_is_precise_relative_to_its_value(kernels: str, of: float) -> None:
    # One token with B · C = 1 and D = 0 returns its step size.
    one, raw = torch.ones(1, 40), torch.linspace(of - 1, of + 1, 40)[None]
    single = torch.ones(1, 1)
    y = selective_scan.selective_scan_cpu(
        one,
        raw,
        -torch.ones(40, 1),
        single,
        single,
        torch.zeros(40),
        ends_of([1]),
        False,
        0 * raw[0],
    )
    expected = torch.nn.functional.softplus(raw.double(), threshold=1000)
    torch.testing.assert_close(y.double(), expected, rtol=4e-6, atol=1e-37)


def test_only_one_of_softplus_and_gate_can_be_asked_for() -> None:
    (*six, bias, z), ends = raw_inputs(RAGGED)
    dt = torch.nn.functional.softplus(six[1] + bias).detach()
    both = fused([*six, bias, z], ends)
    gate_only = selective_scan.selective_scan_cpu(six[0], dt, *six[2:], ends, z=z)
    softplus_only = selective_scan.selective_scan_cpu(*six, ends, dt_bias=bias)
    torch.testing.assert_close(gate_only, both, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(softplus_only * z * z.sigmoid(), both, rtol=1e-5, atol=1e-5)
    for steps, options in ((six[1], {"dt_bias": bias}), (dt, {"z": z})):
        leaves = [steps.requires_grad_(), *(option.requires_grad_() for option in options.values())]
        y = selective_scan.selective_scan_cpu(six[0], leaves[0], *six[2:], ends, **options)
        gradients = torch.autograd.grad(y.sum(), leaves)
        assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("last_only", [False, True])
def test_thousands_of_single_tokens_match_the_closed_form(kernels: str, last_only: bool) -> None:
    tensors, ends = inputs([1] * 10_000, 8, 16)

    def closed_form(leaves: Sequence[Tensor], ends: Tensor, last_only: bool = False) -> Tensor:
        x, dt, A, B, C, D = leaves
        return x * (dt * (B * C).sum(1, keepdim=True) + D) + 0 * A.sum()

    found = with_gradients(compiled, tensors, ends, last_only)
    expected = with_gradients(closed_form, [tensor.double() for tensor in tensors], ends)
    for name, got, want in zip(("y", *NAMES), found, expected, strict=True):
        torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=2e-5, msg=name)


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 30.0, 1e4])
def test_tiny_and_huge_steps_match_the_reference(kernels: str, scale: float) -> None:
    (x, dt, A, B, C, D), ends = inputs([40, 3, 75])
    assert_as_reference([x, dt * scale, A, B, C, D], ends)


def test_growing_states_match_the_reference(kernels: str) -> None:
    (x, dt, A, B, C, D), ends = inputs([20, 3, 31])
    assert_as_reference([x, dt, -0.1 * A, B, C, D], ends, tolerance=1e-5)


def test_a_slow_decay_over_many_steps_is_not_biased(kernels: str) -> None:
    (x, dt, A, B, C, D), ends = inputs([1500], 4, 2)
    generator = torch.Generator().manual_seed(5)
    dt = 2e-3 * (0.5 + torch.rand(dt.shape, generator=generator))
    assert_as_reference([x, dt, A, B, C, D], ends, tolerance=3e-6)


@pytest.mark.parametrize("name", NAMES)
def test_nan_stays_nan_and_within_its_sequence(kernels: str, name: str) -> None:
    tensors, ends = inputs([5, 6, 40, 70])
    token = 5 + 2  # the third of the second sequence
    bad = tensors[NAMES.index(name)] = tensors[NAMES.index(name)].clone()
    if name in ("A", "D"):
        bad[0] = float("nan")
        assert compiled(tensors, ends)[:, 0].isnan().all()
        return
    bad[token] = float("nan")
    with torch.autograd.set_detect_anomaly(False):  # RecBole switches it on for the whole process
        y, *gradients = with_gradients(compiled, tensors, ends)
    assert y[token].isnan().all()
    grad_x, grad_dt, grad_A, grad_B, grad_C, _ = gradients
    assert gradients[NAMES.index("A")].isnan().any() or name == "C"
    others = torch.ones(len(y), dtype=torch.bool)
    others[5:11] = False
    for tensor in (y, grad_x, grad_dt, grad_B, grad_C):
        assert tensor[others].isfinite().all()
    if name != "C":
        assert y[token:11].isnan().all()


def test_infinite_decay_forgets(kernels: str) -> None:
    (x, dt, A, B, C, D), ends = inputs([9], 5, 4)
    assert_as_reference([x, dt, A * 1e30, B, C, D], ends)
    y = compiled([x, dt, torch.full_like(A, -torch.inf), B, C, D], ends)
    torch.testing.assert_close(y, x * (dt * (B * C).sum(1, keepdim=True) + D))


@pytest.mark.parametrize("last_only", [False, True])
def test_strided_inputs_give_the_results_of_contiguous_ones(last_only: bool) -> None:
    tensors, ends = inputs(RAGGED)
    expected = with_gradients(compiled, tensors, ends, last_only)
    columns = [torch.cat([t, t], -1)[..., : t.shape[-1]] for t in tensors]  # rows far apart
    transposed = [t.t().contiguous().t() if t.dim() == 2 else t for t in tensors]
    for strided in (columns, transposed):
        found = with_gradients(compiled, strided, ends, last_only)
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32_and_returned_in_kind(dtype: torch.dtype) -> None:
    tensors, ends = inputs(RAGGED)
    halves = [tensor.to(dtype) for tensor in tensors]
    found = with_gradients(compiled, halves, ends)
    expected = with_gradients(compiled, [tensor.float() for tensor in halves], ends)
    assert all(tensor.dtype == dtype for tensor in found)
    torch.testing.assert_close(found[0], expected[0].to(dtype), rtol=0, atol=0)
    mixed = compiled([halves[0], *tensors[1:]], ends)
    assert mixed.dtype == dtype


def test_no_sequences_give_no_rows() -> None:
    tensors, ends = inputs([])
    y, *gradients = with_gradients(compiled, tensors, ends)
    assert y.shape == (0, 37)
    assert gradients[NAMES.index("A")].eq(0).all()
