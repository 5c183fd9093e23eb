"""States of the compiled CPU scan: kept at its end, stepped on, and begun from."""

import pytest
import torch

from recbole_m3rec.ops.cpu import selective_scan
from recbole_m3rec.ops.scan_inputs import ScanInputs
from tests.ops.kernel_cases import ends_of, needs_kernels, raw_scan_inputs, scan_inputs

pytestmark = needs_kernels


@pytest.mark.parametrize(("d_inner", "d_state"), [(3, 1), (32, 5), (3, 16), (32, 33)])
def test_steps_on_kept_states_continue_a_scan(kernels, d_inner, d_state):
    lengths = [7, 60, 2]
    tensors, ends = scan_inputs(lengths, d_inner, d_state)
    expected, last_state = selective_scan.selective_scan_states_cpu(ScanInputs(*tensors, ends))
    state = torch.zeros_like(last_state)
    x, dt, A, B, C, D = tensors
    for t in range(max(lengths)):
        running = [i for i, length in enumerate(lengths) if t < length]
        at = torch.tensor([int(ends[i]) + t for i in running])
        kept = state[running].contiguous()
        y = selective_scan.selective_step_cpu(kept, ScanInputs(x[at], dt[at], A, B[at], C[at], D))
        state[running] = kept
        torch.testing.assert_close(y, expected[at], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(state, last_state, rtol=1e-4, atol=1e-6)


def test_steps_take_softplus_and_gate_too(kernels):
    (x, raw, A, B, C, D, bias, z), ends = raw_scan_inputs([1] * 5)
    expected, last_state = selective_scan.selective_scan_states_cpu(
        ScanInputs(x, raw, A, B, C, D, ends, dt_bias=bias, z=z)
    )
    state = torch.zeros_like(last_state)
    y = selective_scan.selective_step_cpu(state, ScanInputs(x, raw, A, B, C, D, dt_bias=bias, z=z))
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(state, last_state, rtol=1e-5, atol=1e-6)


def test_a_scan_continues_from_an_initial_state(kernels):
    lengths, cut = [60, 31, 100], [50, 1, 20]
    tensors, ends = scan_inputs(lengths)
    whole, last_state = selective_scan.selective_scan_states_cpu(ScanInputs(*tensors, ends))
    starts = ends[:-1].tolist()
    rest = [length - c for length, c in zip(lengths, cut, strict=True)]
    head = torch.cat([torch.arange(s, s + c) for s, c in zip(starts, cut, strict=True)])
    tail = torch.cat([torch.arange(e - r, e) for e, r in zip(ends[1:].tolist(), rest, strict=True)])
    x, dt, A, B, C, D = tensors

    def part(at, part_lengths, state):
        return selective_scan.selective_scan_states_cpu(
            ScanInputs(x[at], dt[at], A, B[at], C[at], D, ends_of(part_lengths)), state
        )

    y_head, state = part(head, cut, None)
    y_tail, state = part(tail, rest, state)
    torch.testing.assert_close(y_head, whole[head], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(y_tail, whole[tail], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(state, last_state, rtol=1e-5, atol=1e-6)
