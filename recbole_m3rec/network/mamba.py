"""The Mamba block on packed sequences (Gu & Dao 2023, arXiv 2312.00752, Algorithm 2)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_m3rec.network.low_pass import LowPass, none_yet, with_one
from recbole_m3rec.ops.causal_conv1d import causal_conv1d_silu
from recbole_m3rec.ops.matmul import Linear, matmul
from recbole_m3rec.ops.selective_scan import (
    selective_scan,
    selective_scan_states,
    selective_step,
)

DT_MIN, DT_MAX, DT_FLOOR = 1e-3, 1e-1, 1e-4  # range of the initial step sizes


class MambaState(NamedTuple):
    """What a Mamba block remembers of each sequence.

    Attributes:
        window: the newest ``d_conv - 1`` inputs of the convolution, oldest first,
            ``[n_sequences, d_inner, d_conv - 1]``.
        ssm: the state of the scan, ``[n_sequences, d_inner, d_state]``.
        recent: the newest inputs of the low-pass filter, as :func:`.low_pass.none_yet` has them.
    """

    window: Tensor
    ssm: Tensor
    recent: Tensor


class MambaBlock(nn.Module):
    """A Mamba block; ``d_inner = expand · hidden_size``, ``dt_rank = ceil(hidden_size / 16)``.

    Parameters carry the names and shapes of the ``mamba-ssm`` package.
    """

    def __init__(
        self,
        hidden_size: int,
        d_state: int = 32,
        d_conv: int = 4,
        expand: int = 2,
        *,
        low_pass: int = 0,
        init: str = "mamba",
        scan_backend: str = "auto",
    ) -> None:
        """Create the block.

        Args:
            hidden_size: width of input and output.
            d_state: state size of the scan per channel.
            d_conv: width of the causal convolution, in tokens.
            expand: inner width in multiples of ``hidden_size``.
            low_pass: newest inputs whose mean is added to the output, 0 for none
                (:class:`.low_pass.LowPass`).
            init: ``mamba`` (Mamba's own) or ``normal`` (projections from N(0, 0.02), zero biases).
            scan_backend: one of :data:`recbole_m3rec.ops.selective_scan.BACKENDS`.
        """
        super().__init__()
        d_inner, dt_rank = expand * hidden_size, math.ceil(hidden_size / 16)
        self.d_state, self.dt_rank, self.scan_backend = d_state, dt_rank, scan_backend
        self.in_proj = Linear(hidden_size, 2 * d_inner, bias=False)
        self.conv1d = nn.Conv1d(d_inner, d_inner, d_conv, groups=d_inner)
        self.x_proj = Linear(d_inner, dt_rank + 2 * d_state, bias=False)
        self.dt_proj = nn.Linear(dt_rank, d_inner)
        self.A_log = nn.Parameter(torch.log(torch.arange(1.0, d_state + 1).repeat(d_inner, 1)))
        self.D = nn.Parameter(torch.ones(d_inner))
        self.out_proj = Linear(d_inner, hidden_size, bias=False)
        self.low_pass = LowPass(hidden_size, low_pass) if low_pass else None
        self._init_step_sizes()
        if init == "normal":
            self._init_normal()

    @torch.no_grad()
    def _init_step_sizes(self) -> None:
        """Make softplus(bias) log-uniform in [DT_MIN, DT_MAX], as Mamba does."""
        nn.init.uniform_(self.dt_proj.weight, -(self.dt_rank**-0.5), self.dt_rank**-0.5)
        low, high = math.log(DT_MIN), math.log(DT_MAX)
        dt = torch.exp(torch.empty_like(self.dt_proj.bias).uniform_(low, high)).clamp(min=DT_FLOOR)
        self.dt_proj.bias.copy_(dt + torch.log(-torch.expm1(-dt)))  # the inverse of softplus

    @torch.no_grad()
    def _init_normal(self) -> None:
        """Start the projections as the authors' released program does, step-size bias included."""
        for projection in (self.in_proj, self.x_proj, self.dt_proj, self.out_proj):
            projection.weight.normal_(0.0, 0.02)
        self.dt_proj.bias.zero_()

    def forward(self, h: Tensor, cu_seqlens: Tensor, last_only: bool = False) -> Tensor:
        """Mix the tokens of each sequence.

        Args:
            h: ``[n_tokens, hidden_size]``.
            cu_seqlens: first token of each sequence and the total, ``[n_sequences + 1]`` int32.
            last_only: compute gate and output at the last token of each sequence alone.

        Returns:
            ``[n_tokens, hidden_size]``, or ``[n_sequences, hidden_size]`` with ``last_only``.
        """
        x, z = self._project(h, cu_seqlens, last_only)
        x = self._convolve(x, cu_seqlens)
        dt, B, C = self._scan_inputs(x)
        y = selective_scan(
            *(x, dt, self._A(), B, C, self.D, cu_seqlens),
            last_only=last_only,
            dt_bias=self.dt_proj.bias,
            z=z,
            backend=self.scan_backend,
        )
        return self._result(y, h, cu_seqlens, last_only)

    @torch.no_grad()
    def forward_with_state(
        self, h: Tensor, cu_seqlens: Tensor, last_only: bool = False
    ) -> tuple[Tensor, MambaState]:
        """Return what :meth:`forward` does, and each sequence's state, in one pass.

        Returns:
            The result, and the states after the sequences' last tokens, from where :meth:`step`
            goes on.
        """
        x, z = self._project(h, cu_seqlens, last_only)
        state = self.initial_state(cu_seqlens.numel() - 1)
        _keep_newest(x, cu_seqlens, state.window.transpose(1, 2))
        if self.low_pass is not None:
            _keep_newest(with_one(h), cu_seqlens, state.recent)
        x = self._convolve(x, cu_seqlens)
        dt, B, C = self._scan_inputs(x)
        y, ssm = selective_scan_states(
            *(x, dt, self._A(), B, C, self.D, cu_seqlens),
            last_only=last_only,
            dt_bias=self.dt_proj.bias,
            z=z,
            backend=self.scan_backend,
        )
        return self._result(y, h, cu_seqlens, last_only), state._replace(ssm=ssm)

    def _project(self, h: Tensor, cu_seqlens: Tensor, last_only: bool) -> tuple[Tensor, Tensor]:
        """Inputs of the convolution at every token, and of the gate where there is a result."""
        if not last_only:
            x, z = self.in_proj(h).chunk(2, dim=-1)
            return x, z
        weight_x, weight_z = self.in_proj.weight.chunk(2)
        return matmul(h, weight_x), matmul(h[cu_seqlens[1:].long() - 1], weight_z)

    def _result(self, y: Tensor, h: Tensor, cu_seqlens: Tensor, last_only: bool) -> Tensor:
        out: Tensor = self.out_proj(y)
        return out if self.low_pass is None else out + self.low_pass(h, cu_seqlens, last_only)

    def _A(self) -> Tensor:
        return -torch.exp(self.A_log)

    def _convolve(self, x: Tensor, cu_seqlens: Tensor) -> Tensor:
        weight, bias = self._taps()
        return causal_conv1d_silu(x, weight, bias, cu_seqlens, backend=self.scan_backend)

    def _taps(self) -> tuple[Tensor, Tensor]:
        """Weight ``[d_inner, d_conv]`` and bias of the convolution."""
        bias = self.conv1d.bias
        assert bias is not None  # nn.Conv1d was made with one
        return self.conv1d.weight.squeeze(1), bias

    def _scan_inputs(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Step sizes before bias and softplus, B and C of every token."""
        projected = matmul(x, self.x_proj.weight)
        dt, B, C = projected.split([self.dt_rank, self.d_state, self.d_state], dim=-1)
        return matmul(dt, self.dt_proj.weight), B, C

    def initial_state(self, n_sequences: int) -> MambaState:
        """Return the state of sequences without a token yet: zeros."""
        d_inner, _, d_conv = self.conv1d.weight.shape
        new = self.D.new_zeros
        n_latest = 0 if self.low_pass is None else self.low_pass.n_latest
        return MambaState(
            new(n_sequences, d_inner, d_conv - 1),
            new(n_sequences, d_inner, self.d_state),
            none_yet(self.D, n_sequences, self.in_proj.in_features, n_latest),
        )

    @torch.no_grad()
    def step(self, h: Tensor, state: MambaState) -> tuple[Tensor, MambaState]:
        """Take one new token of every sequence.

        Args:
            h: the new tokens, ``[n_sequences, hidden_size]``.
            state: from :meth:`initial_state`, :meth:`forward_with_state` or an
                earlier step.

        Returns:
            The block's output at the new tokens ``[n_sequences, hidden_size]``, equal to the full
            pass, and the new state.
        """
        # At batch 1 the calls cost more than what they compute, so there are few of them.
        x, z = F.linear(h, self.in_proj.weight).chunk(2, dim=-1)
        window = torch.cat([state.window, x[:, :, None]], dim=2)
        weight, bias = self._taps()
        x = F.silu((window * weight).sum(2).add_(bias))
        dt, B, C = self._scan_inputs(x)
        y, ssm = selective_step(
            *(state.ssm, x, dt, self._A(), B, C, self.D),
            dt_bias=self.dt_proj.bias,
            z=z,
            backend=self.scan_backend,
        )
        out = F.linear(y, self.out_proj.weight)
        state = state._replace(window=window[:, :, 1:], ssm=ssm)
        if self.low_pass is None:
            return out, state
        slow, recent = self.low_pass.step(h, state.recent)
        return out + slow, state._replace(recent=recent)


def _keep_newest(x: Tensor, cu_seqlens: Tensor, kept: Tensor) -> None:
    """Write the newest tokens of each sequence, oldest first, to the end of its row.

    Args:
        x: ``[n_tokens, D]``.
        cu_seqlens: ``[n_sequences + 1]`` int32.
        kept: ``[n_sequences, n, D]``; rows that no token is for stay as they are.
    """
    starts, ends = cu_seqlens[:-1].long(), cu_seqlens[1:].long()
    n_kept = kept.shape[1]
    for age in range(1, n_kept + 1):  # the newest token has age 1
        is_inside = ends - age >= starts
        kept[is_inside, n_kept - age] = x[(ends - age)[is_inside]]
