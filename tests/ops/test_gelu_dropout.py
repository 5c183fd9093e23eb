"""GELU with dropout in one pass: its precision, extremes and dtypes."""

import pytest
import torch
from torch.nn import functional as F

from recbole_m3rec.ops import gelu_dropout as fused_gelu
from recbole_m3rec.ops.gelu_dropout import gelu_dropout
from tests.ops.kernel_cases import needs_kernels

ALL = 65536


@needs_kernels
def test_gelu_and_its_slope_are_within_4e_7_of_the_true_ones(kernels):
    x = torch.cat([torch.linspace(-14, 14, 400_001), torch.linspace(-0.01, 0.01, 10_001)])
    y = fused_gelu._gelu_dropout(x, torch.tensor(0), ALL).double()
    error = (y - F.gelu(x.double())).abs() / x.double().abs().clamp(min=1)
    assert error.max() < 1.5e-7
    below = (x < -0.1) & (x > -5)  # where torch's own loses all digits
    assert (y / F.gelu(x.double()) - 1)[below].abs().max() < 3e-6
    slope = fused_gelu._gelu_dropout_backward(torch.ones_like(x), x, torch.tensor(0), ALL)
    leaf = x.double().requires_grad_()
    F.gelu(leaf).sum().backward()
    torch.testing.assert_close(slope.double(), leaf.grad, rtol=0, atol=4e-7)


@needs_kernels
def test_extreme_values_and_nan_are_those_of_float64(kernels):
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


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_dtypes_come_back_in_kind(dtype):
    x = torch.randn(20, 30).to(dtype).requires_grad_()
    y = gelu_dropout(x, 0.5)
    assert y.dtype == torch.autograd.grad(y.sum(), x)[0].dtype == dtype
    kept = y != 0
    torch.testing.assert_close(y[kept], 2 * F.gelu(x)[kept])


def test_without_dropout_it_is_torchs_own():
    x = torch.randn(20, 30)
    assert torch.equal(gelu_dropout(x, 0.0), F.gelu(x))
