"""What test_triton.py runs in a process of its own: Triton's kernels against float64 loops.

Triton decides when it is imported whether its interpreter runs the kernels on the CPU. By hand:
``TRITON_INTERPRET=1 python -m pytest tests/ops/triton/triton_checks.py``, or without it on a GPU.
"""

import os

import pytest
import torch
import torch.nn.functional as F

from recbole_m3rec.network.mamba import MambaBlock
from recbole_m3rec.ops import checks
from recbole_m3rec.ops.scan_inputs import ScanInputs
from recbole_m3rec.ops.selective_scan import backends
from recbole_m3rec.ops.triton import causal_conv1d as convolution
from recbole_m3rec.ops.triton import device
from recbole_m3rec.ops.triton import selective_scan as triton
from tests.ops import kernel_cases
from tests.ops.kernel_cases import scan_loop as loop

usable, why = device.available()
pytestmark = pytest.mark.skipif(not usable, reason=why)

DEVICE = "cpu" if device.interpreted() else "cuda"
TOLERANCE = 5e-6 if DEVICE == "cpu" else 2e-5  # a GPU's exp is an approximation
RAGGED = [3, 1, 20, 5, 33, 16, 2]  # on both sides of the chunks of 16
FEW = [3, 1, 20, 2]
NAMES = ("x", "dt", "A", "B", "C", "D", "dt_bias", "z")


@pytest.fixture(autouse=True)
def _visible(monkeypatch):
    if "DEVICES_OF_TEST" in os.environ:  # the common fixture hides them
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", os.environ["DEVICES_OF_TEST"])


def ends_of(lengths):
    return kernel_cases.ends_of(lengths).to(DEVICE)


def inputs(lengths, d_inner=7, d_state=5, last_only=None):
    """x, dt, A, B, C, D and cu_seqlens; dt_bias and z too where ``last_only`` is not None."""
    tensors, ends = kernel_cases.scan_inputs(lengths, d_inner, d_state)
    if last_only is not None:
        rows = (len(lengths) if last_only else sum(lengths), d_inner)
        raw, dt_bias, z = kernel_cases.randn(tuple(tensors[1].shape), (d_inner,), rows, seed=2)
        tensors = [tensors[0], 4 * raw - 2, *tensors[2:], dt_bias, 4 * z]
    return [tensor.to(DEVICE) for tensor in tensors], ends.to(DEVICE)


def with_gradients(function, tensors, *more):
    return kernel_cases.with_gradients(lambda *leaves: function(leaves, *more), tensors)


def scan(tensors, ends, last_only=False):
    return triton.selective_scan_triton(ScanInputs(*tensors[:6], ends, last_only, *tensors[6:]))


def assert_as_loop(tensors, ends, last_only=False, tolerance=TOLERANCE):
    """Every value within ``tolerance`` of the largest one of its tensor."""
    found = with_gradients(scan, tensors, ends, last_only)
    expected = with_gradients(loop, [tensor.double() for tensor in tensors], ends, last_only)
    for name, got, want in zip(("y", *NAMES), found, expected, strict=False):
        assert got.isfinite().all(), name
        error = (got - want).abs().max() / want.abs().max().clamp(min=1e-30)
        assert error < tolerance, f"{name}: {error:.1e}"


def same_bits(found, expected):
    return all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("last_only", [False, True])
@pytest.mark.parametrize("d_inner", [1, 7, 70])
def test_ragged_sequences_match_the_loop(d_inner, last_only):
    assert_as_loop(*inputs(RAGGED if d_inner < 70 else FEW, d_inner), last_only)


@pytest.mark.parametrize("d_state", [1, 8, 16, 32, 64])
def test_every_state_size_matches_the_loop(d_state):
    assert_as_loop(*inputs([4, 17, 1], 9, d_state))


@pytest.mark.parametrize("length", [1, 15, 16, 17, 32, 49])
def test_one_sequence_of_any_length_matches_the_loop(length):
    assert_as_loop(*inputs([length], 3))


@pytest.mark.parametrize("last_only", [False, True])
def test_softplus_and_gate_within_the_scan_match_the_loop(last_only):
    assert_as_loop(*inputs(RAGGED, last_only=last_only), last_only)


def test_only_one_of_softplus_and_gate_can_be_asked_for():
    (*six, bias, z), ends = inputs([5, 18], last_only=False)
    both = scan([*six, bias, z], ends)
    softplus_only = triton.selective_scan_triton(ScanInputs(*six, ends, dt_bias=bias))
    six[1] = F.softplus(six[1] + bias)
    gate_only = triton.selective_scan_triton(ScanInputs(*six, ends, z=z))
    torch.testing.assert_close(softplus_only * F.silu(z), both, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gate_only, both, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("of", [-80.0, -30.0, -8.0, 0.0, 8.0, 30.0])
def test_softplus_is_precise_relative_to_its_value(of):
    # One token with B · C = 1 and D = 0 returns its step size.
    raw = torch.linspace(of - 1, of + 1, 40, device=DEVICE)[None]
    one = torch.ones(1, 1, device=DEVICE)
    six = [torch.ones_like(raw), raw, -torch.ones(40, 1, device=DEVICE), one, one, 0 * raw[0]]
    y = triton.selective_scan_triton(ScanInputs(*six, ends_of([1]), dt_bias=0 * raw[0]))
    expected = F.softplus(raw.double(), threshold=1000)
    torch.testing.assert_close(y.double(), expected, rtol=8e-6, atol=1e-37)


@pytest.mark.parametrize("last_only", [False, True])
def test_many_single_tokens_match_the_closed_form(last_only):
    tensors, ends = inputs([1] * (100 if DEVICE == "cpu" else 10_000), 4, 4)

    def closed_form(leaves, *_):
        x, dt, A, B, C, D = leaves
        return x * (dt * (B * C).sum(1, keepdim=True) + D) + 0 * A.sum()

    found = with_gradients(scan, tensors, ends, last_only)
    expected = with_gradients(closed_form, [tensor.double() for tensor in tensors])
    for name, got, want in zip(("y", *NAMES), found, expected, strict=False):
        torch.testing.assert_close(got.double(), want, rtol=1e-4, atol=1e-4, msg=name)


@pytest.mark.parametrize("scale", [1e-6, 30.0, 1e4])
def test_tiny_and_huge_steps_match_the_loop(scale):
    (x, dt, *others), ends = inputs([18, 3])
    assert_as_loop([x, dt * scale, *others], ends)


@pytest.mark.parametrize("name", NAMES[:6])
def test_nan_stays_nan_and_within_its_sequence(name):
    tensors, ends = inputs([5, 6, 20])
    bad = tensors[NAMES.index(name)] = tensors[NAMES.index(name)].clone()
    if name in ("A", "D"):
        bad[0] = float("nan")
        assert scan(tensors, ends)[:, 0].isnan().all()
        return
    bad[5 + 2] = float("nan")  # the third token of the second sequence
    y, grad_x, grad_dt, grad_A, grad_B, grad_C, _ = with_gradients(scan, tensors, ends)
    assert y[7].isnan().all()
    assert grad_A.isnan().any() or name == "C"
    assert y[5:7].isfinite().all()
    others = torch.ones(len(y), dtype=torch.bool)
    others[5:11] = False
    for tensor in (y, grad_x, grad_dt, grad_B, grad_C):
        assert tensor[others.to(DEVICE)].isfinite().all()


def test_infinite_decay_forgets():
    (x, dt, A, B, C, D), ends = inputs([9])
    assert_as_loop([x, dt, A * 1e30, B, C, D], ends)
    y = scan([x, dt, torch.full_like(A, -torch.inf), B, C, D], ends)
    torch.testing.assert_close(y, x * (dt * (B * C).sum(1, keepdim=True) + D))


@pytest.mark.parametrize("last_only", [False, True])
def test_strided_inputs_give_the_bits_of_contiguous_ones(last_only):
    tensors, ends = inputs([5, 18], last_only=last_only)
    expected = with_gradients(scan, tensors, ends, last_only)
    columns = [torch.cat([t, t], -1)[..., : t.shape[-1]] for t in tensors]  # rows far apart
    transposed = [t.t().contiguous().t() if t.dim() == 2 else t for t in tensors]
    assert same_bits(with_gradients(scan, columns, ends, last_only), expected)
    assert same_bits(with_gradients(scan, transposed, ends, last_only), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32_and_returned_in_kind(dtype):
    tensors, ends = inputs([5, 18], last_only=False)
    halves = [tensor.to(dtype) for tensor in tensors]
    found = with_gradients(scan, halves, ends)
    expected = with_gradients(scan, [tensor.float() for tensor in halves], ends)
    assert {tensor.dtype for tensor in found} == {dtype}
    step = float(torch.finfo(dtype).eps)  # the loop's result, rounded or next to it
    torch.testing.assert_close(found[0].float(), expected[0], rtol=step, atol=1e-6)
    for name, got, want in zip(NAMES, found[1:], expected[1:], strict=True):
        error = (got - want).abs().max() / want.abs().max()
        assert error < 4 * step, f"{name}: {error:.1e}"  # weights of the sum were rounded too
    mixed = with_gradients(scan, [halves[0], *tensors[1:]], ends)
    assert [tensor.dtype for tensor in mixed[:3]] == [dtype, dtype, torch.float32]


def test_two_runs_give_the_same_bits_and_few_groups_the_same_sums(monkeypatch):
    tensors, ends = inputs(RAGGED)
    first = with_gradients(scan, tensors, ends)
    assert same_bits(with_gradients(scan, tensors, ends), first)
    monkeypatch.setattr(device, "MAX_GROUPS", 3)
    assert device.groups_of(ends, 80).shape == (4,)
    for found, expected in zip(with_gradients(scan, tensors, ends), first, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_groups_hold_every_sequence_once(monkeypatch):
    monkeypatch.setattr(device, "MAX_GROUPS", 4)
    for lengths in (RAGGED, [1], [100, 1, 1, 1, 1], [1, 1, 1, 100], [2] * 9):
        groups = device.groups_of(ends_of(lengths), sum(lengths)).tolist()
        assert groups[0] == 0
        assert groups[-1] == len(lengths)
        assert groups == sorted(groups)


def test_steps_on_kept_states_continue_a_scan():
    (*six, bias, z), ends = inputs([4, 4, 4], last_only=False)
    x, dt, A, B, C, D = six
    expected, last_state = triton.selective_scan_states_triton(
        ScanInputs(*six, ends, False, bias, z)
    )
    torch.testing.assert_close(expected, loop([*six, bias, z], ends), rtol=1e-5, atol=1e-5)
    state = torch.zeros_like(last_state)
    for t in range(4):
        at = torch.tensor([t, 4 + t, 8 + t], device=DEVICE)
        y = triton.selective_step_triton(
            state, ScanInputs(x[at], dt[at], A, B[at], C[at], D, dt_bias=bias, z=z[at])
        )
        torch.testing.assert_close(y, expected[at], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(state, last_state, rtol=1e-5, atol=1e-6)


def test_a_scan_continues_from_an_initial_state():
    (x, dt, A, B, C, D), ends = inputs([10])
    whole, last_state = triton.selective_scan_states_triton(ScanInputs(x, dt, A, B, C, D, ends))
    head, tail = slice(0, 6), slice(6, 10)
    _, state = triton.selective_scan_states_triton(
        ScanInputs(x[head], dt[head], A, B[head], C[head], D, ends_of([6]), last_only=True)
    )
    y, state = triton.selective_scan_states_triton(
        ScanInputs(x[tail], dt[tail], A, B[tail], C[tail], D, ends_of([4])), state
    )
    torch.testing.assert_close(y, whole[tail], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(state, last_state, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("last_only", [False, True])
def test_the_operator_obeys_the_rules_of_torch_library(last_only):
    tensors, ends = inputs([3, 2], 2, 2, last_only)
    *six, bias, z = [tensor.requires_grad_() for tensor in tensors]
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(triton._scan, (*six, ends, last_only, bias, z), test_utils=tests)
    torch.library.opcheck(triton._scan, (*six, ends, False, None, None), test_utils=tests)


def test_torch_compile_takes_it_whole():
    tensors, ends = inputs([5, 2], 2, 2)
    whole = torch.compile(scan, backend="aot_eager", fullgraph=True)
    found = with_gradients(whole, tensors, ends)
    assert same_bits(found, with_gradients(scan, tensors, ends))


def test_no_sequences_give_no_rows():
    tensors, ends = inputs([], last_only=False)
    y, *gradients = with_gradients(scan, tensors, ends)
    assert y.shape == (0, 7)
    assert gradients[NAMES.index("A")].eq(0).all()


def test_wrong_shapes_and_dtypes_are_refused_by_name():
    tensors, ends = inputs([5])
    for i, name in enumerate(NAMES[:6]):
        cut = [tensor[:-1] if j == i else tensor for j, tensor in enumerate(tensors)]
        with pytest.raises(ValueError, match="expected" if name == "x" else f"^{name}: expected"):
            scan(cut, ends)
        whole = [tensor.double() if j == i else tensor for j, tensor in enumerate(tensors)]
        with pytest.raises(ValueError, match=f"^{name}: expected float32"):
            scan(whole, ends)
    with pytest.raises(ValueError, match="^cu_seqlens: expected .* int32"):
        scan(tensors, ends.long())
    with pytest.raises(ValueError, match="^state: expected shape"):
        triton.selective_step_triton(torch.zeros(5, 5, 7, device=DEVICE), ScanInputs(*tensors))
    with pytest.raises(ValueError, match="^x: expected a tensor on"):
        checks.check_tensors(torch.device("meta"), x=(tensors[0], (5, 7)))


def one_by_one(tensors, ends):
    return kernel_cases.one_by_one(*tensors, ends)


def conv_inputs(d_inner, d_conv):
    tensors = kernel_cases.randn((sum(FEW), d_inner), (d_inner, d_conv), (d_inner,))
    return [tensor.to(DEVICE) for tensor in tensors]


def convolve(tensors, ends):
    return convolution.causal_conv1d_silu_triton(*tensors, ends)


@pytest.mark.parametrize(("d_inner", "d_conv"), [(1, 4), (70, 1), (7, 4), (3, 6)])
def test_the_convolution_and_its_gradients_match_torch(d_inner, d_conv):
    tensors, ends = conv_inputs(d_inner, d_conv), ends_of(FEW)
    found = with_gradients(convolve, tensors, ends)
    expected = with_gradients(one_by_one, [tensor.double() for tensor in tensors], ends)
    for name, got, want in zip(("y", "x", "weight", "bias"), found, expected, strict=True):
        torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=5e-5, msg=name)


def test_the_convolution_keeps_nan_in_its_sequence_and_reach():
    tensors, ends = conv_inputs(5, 3), ends_of(FEW)
    tensors[0][23] = float("nan")  # the last of the third sequence
    y, grad_x, _, _ = with_gradients(convolve, tensors, ends)
    assert y.isnan().any(1).nonzero().flatten().tolist() == [23]
    assert grad_x[24:].isfinite().all()
    assert grad_x[:21].isfinite().all()


def test_the_convolution_takes_strides_and_short_floats():
    (x, weight, bias), ends = conv_inputs(6, 4), ends_of(FEW)
    expected = with_gradients(convolve, [x, weight, bias], ends)
    wide = torch.cat([x, x], 1)[:, :6]
    assert same_bits(with_gradients(convolve, [wide, weight, bias], ends), expected)
    short = with_gradients(convolve, [x.bfloat16(), weight, bias], ends)
    assert [tensor.dtype for tensor in short] == [torch.bfloat16] * 2 + [torch.float32] * 2
    torch.testing.assert_close(short[0].float(), expected[0], rtol=2e-2, atol=2e-2)


def test_the_convolution_obeys_the_rules_of_torch_library():
    leaves = [tensor.requires_grad_() for tensor in conv_inputs(2, 3)]
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(convolution._convolve, (*leaves, ends_of(FEW)), test_utils=tests)


def test_a_block_agrees_with_the_reference_in_result_gradients_and_state():
    ends, results = ends_of([5, 1, 18]), []
    h = torch.randn(24, 8, generator=torch.Generator().manual_seed(4)).to(DEVICE)
    for backend in ("reference", "triton"):
        torch.manual_seed(3)
        block = MambaBlock(8, d_state=4, scan_backend=backend).to(DEVICE)
        out = block(h, ends)
        out.square().sum().backward()
        _, state = block.forward_with_state(h, ends)
        step, state = block.step(h[:3], state)
        gradients = {name: p.grad for name, p in block.named_parameters()}
        results.append({"out": out.detach(), "step": step, "ssm": state.ssm, **gradients})
    for name, wanted in results[0].items():
        close = 1e-5 * float(wanted.abs().max())
        torch.testing.assert_close(results[1][name], wanted, rtol=1e-4, atol=close, msg=name)


def test_backends_tell_what_runs_the_kernels():
    assert backends()["triton"].startswith("available: Triton")
    assert ("interpreted" in backends()["triton"]) == (DEVICE == "cpu")
