"""Packing drops padding and nothing else."""

from __future__ import annotations

import pytest
import torch

from recbole_m3rec.network.packed import pack

ITEM_SEQ = torch.tensor([[5, 0, 0], [1, 2, 3], [7, 4, 0]])


def test_values_are_the_histories_one_after_the_other() -> None:
    packed = pack(ITEM_SEQ, torch.tensor([1, 3, 2]))
    assert packed.values.tolist() == [5, 1, 2, 3, 7, 4]
    assert packed.values.dtype == torch.int64


def test_cu_seqlens_are_starts_and_total_in_int32() -> None:
    packed = pack(ITEM_SEQ, torch.tensor([1, 3, 2]))
    assert packed.cu_seqlens.tolist() == [0, 1, 4, 6]
    assert packed.cu_seqlens.dtype == torch.int32


def test_last_is_the_index_of_every_newest_item() -> None:
    packed = pack(ITEM_SEQ, torch.tensor([1, 3, 2]))
    assert packed.values[packed.last].tolist() == [5, 3, 4]
    assert packed.last.dtype == torch.int64


def test_lengths_decide_and_not_zeros() -> None:
    """A list of targets holds zeros where a position is not scored."""
    packed = pack(torch.tensor([[0, 0, 6], [0, 8, 9]]), torch.tensor([3, 2]))
    assert packed.values.tolist() == [0, 0, 6, 0, 8]


def test_one_history_of_one_item() -> None:
    packed = pack(torch.tensor([[9]]), torch.tensor([1]))
    assert (packed.values.tolist(), packed.cu_seqlens.tolist()) == ([9], [0, 1])


@pytest.mark.parametrize("length", [0, -1, 4])
def test_a_wrong_length_is_an_error_that_names_the_row(length: int) -> None:
    with pytest.raises(ValueError, match=rf"history 2 .* length {length}, expected 1 to 3"):
        pack(ITEM_SEQ, torch.tensor([1, 3, length]))
