"""Products of float32 on the CPU agree with float64, whichever library computes them."""

import pytest
import torch
import torch.nn.functional as F

from recbole_m3rec.ops import matmul as module
from recbole_m3rec.ops.matmul import Linear, matmul

BOTH = pytest.mark.parametrize("onednn", [True, False])


@pytest.fixture(autouse=True)
def library(request, monkeypatch):
    """Let a test with the parameter ``onednn`` run without it as well."""
    callspec = getattr(request.node, "callspec", None)
    if callspec is not None and not callspec.params.get("onednn", True):
        monkeypatch.setattr(module, "_onednn_multiplies", lambda: False)


@pytest.fixture
def shapes(monkeypatch):
    """Rows, columns and width of every product that goes to oneDNN."""
    seen = []
    multiply = module._by_onednn

    def watched(x, weight, bias):
        seen.append((len(x), *weight.shape))
        return multiply(x, weight, bias)

    assert module._onednn_multiplies()
    monkeypatch.setattr(module, "_by_onednn", watched)
    return seen


@BOTH
@pytest.mark.parametrize(
    ("n", "width", "m", "dtype"),  # 7 rows at a time
    [
        (0, 5, 3, torch.float32),
        (1, 64, 129, torch.bfloat16),
        (6, 1, 1, torch.float64),
        (7, 5, 3, torch.bfloat16),
        (8, 4, 0, torch.float32),
        (21, 64, 129, torch.float32),
        (30, 5, 3, torch.float64),
        (30, 64, 129, torch.float32),
    ],
)
def test_product_and_gradients_are_right(onednn, n, width, m, dtype):
    generator = torch.Generator().manual_seed(n)
    x = torch.randn(n, 2 * width, generator=generator).to(dtype)[:, ::2]  # not contiguous
    weight = torch.randn(width, m, generator=generator).to(dtype).T
    bias = torch.randn(m, generator=generator).to(dtype)
    upstream = torch.randn(m, n, generator=generator).to(dtype).T
    tolerance = 3e-2 if dtype == torch.bfloat16 else 1e-5
    for of_bias in (None, bias):
        given = [t.detach().requires_grad_() for t in (x, weight, of_bias) if t is not None]
        exact = [t.detach().double().requires_grad_() for t in given]
        found, expected = matmul(*given, rows_at_a_time=7), F.linear(*exact)
        assert found.dtype == dtype
        with torch.no_grad():
            without = matmul(*given, rows_at_a_time=7)
        assert torch.equal(found, without)
        found.backward(upstream)
        expected.backward(upstream.double())
        pairs = [(found, expected), *((a.grad, b.grad) for a, b in zip(given, exact, strict=True))]
        for a, b in pairs:
            torch.testing.assert_close(a.double(), b, rtol=tolerance, atol=10 * tolerance)


@BOTH
def test_only_wanted_gradients_are_made(onednn):
    x, weight, bias = torch.randn(8, 3), torch.randn(4, 3, requires_grad=True), torch.randn(4)
    matmul(x, weight, bias, rows_at_a_time=2).sum().backward()
    assert x.grad is None
    assert bias.grad is None
    torch.testing.assert_close(weight.grad, x.sum(0).expand(4, 3))


@BOTH
@torch.no_grad()
def test_nan_and_infinity_pass_through(onednn):
    x = torch.tensor([[1.0, 2.0], [torch.nan, 0.0], [-torch.inf, 1.0]])
    found = matmul(x, torch.tensor([[1.0, 1.0], [2.0, 0.5]]), rows_at_a_time=1)
    assert found[0].tolist() == [3.0, 3.0]
    assert found[1].isnan().all()
    assert found[2].tolist() == [-torch.inf, -torch.inf]


def test_ragged_numbers_of_rows_come_to_onednn_in_one_shape(shapes):
    weight = torch.randn(5, 3)
    for n in range(1, 40):
        matmul(torch.randn(n, 3), weight, rows_at_a_time=8)
    assert set(shapes) == {(8, 5, 3)}
    assert len(shapes) == sum(n // 8 for n in range(1, 40))


def test_a_layer_of_ours_is_torchs_own_with_other_products(shapes):
    torch.manual_seed(0)
    ours = Linear(3, 4)
    torch.manual_seed(0)
    torchs = torch.nn.Linear(3, 4)
    assert list(ours.state_dict()) == list(torchs.state_dict())
    x = torch.randn(module.ROWS, 3)
    torch.testing.assert_close(ours(x), torchs(x))
    assert shapes == [(module.ROWS, 4, 3)]


def test_mixed_precision_is_left_to_torch(shapes):
    with torch.autocast("cpu", torch.bfloat16):
        assert matmul(torch.randn(4, 3), torch.randn(2, 3), rows_at_a_time=2).dtype == (
            torch.bfloat16
        )
    assert not shapes
