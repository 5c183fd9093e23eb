"""Products of float32 on the CPU agree with torch's own, whichever library computes them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from recbole_m3rec.model import products
from recbole_m3rec.model.products import LinearByProduct, product

BOTH = pytest.mark.parametrize("onednn", [True, False])


@pytest.fixture(autouse=True)
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a test with the parameter ``onednn`` run without it as well."""
    callspec = getattr(request.node, "callspec", None)
    if callspec is not None and not callspec.params.get("onednn", True):
        monkeypatch.setattr(products, "_onednn_multiplies", lambda: False)


@BOTH
@pytest.mark.parametrize("shape", [(1, 1, 1), (7, 5, 3), (300, 64, 129), (0, 4, 6), (3, 4, 0)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@torch.no_grad()
def test_the_product_is_right(
    onednn: bool, shape: tuple[int, int, int], dtype: torch.dtype
) -> None:
    n, width, m = shape
    generator = torch.Generator().manual_seed(n)
    x = torch.randn(n, 2 * width, generator=generator).to(dtype)[:, ::2]  # not contiguous
    weight = torch.randn(width, m, generator=generator).to(dtype).T
    bias = torch.randn(m, generator=generator).to(dtype)
    for of_bias in (None, bias):
        expected = x.double() @ weight.double().T + (0 if of_bias is None else of_bias.double())
        found = product(x, weight, of_bias)
        assert found.dtype == dtype
        tolerance = 3e-2 if dtype == torch.bfloat16 else 1e-5
        torch.testing.assert_close(found.double(), expected, rtol=tolerance, atol=10 * tolerance)


@BOTH
@torch.no_grad()
def test_nan_and_infinity_pass_through(onednn: bool) -> None:
    x = torch.tensor([[1.0, 2.0], [torch.nan, 0.0], [-torch.inf, 1.0]])
    found = product(x, torch.tensor([[1.0, 1.0], [2.0, 0.5]]))
    assert found[0].tolist() == [3.0, 3.0]
    assert found[1].isnan().all()
    assert found[2].tolist() == [-torch.inf, -torch.inf]


@BOTH
@torch.no_grad()
def test_linear_layers_run_through_the_product_inside_the_context_alone(
    onednn: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def counted(*args: torch.Tensor, **kwargs: torch.Tensor) -> torch.Tensor:
        calls.append(args)
        return product(*args, **kwargs)

    monkeypatch.setattr(products, "product", counted)
    layer, x = nn.Linear(3, 4), torch.randn(5, 3)
    outside = layer(x)
    assert not calls
    with LinearByProduct():
        torch.testing.assert_close(layer(x), outside)
        torch.testing.assert_close(F.linear(x, weight=layer.weight, bias=layer.bias), outside)
        torch.testing.assert_close(
            torch.relu(F.linear(x, layer.weight)), torch.relu(x @ layer.weight.T)
        )
    assert len(calls) == 3
    layer(x)
    assert len(calls) == 3


def test_gradients_are_kept_where_they_are_recorded() -> None:
    layer, x = nn.Linear(3, 4), torch.randn(2, 3)
    with LinearByProduct():
        layer(x).sum().backward()
    assert layer.weight.grad is not None
    torch.testing.assert_close(layer.weight.grad, x.sum(0).expand(4, 3))
