"""Layer norm of dropout plus residual in one pass, beside what holds for every kernel."""

import pytest
import torch

from recbole_m3rec.ops.cpu import library
from recbole_m3rec.ops.dropout_layer_norm import dropout_norm
from tests.ops.kernel_cases import EPS, KERNELS, needs_kernels

KERNEL = KERNELS["dropout_layer_norm"]


def inputs(n, width, residual):
    return KERNEL.inputs(n, width, residual, 0.0)[0]


def found(tensors, p):
    return KERNEL.found(tensors, (p,))


@needs_kernels
def test_a_constant_row_gives_the_bias_and_a_finite_gradient(kernels):
    for width, value in ((64, 0.0), (64, -3e7), (37, 1.1), (3, 1e30), (1, 1.1)):
        tensors = inputs(3, width, False)
        tensors[0] = torch.full((3, width), value)
        y, grad_x, grad_weight, _ = found(tensors, 0.0)
        assert torch.equal(y, tensors[3].expand(3, width))
        assert grad_x.isfinite().all()
        assert not grad_weight.any()


@needs_kernels
def test_rows_far_from_zero_or_huge_or_tiny_keep_their_digits(kernels):
    for width in (64, 37):
        x = torch.randn(4, width, generator=torch.Generator().manual_seed(0))
        x[0] = x[0] * 2**-6 + 1024
        x[1] *= 1e16
        x[2] *= 1e-3
        x[3, 0] = 1e6
        tensors = [x, None, torch.ones(width), torch.zeros(width)]
        for got, want in zip(found(tensors, 0.0), KERNEL.expected(tensors, (0.0,)), strict=True):
            assert got.isfinite().all()
            torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=1e-5)


@needs_kernels
def test_lanes_beyond_the_last_column_never_count(kernels):
    tensors = inputs(5, 2, False)
    want = found(tensors, 0.4)
    for _ in range(20):
        # Memory that the kernel's work space may get next.
        poison = [torch.full((floats,), float("nan")) for floats in range(4, 80, 4)]
        del poison
        for got, expected_bits in zip(found(tensors, 0.4), want, strict=True):
            assert torch.equal(got, expected_bits)


@needs_kernels
def test_nan_spoils_its_own_row_alone(kernels):
    tensors = inputs(6, 40, True)
    tensors[0][2, 7] = float("nan")
    tensors[1][4, 39] = float("inf")
    y, grad_x, *_ = found(tensors, 0.0)
    assert y.isnan().any(1).tolist() == [False, False, True, False, True, False]
    assert grad_x.isnan().all(1).tolist() == [False, False, True, False, True, False]


def test_the_fallback_gives_the_same(monkeypatch):
    tensors = inputs(20, 24, True)
    ours = found(tensors, 0.0)
    monkeypatch.setattr(library, "available", lambda: (False, "not built"))
    for got, want in zip(ours, found(tensors, 0.0), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
    monkeypatch.undo()
    doubles = [None if t is None else t.double() for t in tensors]
    assert found(doubles, 0.3)[0].dtype == torch.float64


def test_without_gradients_for_the_parameters_the_others_stay():
    x, residual, weight, bias = inputs(20, 24, True)
    leaf = x.requires_grad_()
    y = dropout_norm(leaf, residual, 0.0, weight, bias, EPS)
    (gradient,) = torch.autograd.grad(y.square().sum(), leaf)
    assert gradient.abs().max() > 0
    with torch.no_grad():
        assert torch.equal(dropout_norm(leaf, residual, 0.0, weight, bias, EPS), y)


def test_bfloat16_is_computed_in_float32_and_promoted_as_a_sum_is():
    x, residual, weight, bias = inputs(20, 24, True)
    y = dropout_norm(x.bfloat16(), residual, 0.0, weight, bias, EPS)
    assert y.dtype == torch.float32
    assert torch.equal(y, dropout_norm(x.bfloat16().float(), residual, 0.0, weight, bias, EPS))
    assert dropout_norm(x.bfloat16(), None, 0.0, weight, bias, EPS).dtype == torch.bfloat16


def test_wrong_shapes_are_refused_by_name():
    x, residual, weight, bias = inputs(20, 24, True)
    with pytest.raises(ValueError, match="^x, weight and bias: expected"):
        dropout_norm(x, residual, 0.0, weight[:-1], bias, EPS)
    with pytest.raises(ValueError, match="^residual: expected"):
        dropout_norm(x, residual[:-1], 0.0, weight, bias, EPS)
