"""Checks of sizes of networks that must go into one another, of RecBole's models and SASRecMM."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# By model: a width, and the number of equal parts that it is cut into.
PARTS: dict[str, tuple[str, str]] = {
    **dict.fromkeys(
        ("BERT4Rec", "FDSA", "FEARec", "GCSAN", "LightSANs", "S3Rec")
        + ("SASRec", "SASRecCPR", "SASRecF", "SASRecMM"),
        ("hidden_size", "n_heads"),
    ),
    "CORE": ("embedding_size", "n_heads"),
    "AutoInt": ("attention_size", "num_heads"),
    "FiGNN": ("attention_size", "num_heads"),
    "DGCF": ("embedding_size", "n_factors"),
}

# Their latent dimensions are a mean and a variance of each feature.
HALVED = ("MultiVAE", "RaCT")


def no_multiple(values: Mapping[str, Any]) -> str | None:
    """Return what is wrong with a width that cannot be cut into equal parts."""
    if values["model"] not in PARTS or values.get("dnn_type") == "ave":  # CORE without attention
        return None
    width, parts = PARTS[values["model"]]
    size, number = values[width], values[parts]
    if not isinstance(size, int) or size % number == 0:
        return None
    return (
        f"{width} must be a multiple of {parts}, found {width}={size} and {parts}={number}. "
        "Change one of them."
    )


def no_two_halves(values: Mapping[str, Any]) -> str | None:
    """Return what is wrong with a latent dimension that has no two halves."""
    size = values["latent_dimension"]
    if values["model"] not in HALVED or size % 2 == 0:
        return None
    return f"latent_dimension must be even, found {size}."
