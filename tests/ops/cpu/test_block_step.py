"""A block's step in one call of the compiled kernels, against its parts in float64."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from recbole_m3rec.network import mamba as block_module
from recbole_m3rec.network.mamba import MambaBlock, MambaState
from recbole_m3rec.ops.cpu import selective_scan
from recbole_m3rec.ops.cpu.block_step import MOST_ROWS, supports_step

pytestmark = pytest.mark.skipif(not selective_scan.available()[0], reason="kernels not built")

SIZES = [(64, 32, 4, 2), (20, 5, 2, 2), (7, 1, 1, 1), (48, 17, 3, 3)]  # of a block, as made below


def make(hidden_size: int = 64, d_state: int = 32, d_conv: int = 4, expand: int = 2) -> MambaBlock:
    torch.manual_seed(1)
    block = MambaBlock(hidden_size, d_state, d_conv, expand, scan_backend="cpu")
    with torch.no_grad():
        block.D.uniform_(-1, 1)
        block.dt_proj.bias.add_(2.0)
    return block


def inputs(block: MambaBlock, n: int) -> tuple[Tensor, MambaState]:
    torch.manual_seed(2)
    zeros = block.initial_state(n)
    tokens = torch.randn(n, block.in_proj.weight.shape[1])
    return tokens, MambaState(torch.randn_like(zeros.window), torch.randn_like(zeros.ssm))


def in_parts(block: MambaBlock, h: Tensor, state: MambaState) -> list[Tensor]:
    """The same step by PyTorch in float64."""
    double = copy.deepcopy(block).double()
    double.scan_backend = "reference"
    out, after = double.step(h.double(), MambaState(*(tensor.double() for tensor in state)))
    return [out, *after]


def whole(block: MambaBlock, h: Tensor, state: MambaState) -> list[Tensor]:
    assert supports_step(h, block._weights())
    out, after = block.step(h, state)
    return [out, *after]


@pytest.mark.parametrize("n", [1, 3, MOST_ROWS])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_a_step_equals_its_parts_in_float64(
    kernels: str, sizes: tuple[int, int, int, int], n: int
) -> None:
    block = make(*sizes)
    h, state = inputs(block, n)
    for found, expected in zip(whole(block, h, state), in_parts(block, h, state), strict=True):
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("shift", [-30.0, 60.0], ids=["no step", "huge steps"])
def test_extreme_step_sizes_match(kernels: str, shift: float) -> None:
    block = make()
    with torch.no_grad():
        block.dt_proj.bias.fill_(shift)
    h, state = inputs(block, 2)
    for found, expected in zip(whole(block, h, state), in_parts(block, h, state), strict=True):
        torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-5)


def test_nan_stays_in_its_own_sequence(kernels: str) -> None:
    block = make()
    h, state = inputs(block, 3)
    clean = whole(block, h, state)
    h[1, 5] = float("nan")
    for found, expected in zip(whole(block, h, state), clean, strict=True):
        assert found[1].isnan().any()
        assert torch.equal(found[[0, 2]], expected[[0, 2]])


def test_the_state_that_was_given_stays_as_it_is() -> None:
    block = make()
    h, state = inputs(block, 2)
    before = [tensor.clone() for tensor in state]
    first = whole(block, h, state)
    assert all(torch.equal(*pair) for pair in zip(state, before, strict=True))
    assert all(torch.equal(*pair) for pair in zip(whole(block, h, state), first, strict=True))


@pytest.mark.usefixtures("threads")
def test_threads_do_not_change_a_bit() -> None:
    block = make()
    h, state = inputs(block, 5)
    found = []
    for n_threads in (1, 2, 7):  # at last more than sequences
        torch.set_num_threads(n_threads)
        found.append(whole(block, h, state))
    for others in found[1:]:
        assert all(torch.equal(*pair) for pair in zip(found[0], others, strict=True))


def test_many_sequences_and_other_weights_take_the_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the kernel was called")

    monkeypatch.setattr(block_module, "block_step_cpu", refuse)
    block = make()
    many, state = inputs(block, MOST_ROWS + 1)
    out, _ = block.step(many, state)
    torch.testing.assert_close(out.double(), in_parts(block, many, state)[0], rtol=1e-5, atol=2e-6)
    with pytest.raises(AssertionError, match="the kernel was called"):
        block.step(*inputs(block, MOST_ROWS))
    block.in_proj.weight.data = block.in_proj.weight.t().contiguous().t()
    block.step(*inputs(block, 1))  # strides that the kernel does not know


def test_a_state_of_other_sequences_is_refused() -> None:
    block = make()
    h, state = inputs(block, 2)
    with pytest.raises(ValueError, match=r"state.ssm: expected \[2, 128, 32\] float32"):
        block.step(h, MambaState(state.window, state.ssm[:1]))
    with pytest.raises(ValueError, match=r"state.window: expected \[2, 128, 3\] float32"):
        block.step(h, MambaState(state.window.double(), state.ssm))
    with pytest.raises(ValueError, match=r"h: expected \[2, 64\] float32"):
        block.step(h[:, :5].contiguous(), state)
