"""Recipes as the configuration declares them, under ``features:``, one per modality.

For example ``text: {encoder: tfidf-svd, fields: [title, brand]}``; keys besides these two are
options of the encoder.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from recbole_m3rec.features.encoders import (
    ENCODER_NAMES,
    RANDOM_CODES,
    encoder_options,
    text_encoder,
)
from recbole_m3rec.support.suggestions import did_you_mean

# Part of every recipe; raise it when the same recipe would make other vectors, so that files made
# before are made again.
_RECIPE_VERSION = 1

_MODALITY_NAME = re.compile(r"[A-Za-z0-9_-]+")
_COLUMNS = ("user", "rank", "item", "score", "id", "repetition")  # of recommendations, explained


class RecipeError(ValueError):
    """A recipe under ``features:`` cannot be followed."""


@dataclass(frozen=True)
class Recipe:
    """How the features of a modality are made; ``options`` are complete, defaults included.

    ``keep_html`` leaves tags and entities in texts.
    """

    encoder: str
    fields: tuple[str, ...]
    options: Mapping[str, Any]
    keep_html: bool = False

    def __str__(self) -> str:
        if self.encoder == RANDOM_CODES:
            return f"random-codes of deviation {self.options['std']}"
        return f"{self.encoder} of {' '.join(self.fields)}"

    def as_metadata(self) -> dict[str, Any]:
        """Return what tells this recipe from any other, as JSON can hold it."""
        return {
            "encoder": self.encoder,
            "fields": list(self.fields),
            "options": dict(self.options),
            "version": _RECIPE_VERSION,
            **({"keep_html": True} if self.keep_html else {}),
        }


def fault_of_modality(name: object) -> str | None:
    """Return why something cannot name a modality, in words that follow it; None if it can."""
    if not isinstance(name, str) or not _MODALITY_NAME.fullmatch(name):
        return "is no name of letters, digits, '-' and '_'"
    if name in _COLUMNS:
        return f"is taken: scores are told in columns {', '.join(_COLUMNS)}. Choose another name"
    if name == "auto":
        return "stands for all modalities. Choose another name"
    if hasattr(nn.ModuleDict(), name):  # which holds the modalities of a network by name
        return "is a name that PyTorch keeps for itself. Choose another, such as image"
    return None


def parse_recipe(modality: str, given: Any, key: str | None = None) -> Recipe:
    """Check one entry of ``features:`` and complete it by the encoder's defaults.

    Args:
        modality: the entry's name.
        given: the entry.
        key: what errors begin with; None is the key in the configuration.

    Raises:
        RecipeError: a name that is not allowed, not a mapping, unknown encoder or option, or a text
            encoder without fields.
    """
    key = f"features.{modality}" if key is None else key
    fault = fault_of_modality(modality)
    if fault is not None:
        raise RecipeError(f"{key}: the modality {modality!r} {fault}")
    if not isinstance(given, Mapping):
        raise RecipeError(f"{key}: expected a mapping with encoder and fields, found {given!r}")
    encoder = given.get("encoder")
    is_text = text_encoder(encoder) is not None
    if not isinstance(encoder, str) or not (is_text or encoder == RANDOM_CODES):
        raise RecipeError(
            f"{key}: unknown encoder {encoder!r}, there are {', '.join(ENCODER_NAMES)}."
            + did_you_mean(str(encoder), ENCODER_NAMES)
        )
    options = encoder_options(encoder)
    keys = [*options, "encoder"] + (["fields", "keep_html"] if is_text else [])
    for name in given:
        if name not in keys:
            raise RecipeError(
                f"{key}: {encoder} has no option {name!r}, it takes {', '.join(keys)}."
                + did_you_mean(str(name), keys)
            )
    fields = given.get("fields", ())
    fields = (fields,) if isinstance(fields, str) else fields
    if not isinstance(fields, Sequence) or not all(isinstance(name, str) for name in fields):
        raise RecipeError(f"{key}: fields must be names of .item columns, found {fields!r}")
    if is_text and not fields:
        raise RecipeError(f"{key}: {encoder} needs fields, the columns of the .item file to encode")
    keep_html = given.get("keep_html", False)
    if not isinstance(keep_html, bool):
        raise RecipeError(f"{key}: keep_html must be true or false, found {keep_html!r}")
    options |= {name: value for name, value in given.items() if name in options}
    return Recipe(encoder, tuple(fields), options, keep_html)


def parse_recipes(features: Any) -> dict[str, Recipe]:
    """Check all of ``features:``; None, for the whole or for a modality, declares nothing.

    Raises:
        RecipeError: not a mapping, or one of the recipes is wrong.
    """
    if features is None:
        return {}
    if not isinstance(features, Mapping):
        raise RecipeError(f"features: expected recipes by modality, found {features!r}")
    return {
        modality: parse_recipe(modality, given)
        for modality, given in features.items()
        if given is not None
    }
