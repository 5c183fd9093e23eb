"""Load weights of the authors' released program."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

import torch
from torch import Tensor

from recbole_m3rec.features.align import ItemFeatures
from recbole_m3rec.network.m3rec import M3RecNetwork

# Prefixes of the released names for our modalities, and the name of each fusion weight.
_PREFIX = {"image": "img_", "text": "text_", "id": ""}
_WEIGHT = {"image": "img_alpha", "text": "text_beta"}


def load_released_state(state_dict: Mapping[str, Tensor]) -> M3RecNetwork:
    """Build the network that a released state dict belongs to; all sizes are read off its tensors.

    Args:
        state_dict: the authors' names (``img_feat.weight``, ``mamba_block.0.mamba.A_log``, …).

    Returns:
        A network with those weights, without dropout, with the released gradient rule
        (``detached``).

    Raises:
        KeyError: a tensor is absent.

    Example:
        Here a network gives its weights the released names; usually they come from
        ``torch.load(path, weights_only=True)["state_dict"]``.

        >>> import torch
        >>> from recbole_m3rec import ItemFeatures, M3RecNetwork, load_released_state
        >>> from recbole_m3rec.network.released_weights import released_name
        >>> features = {
        ...     name: ItemFeatures(name, torch.randn(9, 4), torch.ones(9, dtype=bool), name, name)
        ...     for name in ("image", "text")
        ... }
        >>> network = M3RecNetwork(9, features, hidden_size=8)
        >>> state = {released_name(n): p for n, p in network.named_parameters()}
        >>> state["img_feat.weight"] = features["image"].values
        >>> state["text_feat.weight"] = features["text"].values
        >>> load_released_state(state).modality_gradient
        'detached'
    """
    features = {}
    for name in ("image", "text"):
        values = state_dict[f"{_PREFIX[name]}feat.weight"].detach().float().cpu().clone()
        present = torch.ones(values.shape[0], dtype=torch.bool)
        fingerprint = hashlib.sha256(values.contiguous().numpy().tobytes()).hexdigest()
        features[name] = ItemFeatures(name, values, present, fingerprint, f"{name}: released")
    n_items, hidden_size = state_dict["item_embedding.weight"].shape
    d_inner, d_state = state_dict["mamba_block.0.mamba.A_log"].shape
    blocks = {int(m[1]) for key in state_dict if (m := re.match(r"mamba_block\.(\d+)\.", key))}
    network = M3RecNetwork(
        n_items,
        features,
        hidden_size=hidden_size,
        num_layers=len(blocks),
        d_state=d_state,
        d_conv=state_dict["mamba_block.0.mamba.conv1d.weight"].shape[-1],
        expand=d_inner // hidden_size,
        dropout_prob=0.0,
        modality_gradient="detached",
    )
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_(state_dict[released_name(name)])
    return network


def released_name(name: str) -> str:
    """Translate a parameter name of :class:`M3RecNetwork` into the released program's.

    Raises:
        KeyError: the released program has no such parameter (the vector of missing items).
    """
    parts = name.split(".")
    if parts[0] == "item_embedding":
        return name
    if parts[0] == "content" and parts[2] == "weight":
        return _WEIGHT[parts[1]]
    if parts[0] == "content" and parts[2] == "projector":
        return f"{_PREFIX[parts[1]]}trans.{'.'.join(parts[3:])}"
    if parts[0] == "input_norms":
        return f"{_PREFIX[parts[1]]}LayerNorm.{parts[2]}"
    if parts[0] == "layers" and parts[2] == "shared":
        rest = [{"norm": "LayerNorm"}.get(part, part) for part in parts[3:]]
        return f"mamba_block.{parts[1]}.{'.'.join(rest)}"
    if parts[0] == "layers" and parts[2] == "experts":
        prefix = _PREFIX[parts[3]] or "id_"
        rest = [{"norm": "LayerNorm"}.get(part, part) for part in parts[4:]]
        return f"{prefix}mamba_ffn.{parts[1]}.{'.'.join(rest)}"
    raise KeyError(f"the released program has no parameter for {name}")
