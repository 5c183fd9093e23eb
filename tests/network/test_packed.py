"""Packing drops padding and nothing else."""

import pytest
import torch

from recbole_m3rec.network.packed import pack

ITEM_SEQ = torch.tensor([[5, 0, 0], [1, 2, 3], [7, 4, 0]])


def test_values_starts_and_last_tokens_are_those_of_the_histories():
    packed = pack(ITEM_SEQ, torch.tensor([1, 3, 2]))
    assert packed.values.tolist() == [5, 1, 2, 3, 7, 4]
    assert packed.cu_seqlens.tolist() == [0, 1, 4, 6]
    assert packed.values[packed.last].tolist() == [5, 3, 4]
    dtypes = [packed.values.dtype, packed.cu_seqlens.dtype, packed.last.dtype]
    assert dtypes == [torch.int64, torch.int32, torch.int64]


def test_lengths_decide_and_not_zeros():
    """A list of targets holds zeros where a position is not scored."""
    packed = pack(torch.tensor([[0, 0, 6], [0, 8, 9]]), torch.tensor([3, 2]))
    assert packed.values.tolist() == [0, 0, 6, 0, 8]


@pytest.mark.parametrize("length", [0, -1, 4])
def test_a_wrong_length_is_an_error_that_names_the_row(length):
    with pytest.raises(ValueError, match=rf"history 2 .* length {length}, expected 1 to 3"):
        pack(ITEM_SEQ, torch.tensor([1, 3, length]))
