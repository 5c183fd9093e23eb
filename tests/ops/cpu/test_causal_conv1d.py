"""The compiled causal convolution beside what holds for every kernel: NaN, limits, refusals."""

import pytest
import torch

from recbole_m3rec.ops.cpu.causal_conv1d import causal_conv1d_silu_cpu
from tests.ops.kernel_cases import ends_of, needs_kernels, randn, with_gradients

pytestmark = needs_kernels


def inputs(lengths, d_inner, d_conv):
    return randn((sum(lengths), d_inner), (d_inner, d_conv), (d_inner,)), ends_of(lengths)


def test_nan_stays_within_its_sequence_and_reach(kernels):
    (x, weight, bias), ends = inputs([5, 6, 4], 20, 3)
    x[9] = float("nan")
    y = causal_conv1d_silu_cpu(x, weight, bias, ends)
    rows = y.isnan().all(1).nonzero().flatten().tolist()
    assert rows == [9, 10]
    assert y.isnan().any(1).sum() == 2


def test_large_values_do_not_overflow(kernels):
    x = torch.tensor([[-1e4, -200.0, -90.0, 90.0, 1e4]])
    ends = torch.tensor([0, 1], dtype=torch.int32)
    y = causal_conv1d_silu_cpu(x, torch.ones(5, 1), torch.zeros(5), ends)
    torch.testing.assert_close(y, torch.nn.functional.silu(x), rtol=1e-6, atol=1e-30)


def test_bfloat16_is_computed_in_float32_and_returned_in_kind():
    tensors, ends = inputs([3, 1, 70, 2], 16, 4)
    halves = [tensor.bfloat16() for tensor in tensors]
    found = with_gradients(lambda *leaves: causal_conv1d_silu_cpu(*leaves, ends), halves)
    assert {tensor.dtype for tensor in found} == {torch.bfloat16}
    expected = causal_conv1d_silu_cpu(*(tensor.float() for tensor in halves), ends)
    torch.testing.assert_close(found[0], expected.bfloat16(), rtol=0, atol=0)


def test_wrong_shapes_are_refused_by_name():
    (x, weight, bias), ends = inputs([5, 2, 9], 4, 3)
    with pytest.raises(ValueError, match="^bias: expected"):
        causal_conv1d_silu_cpu(x, weight, bias[:-1], ends)
    with pytest.raises(ValueError, match="^weight: expected"):
        causal_conv1d_silu_cpu(x, weight[:-1], bias, ends)
    with pytest.raises(ValueError, match="^x and weight: expected"):
        causal_conv1d_silu_cpu(x[0], weight, bias, ends)
    with pytest.raises(ValueError, match="^cu_seqlens"):
        causal_conv1d_silu_cpu(x, weight, bias, ends[:-1])
