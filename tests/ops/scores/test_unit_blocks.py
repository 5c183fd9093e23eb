"""Rows scaled to a length are those of a plain definition, with their gradients."""

import pytest
import torch
import torch.nn.functional as F

from recbole_m3rec.ops.scores.unit_blocks import SHORTEST, unit_blocks


def plain(lengths, *blocks):
    return torch.cat([w * F.normalize(x, dim=1) for w, x in zip(lengths, blocks, strict=True)], 1)


def with_gradients(function, slope, *tensors):
    leaves = [tensor.detach().clone().requires_grad_() for tensor in tensors]
    result = function(*leaves)
    result.backward(slope.to(result.dtype))
    return [result.detach(), *(leaf.grad for leaf in leaves)]


def ours(lengths, *blocks):
    return unit_blocks(blocks, lengths)


@pytest.mark.parametrize("widths", [(1,), (7,), (3, 8), (16, 1, 5)])
@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1.0, 1e15])
def test_rows_and_gradients_are_those_of_the_definition(widths, scale):
    blocks = [torch.randn(23, width) * scale for width in widths]
    blocks[0][4] = 0.0
    blocks[-1][7] *= 1e-14 / scale  # shorter than the shortest that is scaled
    lengths, slope = torch.randn(len(widths)), torch.randn(23, sum(widths))
    exact = [x.double() for x in (lengths, *blocks)]
    expected = with_gradients(plain, slope, *exact)
    # The gradient by a row is a difference of terms as large as the slope over the row's length.
    norms = [x.norm(dim=1, keepdim=True).clamp(min=SHORTEST) for x in exact[1:]]
    sizes = [slope.abs().max() * lengths.abs().max() / norm for norm in norms]
    sizes = [lengths.abs().max(), slope.abs().sum(), *sizes]
    for tensors, tolerance in (((lengths, *blocks), 1e-5), (exact, 1e-13)):
        found = with_gradients(ours, slope, *tensors)
        for a, b, size in zip(found, expected, sizes, strict=True):
            assert ((a.double() - b).abs() <= tolerance * size).all()


def test_no_row_is_no_result_and_zeros_stay_zeros():
    assert unit_blocks([torch.zeros(0, 3), torch.zeros(0, 2)], torch.ones(2)).shape == (0, 5)
    assert not unit_blocks([torch.zeros(4, 3)], torch.ones(1)).any()
    assert SHORTEST == 1e-12  # as F.normalize


def test_blocks_of_two_dtypes_become_the_wider_and_gradients_keep_theirs():
    wide, narrow = torch.randn(5, 3), torch.randn(5, 2).bfloat16()
    tensors = torch.ones(2), wide, narrow
    result, _, by_wide, by_narrow = with_gradients(ours, torch.randn(5, 5), *tensors)
    assert result.dtype == by_wide.dtype == torch.float32
    assert by_narrow.dtype == torch.bfloat16


def test_nan_in_a_row_makes_that_row_nan_and_no_other():
    x = torch.randn(4, 3)
    x[2, 1] = torch.nan
    assert unit_blocks([x], torch.ones(1)).isnan().any(1).tolist() == [False, False, True, False]
