"""A block's step in one call of the compiled kernels, beside what holds for every kernel."""

import pytest
import torch

from recbole_m3rec.network import mamba as block_module
from recbole_m3rec.ops.cpu.block_step import MOST_ROWS
from tests.ops import kernel_cases
from tests.ops.kernel_cases import block_of, needs_kernels, step_inputs

pytestmark = needs_kernels


def inputs(block, n):
    h, window, ssm = step_inputs(block, n)
    return h, block.initial_state(n)._replace(window=window, ssm=ssm)


def whole(block, h, state):
    return kernel_cases.step(h, *state[:2], block)


def in_parts(block, h, state):
    return kernel_cases.step_in_parts(h.double(), *(each.double() for each in state[:2]), block)


def test_extreme_step_sizes_match(kernels):
    for shift in (-30.0, 60.0):  # no step, huge steps
        block = block_of()
        with torch.no_grad():
            block.dt_proj.bias.fill_(shift)
        h, state = inputs(block, 2)
        for found, expected in zip(whole(block, h, state), in_parts(block, h, state), strict=True):
            torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-5)


def test_nan_stays_in_its_own_sequence(kernels):
    block = block_of()
    h, state = inputs(block, 3)
    clean = whole(block, h, state)
    h[1, 5] = float("nan")
    for found, expected in zip(whole(block, h, state), clean, strict=True):
        assert found[1].isnan().any()
        assert torch.equal(found[[0, 2]], expected[[0, 2]])


def test_the_state_that_was_given_stays_as_it_is():
    block = block_of()
    h, state = inputs(block, 2)
    before = [tensor.clone() for tensor in state]
    first = whole(block, h, state)
    assert all(torch.equal(*pair) for pair in zip(state, before, strict=True))
    assert all(torch.equal(*pair) for pair in zip(whole(block, h, state), first, strict=True))


def test_many_sequences_and_other_weights_take_the_parts(monkeypatch):
    def refuse(*_):
        raise AssertionError("the kernel was called")

    monkeypatch.setattr(block_module, "block_step_cpu", refuse)
    block = block_of()
    many, state = inputs(block, MOST_ROWS + 1)
    out, _ = block.step(many, state)
    torch.testing.assert_close(out.double(), in_parts(block, many, state)[0], rtol=1e-5, atol=2e-6)
    with pytest.raises(AssertionError, match="the kernel was called"):
        block.step(*inputs(block, MOST_ROWS))
    block.in_proj.weight.data = block.in_proj.weight.t().contiguous().t()
    block.step(*inputs(block, 1))  # strides that the kernel does not know


def test_a_state_of_other_sequences_is_refused():
    block = block_of()
    h, state = inputs(block, 2)
    with pytest.raises(ValueError, match=r"state.ssm: expected \[2, 128, 32\] float32"):
        block.step(h, state._replace(ssm=state.ssm[:1]))
    with pytest.raises(ValueError, match=r"state.window: expected \[2, 128, 3\] float32"):
        block.step(h, state._replace(window=state.window.double()))
    with pytest.raises(ValueError, match=r"h: expected \[2, 64\] float32"):
        block.step(h[:, :5].contiguous(), state)
