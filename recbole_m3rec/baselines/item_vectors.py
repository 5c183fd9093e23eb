"""Feature files as the item features of GRU4RecF, SASRecF and FDSA.

These models embed each feature of an item into one vector of their own width, in RecBole's
``FeatureSeqEmbLayer``. A modality becomes one more such feature: its vectors, mapped to that width
by one linear layer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_m3rec.hooks import wrap

SUFFIX = ".vector"


def vector_field(modality: str) -> str:
    """Return the name by which a modality stands among the features of a model."""
    return modality + SUFFIX


def is_vector_field(name: str) -> bool:
    """Tell whether a feature is a modality's and no column of a file."""
    return name.endswith(SUFFIX)


class VectorEmbedding(nn.Module):
    """Frozen vectors of items, each modality's mapped to a model's width by a linear layer.

    An item without a vector has zeros in its place.

    Args:
        tables: the vectors by modality, each ``[n_items, d]``, rows in the order of item ids.
        width: the model's width ``H``.
    """

    def __init__(self, tables: Sequence[Tensor], width: int) -> None:
        super().__init__()
        self.projections = nn.ModuleList(
            nn.Linear(table.shape[1], width, bias=False) for table in tables
        )
        for number, table in enumerate(tables):
            self.register_buffer(f"table{number}", table.float(), persistent=False)

    def forward(self, items: Tensor) -> Tensor:
        """Look items up, ``[...]`` int64 to ``[..., n_modalities, H]``."""
        embeddings = []
        for number, projection in enumerate(self.projections):
            table = projection(getattr(self, f"table{number}"))  # each item once
            embeddings.append(F.embedding(items, table))
        return torch.stack(embeddings, dim=-2)


def install() -> None:
    """Let RecBole's layer of item features embed vectors beside columns."""
    from recbole.model.layers import FeatureSeqEmbLayer

    @wrap(FeatureSeqEmbLayer, "__init__")
    def build(
        original: Callable[..., None],
        self: Any,
        dataset: Any,
        embedding_size: int,
        selected_features: Sequence[str],
        *args: Any,
        **kwargs: Any,
    ) -> None:
        columns = [name for name in selected_features if not is_vector_field(name)]
        original(self, dataset, embedding_size, columns, *args, **kwargs)
        tables = [
            dataset.item_features[name.removesuffix(SUFFIX)].values
            for name in selected_features
            if is_vector_field(name)
        ]
        self.item_vectors = VectorEmbedding(tables, embedding_size) if tables else None

    @wrap(FeatureSeqEmbLayer, "forward")
    def embed(original: Callable[..., Any], self: Any, user_idx: Any, item_idx: Tensor) -> Any:
        sparse, dense = original(self, user_idx, item_idx)
        # A layer of a checkpoint from before has no such attribute.
        item_vectors = getattr(self, "item_vectors", None)
        if item_vectors is not None:
            vectors = item_vectors(item_idx)
            columns = dense["item"]
            dense["item"] = vectors if columns is None else torch.cat([columns, vectors], dim=-2)
        return sparse, dense


def announce_fields(dataset: Any) -> None:
    """Make a dataset's vectors known to RecBole as a field each, for models that count fields."""
    from recbole.utils import FeatureSource, FeatureType

    for modality in getattr(dataset, "item_features", {}):
        dataset.field2type[vector_field(modality)] = FeatureType.FLOAT
        dataset.field2source[vector_field(modality)] = FeatureSource.ITEM
