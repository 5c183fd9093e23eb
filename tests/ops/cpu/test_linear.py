"""The linear layer's kernel against float64, and when it is taken."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from recbole_m3rec.ops.cpu import library, linear
from recbole_m3rec.ops.matmul import Linear

built, why = library.available()
needs_library = pytest.mark.skipif(not built, reason=why)


def inputs(n: int, n_in: int, n_out: int, bias: bool = True) -> list[Tensor | None]:
    generator = torch.Generator().manual_seed(n + n_in + n_out)
    shapes = [(n, n_in), (n_out, n_in), (n_out,)]
    made = [torch.randn(*shape, generator=generator) for shape in shapes]
    return [*made[:2], made[2] if bias else None]


def with_gradients(function: object, tensors: list[Tensor | None]) -> list[Tensor]:
    leaves = [None if t is None else t.detach().requires_grad_() for t in tensors]
    y = function(*leaves)  # type: ignore[operator]
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y.dtype)
    return [y.detach(), *torch.autograd.grad(y, [t for t in leaves if t is not None], weights)]


@needs_library
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("n", "n_in", "n_out"),
    [
        *((300, 64, 256), (193, 256, 64), (1, 16, 1), (7, 16, 3), (400, 128, 68), (1000, 32, 17)),
        *((0, 16, 4), (2500, 16, 100), (97, 512, 64)),
        *((1000, 4, 128), (300, 1, 16), (193, 7, 48)),  # in is no multiple of 16, out is
    ],
)
def test_values_and_gradients_match_float64(
    kernels: None, n: int, n_in: int, n_out: int, bias: bool
) -> None:
    tensors = inputs(n, n_in, n_out, bias)
    found = with_gradients(linear._linear, tensors)
    true = with_gradients(F.linear, [None if t is None else t.double() for t in tensors])
    for got, want in zip(found, true, strict=True):
        scale = max(1.0, float(want.abs().max()) if want.numel() else 1.0)
        torch.testing.assert_close(got.double() / scale, want / scale, rtol=0, atol=3e-6)


@needs_library
@pytest.mark.parametrize("shape", [(64, 68), (4, 128)])
def test_any_number_of_threads_gives_the_same_bits(
    shape: tuple[int, int], kernels: None, threads: None
) -> None:
    tensors, results = inputs(3001, *shape), []
    for n_threads in (1, 2, 3):
        torch.set_num_threads(n_threads)
        results.append(with_gradients(linear._linear, tensors))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(other, results[0], strict=True))


@needs_library
def test_a_row_does_not_depend_on_the_rows_beside_it(kernels: None) -> None:
    x, weight, bias = inputs(777, 64, 100)
    y = linear._linear(x, weight, bias)
    for some in (slice(1, None), slice(0, 300), slice(500, 501)):
        assert torch.equal(linear._linear(x[some], weight, bias), y[some])


@needs_library
def test_slices_and_transposes_give_what_copies_give(kernels: None) -> None:
    x, weight, bias = inputs(300, 32, 40)
    expected = with_gradients(linear._linear, [x, weight, bias])
    wide, tall = torch.cat([x, x], 1), torch.cat([weight, weight])
    for other_x, other_weight in [
        (wide[:, 32:], tall[40:]),
        (x.t().contiguous().t(), weight.t().contiguous().t()),
    ]:
        found = with_gradients(linear._linear, [other_x, other_weight, bias])
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@needs_library
def test_narrow_slices_give_what_copies_give(kernels: None) -> None:
    x, weight, _ = inputs(300, 4, 32)
    expected = with_gradients(linear._linear, [x, weight, None])
    wide = torch.cat([x, torch.full((300, 60), torch.nan)], 1)
    found = with_gradients(linear._linear, [wide[:, :4], weight, None])
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@needs_library
def test_nan_and_infinity_stay_in_their_row(kernels: None) -> None:
    x, weight, bias = inputs(300, 32, 21)
    x[7, 3], x[100, 31] = float("nan"), float("inf")
    y = linear._linear(x, weight, bias)
    assert (~y.isfinite()).any(1).nonzero().flatten().tolist() == [7, 100]
    assert y[7].isnan().all()
    assert y[100].isinf().all()


@needs_library
def test_only_the_gradients_that_are_wanted_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = []
    made = linear._linear_backward

    def watch(*arguments: object) -> object:
        wanted.append(arguments[3:])
        return made(*arguments)

    monkeypatch.setattr(linear, "_linear_backward", watch)
    x, weight, bias = inputs(300, 32, 21)
    linear._linear(x.requires_grad_(), weight, bias).sum().backward()
    linear._linear(x.detach(), weight.requires_grad_(), bias).sum().backward()
    assert wanted == [(True, False, False), (False, True, False)]


def test_it_is_taken_for_many_rows_of_float32_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []

    def watch(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        taken.append(tuple(x.shape))
        return F.linear(x, weight, bias)

    monkeypatch.setattr(linear, "_linear", watch)
    monkeypatch.setattr(linear, "is_faster", lambda: True)
    layer = Linear(32, 8)
    layer(torch.randn(300, 32))
    assert taken == [(300, 32)]
    layer(torch.randn(10, 32))
    layer(torch.randn(2, 300, 32))
    layer.double()(torch.randn(300, 32).double())
    Linear(33, 8)(torch.randn(300, 33))
    Linear(4, 32)(torch.randn(400, 4))
    assert taken.pop() == (400, 4)
    Linear(16, 5000)(torch.randn(300, 16))
    with torch.autocast("cpu", torch.bfloat16):
        assert Linear(32, 8)(torch.randn(300, 32)).dtype == torch.bfloat16
    monkeypatch.setattr(linear, "is_faster", lambda: False)
    Linear(32, 8)(torch.randn(300, 32))
    assert taken == [(300, 32)]


@needs_library
def test_the_operator_obeys_the_rules_of_torch_library() -> None:
    leaves = [None if t is None else t.requires_grad_() for t in inputs(20, 16, 7)]
    torch.library.opcheck(linear._linear, tuple(leaves))
