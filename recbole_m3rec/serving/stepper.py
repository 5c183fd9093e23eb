"""What a network remembers of a history, and one more item on it."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from recbole_m3rec.network.m3rec import NORM_EPS, ItemVectors, M3RecNetwork, SharedBlock
from recbole_m3rec.network.mamba import MambaBlock, MambaState
from recbole_m3rec.network.packed import PackedSequences
from recbole_m3rec.ops.cpu.network_step import NetworkStep


class _Recording(nn.Module):
    """A Mamba block that also notes the state after a history, in the order of calls."""

    def __init__(self, block: MambaBlock, states: list[MambaState]) -> None:
        super().__init__()
        self.block, self._states = block, states

    def forward(self, h: Tensor, cu_seqlens: Tensor, last_only: bool = False) -> Tensor:
        self._states.append(self.block.last_state(h, cu_seqlens))
        out: Tensor = self.block(h, cu_seqlens, last_only)
        return out


class Stepper:
    """Encodes one more item on a kept state.

    A state has a row per layer and modality: ``window [layers, M + 1, d_inner, d_conv - 1]`` and
    ``ssm [layers, M + 1, d_inner, d_state]``. A history is read by ``M3RecNetwork.encode`` itself.
    For a single item its calls would cost more than what they compute, so a step is one call of the
    compiled kernels.
    """

    def __init__(self, network: M3RecNetwork) -> None:
        self.network = network
        self._states: list[MambaState] = []
        memo: dict[int, Any] = {id(tensor): tensor for tensor in network.parameters()}
        memo |= {id(tensor): tensor for tensor in network.buffers()}
        self._reading = copy.deepcopy(network, memo)
        for module in list(self._reading.modules()):
            for name, child in list(module.named_children()):
                if isinstance(child, MambaBlock):
                    setattr(module, name, _Recording(child, self._states))
        self._compiled = NetworkStep(
            [_both(network.input_norms[name]) for name in network.modalities],
            [[_weights(layer, name) for name in network.modalities] for layer in network.layers],
            has_residual=network.config.num_layers > 1,
            eps=NORM_EPS,
        )

    @torch.inference_mode()
    def read(self, sequence: dict[str, Tensor]) -> tuple[Tensor, MambaState]:
        """Read a history's vectors by modality, ``[n, H]``; returns the query and the state."""
        length = len(next(iter(sequence.values())))
        rows = PackedSequences(torch.arange(length), torch.tensor([0, length], dtype=torch.int32))
        self._states.clear()
        query = self._reading.encode(rows, ItemVectors(sequence, torch.empty(0)))
        n_layers = len(self.network.layers)
        by_modality = [torch.cat(parts) for parts in zip(*self._states, strict=True)]
        # A modality goes through all layers before the next one.
        window, ssm = (t.unflatten(0, (-1, n_layers)).transpose(0, 1) for t in by_modality)
        return query, MambaState(window.contiguous(), ssm.contiguous())

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
        return self._step_in_parts(sequence, state)

    def _step_in_parts(
        self, sequence: dict[str, Tensor], state: MambaState
    ) -> tuple[Tensor, MambaState]:
        outputs, after = [], MambaState(*map(torch.empty_like, state))
        for place, name in enumerate(self.network.modalities):
            x = self.network.input_norms[name](sequence[name])
            for depth, layer in enumerate(self.network.layers):
                block = _block(layer, name)
                before = MambaState(*(kept[depth, place][None] for kept in state))
                h, new = block.mamba.step(x, before)
                for kept, part in zip(after, new, strict=True):
                    kept[depth, place] = part[0]
                x = layer.experts[name](block.norm(h + x if block.residual else h))
            outputs.append(x)
        return self.network.fuse(outputs), after


def _block(layer: Any, modality: str) -> SharedBlock:
    block: SharedBlock = layer.own[modality] if modality in layer.own else layer.shared
    return block


def _weights(layer: Any, modality: str) -> tuple[Tensor, ...]:
    """A modality's weights in a layer, in the order of :class:`NetworkStep`."""
    block, expert = _block(layer, modality), layer.experts[modality]
    in_proj, taps, tap_bias, x_proj, dt_proj, dt_bias, A_log, D, out_proj = block.mamba.weights()
    A = -torch.exp(A_log.detach())
    return (
        *(in_proj, taps, tap_bias, x_proj, dt_proj, dt_bias, A, D, out_proj),
        *(*_both(block.norm), *_both(expert.w_1), *_both(expert.w_2), *_both(expert.norm)),
    )


def _both(module: Any) -> tuple[Tensor, Tensor]:
    return module.weight, module.bias
