"""The mamba_ssm backend over stand-ins that take what mamba-ssm and causal-conv1d take.

The stand-ins follow the documented signatures, shapes, strides and dtypes of the packages' kernels
in plain PyTorch: what is tested is the way to them and back.
"""

import sys
import types
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from recbole_m3rec.network.mamba import MambaBlock
from recbole_m3rec.ops import causal_conv1d as convolution_module
from recbole_m3rec.ops import mamba_ssm
from recbole_m3rec.ops import selective_scan as scan
from recbole_m3rec.ops.causal_conv1d import causal_conv1d_silu
from recbole_m3rec.ops.mamba_ssm import (
    causal_conv1d_silu_mamba_ssm,
    selective_scan_mamba_ssm,
    selective_scan_states_mamba_ssm,
)
from recbole_m3rec.ops.scan_inputs import ScanInputs
from recbole_m3rec.ops.selective_scan import (
    ScanBackendError,
    backends,
    check_backend,
    selective_scan,
)
from tests.ops.kernel_cases import ends_of, raw_scan_inputs, scan_inputs

RAGGED, SINGLE = [5, 1, 3, 8], [1, 1, 1]


def contiguous(tensor):
    """Whether the strides themselves are those of a contiguous tensor, as the kernels read them."""
    return tensor.stride() == torch.empty(tensor.shape).stride()


def fake_selective_scan_fn(
    u,
    delta,
    A,
    B,
    C,
    D=None,
    z=None,
    delta_bias=None,
    delta_softplus=False,
    return_last_state=False,
):
    """u, delta, z [b, d, l], B, C [b, s, l] of one dtype; A [d, s], D, delta_bias [d] float32."""
    (b, d, length), s = u.shape, A.shape[1]
    assert delta.shape == (b, d, length)
    assert B.shape == C.shape == (b, s, length)
    assert {tensor.dtype for tensor in (delta, B, C)} == {u.dtype}
    assert A.dtype == torch.float32
    assert all(contiguous(tensor) for tensor in (u, delta, A, B, C))
    if z is not None:
        assert (z.shape, z.dtype, contiguous(z)) == (u.shape, u.dtype, True)
    for vector in (D, delta_bias):
        assert vector is None or (vector.shape, vector.dtype) == ((d,), torch.float32)
    dt = delta.float() if delta_bias is None else delta.float() + delta_bias[:, None]
    dt = F.softplus(dt) if delta_softplus else dt
    state, ys = torch.zeros(b, d, s), []
    for t in range(length):
        step = (dt[:, :, t] * u[:, :, t].float())[:, :, None] * B[:, None, :, t].float()
        state = torch.exp(dt[:, :, t, None] * A) * state + step
        ys.append((state * C[:, None, :, t].float()).sum(2))
    y = torch.stack(ys, 2) + (0 if D is None else D[:, None] * u.float())
    y = (y if z is None else y * F.silu(z.float())).to(u.dtype)
    return (y, state) if return_last_state else y


def fake_causal_conv1d_fn(
    x,
    weight,
    bias=None,
    seq_idx=None,
    initial_states=None,
    return_final_states=False,
    final_states_out=None,
    activation=None,
):
    """x [b, d, l]; weight [d, w] with w of 2, 3, 4, bias [d] of its dtype."""
    assert activation == "silu"
    assert seq_idx is initial_states is final_states_out is None
    assert not return_final_states
    d, width = weight.shape
    assert 2 <= width <= 4
    assert x.shape[1] == d
    assert x.stride(2) == 1  # or else d has to be a multiple of 8
    assert contiguous(x)
    assert bias is None or (bias.shape, bias.dtype) == ((d,), weight.dtype)
    y = F.conv1d(x.to(weight.dtype), weight[:, None], bias, padding=width - 1, groups=d)
    return F.silu(y[..., : x.shape[2]]).to(x.dtype)


def forget():
    mamba_ssm.available.cache_clear()
    mamba_ssm._conv_function.cache_clear()


@pytest.fixture
def _installed(monkeypatch):
    """Both packages as modules of their names, and a CUDA device by word of mouth."""

    def module(name, **members):
        made = types.ModuleType(name)
        made.__dict__.update(members)
        monkeypatch.setitem(sys.modules, name, made)

    module("selective_scan_cuda")
    module("mamba_ssm")
    module("mamba_ssm.ops")
    module("mamba_ssm.ops.selective_scan_interface", selective_scan_fn=fake_selective_scan_fn)
    module("causal_conv1d", causal_conv1d_fn=fake_causal_conv1d_fn)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    forget()
    yield
    forget()


@pytest.fixture
def _missing(monkeypatch):
    for name in ("selective_scan_cuda", "mamba_ssm", "causal_conv1d"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    forget()
    yield
    forget()


def inputs(lengths, last_only, fused):
    six, ends = scan_inputs(lengths, 6, 4)
    options = {}
    if fused:
        (*six, dt_bias, z), _ = raw_scan_inputs(lengths, last_only)
        options = {"dt_bias": dt_bias.requires_grad_(), "z": z.requires_grad_()}
    return [tensor.requires_grad_() for tensor in six], ends, options


@pytest.mark.usefixtures("_installed")
@pytest.mark.parametrize(
    ("lengths", "last_only", "fused"),
    [(RAGGED, False, True), (RAGGED, True, False), ([6], True, True), (SINGLE, False, False)],
)
def test_results_and_gradients_are_those_of_the_reference(lengths, last_only, fused):
    results = []
    for function in (selective_scan_mamba_ssm, selective_scan):
        six, ends, options = inputs(lengths, last_only, fused)
        if function is selective_scan:
            y = function(*six, ends, last_only=last_only, **options, backend="reference")
        else:
            y = function(ScanInputs(*six, ends, last_only, **options))
        weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
        results.append([y, *torch.autograd.grad(y, [*six, *options.values()], weights)])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("_installed")
@pytest.mark.parametrize(("lengths", "fused"), [(RAGGED, False), (RAGGED, True), (SINGLE, True)])
def test_last_states_are_those_before_the_padding(lengths, fused):
    six, ends, options = inputs(lengths, True, fused)
    found = selective_scan_states_mamba_ssm(ScanInputs(*six, ends, True, **options))
    expected = scan.selective_scan_states(
        *six, ends, last_only=True, **options, backend="reference"
    )
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("_installed")
@pytest.mark.parametrize("last_only", [False, True])
def test_what_varies_by_token_takes_the_dtype_of_x(last_only):
    six, ends, options = inputs([5, 1, 3], last_only, True)
    half = six[0].bfloat16()
    y = selective_scan_mamba_ssm(ScanInputs(half, *six[1:], ends, last_only, **options))
    expected = selective_scan(
        half.float(), *six[1:], ends, last_only=last_only, **options, backend="reference"
    )
    assert y.dtype == torch.bfloat16
    assert (y.float() - expected).abs().max() <= 0.05 * expected.abs().max()


@pytest.mark.usefixtures("_installed")
def test_nan_stays_within_its_sequence():
    six, ends, options = inputs([5, 2, 3], False, True)
    six[0] = six[0].detach().clone()
    six[0][5] = float("nan")
    rows = selective_scan_mamba_ssm(ScanInputs(*six, ends, **options)).isnan().any(1)
    assert rows.nonzero().flatten().tolist() == [5, 6]


@pytest.mark.usefixtures("_installed")
@pytest.mark.parametrize(("lengths", "d_conv"), [(RAGGED, 4), (RAGGED, 2), (SINGLE, 4)])
def test_the_convolution_is_that_of_the_reference(lengths, d_conv):
    random = torch.Generator().manual_seed(0)
    shapes = [(sum(lengths), 5), (5, d_conv), (5,)]
    ends = ends_of(lengths)
    results = []
    leaves = [torch.randn(*shape, generator=random).requires_grad_() for shape in shapes]
    for y in (
        causal_conv1d_silu_mamba_ssm(*leaves, ends),
        causal_conv1d_silu(*leaves, ends, backend="reference"),
    ):
        weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
        results.append([y, *torch.autograd.grad(y, leaves, weights)])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("_installed")
@pytest.mark.parametrize("d_conv", [4, 5])
def test_a_block_runs_on_the_backend_and_keeps_unusual_filters_to_torch(d_conv, monkeypatch):
    # The stand-ins run on the CPU, where the backend is refused.
    def take_it(name, x):
        return name

    monkeypatch.setattr(scan, "choose_backend", take_it)
    monkeypatch.setattr(convolution_module, "choose_backend", take_it)
    calls = []

    def counted(function):
        def call(*args):
            calls.append(function.__name__)
            return function(*args)

        return call

    backend_of_packages = scan.SCAN_BACKENDS["mamba_ssm"]
    backend_of_packages = replace(backend_of_packages, scan=counted(backend_of_packages.scan))
    monkeypatch.setitem(scan.SCAN_BACKENDS, "mamba_ssm", backend_of_packages)
    convolve = counted(mamba_ssm.causal_conv1d_silu_mamba_ssm)
    monkeypatch.setattr(mamba_ssm, "causal_conv1d_silu_mamba_ssm", convolve)
    ends = torch.tensor([0, 5, 6, 14], dtype=torch.int32)
    h = torch.randn(14, 8, generator=torch.Generator().manual_seed(4))
    results = []
    for backend in ("reference", "mamba_ssm"):
        torch.manual_seed(3)
        block = MambaBlock(8, d_state=4, d_conv=d_conv, scan_backend=backend)
        out, (_, state) = block(h, ends), block.forward_with_state(h, ends)
        results.append([out.detach(), *state, block.step(h[:3], state)[0]])
    torch.testing.assert_close(results[1], results[0], rtol=1e-4, atol=1e-5)
    convolved = ["causal_conv1d_silu_mamba_ssm"] if d_conv == 4 else []
    assert sorted(set(calls)) == [*convolved, "selective_scan_mamba_ssm"]


@pytest.mark.usefixtures("_installed")
def test_no_sequences_give_no_rows():
    six, ends, options = inputs([], False, True)
    assert selective_scan_mamba_ssm(ScanInputs(*six, ends, **options)).shape == (0, 37)
    y, states = selective_scan_states_mamba_ssm(ScanInputs(*six, ends, **options))
    assert (y.shape, states.shape) == ((0, 37), (0, 37, 8))


@pytest.mark.usefixtures("_installed")
def test_present_it_says_with_which_packages(monkeypatch):
    assert backends()["mamba_ssm"] == "available: mamba-ssm and causal-conv1d"
    check_backend("mamba_ssm")
    monkeypatch.setitem(sys.modules, "causal_conv1d", None)
    forget()
    assert backends()["mamba_ssm"] == "available: mamba-ssm, without causal-conv1d"


@pytest.mark.usefixtures("_missing")
def test_absent_it_says_why_and_how_to_get_it():
    assert backends()["mamba_ssm"].startswith("absent: mamba-ssm cannot be imported")
    with pytest.raises(ScanBackendError, match=r"mamba_ssm is not available.*recbole_m3rec\[cuda"):
        check_backend("mamba_ssm")


@pytest.mark.usefixtures("_installed")
def test_a_kernel_of_another_torch_counts_as_absent(monkeypatch):
    class Broken(types.ModuleType):
        def __getattr__(self, name):
            raise OSError("undefined symbol: _ZN3c10")

    broken = Broken("mamba_ssm.ops.selective_scan_interface")
    monkeypatch.setitem(sys.modules, "mamba_ssm.ops.selective_scan_interface", broken)
    forget()
    assert "undefined symbol" in backends()["mamba_ssm"]


@pytest.mark.usefixtures("_installed")
def test_tensors_elsewhere_are_refused_with_a_way_out():
    six, ends, _ = inputs([2], False, False)
    with pytest.raises(ScanBackendError, match="mamba_ssm runs on cuda tensors, found one on cpu"):
        selective_scan(*six, ends, backend="mamba_ssm")
