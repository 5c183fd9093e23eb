"""The selective scan in plain PyTorch, the reference of every kernel.

Shape letters, as in Mamba (Gu & Dao 2023, arXiv 2312.00752):

    n  tokens of all sequences, packed one sequence after the other (``n_tokens``)
    d  inner channels (``d_inner``)
    s  state size (``d_state``)

Sequences are sorted by length and cut into blocks of at most ``BLOCK_ELEMENTS`` state values.
Inside a block tokens are laid out time-major, the longest sequence first, so that the sequences
still running at step ``t`` are always a prefix of those running at ``t - 1``: one multiply-add a
time step serves them all. The backward pass recomputes the states of a block, so memory is one
block's states, whatever the number of sequences.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from recbole_m3rec.ops.checks import check_ends

BLOCK_ELEMENTS = 1 << 22  # state values a block: 16 MiB in float32, of some such buffers at a time


@dataclass(frozen=True)
class _Block:
    """Some sequences, longest first, in time-major order.

    Attributes:
        tokens: packed positions of the block's tokens, time-major, ``[n]``.
        offsets: where each time step starts in ``tokens``, ``max_length + 1`` values.
        sequences: which sequences these are, ``[n_sequences]``.
    """

    tokens: Tensor
    offsets: list[int]
    sequences: Tensor

    def steps(self) -> Iterator[tuple[slice, slice]]:
        """Per time step from the second on: its tokens, and those sequences' tokens before."""
        for t in range(1, len(self.offsets) - 1):
            start, end, before = self.offsets[t], self.offsets[t + 1], self.offsets[t - 1]
            yield slice(start, end), slice(before, before + end - start)


def _blocks(cu_seqlens: Tensor, elements_per_token: int) -> Iterator[_Block]:
    starts = cu_seqlens[:-1].long()
    lengths = cu_seqlens[1:].long() - starts
    order = torch.argsort(lengths, descending=True, stable=True)
    budget = max(1, BLOCK_ELEMENTS // max(1, elements_per_token))
    block_of = (lengths[order].cumsum(0) - 1) // budget
    for sequences in torch.split(
        order, torch.unique_consecutive(block_of, return_counts=True)[1].tolist()
    ):
        block_lengths = lengths[sequences]
        time = torch.arange(int(block_lengths[0]), device=cu_seqlens.device)
        running = time[:, None] < block_lengths  # [time, sequence]
        tokens = (starts[sequences] + time[:, None])[running]
        offsets = [0, *running.sum(1).cumsum(0).tolist()]
        yield _Block(tokens, offsets, sequences)


def _states(block: _Block, x: Tensor, dt: Tensor, A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
    """Decays and states of every token of a block, both ``[n, d, s]`` in the block's order."""
    decay = torch.exp(dt[:, :, None] * A)
    states = (dt * x)[:, :, None] * B[:, None, :]
    for now, before in block.steps():
        states[now].addcmul_(decay[now], states[before])
    return decay, states


class _SelectiveScan(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        x: Tensor,
        dt: Tensor,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        D: Tensor,
        cu_seqlens: Tensor,
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(x, dt, A, B, C, D, cu_seqlens)
        y = torch.empty_like(x)
        last_state = x.new_empty(cu_seqlens.numel() - 1, *A.shape)
        for block in _blocks(cu_seqlens, A.numel()):
            at = block.tokens
            _, states = _states(block, x[at], dt[at], A, B[at])
            y[at] = torch.matmul(states, C[at][:, :, None]).squeeze(-1)
            is_last = torch.isin(at, cu_seqlens[1:].long() - 1)
            ends = at[is_last].to(cu_seqlens.dtype)
            last_state[torch.searchsorted(cu_seqlens, ends, right=True) - 1] = states[is_last]
        ctx.mark_non_differentiable(last_state)
        return torch.addcmul(y, x, D), last_state

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, dt, A, B, C, D, cu_seqlens = ctx.saved_tensors
        grad_x, grad_dt = torch.empty_like(x), torch.empty_like(dt)
        grad_B, grad_C, grad_A = torch.empty_like(B), torch.empty_like(C), torch.zeros_like(A)
        for block in _blocks(cu_seqlens, A.numel()):
            at = block.tokens
            x_, dt_, B_, C_, grad_y_ = x[at], dt[at], B[at], C[at], grad_y[at]
            decay, states = _states(block, x_, dt_, A, B_)
            grad_C[at] = torch.matmul(grad_y_[:, None, :], states).squeeze(1)
            grad_states = grad_y_[:, :, None] * C_[:, None, :]
            for now, before in reversed(list(block.steps())):
                grad_states[before].addcmul_(decay[now], grad_states[now])
            grad_B[at] = torch.matmul((dt_ * x_)[:, None, :], grad_states).squeeze(1)
            grad_input = torch.matmul(grad_states, B_[:, :, None]).squeeze(-1)  # of dt_t · x_t
            # d decay / d (dt · A) = decay; a first token has no state before it.
            grad_exponent = grad_states.mul_(decay)
            for now, before in block.steps():
                grad_exponent[now].mul_(states[before])
            grad_exponent[: block.offsets[1]] = 0
            grad_x[at] = grad_input * dt_
            grad_dt[at] = grad_input * x_ + torch.einsum("nds,ds->nd", grad_exponent, A)
            grad_A += torch.einsum("nds,nd->ds", grad_exponent, dt_)
        grad_x, grad_D = torch.addcmul(grad_x, grad_y, D), (grad_y * x).sum(0)
        return grad_x, grad_dt, grad_A, grad_B, grad_C, grad_D, None


def selective_scan_reference(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, cu_seqlens: Tensor
) -> tuple[Tensor, Tensor]:
    """Run the selective scan over packed sequences.

    Args and first return value as in :func:`recbole_m3rec.ops.selective_scan`.

    Returns:
        ``y [n_tokens, d_inner]`` and the state after each sequence's last token
        ``[n_sequences, d_inner, d_state]`` (no gradient flows through it).

    Raises:
        ValueError: ``cu_seqlens`` does not describe the tokens.
    """
    check_ends(cu_seqlens, len(x))
    return _SelectiveScan.apply(x, dt, A, B, C, D, cu_seqlens)  # type: ignore[no-any-return]


def selective_step_reference(
    state: Tensor, x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor
) -> tuple[Tensor, Tensor]:
    """Take one token per sequence on kept states.

    Args:
        state: ``[n, d_inner, d_state]``.
        x: ``[n, d_inner]``, and so on as in :func:`selective_scan_reference`, a row a sequence.

    Returns:
        ``y [n, d_inner]`` and the new states.
    """
    decay = torch.exp(dt[:, :, None] * A)
    state = torch.addcmul((dt * x)[:, :, None] * B[:, None, :], decay, state)
    return torch.einsum("nds,ns->nd", state, C) + D * x, state
