"""What every compiled scan does beside matching a loop: extremes, NaN, options, dtypes, states.

Of the CPU by each set of kernels; of Triton in a process of its own, by ``triton/test_triton.py``.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from recbole_m3rec.ops import checks
from recbole_m3rec.ops.cpu import selective_scan as cpu
from recbole_m3rec.ops.scan_inputs import ScanInputs
from recbole_m3rec.ops.triton import device
from recbole_m3rec.ops.triton import selective_scan as triton
from tests.ops.kernel_cases import NAMES, ends_of, raw_scan_inputs, scan_loop, with_gradients


@dataclass(frozen=True)
class Scan:
    """A backend and what is asked of it.

    Attributes:
        run: scan, differentiable.
        states: scan that also returns the last states, and takes first ones.
        step: one token per sequence.
        device: of all tensors.
        long: tokens that pass the bound of a chunk twice.
        many: sequences of one token.
        shapes: ``d_inner`` and ``d_state`` of steps; the last is that of everything else.
        tolerance: of results and gradients, relative to the largest value of each.
        softplus: relative tolerance of a single step size.
        half: tolerance of 16-bit results, in their last places.
    """

    run: Callable[[ScanInputs], Any]
    states: Callable[..., Any]
    step: Callable[..., Any]
    device: str
    long: int
    many: int
    shapes: tuple[tuple[int, int], ...]
    tolerance: float
    softplus: float
    half: int

    def inputs(self, lengths, raw=False, shape=None):
        """Tensors and ``cu_seqlens``; ``dt_bias`` and ``z`` too where ``raw``."""
        tensors, ends = raw_scan_inputs(lengths, False, *(shape or self.shapes[-1]))
        if not raw:
            tensors = [tensors[0], F.softplus(tensors[1] / 4 - 0.5), *tensors[2:6]]
        return [tensor.to(self.device) for tensor in tensors], ends.to(self.device)

    def scan(self, tensors, ends, last_only=False):
        return self.run(ScanInputs(*tensors[:6], ends, last_only, *tensors[6:]))

    def found(self, tensors, ends, last_only=False):
        return with_gradients(lambda *leaves: self.scan(leaves, ends, last_only), tensors)

    def assert_as_loop(self, tensors, ends, times=1.0):
        """Every value within the tolerance, so many times, of the largest one of its tensor."""
        doubles = [tensor.double() for tensor in tensors]
        expected = with_gradients(lambda *leaves: scan_loop(leaves, ends), doubles)
        for name, got, want in zip(
            ("y", *NAMES), self.found(tensors, ends), expected, strict=False
        ):
            error = (got - want).abs().max() / want.abs().max().clamp(min=1e-30)
            assert got.isfinite().all(), name
            assert error < times * self.tolerance, f"{name}: {error:.1e}"


if os.environ.get("SCAN_OF_TEST") == "triton":
    interpreted = device.interpreted()

    @pytest.fixture
    def scan():
        return Scan(
            triton.selective_scan_triton,
            triton.selective_scan_states_triton,
            triton.selective_step_triton,
            device="cpu" if interpreted else "cuda",
            long=18,
            many=100 if interpreted else 10_000,
            shapes=((7, 5),),
            tolerance=5e-6 if interpreted else 2e-5,  # a GPU's exp is an approximation
            softplus=8e-6,
            half=1,
        )
else:

    @pytest.fixture
    def scan(kernels):
        return Scan(
            cpu.selective_scan_cpu,
            cpu.selective_scan_states_cpu,
            cpu.selective_step_cpu,
            device="cpu",
            long=75,
            many=10_000,
            shapes=((3, 1), (32, 5), (3, 16), (32, 33), (37, 8)),
            tolerance=2e-6,
            softplus=4e-6,
            half=0,
        )


def test_extreme_steps_and_decays_match_the_loop(scan):
    (x, dt, *others), ends = scan.inputs([scan.long, 3])
    for scale in (1e-6, 1e-3, 30.0, 1e4):
        scan.assert_as_loop([x, dt * scale, *others], ends)
    (x, dt, A, *others), ends = scan.inputs([20, 3, 31])
    scan.assert_as_loop([x, dt, -0.1 * A, *others], ends, times=5)  # states that grow
    (x, dt, A, B, C, D), ends = scan.inputs([9])
    scan.assert_as_loop([x, dt, A * 1e30, B, C, D], ends)
    y = scan.scan([x, dt, torch.full_like(A, -torch.inf), B, C, D], ends)
    torch.testing.assert_close(y, x * (dt * (B * C).sum(1, keepdim=True) + D))


def test_a_slow_decay_over_many_steps_is_not_biased(scan):
    (x, dt, *others), ends = scan.inputs([scan.many * 3 // 20], shape=(4, 2))
    small = 2e-3 * (0.5 + torch.rand(dt.shape, generator=torch.Generator().manual_seed(5)))
    scan.assert_as_loop([x, small.to(x), *others], ends, times=1.5)


def test_softplus_is_precise_relative_to_its_value(scan):
    # One token with B · C = 1 and D = 0 returns its step size.
    raw = torch.linspace(-101, 101, min(scan.many, 4000), device=scan.device)[None]
    one = torch.ones(1, 1, device=scan.device)
    tensors = [torch.ones_like(raw), raw, -torch.ones_like(raw.t()), one, one, 0 * raw[0]]
    y = scan.run(ScanInputs(*tensors, ends_of([1]).to(scan.device), dt_bias=0 * raw[0]))
    expected = F.softplus(raw.double(), threshold=1000)
    torch.testing.assert_close(y.double(), expected, rtol=scan.softplus, atol=1e-37)


@pytest.mark.parametrize("last_only", [False, True])
def test_many_single_tokens_match_the_closed_form(scan, last_only):
    tensors, ends = scan.inputs([1] * scan.many, shape=(8, 16))

    def closed_form(x, dt, A, B, C, D):
        return x * (dt * (B * C).sum(1, keepdim=True) + D) + 0 * A.sum()

    found = scan.found(tensors, ends, last_only)
    expected = with_gradients(closed_form, [tensor.double() for tensor in tensors])
    for got, want in zip(found, expected, strict=True):
        torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=2e-5)


def test_only_one_of_softplus_and_gate_can_be_asked_for(scan):
    (*six, bias, z), ends = scan.inputs([5, scan.long], raw=True)
    dt = F.softplus(six[1] + bias)
    both = scan.scan([*six, bias, z], ends)
    gate_only = scan.run(ScanInputs(six[0], dt, *six[2:], ends, z=z))
    softplus_only = scan.run(ScanInputs(*six, ends, dt_bias=bias))
    torch.testing.assert_close(gate_only, both, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(softplus_only * F.silu(z), both, rtol=1e-5, atol=1e-5)
    for steps, options in ((six[1], {"dt_bias": bias}), (dt, {"z": z})):
        leaves = [steps.requires_grad_(), *(option.requires_grad_() for option in options.values())]
        y = scan.run(ScanInputs(six[0], leaves[0], *six[2:], ends, **options))
        gradients = torch.autograd.grad(y.sum(), leaves)
        assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("name", NAMES)
def test_nan_stays_nan_and_within_its_sequence(scan, name):
    tensors, ends = scan.inputs([5, 6, scan.long])
    token = 5 + 2  # the third of the second sequence
    bad = tensors[NAMES.index(name)] = tensors[NAMES.index(name)].clone()
    if name in ("A", "D"):
        bad[0] = float("nan")
        assert scan.scan(tensors, ends)[:, 0].isnan().all()
        return
    bad[token] = float("nan")
    with torch.autograd.set_detect_anomaly(False):  # RecBole switches it on for the whole process
        y, grad_x, grad_dt, grad_A, grad_B, grad_C, _ = scan.found(tensors, ends)
    assert y[token].isnan().all()
    assert y[5:token].isfinite().all()
    assert grad_A.isnan().any() or name == "C"
    for tensor in (y, grad_x, grad_dt, grad_B, grad_C):
        assert tensor[:5].isfinite().all()
        assert tensor[11:].isfinite().all()
    if name != "C":
        assert y[token:11].isnan().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32_and_returned_in_kind(scan, dtype):
    tensors, ends = scan.inputs([5, scan.long], raw=True)
    halves = [tensor.to(dtype) for tensor in tensors]
    found = scan.found(halves, ends)
    expected = scan.found([tensor.float() for tensor in halves], ends)
    assert {tensor.dtype for tensor in found} == {dtype}
    step = float(torch.finfo(dtype).eps)
    close = {"rtol": scan.half * step, "atol": scan.half * 1e-6}
    torch.testing.assert_close(found[0], expected[0].to(dtype), **close)
    for got, want in zip(found[1:], expected[1:], strict=True):
        error = (got - want).abs().max() / want.abs().max()
        assert error < 4 * step  # weights of the sum were rounded too
    mixed = scan.found([halves[0], *tensors[1:]], ends)
    assert [tensor.dtype for tensor in mixed[:3]] == [dtype, dtype, torch.float32]


@pytest.mark.parametrize("raw", [False, True])
def test_steps_on_kept_states_continue_a_scan(scan, raw):
    lengths = [7, 60, 2]
    for shape in scan.shapes:
        tensors, ends = scan.inputs(lengths, raw, shape)
        x, dt, A, B, C, D, *more = tensors
        expected, last_state = scan.states(ScanInputs(*tensors[:6], ends, False, *more))
        exact = scan_loop([tensor.double() for tensor in tensors], ends)
        torch.testing.assert_close(expected.double(), exact, rtol=1e-4, atol=1e-5)
        state = torch.zeros_like(last_state)
        for t in range(max(lengths)):
            running = [i for i, length in enumerate(lengths) if t < length]
            at = torch.tensor([int(ends[i]) + t for i in running], device=scan.device)
            options = {"dt_bias": more[0], "z": more[1][at]} if raw else {}
            kept = state[running].contiguous()
            y = scan.step(kept, ScanInputs(x[at], dt[at], A, B[at], C[at], D, **options))
            state[running] = kept
            torch.testing.assert_close(y, expected[at], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(state, last_state, rtol=1e-4, atol=1e-6)


def test_a_scan_continues_from_an_initial_state(scan):
    lengths, cut = [60, 31, scan.long], [50, 1, 12]
    tensors, ends = scan.inputs(lengths)
    whole, last_state = scan.states(ScanInputs(*tensors, ends))
    starts = ends[:-1].tolist()
    rest = [length - c for length, c in zip(lengths, cut, strict=True)]
    head = torch.cat([torch.arange(s, s + c) for s, c in zip(starts, cut, strict=True)])
    tail = torch.cat([torch.arange(e - r, e) for e, r in zip(ends[1:].tolist(), rest, strict=True)])
    x, dt, A, B, C, D = tensors

    def part(at, part_lengths, state, last_only=False):
        ends = ends_of(part_lengths).to(scan.device)
        return scan.states(ScanInputs(x[at], dt[at], A, B[at], C[at], D, ends, last_only), state)

    y_head, state = part(head, cut, None)
    last, same_state = part(head, cut, None, last_only=True)
    torch.testing.assert_close(last, y_head[ends_of(cut)[1:].long() - 1], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(same_state, state, rtol=1e-5, atol=1e-6)
    y_tail, state = part(tail, rest, state)
    torch.testing.assert_close(y_head, whole[head], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(y_tail, whole[tail], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(state, last_state, rtol=1e-5, atol=1e-6)


def test_torch_compile_takes_it_whole(scan):
    tensors, ends = scan.inputs([5, 2, 9], shape=(4, 3))
    whole = torch.compile(scan.scan, backend="aot_eager", fullgraph=True)
    found = with_gradients(lambda *leaves: whole(leaves, ends), tensors)
    assert all(torch.equal(a, b) for a, b in zip(found, scan.found(tensors, ends), strict=True))


def test_no_sequences_give_no_rows(scan):
    tensors, ends = scan.inputs([])
    y, *gradients = scan.found(tensors, ends)
    assert y.shape == (0, scan.shapes[-1][0])
    assert gradients[NAMES.index("A")].eq(0).all()


def test_wrong_shapes_and_dtypes_are_refused_by_name(scan):
    tensors, ends = scan.inputs([17], shape=(7, 5))
    for i, name in enumerate(NAMES):
        cut = [tensor[:-1] if j == i else tensor for j, tensor in enumerate(tensors)]
        with pytest.raises(ValueError, match="expected" if name == "x" else f"^{name}: expected"):
            scan.scan(cut, ends)
        whole = [tensor.double() if j == i else tensor for j, tensor in enumerate(tensors)]
        with pytest.raises(ValueError, match=f"^{name}: expected float32"):
            scan.scan(whole, ends)
    with pytest.raises(ValueError, match="^cu_seqlens: expected .* int32"):
        scan.scan(tensors, ends.long())
    with pytest.raises(ValueError, match="^dt_bias: expected"):
        scan.run(ScanInputs(*tensors, ends, dt_bias=tensors[0][0, :3]))
    with pytest.raises(ValueError, match="^z: expected"):
        scan.run(ScanInputs(*tensors, ends, True, z=tensors[0]))
    state = torch.zeros(17, 5, 7, device=scan.device)
    with pytest.raises(ValueError, match="^state: expected"):
        scan.step(state, ScanInputs(*tensors))
    with pytest.raises(ValueError, match="^initial_state: expected"):
        scan.states(ScanInputs(*tensors, ends), state)
    with pytest.raises(ValueError, match="^x: expected a tensor on"):
        checks.check_tensors(torch.device("meta"), x=(tensors[0], (17, 7)))
