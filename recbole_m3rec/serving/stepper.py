"""What a network remembers of a history, and one more item on it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any, cast

import torch
from torch import Tensor, nn

from recbole_m3rec.network.item_encoder import ItemVectors
from recbole_m3rec.network.m3rec import NORM_EPS, M3RecLayer, M3RecNetwork, SharedBlock
from recbole_m3rec.network.mamba import MambaBlock, MambaState
from recbole_m3rec.network.packed import PackedSequences
from recbole_m3rec.ops.cpu.network_step import NetworkStep

# Those of the history that is being read, by each thread its own.
_states: ContextVar[list[MambaState]] = ContextVar("states")


class _Recording(nn.Module):
    """A Mamba block that also notes the state after a history, in the order of calls."""

    def __init__(self, block: MambaBlock) -> None:
        super().__init__()
        self.block = block

    def forward(self, h: Tensor, cu_seqlens: Tensor, last_only: bool = False) -> Tensor:
        out, state = self.block.forward_with_state(h, cu_seqlens, last_only)
        _states.get().append(state)
        return out


class Stepper:
    """Encodes one more item on a kept state.

    A state has a row per layer and modality: ``window [layers, M + 1, d_inner, d_conv - 1]``,
    ``ssm [layers, M + 1, d_inner, d_state]`` and ``recent [layers, M + 1, low_pass - 1, H + 1]``.
    A history is read by ``M3RecNetwork.encode`` itself. For a single item its calls would cost more
    than what they compute, so a step is one call of the compiled kernels.
    """

    def __init__(self, network: M3RecNetwork) -> None:
        self.network = network
        memo: dict[int, Any] = {id(tensor): tensor for tensor in network.parameters()}
        memo |= {id(tensor): tensor for tensor in network.buffers()}
        self._reading = copy.deepcopy(network, memo)
        for module in list(self._reading.modules()):
            for name, child in list(module.named_children()):
                if isinstance(child, MambaBlock):
                    setattr(module, name, _Recording(child))
        self._compiled = NetworkStep(
            [_both(network.input_norms[name]) for name in network.modalities],
            [[_weights(layer, name) for name in network.modalities] for layer in network.layers],
            has_residual=network.config.num_layers > 1,
            low_pass=network.config.low_pass,
            eps=NORM_EPS,
        )

    @torch.inference_mode()
    def read(self, sequence: dict[str, Tensor]) -> tuple[Tensor, MambaState]:
        """Read a history's vectors by modality, ``[n, H]``; returns the query and the state."""
        length = len(next(iter(sequence.values())))
        rows = PackedSequences(torch.arange(length), torch.tensor([0, length], dtype=torch.int32))
        states: list[MambaState] = []
        _states.set(states)
        query = self._reading.encode(rows, ItemVectors(sequence, torch.empty(0)))
        return query, self._side_by_side(states)

    @torch.inference_mode()
    def step(self, sequence: dict[str, Tensor], state: MambaState) -> tuple[Tensor, MambaState]:
        """Read one more item, its vectors by modality ``[1, H]``.

        Returns:
            The query ``[1, (M + 1) · H]``, and the state after the item.
        """
        if self.network.config.scan_backend in ("auto", "cpu") and self._compiled.has_kernel:
            x = torch.cat([sequence[name] for name in self.network.modalities])
            y, *after = self._compiled(x, *state)
            return self.network.fuse(y.split(1)), MambaState(*after)
        n_layers, n_modalities = state.ssm.shape[:2]
        before = [
            MambaState(*(kept[layer, modality][None] for kept in state))
            for modality in range(n_modalities)
            for layer in range(n_layers)
        ]
        query, parts = step_by_modules(self.network, sequence, before)
        return query, self._side_by_side(parts)

    def _side_by_side(self, parts: Sequence[MambaState]) -> MambaState:
        """Make one state of a history's: those of all layers for some modalities, then others."""
        n_layers = len(self.network.layers)
        runs = [parts[first : first + n_layers] for first in range(0, len(parts), n_layers)]
        return MambaState(
            *(
                torch.cat([torch.stack([state[field] for state in run]) for run in runs], dim=1)
                for field in range(len(MambaState._fields))
            )
        )


def step_by_modules(
    network: M3RecNetwork, sequence: dict[str, Tensor], states: Sequence[MambaState]
) -> tuple[Tensor, list[MambaState]]:
    """Read one more item of each history by the network's own modules.

    Args:
        network: in evaluation mode.
        sequence: the items' vectors by modality, ``[B, H]``.
        states: of the first modality in each layer, then of the next one.

    Returns:
        Queries ``[B, (M + 1) · H]``, and the states after the items.
    """
    outputs, after, before = [], [], iter(states)
    for name in network.modalities:
        x = cast(nn.LayerNorm, network.input_norms[name])(sequence[name])
        for layer in network.layers:
            block = _block(layer, name)
            h, state = block.mamba.step(x, next(before))
            after.append(state)
            x = cast(M3RecLayer, layer).experts[name](block.norm(h + x if block.residual else h))
        outputs.append(x)
    return network.fuse(outputs), after


def _block(layer: Any, modality: str) -> SharedBlock:
    own: dict[str, SharedBlock] = dict(layer.own.items())
    return own.get(modality, layer.shared)


def _weights(layer: Any, modality: str) -> tuple[Tensor, ...]:
    """A modality's weights in a layer, in the order of :class:`NetworkStep`."""
    block, expert = _block(layer, modality), layer.experts[modality]
    mamba = block.mamba
    A, none, slow = -torch.exp(mamba.A_log.detach()), mamba.D.new_empty(0), mamba.low_pass
    return (
        *(mamba.in_proj.weight, *_both(mamba.conv1d), mamba.x_proj.weight),
        *(*_both(mamba.dt_proj), A, mamba.D, mamba.out_proj.weight),
        *(*_both(block.norm), *_both(expert.w_1), *_both(expert.w_2), *_both(expert.norm)),
        *((none, none) if slow is None else (slow.weight, slow.keep)),
    )


def _both(module: Any) -> tuple[Tensor, Tensor]:
    return module.weight, module.bias
