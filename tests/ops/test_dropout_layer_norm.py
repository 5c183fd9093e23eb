"""Layer norm of dropout plus residual in one pass, against torch's in float64, same mask."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from recbole_m3rec.ops import dropout_layer_norm
from recbole_m3rec.ops.cpu import library
from recbole_m3rec.ops.dropout import dropout, new_seed
from recbole_m3rec.ops.dropout_layer_norm import dropout_norm

built, why = library.available()
needs_library = pytest.mark.skipif(not built, reason=why)
EPS = 1e-12


def inputs(n: int, width: int, residual: bool) -> list[Tensor | None]:
    generator = torch.Generator().manual_seed(n + width)
    x, other = torch.randn(2, n, width, generator=generator)
    weight, bias = torch.randn(2, width, generator=generator)
    return [x, other if residual else None, weight + 1, bias]


def two_steps(x: Tensor, residual: Tensor | None, mask: Tensor, *rest: Tensor) -> Tensor:
    h = x * mask if residual is None else x * mask + residual
    return F.layer_norm(h, (x.shape[-1],), *rest, EPS)


def gradients(y: Tensor, leaves: list[Tensor | None]) -> list[Tensor]:
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y.dtype)
    needed = [leaf for leaf in leaves if leaf is not None]
    return [y.detach(), *torch.autograd.grad(y, needed, weights)]


def found(tensors: list[Tensor | None], p: float) -> list[Tensor]:
    leaves = [None if t is None else t.detach().requires_grad_() for t in tensors]
    torch.manual_seed(7)
    return gradients(dropout_norm(leaves[0], leaves[1], p, leaves[2], leaves[3], EPS), leaves)


def expected(tensors: list[Tensor | None], p: float) -> list[Tensor]:
    leaves = [None if t is None else t.detach().double().requires_grad_() for t in tensors]
    torch.manual_seed(7)
    mask = dropout(torch.ones(tensors[0].shape), p).double()
    return gradients(two_steps(leaves[0], leaves[1], mask, leaves[2], leaves[3]), leaves)


@needs_library
@pytest.mark.parametrize("p", [0.0, 0.4])
@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize(
    ("n", "width"), [(1, 64), (300, 64), (33, 37), (5, 2), (7, 200), (50, 16), (2, 1000), (0, 8)]
)
def test_values_and_gradients_match_the_steps_in_float64(
    kernels: None, n: int, width: int, residual: bool, p: float
) -> None:
    tensors = inputs(n, width, residual)
    for got, want in zip(found(tensors, p), expected(tensors, p), strict=True):
        scale = max(1.0, float(want.abs().max()) if want.numel() else 1.0)
        torch.testing.assert_close(got.double() / scale, want / scale, rtol=0, atol=2e-6)


@needs_library
@pytest.mark.parametrize("value", [0.0, 1.1, -3e7, 1e30])
@pytest.mark.parametrize("width", [64, 37, 3, 1])
def test_a_constant_row_gives_the_bias_and_a_finite_gradient(
    kernels: None, width: int, value: float
) -> None:
    tensors = inputs(3, width, False)
    tensors[0] = torch.full((3, width), value)
    y, grad_x, grad_weight, _ = found(tensors, 0.0)
    assert torch.equal(y, tensors[3].expand(3, width))
    assert grad_x.isfinite().all()
    assert not grad_weight.any()


@needs_library
@pytest.mark.parametrize("width", [64, 37])
def test_rows_far_from_zero_or_huge_or_tiny_keep_their_digits(kernels: None, width: int) -> None:
    x = torch.randn(4, width, generator=torch.Generator().manual_seed(0))
    x[0] = x[0] * 2**-6 + 1024
    x[1] *= 1e16
    x[2] *= 1e-3
    x[3, 0] = 1e6
    tensors = [x, None, torch.ones(width), torch.zeros(width)]
    for got, want in zip(found(tensors, 0.0), expected(tensors, 0.0), strict=True):
        assert got.isfinite().all()
        torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=1e-5)


@needs_library
def test_lanes_beyond_the_last_column_never_count(kernels: None) -> None:
    tensors = inputs(5, 2, False)
    want = found(tensors, 0.4)
    for _ in range(20):
        # Memory that the kernel's work space may get next.
        poison = [torch.full((floats,), float("nan")) for floats in range(4, 80, 4)]
        del poison
        for got, expected_bits in zip(found(tensors, 0.4), want, strict=True):
            assert torch.equal(got, expected_bits)


@needs_library
def test_nan_spoils_its_own_row_alone(kernels: None) -> None:
    tensors = inputs(6, 40, True)
    tensors[0][2, 7] = float("nan")
    tensors[1][4, 39] = float("inf")
    y, grad_x, *_ = found(tensors, 0.0)
    assert y.isnan().any(1).tolist() == [False, False, True, False, True, False]
    assert grad_x.isnan().all(1).tolist() == [False, False, True, False, True, False]


@needs_library
@pytest.mark.parametrize("width", [64, 37])
def test_any_number_of_threads_gives_the_same_bits(
    kernels: None, threads: None, width: int
) -> None:
    tensors, results = inputs(5000, width, True), []
    for n_threads in (1, 2, 3):
        torch.set_num_threads(n_threads)
        results.append(found(tensors, 0.3))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(other, results[0], strict=True))


def test_the_fallback_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = inputs(20, 24, True)
    ours = found(tensors, 0.0)
    monkeypatch.setattr(library, "available", lambda: (False, "not built"))
    for got, want in zip(ours, found(tensors, 0.0), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
    monkeypatch.undo()
    doubles = [None if t is None else t.double() for t in tensors]
    assert found(doubles, 0.3)[0].dtype == torch.float64


def test_without_gradients_for_the_parameters_the_others_stay() -> None:
    x, residual, weight, bias = inputs(20, 24, True)
    leaf = x.requires_grad_()
    y = dropout_norm(leaf, residual, 0.0, weight, bias, EPS)
    (gradient,) = torch.autograd.grad(y.square().sum(), leaf)
    assert gradient.abs().max() > 0
    with torch.no_grad():
        assert torch.equal(dropout_norm(leaf, residual, 0.0, weight, bias, EPS), y)


def test_bfloat16_is_computed_in_float32_and_promoted_as_a_sum_is() -> None:
    x, residual, weight, bias = inputs(20, 24, True)
    y = dropout_norm(x.bfloat16(), residual, 0.0, weight, bias, EPS)
    assert y.dtype == torch.float32
    assert torch.equal(y, dropout_norm(x.bfloat16().float(), residual, 0.0, weight, bias, EPS))
    assert dropout_norm(x.bfloat16(), None, 0.0, weight, bias, EPS).dtype == torch.bfloat16


def test_wrong_shapes_are_refused_by_name() -> None:
    x, residual, weight, bias = inputs(20, 24, True)
    with pytest.raises(ValueError, match="^x, weight and bias: expected"):
        dropout_norm(x, residual, 0.0, weight[:-1], bias, EPS)
    with pytest.raises(ValueError, match="^residual: expected"):
        dropout_norm(x, residual[:-1], 0.0, weight, bias, EPS)


@needs_library
@pytest.mark.parametrize("keep", [30000, 65536])
@pytest.mark.parametrize("residual", [True, False])
def test_the_operator_obeys_the_rules_of_torch_library(residual: bool, keep: int) -> None:
    x, other, weight, bias = inputs(20, 7, residual)
    leaves = [None if t is None else t.requires_grad_() for t in (x, other, weight, bias)]
    torch.library.opcheck(dropout_layer_norm._dropout_norm, (*leaves, new_seed(), keep, EPS))
