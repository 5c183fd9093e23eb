"""From frozen features to item vectors: projectors, missing items, fusion weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from recbole_m3rec.features.align import ItemFeatures
from recbole_m3rec.features.feature_file import scratch_array
from recbole_m3rec.features.feature_map import FeatureMap
from recbole_m3rec.network.projectors import INIT_STD, make_projector
from recbole_m3rec.network.settings import ModelConfigError

# Feature values that are projected at a time; 64 MB as float32.
PROJECTED_AT_A_TIME = 2**24


class FeatureMismatchError(ValueError):
    """A checkpoint was trained on other features than those at hand."""


class ItemVectors(NamedTuple):
    """The vectors of some items, each projected once.

    Attributes:
        sequence: what histories read, ``[n, H]`` by modality.
        table: what scores use, ``[n, (M + 1) · H]``: content modalities in order, then id.
    """

    sequence: dict[str, Tensor]
    table: Tensor


class ContentModality(nn.Module):
    """The item side of a content modality: frozen features, projector, fusion weight.

    The features are buffers that no initialisation touches and no checkpoint carries; mapped ones
    are none, and stay in their file whatever device the rest is on.
    """

    features: Tensor
    is_missing: Tensor

    def __init__(
        self,
        item_features: ItemFeatures,
        hidden_size: int,
        projector: str = "mlp",
        projector_experts: int = 8,
    ) -> None:
        super().__init__()
        self.map = item_features.map
        if self.map is None:
            self.register_buffer("features", item_features.values, persistent=False)
        else:
            self.features = item_features.values
        self.register_buffer("is_missing", ~item_features.present, persistent=False)
        self.fingerprint = item_features.fingerprint
        self.any_missing = bool(self.is_missing.any())
        self.projector = make_projector(
            projector, item_features.values.shape[1], hidden_size, projector_experts
        )
        self.weight = nn.Parameter(torch.ones(1))  # alpha, beta of the paper
        if self.any_missing:
            # Zeros would explode in a norm of eps 1e-12.
            self.missing = nn.Parameter(torch.empty(hidden_size).normal_(0.0, INIT_STD))

    def forward(self, items: Tensor | None) -> tuple[Tensor, Tensor]:
        """Project items, each once.

        Args:
            items: ids ``[n]``, or None for the whole catalogue in order.

        Returns:
            The vectors that sequences read, where missing items have the learned one, and those
            that scores use, where missing items have zeros; both ``[n, hidden_size]``.
        """
        vectors = self._project(self.features if items is None else self.rows(items))
        if not self.any_missing:
            return vectors, vectors
        missing = (self.is_missing if items is None else self.is_missing[items])[:, None]
        return torch.where(missing, self.missing, vectors), vectors.masked_fill(missing, 0.0)

    def rows(self, items: Tensor) -> Tensor:
        """Return the features of items ``[n]``, ``[n, d]``."""
        rows: Tensor = self.features[items] if self.map is None else self.map.rows(items)
        return rows

    def _project(self, features: Tensor) -> Tensor:
        """Run the projector, over some rows at a time where there are many.

        Then only features and results are kept, and what lies between is computed again for the
        gradient, which takes one more pass through the projector.
        """

        def project(rows: Tensor) -> Tensor:
            projected: Tensor = self.projector(rows.to(self.weight.device, self.weight.dtype))
            return projected

        if features.numel() <= PROJECTED_AT_A_TIME:
            return project(features)
        rows_at_a_time = max(1, PROJECTED_AT_A_TIME // features.shape[1])
        return torch.cat(
            [
                checkpoint(project, rows, use_reentrant=False, preserve_rng_state=False)
                for rows in features.split(rows_at_a_time)
            ]
        )


class ContentModalities(nn.ModuleDict):
    """A model's content modalities by name, in the order of fusion.

    A checkpoint carries the fingerprints of their features, and fits no others.
    """

    def __init__(
        self,
        features: Mapping[str, ItemFeatures],
        n_items: int,
        hidden_size: int,
        projector: str = "mlp",
        projector_experts: int = 8,
    ) -> None:
        """Create them.

        Raises:
            ModelConfigError: features of another number of items, or not all finite; a name that
                is the ID's, empty or dotted.
        """
        for name, of_items in features.items():
            if not name or "." in name or name == "id":
                raise ModelConfigError(
                    f"modality {name!r}: expected a word such as image, and not id, which is the"
                    " ID's own"
                )
            # A mapped file was checked when it was made; here it would be read whole.
            if of_items.map is None and not bool(of_items.values.isfinite().all()):
                raise ModelConfigError(
                    f"{name} features have values that are not finite: give zeros to items without"
                    " a vector, and leave them out of `present`"
                )
            if of_items.values.shape[0] != n_items:
                raise ModelConfigError(
                    f"{name} features have {of_items.values.shape[0]} rows, expected {n_items}"
                )
        super().__init__(
            {
                name: ContentModality(of_items, hidden_size, projector, projector_experts)
                for name, of_items in features.items()
            }
        )

    def get_extra_state(self) -> dict[str, str]:
        """Return the fingerprint of each modality's features, which a checkpoint carries."""
        return {name: content.fingerprint for name, content in self.items()}  # type: ignore[misc]

    def set_extra_state(self, state: Any) -> None:
        """Refuse a checkpoint that was trained on other features.

        Raises:
            FeatureMismatchError: modalities or fingerprints differ.
        """
        ours = self.get_extra_state()
        if list(state) != list(ours):
            raise FeatureMismatchError(
                f"the checkpoint was trained on the content modalities {list(state)}, this model "
                f"has {list(ours)}: set modalities as in training"
            )
        for name, fingerprint in ours.items():
            if state[name] != fingerprint:
                raise FeatureMismatchError(
                    f"the checkpoint was trained on other {name} features (fingerprint "
                    f"{state[name][:12]}) than those at hand ({fingerprint[:12]}): restore the "
                    "feature file, the interactions and feature_norm of training, or train again"
                )


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
