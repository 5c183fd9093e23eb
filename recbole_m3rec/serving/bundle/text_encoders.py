"""The text encoders of a bundle: recipes, and what the encoders learned in training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from recbole_m3rec.features.encoders import encode_texts
from recbole_m3rec.features.encoders.text_fields import join_fields
from recbole_m3rec.features.encoders.tfidf_svd import FittedTfidfSvd

if TYPE_CHECKING:
    import pandas as pd

    from recbole_m3rec.serving.recommender import Recommender

TFIDF = "tfidf-svd"


def as_tensors(modality: str, fitted: FittedTfidfSvd) -> dict[str, Tensor]:
    """Return what a fitted encoder knows as tensors; terms as UTF-8, a line each."""
    terms = np.frombuffer("\n".join(fitted.terms).encode(), dtype=np.uint8).copy()
    return {
        f"{modality}.terms": torch.from_numpy(terms),
        f"{modality}.idf": torch.from_numpy(fitted.idf),
        f"{modality}.directions": torch.from_numpy(np.ascontiguousarray(fitted.directions)),
    }


def from_tensors(
    modality: str, tensors: Mapping[str, Tensor], options: Mapping[str, Any]
) -> FittedTfidfSvd:
    """Return the fitted encoder of :func:`as_tensors`."""
    terms = tensors[f"{modality}.terms"].numpy().tobytes().decode().split("\n")
    return FittedTfidfSvd(
        tuple(terms),
        tensors[f"{modality}.idf"].numpy(),
        tensors[f"{modality}.directions"].numpy(),
        int(options["max_ngram"]),
        bool(options["unit_rows"]),
    )


def encode_text(recommender: Recommender, modality: str, items: pd.DataFrame) -> np.ndarray | None:
    """Make features of a modality from the columns that its recipe reads.

    Returns:
        ``[n, d]`` float32, NaN where nothing can be said; None where the bundle has no recipe of
        the modality, or the frame none of its columns.
    """
    recipe = recommender.about["features"].get(modality, {}).get("recipe")
    if not recipe:
        return None
    fields = [field for field in recipe["fields"] if field in items.columns]
    if not fields:
        return None
    columns = [texts_of(items[field]) for field in fields]
    texts = join_fields(columns, keep_html=bool(recipe.get("keep_html", False)))
    encoders = recommender.bundle.encoders
    if recipe["encoder"] == TFIDF:
        if f"{modality}.terms" not in encoders:
            return None
        values = from_tensors(modality, encoders, recipe["options"]).encode(texts)
    else:
        values = encode_texts(recipe["encoder"], texts, recipe["options"])
    values = np.array(values, dtype=np.float32)
    values[~values.any(axis=1)] = np.nan
    return values


def texts_of(column: pd.Series) -> list[str]:
    """Return what a column of a frame holds as texts, empty ones where a value is missing."""
    values = zip(column.tolist(), column.isna(), strict=True)
    return ["" if is_missing else str(value) for value, is_missing in values]
