"""The item table of a large catalogue, computed in blocks into a file that is mapped."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from recbole_m3rec.features.feature_file import scratch_array
from recbole_m3rec.features.feature_map import FeatureMap
from recbole_m3rec.network.item_encoder import PROJECTED_AT_A_TIME, ContentModality


def feature_maps(network: nn.Module) -> list[FeatureMap]:
    """Return the maps of a network's content modalities, none where all are in memory."""
    contents = (each for each in network.modules() if isinstance(each, ContentModality))
    return [content.map for content in contents if content.map is not None]


@torch.no_grad()
def item_table_in_file(network: Any) -> Tensor:
    """Compute every item's vector for scoring, ``[n_items, (M + 1) · H]`` float32 on the CPU.

    The file lies beside a feature map, has no name, and goes with the tensor.

    Args:
        network: with ``item_vectors`` and at least one feature map.

    Raises:
        OSError: there is no room for it.
    """
    maps = feature_maps(network)
    device = next(network.parameters()).device
    at_a_time = max(1, PROJECTED_AT_A_TIME // max(each.width for each in maps))
    table = None
    for items in torch.arange(network.n_items, device=device).split(at_a_time):
        block = network.item_vectors(items).table.float().cpu()
        if table is None:
            shape = network.n_items, block.shape[1]
            table = torch.from_numpy(scratch_array(shape, block.numpy().dtype, maps[0].path.parent))
        table[int(items[0]) : int(items[-1]) + 1] = block
    assert table is not None
    return table
