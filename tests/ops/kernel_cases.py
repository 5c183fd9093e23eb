"""The compiled kernels as a table: how each is called, what is exact, and the shapes that matter.

A case is (kernel, shape). Shapes are chosen so that every length, width and option stands in one,
on both sides of the bounds at which kernels change course, and most pairs of them together.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from recbole_m3rec.ops import dropout as dropout_ops
from recbole_m3rec.ops.cpu import causal_conv1d, library, linear, selective_scan
from recbole_m3rec.ops.scan_inputs import ScanInputs

built, why = library.available()
needs_kernels = pytest.mark.skipif(not built, reason=why)
both_backends = pytest.mark.parametrize(
    "backend", ["reference", pytest.param("cpu", marks=needs_kernels)]
)

RAGGED = [3, 1, 47, 5, 28, 29, 57, 48, 49, 2, 90]
NAMES = ("x", "dt", "A", "B", "C", "D")

Tensors = list[Tensor | None]


def ends_of(lengths):
    return torch.tensor([0, *itertools.accumulate(lengths)], dtype=torch.int32)


def randn(*shapes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, generator=generator) for shape in shapes]


def with_gradients(function, tensors):
    """The function's result and the gradients of a fixed random weighting of it."""
    leaves = [None if t is None else t.detach().requires_grad_() for t in tensors]
    y = function(*leaves)
    (weights,) = randn(tuple(y.shape), seed=1)
    needed = [leaf for leaf in leaves if leaf is not None]
    return [y.detach(), *torch.autograd.grad(y, needed, weights.to(y))]


def scan_inputs(lengths, d_inner=37, d_state=8, seed=0):
    """Random x, dt, A, B, C, D of plausible sizes, and cu_seqlens."""
    n = sum(lengths)
    channels, states = (n, d_inner), (n, d_state)
    shapes = (channels, (d_inner, d_state), channels, states, states, (d_inner,))
    dt, A, x, B, C, D = randn(*shapes, seed=seed)
    A = -torch.arange(1.0, d_state + 1) * (A * 0.3).exp()
    return [x, F.softplus(dt - 1), A, B, C, D], ends_of(lengths)


def raw_scan_inputs(lengths, last_only=False, d_inner=37, d_state=8):
    """The same with dt before its softplus, its bias, and z."""
    (x, dt, *others), ends = scan_inputs(lengths, d_inner, d_state)
    raw, bias, z = randn(
        tuple(dt.shape),
        (dt.shape[1],),
        (len(lengths) if last_only else len(x), dt.shape[1]),
        seed=2,
    )
    return [x, 4 * raw - 2, *others, bias, 4 * z], ends


def scan_loop(tensors, ends, last_only=False):
    """The recurrence, one step of one sequence at a time; softplus and gate where there are 8."""
    return scan_loop_states(tensors, ends, last_only)[0]


def scan_loop_states(tensors, ends, last_only=False):
    """The same, and the state after each sequence."""
    x, dt, A, B, C, D, *more = tensors
    dt = F.softplus(dt + more[0]) if more else dt
    rows, states = [], []
    for start, end in itertools.pairwise(ends.tolist()):
        state = torch.zeros_like(A)
        for t in range(start, end):
            state = torch.exp(dt[t, :, None] * A) * state + (dt[t] * x[t])[:, None] * B[t]
            if not last_only or t == end - 1:
                rows.append(state @ C[t] + D * x[t])
        states.append(state)
    y = torch.stack(rows)
    return y * F.silu(more[1]) if more else y, torch.stack(states)


def compiled_scan(tensors, ends, last_only=False):
    return selective_scan.selective_scan_cpu(
        ScanInputs(*tensors[:6], ends, last_only, *tensors[6:])
    )


def one_by_one(x, weight, bias, ends):
    d_inner, d_conv = weight.shape
    results = []
    for start, end in itertools.pairwise(ends.tolist()):
        padded = F.pad(x[start:end].t(), (d_conv - 1, 0))
        results.append(torch.conv1d(padded[None], weight[:, None], bias, groups=d_inner)[0].t())
    return F.silu(torch.cat(results))


@dataclass(frozen=True)
class Kernel:
    """A compiled kernel.

    Attributes:
        inputs: its tensors and the rest of its arguments, for a shape.
        run: the kernel, of both.
        exact: the same by PyTorch, which is given float64.
        shapes: see above; the last is large enough for several threads.
        tolerance: relative to the largest value of each tensor, or to ``floor``.
        operator: the custom operator and its arguments, for torch's own checks.
    """

    inputs: Callable[..., tuple[Tensors, tuple[Any, ...]]]
    run: Callable[..., Any]
    exact: Callable[..., Any]
    shapes: tuple[tuple[Any, ...], ...]
    tolerance: float
    floor: float = 1.0
    operator: Callable[..., tuple[Any, tuple[Any, ...]]] | None = None

    def found(self, tensors, rest):
        return with_gradients(lambda *leaves: self.run(*leaves, *rest), tensors)

    def expected(self, tensors, rest):
        doubles = [None if t is None else t.double() for t in tensors]
        return with_gradients(lambda *leaves: self.exact(*leaves, *rest), doubles)


def _conv(lengths, d_inner, d_conv):
    return randn((sum(lengths), d_inner), (d_inner, d_conv), (d_inner,)), (ends_of(lengths),)


def _scan(lengths, d_inner, d_state, last_only):
    if d_state == 0:  # with softplus and gate
        tensors, ends = raw_scan_inputs(lengths, last_only)
    else:
        tensors, ends = scan_inputs(lengths, d_inner, d_state)
    return tensors, (ends, last_only)


def _linear(n, n_in, n_out, bias):
    x, weight, b = randn((n, n_in), (n_out, n_in), (n_out,))
    return [x, weight, b if bias else None], ()


def _dropout(shape, p):
    return [3 * randn(shape)[0]], (p,)


def _seeded(x, p):
    torch.manual_seed(7)
    return dropout_ops.dropout(x, p)


def _masked(x, p):
    return x * _seeded(torch.ones(x.shape), p)


KERNELS = {
    "causal_conv1d": Kernel(
        _conv,
        causal_conv1d.causal_conv1d_silu_cpu,
        one_by_one,
        (
            *(([1], 1, 1), ([1], 16, 4), ([2000], 37, 2), ([1] * 300, 16, 3), ([1] * 300, 1, 7)),
            *(([3, 1, 70, 2, 64], 16, 1), ([3, 1, 70, 2, 64], 1, 2), (RAGGED * 5, 37, 7)),
            *((RAGGED, 16, 4), (RAGGED * 3, 37, 4)),
        ),
        2e-6,
        operator=lambda *tensors: (causal_conv1d._convolve, tensors),
    ),
    "selective_scan": Kernel(
        _scan,
        lambda *leaves: compiled_scan(leaves[:-2], *leaves[-2:]),
        lambda *leaves: scan_loop(leaves[:-2], *leaves[-2:]),
        (
            *((RAGGED, 1, 8, False), (RAGGED, 7, 5, True), (RAGGED, 16, 3, False)),
            *(
                (RAGGED, 64, 2, True),
                ([4, 33, 1, 60], 18, 1, True),
                ([4, 33, 1, 60], 18, 16, False),
            ),
            *(([4, 33, 1, 60], 18, 17, True), ([4, 33, 1, 60], 18, 32, False)),
            *(
                ([4, 33, 1, 60], 18, 64, True),
                ([211], 40, 24, False),
                ([500, 2, 2, 1], 37, 6, True),
            ),
            *(([length], 40, 24, False) for length in (1, 2, 27, 28, 29, 48, 49, 56, 57)),
            *((RAGGED, 37, 0, False), (RAGGED, 37, 0, True), (RAGGED * 2, 70, 6, False)),
        ),
        5e-6,
        floor=1e-30,
        operator=lambda *t: (selective_scan._scan, (*t[:6], *t[-2:], *(t[6:-2] or (None, None)))),
    ),
    "linear": Kernel(
        _linear,
        linear._linear,
        F.linear,
        (
            *((300, 64, 256, True), (193, 256, 64, False), (1, 16, 1, True), (7, 16, 3, False)),
            *((400, 128, 68, True), (1000, 32, 17, False), (0, 16, 4, True), (97, 512, 64, False)),
            *((300, 1, 16, True), (193, 7, 48, False)),  # in is no multiple of 16, out is
            *((2500, 16, 100, True), (3001, 4, 128, True), (3001, 64, 68, False)),
        ),
        3e-6,
        operator=lambda *tensors: (linear._linear, tensors),
    ),
    "dropout": Kernel(
        _dropout,
        _seeded,
        _masked,
        (((0, 3), 0.5), ((1, 1), 0.1), ((3, 7), 0.5), ((17, 256), 0.1), ((301, 257), 0.3)),
        1e-6,
        operator=lambda x, p: (dropout_ops._dropout, (x, dropout_ops.new_seed(), 30000)),
    ),
}
