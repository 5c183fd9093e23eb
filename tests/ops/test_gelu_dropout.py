"""GELU with dropout in one pass, against torch's in float64 under the same mask."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from recbole_m3rec.ops import gelu_dropout as fused_gelu
from recbole_m3rec.ops.cpu import library
from recbole_m3rec.ops.dropout import dropout, new_seed
from recbole_m3rec.ops.gelu_dropout import gelu_dropout

built, why = library.available()
needs_library = pytest.mark.skipif(not built, reason=why)
ALL = 65536


def with_gradient(x: Tensor, p: float, seed: int) -> tuple[Tensor, Tensor]:
    leaf = x.detach().requires_grad_()
    torch.manual_seed(seed)
    y = gelu_dropout(leaf, p)
    weights = torch.linspace(-1, 2, y.numel(), dtype=x.dtype).view(y.shape)
    (gradient,) = torch.autograd.grad(y, leaf, weights)
    return y.detach(), gradient


def expected(x: Tensor, p: float, seed: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(seed)
    mask = dropout(torch.ones(x.shape), p).double()
    leaf = x.double().requires_grad_()
    y = F.gelu(leaf) * mask
    weights = torch.linspace(-1, 2, y.numel()).view(y.shape).double()
    (gradient,) = torch.autograd.grad(y, leaf, weights)
    return y.detach(), gradient


@needs_library
def test_gelu_is_within_1e_7_of_the_true_one(kernels: None) -> None:
    x = torch.cat([torch.linspace(-14, 14, 400_001), torch.linspace(-0.01, 0.01, 10_001)])
    y = fused_gelu._gelu_dropout(x, torch.tensor(0), ALL).double()
    error = (y - F.gelu(x.double())).abs() / x.double().abs().clamp(min=1)
    assert error.max() < 1.5e-7
    below = (x < -0.1) & (x > -5)  # where torch's own loses all digits
    assert (y / F.gelu(x.double()) - 1)[below].abs().max() < 3e-6


@needs_library
def test_its_slope_is_within_3e_7_of_the_true_one(kernels: None) -> None:
    x = torch.linspace(-14, 14, 400_001)
    found = fused_gelu._gelu_dropout_backward(torch.ones_like(x), x, torch.tensor(0), ALL)
    leaf = x.double().requires_grad_()
    F.gelu(leaf).sum().backward()
    torch.testing.assert_close(found.double(), leaf.grad, rtol=0, atol=4e-7)


@needs_library
@pytest.mark.parametrize("shape", [(0, 3), (1, 1), (3, 7), (17, 256), (1, 20_001)])
@pytest.mark.parametrize("p", [0.5, 0.1])
def test_values_gradients_and_mask_match_the_two_steps(
    kernels: None, shape: tuple[int, int], p: float
) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 3
    for found, true in zip(with_gradient(x, p, 5), expected(x, p, 5), strict=True):
        torch.testing.assert_close(found.double(), true, rtol=1e-6, atol=1e-6)


@needs_library
def test_extreme_values_and_nan_are_those_of_float64(kernels: None) -> None:
    inf, nan = float("inf"), float("nan")
    x = torch.tensor([nan, inf, -inf, 1e30, -1e30, 3e38, -3e38, 1e-38, -1e-38, 0.0, 50.0, -50.0])
    y = fused_gelu._gelu_dropout(x, torch.tensor(0), ALL)
    leaf = x.double().requires_grad_()
    true = F.gelu(leaf)
    true.sum().backward()
    torch.testing.assert_close(y.double(), true.detach(), rtol=1e-6, atol=1e-37, equal_nan=True)
    slope = fused_gelu._gelu_dropout_backward(torch.ones_like(x), x, torch.tensor(0), ALL)
    torch.testing.assert_close(slope.double(), leaf.grad, rtol=1e-6, atol=0, equal_nan=True)
    none_kept = fused_gelu._gelu_dropout(x, torch.tensor(0), 0)
    assert torch.equal(none_kept, torch.zeros_like(x))


@needs_library
def test_any_number_of_threads_gives_the_same_bits(kernels: None, threads: None) -> None:
    x, results = torch.randn(301, 257), []
    for n_threads in (1, 2, 3):
        torch.set_num_threads(n_threads)
        results.append(with_gradient(x, 0.3, 1))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(other, results[0], strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_dtypes_come_back_in_kind(dtype: torch.dtype) -> None:
    x = torch.randn(20, 30).to(dtype)
    y, gradient = with_gradient(x, 0.5, 1)
    assert y.dtype == gradient.dtype == dtype
    kept = y != 0
    torch.testing.assert_close(y[kept], 2 * F.gelu(x)[kept])


def test_without_dropout_it_is_torchs_own() -> None:
    x = torch.randn(20, 30)
    assert torch.equal(gelu_dropout(x, 0.0), F.gelu(x))


@needs_library
def test_a_non_contiguous_input_gives_what_its_copy_gives() -> None:
    x = torch.randn(30, 50)
    for a, b in zip(
        with_gradient(x.t().contiguous().t(), 0.5, 1), with_gradient(x, 0.5, 1), strict=True
    ):
        assert torch.equal(a, b)


@needs_library
def test_the_operator_obeys_the_rules_of_torch_library() -> None:
    x = torch.randn(20, 7, requires_grad=True)
    torch.library.opcheck(fused_gelu._gelu_dropout, (x, new_seed(), 30000))
