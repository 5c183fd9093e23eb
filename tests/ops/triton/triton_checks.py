"""What test_triton.py runs in a process of its own, beside ``ops/test_scan_contract.py``.

Triton decides when it is imported whether its interpreter runs the kernels on the CPU. By hand:
``TRITON_INTERPRET=1 python -m pytest tests/ops/triton/triton_checks.py``, or without it on a GPU.
"""

import pytest
import torch

from recbole_m3rec.network.mamba import MambaBlock
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


def ends_of(lengths):
    return kernel_cases.ends_of(lengths).to(DEVICE)


def inputs(lengths, d_inner=7, d_state=5, last_only=None):
    """x, dt, A, B, C, D and cu_seqlens; dt_bias and z too where ``last_only`` is not None."""
    if last_only is None:
        tensors, ends = kernel_cases.scan_inputs(lengths, d_inner, d_state)
    else:
        tensors, ends = kernel_cases.raw_scan_inputs(lengths, last_only, d_inner, d_state)
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


@pytest.mark.parametrize("last_only", [False, True])
def test_strided_inputs_give_the_bits_of_contiguous_ones(last_only):
    tensors, ends = inputs([5, 18], last_only=last_only)
    expected = with_gradients(scan, tensors, ends, last_only)
    columns = [torch.cat([t, t], -1)[..., : t.shape[-1]] for t in tensors]  # rows far apart
    transposed = [t.t().contiguous().t() if t.dim() == 2 else t for t in tensors]
    assert same_bits(with_gradients(scan, columns, ends, last_only), expected)
    assert same_bits(with_gradients(scan, transposed, ends, last_only), expected)


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


@pytest.mark.parametrize("last_only", [False, True])
def test_the_operator_obeys_the_rules_of_torch_library(last_only):
    tensors, ends = inputs([3, 2], 2, 2, last_only)
    *six, bias, z = [tensor.requires_grad_() for tensor in tensors]
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(triton._scan, (*six, ends, last_only, bias, z), test_utils=tests)
    torch.library.opcheck(triton._scan, (*six, ends, False, None, None), test_utils=tests)


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
