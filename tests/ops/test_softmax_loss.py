"""Softmax cross-entropy in the place of its logits, against torch's in float64."""

import itertools

import pytest
import torch
from torch.nn import functional as F

from recbole_m3rec.ops.cpu import library
from recbole_m3rec.ops.softmax_loss import softmax_loss_
from tests.ops.kernel_cases import needs_kernels


def logits_and_targets(rows, columns, scale=3.0):
    random = torch.Generator().manual_seed(rows + columns)
    logits = scale * torch.randn(rows, columns, generator=random)
    return logits, torch.randint(columns, (rows,), generator=random)


def expected(logits, targets):
    leaf = logits.detach().to(torch.float64, copy=True).requires_grad_()
    losses = F.cross_entropy(leaf, targets, reduction="none")
    (slope,) = torch.autograd.grad(losses.sum(), leaf)
    return losses.detach(), slope


@needs_kernels
def test_bfloat16_is_computed_in_float32_and_rounded_once(kernels):
    for columns in (1, 5, 33, 4001):
        logits, targets = logits_and_targets(7, columns)
        half = logits.bfloat16()
        losses, slope = expected(half, targets)
        found = softmax_loss_(half, targets, wants_gradient=True)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), losses, rtol=1e-6, atol=2e-6)
        nearest = slope.float().bfloat16()
        apart = (half.view(torch.int16).int() - nearest.view(torch.int16).int()).abs()
        assert apart.max() <= 1  # where the true value lies half-way, it may fall to either side
        assert (apart > 0).double().mean() < 0.01


@needs_kernels
def test_a_broken_logit_spoils_its_own_row_alone(kernels):
    places = (0, 20, 36)  # the first, one within, and one behind the last whole vector
    dtypes = (torch.float32, torch.bfloat16)
    for place, value, dtype in itertools.product(places, (torch.nan, torch.inf), dtypes):
        logits, targets = logits_and_targets(3, 37)
        logits = logits.to(dtype)
        logits[1, place] = value
        losses = softmax_loss_(logits, targets, wants_gradient=True)
        assert losses.isnan().tolist() == [False, True, False]
        assert logits.isnan().any(1).tolist() == [False, True, False]


@needs_kernels
def test_items_that_cannot_be_are_left_out(kernels):
    logits, targets = logits_and_targets(4, 50)
    logits[:, 7], targets[:] = -torch.inf, 3
    losses, _ = expected(logits, targets)
    found = softmax_loss_(logits, targets, wants_gradient=True)
    torch.testing.assert_close(found.double(), losses, rtol=1e-6, atol=2e-6)
    assert (logits[:, 7] == 0).all()


@needs_kernels
@pytest.mark.usefixtures("threads")
def test_bits_of_bfloat16_do_not_depend_on_the_number_of_threads():
    logits, targets = logits_and_targets(13, 5003)
    results = []
    for number in (1, 2, 5):
        torch.set_num_threads(number)
        copy = logits.to(torch.bfloat16, copy=True)
        results.append((softmax_loss_(copy, targets, wants_gradient=True), copy))
    for losses, slope in results[1:]:
        assert torch.equal(losses, results[0][0])
        assert torch.equal(slope, results[0][1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_without_the_kernels_it_is_the_same(dtype, monkeypatch):
    logits, targets = logits_and_targets(6, 300)
    logits = logits.to(dtype)
    losses, slope = expected(logits, targets)
    monkeypatch.setattr(library, "available", lambda: (False, "not built"))
    found = softmax_loss_(logits, targets, wants_gradient=True)
    torch.testing.assert_close(found.double(), losses, rtol=1e-6, atol=2e-6)
    tolerance = 4e-3 if dtype == torch.bfloat16 else 2e-6
    torch.testing.assert_close(logits.double(), slope, rtol=tolerance, atol=3e-7)


@pytest.mark.parametrize("usable", [True, False])
def test_no_rows_have_no_losses(usable, monkeypatch):
    if not usable:
        monkeypatch.setattr(library, "available", lambda: (False, "not built"))
    losses = softmax_loss_(torch.empty(0, 4), torch.empty(0, dtype=torch.int64), True)
    assert losses.shape == (0,)


@pytest.mark.parametrize("usable", [True, False])
def test_losses_alone_are_the_same(usable, monkeypatch):
    logits, targets = logits_and_targets(9, 100)
    with_gradient = softmax_loss_(logits.clone(), targets, wants_gradient=True)
    if not usable:
        monkeypatch.setattr(library, "available", lambda: (False, "not built"))
    copy = logits.clone()
    alone = softmax_loss_(copy, targets, wants_gradient=False)
    torch.testing.assert_close(alone, with_gradient, rtol=1e-6, atol=1e-6)
    if library.available()[0]:
        assert torch.equal(copy, logits)  # nothing is written in vain


@pytest.mark.parametrize("size", [2, 50_000])
def test_targets_may_be_a_column_of_a_matrix(size):
    logits, _ = logits_and_targets(size, 3)
    column = torch.arange(2 * size).view(size, 2)[:, 1] % 3
    expected_losses = softmax_loss_(logits.clone(), column.clone(), wants_gradient=False)
    assert torch.equal(softmax_loss_(logits, column, wants_gradient=False), expected_losses)


@pytest.mark.parametrize("targets", [torch.zeros(2, dtype=torch.int32), torch.zeros(1).long()])
def test_targets_of_another_kind_are_refused(targets):
    with pytest.raises(ValueError, match=r"expected int64 of shape \[2\]"):
        softmax_loss_(torch.zeros(2, 4), targets, wants_gradient=True)


@pytest.mark.parametrize("usable", [True, False])
@pytest.mark.parametrize("target", [-1, 4])
def test_a_target_that_is_no_item_is_refused(usable, target, monkeypatch):
    if not usable:
        monkeypatch.setattr(library, "available", lambda: (False, "not built"))
    with pytest.raises((IndexError, RuntimeError), match=r"out of bounds|out of range"):
        softmax_loss_(torch.zeros(2, 4), torch.tensor([0, target]), wants_gradient=True)
