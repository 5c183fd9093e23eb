"""Dropout from the counter-based generator: whose mask, how random, how reproducible."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call

from recbole_m3rec.ops import dropout
from recbole_m3rec.ops.cpu import library
from recbole_m3rec.ops.dropout import Dropout
from tests.ops.kernel_cases import needs_kernels


def philox(seed, counter):
    """Philox4x32-10 as its paper writes it: the four words of every 64-bit counter."""
    low, zeros = np.uint64(0xFFFFFFFF), np.zeros_like(counter)
    c = [counter & low, counter >> np.uint64(32), zeros, zeros]
    key = [seed & 0xFFFFFFFF, seed >> 32]
    for _ in range(10):
        p0, p1 = c[0] * np.uint64(0xD2511F53), c[2] * np.uint64(0xCD9E8D57)
        c = [
            (p1 >> np.uint64(32)) ^ c[1] ^ np.uint64(key[0]),
            p1 & low,
            (p0 >> np.uint64(32)) ^ c[3] ^ np.uint64(key[1]),
            p0 & low,
        ]
        key = [(key[0] + 0x9E3779B9) & 0xFFFFFFFF, (key[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return c


def expected_mask(seed, n, keep):
    e = np.arange(n)
    words = np.stack(philox(seed, (e // 64 * 8 + e % 16 // 2).astype(np.uint64)))
    word = words[e % 64 // 32 * 2 + e % 2, e]
    return (word >> (e % 32 // 16 * 16).astype(np.uint64) & np.uint64(0xFFFF)) < keep


def masks(p, *shape):
    return dropout.dropout(torch.ones(shape), p) != 0


def test_the_generator_of_these_tests_is_philox():
    # Known answers of the authors' library.
    assert [int(w[0]) for w in philox(0, np.zeros(1, np.uint64))] == [
        *(0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)
    ]


@needs_kernels
def test_every_instruction_set_draws_philox(kernels):
    seed, keep = 0x123456789ABCDEF0, 40000
    for n in (0, 1, 7, 63, 64, 65, 1000, 300_003):
        y = dropout._dropout(torch.ones(n), torch.tensor(seed), keep)
        mask = expected_mask(seed, n, keep)
        assert np.array_equal(y.numpy(), np.where(mask, np.float32(65536 / keep), np.float32(0))), n


def test_the_share_kept_is_right_within_five_sigma():
    torch.manual_seed(0)
    for p in (0.5, 0.1, 0.9, 0.003):
        kept = masks(p, 1000, 1000).double()
        sigma = math.sqrt(p * (1 - p))
        assert abs(kept.mean() - (1 - p)) < 5 * sigma / 1000
        for dim in (0, 1):  # and for every row and column, of 1,000 each
            assert (kept.mean(dim) - (1 - p)).abs().max() < 6 * sigma / math.sqrt(1000)
    assert abs(dropout.dropout(torch.ones(1_000_000), 0.3).mean() - 1) < 5e-3


def test_neighbours_rows_and_calls_are_independent():
    torch.manual_seed(0)
    first, second = (masks(0.5, 2000, 512).double() - 0.5 for _ in range(2))
    lagged = [first.flatten()[:-lag] * first.flatten()[lag:] for lag in (1, 2, 8, 16, 32, 64, 512)]
    for product in (*lagged, first * second):
        assert abs(product.mean()) * 4 < 5 / math.sqrt(product.numel())


def test_a_seed_of_torch_decides_about_all_masks():
    layer, runs = Dropout(0.5), []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        runs.append(torch.cat([layer(torch.ones(100)), layer(torch.ones(100))]))
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def test_backward_uses_the_mask_of_forward(kernels):
    x = torch.randn(1000, 37, requires_grad=True)
    y = dropout.dropout(x, 0.3)
    masks(0.3, 50)  # another call in between
    weights = torch.randn(1000, 37)
    (gradient,) = torch.autograd.grad(y, x, weights)
    scale = 65536 / dropout.keep_steps(0.3)
    torch.testing.assert_close(gradient, torch.where(y == 0, 0, weights * scale))
    torch.testing.assert_close(y, torch.where(y == 0, 0, x * scale))


def test_a_second_backward_uses_it_too():
    x = torch.randn(100, requires_grad=True)
    y = dropout.dropout(x, 0.5)
    (gradient,) = torch.autograd.grad((y**2).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(gradient.sum(), x)
    torch.testing.assert_close(second, torch.where(y == 0, 0.0, 8.0))


def test_evaluation_and_p_zero_are_the_identity_and_draw_nothing():
    x, state = torch.randn(50), torch.get_rng_state()
    assert Dropout(0.5).eval()(x) is x
    assert Dropout(0.0)(x) is x
    assert torch.equal(torch.get_rng_state(), state)


@needs_kernels
def test_p_one_drops_all():
    assert not dropout.dropout(torch.full((100,), float("nan")), 1.0).any()


@needs_kernels
def test_nan_stays_where_kept_and_is_zero_where_dropped(kernels):
    for value in (float("nan"), float("inf"), -float("inf")):
        torch.manual_seed(1)
        expected = masks(0.5, 1003)
        torch.manual_seed(1)
        y = dropout.dropout(torch.full((1003,), value), 0.5)
        torch.testing.assert_close(
            y, torch.where(expected, value, 0.0), rtol=0, atol=0, equal_nan=True
        )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_dtypes_come_back_in_kind(dtype):
    x = torch.ones(1000, dtype=dtype, requires_grad=True)
    y = dropout.dropout(x, 0.5)
    y.sum().backward()
    assert y.dtype == x.grad.dtype == dtype
    assert sorted(set(y.tolist())) == [0.0, 2.0]
    assert torch.equal(x.grad, y.detach())


def test_it_takes_part_in_functional_call_and_copies():
    model = nn.Sequential(nn.Linear(5, 200), Dropout(0.5))
    weights = {name: weight.detach() for name, weight in model.named_parameters()}
    y = functional_call(model, weights, (torch.randn(3, 5),))
    assert 0 < (y == 0).sum() < y.numel()
    assert list(copy.deepcopy(model).state_dict()) == ["0.weight", "0.bias"]


@needs_kernels
def test_it_compiles_into_one_graph():
    compiled = torch.compile(Dropout(0.5), backend="aot_eager", fullgraph=True)
    x = torch.randn(1000, requires_grad=True)
    first, second = compiled(x), compiled(x)
    assert not torch.equal(first, second)
    first.sum().backward()
    assert torch.equal(x.grad != 0, first != 0)


def test_without_the_library_it_is_torchs_own(monkeypatch):
    monkeypatch.setattr(library, "available", lambda: (False, "not built"))
    x = torch.randn(100)
    torch.manual_seed(0)
    y = dropout.dropout(x, 0.5)
    torch.manual_seed(0)
    assert torch.equal(y, torch.nn.functional.dropout(x, 0.5))
