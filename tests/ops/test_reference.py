"""The reference scan against a plain float64 loop over sequences and steps."""

import pytest
import torch

from recbole_m3rec.ops import reference
from recbole_m3rec.ops.reference import selective_scan_reference
from tests.ops.kernel_cases import NAMES, ends_of, scan_inputs, scan_loop, scan_loop_states

RAGGED = [3, 1, 7, 2, 5]


def inputs(lengths, scale=1.0):
    """x, dt, A, B, C, D in float64; ``scale`` multiplies the step sizes."""
    tensors = [tensor.double() for tensor in scan_inputs(lengths, 3, 4)[0]]
    tensors[1] *= scale
    return tensors


@pytest.fixture(params=[1, 40, 1 << 22], ids=["a block a sequence", "some blocks", "one block"])
def _blocks(request, monkeypatch):
    monkeypatch.setattr(reference, "BLOCK_ELEMENTS", request.param)


@pytest.mark.usefixtures("_blocks")
@pytest.mark.parametrize(
    ("lengths", "scale"),
    [(RAGGED, 1.0), (RAGGED, 1e4), ([1, 1, 1], 1.0), ([4, 4, 4], 1e4), ([9], 1.0)],
    ids=str,
)
def test_result_last_state_and_gradients_equal_the_loop(lengths, scale):
    ours, theirs = inputs(lengths, scale), inputs(lengths, scale)
    for tensor in (*ours, *theirs):
        tensor.requires_grad_()
    y, state = selective_scan_reference(*ours, ends_of(lengths))
    expected, expected_state = scan_loop_states(theirs, ends_of(lengths))
    torch.testing.assert_close(y, expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(state, expected_state, rtol=1e-10, atol=1e-10)

    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=y.dtype)
    (y * weights).sum().backward()
    (expected * weights).sum().backward()
    for name, mine, wanted in zip(NAMES, ours, theirs, strict=True):
        torch.testing.assert_close(mine.grad, wanted.grad, rtol=1e-9, atol=1e-9, msg=name)


def test_blocks_are_really_cut_and_each_sequence_is_in_one(monkeypatch):
    monkeypatch.setattr(reference, "BLOCK_ELEMENTS", 80)
    blocks = list(reference._blocks(ends_of(RAGGED), 10))
    assert len(blocks) > 1
    assert sorted(torch.cat([block.sequences for block in blocks]).tolist()) == [0, 1, 2, 3, 4]
    assert sorted(torch.cat([block.tokens for block in blocks]).tolist()) == list(range(18))


def test_float32_stays_float32_and_close():
    exact = scan_loop(inputs(RAGGED), ends_of(RAGGED))
    y, _ = selective_scan_reference(*(t.float() for t in inputs(RAGGED)), ends_of(RAGGED))
    assert y.dtype == torch.float32
    torch.testing.assert_close(y.double(), exact, rtol=1e-5, atol=1e-5)


def test_huge_steps_in_float32_leave_no_nan():
    tensors = [tensor.float().requires_grad_() for tensor in inputs(RAGGED, 1e6)]
    y, _ = selective_scan_reference(*tensors, ends_of(RAGGED))
    y.sum().backward()
    assert y.isfinite().all()
    assert all(t.grad.isfinite().all() for t in tensors)


def test_last_state_carries_no_gradient():
    tensors = [tensor.requires_grad_() for tensor in inputs([2, 3])]
    y, state = selective_scan_reference(*tensors, ends_of([2, 3]))
    assert y.requires_grad
    assert not state.requires_grad
