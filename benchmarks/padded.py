"""M3Rec computed the released program's way, as a competitor: padded, projected per occurrence.

Weights are shared with a network of ours, so that both compute the same numbers: every position of
``[B, L]`` runs through every layer, features are looked up and projected for each occurrence, the
scan is a loop over time on padded ``[B, d_inner, d_state]`` states, exponentials made at once (or
mamba-ssm's fused kernel on a GPU), and all logits of a step are held.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_m3rec.network.m3rec import ID, M3RecNetwork
from recbole_m3rec.network.mamba import MambaBlock

try:
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn
except ImportError:
    selective_scan_fn = None


def padded_mamba(block: MambaBlock, h: Tensor) -> Tensor:
    """The block over padded sequences ``[B, L, H]``."""
    length = h.shape[1]
    x, z = block.in_proj(h).chunk(2, dim=-1)
    x = F.silu(
        F.conv1d(
            *(x.transpose(1, 2), block.conv1d.weight, block.conv1d.bias),
            padding=block.conv1d.weight.shape[2] - 1,
            groups=block.conv1d.weight.shape[0],
        )[..., :length]
    )
    dt, B, C = block.x_proj(x.transpose(1, 2)).split(
        [block.dt_rank, block.d_state, block.d_state], dim=-1
    )
    A = -torch.exp(block.A_log)
    if h.is_cuda and selective_scan_fn is not None:
        y = selective_scan_fn(
            *(x, (dt @ block.dt_proj.weight.T).transpose(1, 2), A),
            *(B.transpose(1, 2), C.transpose(1, 2), block.D),
            z=z.transpose(1, 2),
            delta_bias=block.dt_proj.bias,
            delta_softplus=True,
        )
        return block.out_proj(y.transpose(1, 2))
    dt = F.softplus(block.dt_proj(dt))
    x = x.transpose(1, 2)
    decay = torch.exp(dt[..., None] * A)
    new = (dt * x)[..., None] * B[:, :, None, :]
    state, outputs = torch.zeros_like(new[:, 0]), []
    # unbind: the gradient of an index would fill the whole tensor with zeros at every step.
    for a, b, c in zip(decay.unbind(1), new.unbind(1), C.unbind(1), strict=True):
        state = a * state + b
        outputs.append((state * c[:, None, :]).sum(-1))
    y = torch.stack(outputs, dim=1) + block.D * x
    return block.out_proj(y * F.silu(z))


class PaddedM3Rec(nn.Module):
    """The released program's training step (gradient rule ``detached``), on our weights."""

    def __init__(self, network: M3RecNetwork) -> None:
        super().__init__()
        self.network = network

    def calculate_loss(self, interaction: Any) -> Tensor:
        """Mean cross-entropy of one target a row."""
        query = self.query(interaction["item_id_list"], interaction["item_length"])
        return F.cross_entropy(query @ self.table().T, interaction["item_id"])

    def table(self) -> Tensor:
        network = self.network
        blocks = [
            content.weight * content.projector(content.features)
            for content in network.content.values()
        ]
        return torch.cat([*blocks, network.item_embedding.weight], dim=1)

    def query(self, item_seq: Tensor, item_seq_len: Tensor) -> Tensor:
        network, blocks = self.network, []
        rows = torch.arange(len(item_seq), device=item_seq.device)
        for name in network.modalities:
            if name == ID:
                x, weight = network.item_embedding(item_seq), 1.0
            else:
                content = network.content[name]
                x, weight = content.projector(content.features[item_seq]), content.weight
            x = network.input_norms[name](F.dropout(x, network.dropout.p, self.training))
            for layer in network.layers:
                shared, expert = layer.shared, layer.experts[name]
                with torch.set_grad_enabled(name == ID and torch.is_grad_enabled()):
                    h = self.drop(padded_mamba(shared.mamba, x))
                    h = shared.norm(h + x if shared.residual else h)
                inner = self.drop(F.gelu(expert.w_1(h)))
                x = expert.norm(self.drop(expert.w_2(inner)) + h)
            blocks.append(weight * x[rows, item_seq_len - 1])
        return torch.cat(blocks, dim=1)

    def drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.network.dropout.p, self.training)
