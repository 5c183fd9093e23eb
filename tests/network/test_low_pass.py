"""The low-pass filter is its definition, and every way to read a history agrees."""

import pytest
import torch

from recbole_m3rec.network.low_pass import LowPass, none_yet
from recbole_m3rec.network.m3rec import M3RecConfig
from recbole_m3rec.network.settings import ModelConfigError

LENGTHS = [4, 1, 9]
CU_SEQLENS = torch.tensor([0, 4, 5, 14], dtype=torch.int32)
HIDDEN = 5


def made(n_latest):
    torch.manual_seed(1)
    low_pass = LowPass(HIDDEN, n_latest).double()
    with torch.no_grad():
        low_pass.weight.normal_()
        low_pass.keep.normal_()
    x = torch.randn(sum(LENGTHS), HIDDEN, dtype=torch.double, requires_grad=True)
    return low_pass, x


def naive(low_pass, x):
    """The definition, one token after another."""
    rows = []
    for part in x.split(LENGTHS):
        for at in range(len(part)):
            mean = part[max(0, at - low_pass.n_latest + 1) : at + 1].mean(0)
            rows.append(low_pass.weight * (mean + low_pass.keep * (part[at] - mean)))
    return torch.stack(rows)


@pytest.mark.parametrize("n_latest", [1, 3, 20])
def test_it_is_the_definition_in_values_and_gradients(n_latest):
    low_pass, x = made(n_latest)
    expected, found = naive(low_pass, x), low_pass(x, CU_SEQLENS)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        low_pass(x, CU_SEQLENS, last_only=True), expected[CU_SEQLENS[1:].long() - 1]
    )
    inputs = [x, *low_pass.parameters()]
    slopes = torch.randn_like(found)
    for one, other in zip(
        torch.autograd.grad(found, inputs, slopes),
        torch.autograd.grad(expected, inputs, slopes),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("n_latest", [1, 3, 20])
def test_steps_equal_the_whole_history(n_latest):
    low_pass, x = made(n_latest)
    history = x[5:]
    expected = low_pass(history, torch.tensor([0, 9], dtype=torch.int32))
    recent = none_yet(x, 1, HIDDEN, n_latest)
    for at in range(9):
        found, recent = low_pass.step(history[at : at + 1], recent)
        torch.testing.assert_close(found[0], expected[at])
    assert recent.shape == (1, n_latest - 1, HIDDEN + 1)


@pytest.mark.parametrize("wrong", [-1, 2.5, True, "8", None])
def test_a_number_of_items_that_is_none_is_refused(wrong):
    with pytest.raises(ModelConfigError, match="low_pass"):
        M3RecConfig(low_pass=wrong)
