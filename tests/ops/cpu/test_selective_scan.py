"""The compiled CPU scan beside what holds for every kernel: extremes, NaN, options, dtypes."""

import pytest
import torch

from recbole_m3rec.ops.cpu import selective_scan
from recbole_m3rec.ops.scan_inputs import ScanInputs
from tests.ops.kernel_cases import (
    NAMES,
    RAGGED,
    compiled_scan,
    ends_of,
    needs_kernels,
    raw_scan_inputs,
    scan_inputs,
    scan_loop,
    with_gradients,
)

pytestmark = needs_kernels


def found(tensors, ends, last_only=False):
    return with_gradients(lambda *leaves: compiled_scan(leaves, ends, last_only), tensors)


def assert_as_loop(tensors, ends, tolerance=2e-6):
    """Every value within ``tolerance`` of the largest one of its tensor."""
    doubles = [tensor.double() for tensor in tensors]
    expected = with_gradients(lambda *leaves: scan_loop(leaves, ends), doubles)
    for name, got, want in zip(("y", *NAMES), found(tensors, ends), expected, strict=True):
        error = (got - want).abs().max() / want.abs().max().clamp(min=1e-30)
        assert got.isfinite().all(), name
        assert error < tolerance, f"{name}: {error:.1e}"


def test_extreme_steps_and_decays_match_the_loop(kernels):
    (x, dt, *others), ends = scan_inputs([40, 3, 75])
    for scale in (1e-6, 1e-3, 30.0, 1e4):
        assert_as_loop([x, dt * scale, *others], ends)
    (x, dt, A, *others), ends = scan_inputs([20, 3, 31])
    assert_as_loop([x, dt, -0.1 * A, *others], ends, tolerance=1e-5)  # states that grow
    (x, dt, A, B, C, D), ends = scan_inputs([9], 5, 4)
    assert_as_loop([x, dt, A * 1e30, B, C, D], ends)
    y = compiled_scan([x, dt, torch.full_like(A, -torch.inf), B, C, D], ends)
    torch.testing.assert_close(y, x * (dt * (B * C).sum(1, keepdim=True) + D))


def test_a_slow_decay_over_many_steps_is_not_biased(kernels):
    (x, dt, *others), ends = scan_inputs([1500], 4, 2)
    small = 2e-3 * (0.5 + torch.rand(dt.shape, generator=torch.Generator().manual_seed(5)))
    assert_as_loop([x, small, *others], ends, tolerance=3e-6)


def test_softplus_is_precise_relative_to_its_value(kernels):
    # One token with B · C = 1 and D = 0 returns its step size.
    raw = torch.linspace(-101, 101, 4000)[None]
    one, A = torch.ones(1, 1), -torch.ones(4000, 1)
    tensors = [torch.ones_like(raw), raw, A, one, one, 0 * raw[0]]
    y = selective_scan.selective_scan_cpu(ScanInputs(*tensors, ends_of([1]), False, 0 * raw[0]))
    expected = torch.nn.functional.softplus(raw.double(), threshold=1000)
    torch.testing.assert_close(y.double(), expected, rtol=4e-6, atol=1e-37)


def test_thousands_of_single_tokens_match_the_closed_form(kernels):
    tensors, ends = scan_inputs([1] * 10_000, 8, 16)

    def closed_form(x, dt, A, B, C, D):
        return x * (dt * (B * C).sum(1, keepdim=True) + D) + 0 * A.sum()

    expected = with_gradients(closed_form, [tensor.double() for tensor in tensors])
    for last_only in (False, True):
        for got, want in zip(found(tensors, ends, last_only), expected, strict=True):
            torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=2e-5)


def test_only_one_of_softplus_and_gate_can_be_asked_for():
    (*six, bias, z), ends = raw_scan_inputs(RAGGED)
    dt = torch.nn.functional.softplus(six[1] + bias).detach()
    both = compiled_scan([*six, bias, z], ends)
    gate_only = selective_scan.selective_scan_cpu(ScanInputs(six[0], dt, *six[2:], ends, z=z))
    softplus_only = selective_scan.selective_scan_cpu(ScanInputs(*six, ends, dt_bias=bias))
    torch.testing.assert_close(gate_only, both, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(softplus_only * z * z.sigmoid(), both, rtol=1e-5, atol=1e-5)
    for steps, options in ((six[1], {"dt_bias": bias}), (dt, {"z": z})):
        leaves = [steps.requires_grad_(), *(option.requires_grad_() for option in options.values())]
        y = selective_scan.selective_scan_cpu(
            ScanInputs(six[0], leaves[0], *six[2:], ends, **options)
        )
        gradients = torch.autograd.grad(y.sum(), leaves)
        assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("name", NAMES)
def test_nan_stays_nan_and_within_its_sequence(kernels, name):
    tensors, ends = scan_inputs([5, 6, 40, 70])
    token = 5 + 2  # the third of the second sequence
    bad = tensors[NAMES.index(name)] = tensors[NAMES.index(name)].clone()
    if name in ("A", "D"):
        bad[0] = float("nan")
        assert compiled_scan(tensors, ends)[:, 0].isnan().all()
        return
    bad[token] = float("nan")
    with torch.autograd.set_detect_anomaly(False):  # RecBole switches it on for the whole process
        y, *gradients = found(tensors, ends)
    assert y[token].isnan().all()
    grad_x, grad_dt, grad_A, grad_B, grad_C, _ = gradients
    assert gradients[NAMES.index("A")].isnan().any() or name == "C"
    others = torch.ones(len(y), dtype=torch.bool)
    others[5:11] = False
    for tensor in (y, grad_x, grad_dt, grad_B, grad_C):
        assert tensor[others].isfinite().all()
    if name != "C":
        assert y[token:11].isnan().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32_and_returned_in_kind(dtype):
    tensors, ends = scan_inputs(RAGGED)
    halves = [tensor.to(dtype) for tensor in tensors]
    got = found(halves, ends)
    expected = found([tensor.float() for tensor in halves], ends)
    assert all(tensor.dtype == dtype for tensor in got)
    torch.testing.assert_close(got[0], expected[0].to(dtype), rtol=0, atol=0)
    mixed = compiled_scan([halves[0], *tensors[1:]], ends)
    assert mixed.dtype == dtype


def test_no_sequences_give_no_rows():
    tensors, ends = scan_inputs([])
    y, *gradients = found(tensors, ends)
    assert y.shape == (0, 37)
    assert gradients[NAMES.index("A")].eq(0).all()
