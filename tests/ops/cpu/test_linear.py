"""The linear layer's kernel beside what holds for every kernel, and when it is taken."""

import torch
from torch.nn import functional as F

from recbole_m3rec.ops.cpu import linear
from recbole_m3rec.ops.matmul import Linear
from tests.ops.kernel_cases import needs_kernels, randn


@needs_kernels
def test_a_row_does_not_depend_on_the_rows_beside_it(kernels):
    x, weight, bias = randn((777, 64), (100, 64), (100,))
    y = linear._linear(x, weight, bias)
    for some in (slice(1, None), slice(0, 300), slice(500, 501)):
        assert torch.equal(linear._linear(x[some], weight, bias), y[some])


@needs_kernels
def test_nan_and_infinity_stay_in_their_row(kernels):
    x, weight, bias = randn((300, 32), (21, 32), (21,))
    x[7, 3], x[100, 31] = float("nan"), float("inf")
    y = linear._linear(x, weight, bias)
    assert (~y.isfinite()).any(1).nonzero().flatten().tolist() == [7, 100]
    assert y[7].isnan().all()
    assert y[100].isinf().all()


@needs_kernels
def test_only_the_gradients_that_are_wanted_are_made(monkeypatch):
    wanted = []
    made = linear._linear_backward

    def watch(*arguments):
        wanted.append(arguments[3:])
        return made(*arguments)

    monkeypatch.setattr(linear, "_linear_backward", watch)
    x, weight, bias = randn((300, 32), (21, 32), (21,))
    linear._linear(x.requires_grad_(), weight, bias).sum().backward()
    linear._linear(x.detach(), weight.requires_grad_(), bias).sum().backward()
    assert wanted == [(True, False, False), (False, True, False)]


def test_it_is_taken_for_many_rows_of_float32_alone(monkeypatch):
    taken = []

    def watch(x, weight, bias):
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
