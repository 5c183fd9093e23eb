"""The compiled causal convolution with SiLU against torch's own, one sequence at a time."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from recbole_m3rec.ops.cpu import causal_conv1d, library
from recbole_m3rec.ops.cpu.causal_conv1d import causal_conv1d_silu_cpu

built, why = library.available()
pytestmark = pytest.mark.skipif(not built, reason=why)

RAGGED = [3, 1, 70, 2, 5, 64, 1, 1, 33, 200]


def inputs(lengths: Sequence[int], d_inner: int, d_conv: int) -> tuple[list[Tensor], Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(sum(lengths), d_inner), (d_inner, d_conv), (d_inner,)]
    tensors = [torch.randn(*shape, generator=generator) for shape in shapes]
    return tensors, torch.tensor([0, *itertools.accumulate(lengths)], dtype=torch.int32)


def one_by_one(x: Tensor, weight: Tensor, bias: Tensor, ends: Tensor) -> Tensor:
    d_inner, d_conv = weight.shape
    results = []
    for start, end in itertools.pairwise(ends.tolist()):
        padded = torch.nn.functional.pad(x[start:end].t(), (d_conv - 1, 0))
        results.append(torch.conv1d(padded[None], weight[:, None], bias, groups=d_inner)[0].t())
    return torch.nn.functional.silu(torch.cat(results))


def with_gradients(
    function: Callable[..., Tensor], tensors: Sequence[Tensor], ends: Tensor
) -> list[Tensor]:
    leaves = [tensor.detach().requires_grad_() for tensor in tensors]
    y = function(*leaves, ends)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    return [y.detach(), *torch.autograd.grad(y, leaves, weights.to(y.dtype))]


def assert_same_bits(found: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("d_conv", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("d_inner", [1, 16, 37])
@pytest.mark.parametrize("lengths", [RAGGED, [1], [2000], [1] * 300])
def test_values_and_gradients_match_torch(
    kernels: None, lengths: list[int], d_inner: int, d_conv: int
) -> None:
    tensors, ends = inputs(lengths, d_inner, d_conv)
    found = with_gradients(causal_conv1d_silu_cpu, tensors, ends)
    expected = with_gradients(one_by_one, [tensor.double() for tensor in tensors], ends)
    for name, got, want in zip(("y", "x", "weight", "bias"), found, expected, strict=True):
        torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=5e-5, msg=name)


def test_nan_stays_within_its_sequence_and_reach(kernels: None) -> None:
    (x, weight, bias), ends = inputs([5, 6, 4], 20, 3)
    x[9] = float("nan")
    y = causal_conv1d_silu_cpu(x, weight, bias, ends)
    rows = y.isnan().all(1).nonzero().flatten().tolist()
    assert rows == [9, 10]
    assert y.isnan().any(1).sum() == 2


def test_large_values_do_not_overflow(kernels: None) -> None:
    x = torch.tensor([[-1e4, -200.0, -90.0, 90.0, 1e4]])
    ends = torch.tensor([0, 1], dtype=torch.int32)
    y = causal_conv1d_silu_cpu(x, torch.ones(5, 1), torch.zeros(5), ends)
    torch.testing.assert_close(y, torch.nn.functional.silu(x), rtol=1e-6, atol=1e-30)


def test_a_slice_of_columns_gives_the_same_bits_as_a_copy() -> None:
    (x, weight, bias), ends = inputs(RAGGED, 32, 4)
    wide = torch.cat([x, x], 1)
    expected = with_gradients(causal_conv1d_silu_cpu, [x, weight, bias], ends)
    found = with_gradients(causal_conv1d_silu_cpu, [wide[:, :32], weight, bias], ends)
    assert_same_bits(found, expected)
    transposed = [x.t().contiguous().t(), weight.t().contiguous().t(), bias]
    assert_same_bits(with_gradients(causal_conv1d_silu_cpu, transposed, ends), expected)


def test_any_number_of_threads_gives_the_same_bits(kernels: None, threads: None) -> None:
    tensors, ends = inputs(RAGGED * 5, 37, 4)
    results = []
    for n_threads in (1, 2, 5, 2):
        torch.set_num_threads(n_threads)
        results.append(with_gradients(causal_conv1d_silu_cpu, tensors, ends))
    for other in results[1:]:
        assert_same_bits(other, results[0])


def test_bfloat16_is_computed_in_float32_and_returned_in_kind() -> None:
    tensors, ends = inputs(RAGGED, 16, 4)
    halves = [tensor.bfloat16() for tensor in tensors]
    found = with_gradients(causal_conv1d_silu_cpu, halves, ends)
    assert {tensor.dtype for tensor in found} == {torch.bfloat16}
    expected = causal_conv1d_silu_cpu(*(tensor.float() for tensor in halves), ends)
    torch.testing.assert_close(found[0], expected.bfloat16(), rtol=0, atol=0)


def test_the_operator_obeys_the_rules_of_torch_library() -> None:
    tensors, ends = inputs([5, 2, 9], 4, 3)
    leaves = [tensor.requires_grad_() for tensor in tensors]
    torch.library.opcheck(causal_conv1d._convolve, (*leaves, ends))


def test_wrong_shapes_are_refused_by_name() -> None:
    (x, weight, bias), ends = inputs([5, 2, 9], 4, 3)
    with pytest.raises(ValueError, match="^bias: expected"):
        causal_conv1d_silu_cpu(x, weight, bias[:-1], ends)
    with pytest.raises(ValueError, match="^weight: expected"):
        causal_conv1d_silu_cpu(x, weight[:-1], bias, ends)
    with pytest.raises(ValueError, match="^x and weight: expected"):
        causal_conv1d_silu_cpu(x[0], weight, bias, ends)
    with pytest.raises(ValueError, match="^cu_seqlens"):
        causal_conv1d_silu_cpu(x, weight, bias, ends[:-1])
