"""What holds for every compiled kernel: float64's numbers, the same bits however it is called."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

from recbole_m3rec.ops.cpu import linear
from recbole_m3rec.ops.cpu import operator as cpu_operator
from tests.ops.kernel_cases import KERNELS, needs_kernels

pytestmark = needs_kernels

OPERATORS = [name for name, kernel in KERNELS.items() if kernel.operator is not None]


def assert_same_bits(found, expected):
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("name", KERNELS)
def test_values_and_gradients_match_float64(kernels, name):
    kernel = KERNELS[name]
    for shape in kernel.shapes:
        case = kernel.inputs(*shape)
        pairs = zip(kernel.found(*case), kernel.expected(*case), strict=True)
        for which, (got, want) in enumerate(pairs):
            assert got.shape == want.shape, (shape, which)
            assert got.isfinite().all(), (shape, which)
            largest = max(float(want.abs().max()) if want.numel() else 0.0, kernel.floor)
            error = float((got - want).abs().max()) / largest if want.numel() else 0.0
            assert error < kernel.tolerance, f"{shape}, result {which}: {error:.1e}"


@pytest.mark.parametrize("name", KERNELS)
def test_any_number_of_threads_gives_the_same_bits(kernels, threads, name):
    kernel = KERNELS[name]
    for shape in kernel.shapes[-2:]:
        case, results = kernel.inputs(*shape), []
        for n_threads in (1, 2, 3, 64, 2):
            torch.set_num_threads(n_threads)
            results.append(kernel.found(*case))
        for other in results[1:]:
            assert_same_bits(other, results[0])


def columns(tensors):
    """The same numbers with rows far apart, among NaN."""
    return [
        None if t is None else torch.cat([t, torch.full_like(t, torch.nan)], -1)[..., : t.shape[-1]]
        for t in tensors
    ]


def transposed(tensors):
    return [t if t is None or t.dim() != 2 else t.t().contiguous().t() for t in tensors]


@pytest.mark.parametrize("name", OPERATORS)
def test_strided_inputs_give_the_bits_of_contiguous_ones(kernels, name):
    kernel = KERNELS[name]
    for shape in kernel.shapes[-3:]:
        tensors, rest = kernel.inputs(*shape)
        expected = kernel.found(tensors, rest)
        for strided in (columns(tensors), transposed(tensors)):
            assert_same_bits(kernel.found(strided, rest), expected)


@pytest.mark.parametrize("name", OPERATORS)
def test_the_operator_obeys_the_rules_of_torch_library(name):
    small = {
        "causal_conv1d": [([5, 2, 9], 4, 3)],
        "selective_scan": [([5, 2, 9], 4, 3, False), ([5, 2], 4, 0, True)],
        "linear": [(20, 16, 7, True)],
        "dropout": [((20, 7), 0.5)],
    }
    for shape in small[name]:
        tensors, rest = KERNELS[name].inputs(*shape)
        leaves = [None if t is None else t.requires_grad_() for t in tensors]
        operator, arguments = KERNELS[name].operator(*leaves, *rest)
        torch.library.opcheck(operator.registered, arguments)


@pytest.mark.parametrize("name", OPERATORS)
def test_the_direct_call_gives_the_bits_of_torch_library(kernels, monkeypatch, name):
    kernel = KERNELS[name]
    case = kernel.inputs(*kernel.shapes[-2])
    torch.manual_seed(1)
    direct = kernel.found(*case)
    calls = []
    monkeypatch.setattr(cpu_operator, "_is_watched", lambda: calls.append(name) or True)
    torch.manual_seed(1)
    assert_same_bits(kernel.found(*case), direct)
    assert len(calls) >= 2  # forward and backward


def test_what_is_traced_goes_through_torch_library(kernels):
    x, weight = torch.randn(300, 16), torch.randn(16, 16)
    with FakeTensorMode(allow_non_fake_inputs=True):
        assert linear.linear(x, weight).shape == (300, 16)
    traced = make_fx(lambda x: linear.linear(x, weight))(x.detach())
    assert "recbole_m3rec.linear" in traced.code
