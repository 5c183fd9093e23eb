"""Text encoders, found by name.

A text encoder is called as ``encode(texts, *, progress=None, **options)``. It gets one text per
item, fields apart by line breaks, and returns ``[len(texts), d]`` float32, with a row of zeros
where it can say nothing about an item. ``progress`` is called with the number of texts done since
the last call. One that takes long also has ``work``, a folder from which a killed run goes on, and
``device`` and ``cluster``; one with weights has ``note``, which is told their digest. The other
keyword arguments are the options that a recipe may set. One that is named ``family:model`` gets the
model's name first. To add an encoder, write such a function and name it here; import what is heavy
or optional inside the function.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from recbole_m3rec.cluster.pieces import THIS_PROCESS, Cluster
from recbole_m3rec.features.encoders.batches import EncoderError
from recbole_m3rec.features.encoders.random_codes import random_codes
from recbole_m3rec.features.encoders.text_models import (
    encode_sentence_transformers,
    encode_transformers,
)
from recbole_m3rec.features.encoders.tfidf_svd import encode_tfidf_svd

TextEncoder = Callable[..., "np.ndarray"]

_TEXT_ENCODERS: dict[str, TextEncoder] = {"tfidf-svd": encode_tfidf_svd}

_TEXT_FAMILIES: dict[str, TextEncoder] = {
    "sentence-transformers": encode_sentence_transformers,
    "transformers": encode_transformers,
}

# Made from the items' tokens and a seed, not from texts, and never stored as a file.
RANDOM_CODES = "random-codes"

ENCODER_NAMES = (
    *_TEXT_ENCODERS,
    *(f"{family}:<name or folder>" for family in _TEXT_FAMILIES),
    RANDOM_CODES,
)

# What says how a run goes and nothing about the vectors it makes.
_OF_THE_RUN = ("cluster", "device", "note", "progress", "work")


def text_encoder(name: Any) -> TextEncoder | None:
    """Return the text encoder of a name, None where there is none."""
    if not isinstance(name, str):
        return None
    family, _, model = name.partition(":")
    if model.strip() and family in _TEXT_FAMILIES:
        return partial(_TEXT_FAMILIES[family], model.strip())
    return _TEXT_ENCODERS.get(name)


def encoder_options(name: str) -> dict[str, Any]:
    """Return the options of an encoder with their defaults; ``name`` is one that there is."""
    function = text_encoder(name) or random_codes
    return {
        option: parameter.default
        for option, parameter in inspect.signature(function).parameters.items()
        if parameter.default is not parameter.empty and option not in _OF_THE_RUN
    }


def encode_texts(
    name: str,
    texts: Sequence[str],
    options: Mapping[str, Any],
    *,
    work: Path | None = None,
    device: str = "auto",
    progress: Callable[[int], object] | None = None,
    note: Callable[[dict[str, str]], object] | None = None,
    cluster: Cluster = THIS_PROCESS,
) -> np.ndarray:
    """Encode texts by the encoder of a name, ``[len(texts), d]`` float32.

    Args:
        name: one for which there is a ``text_encoder``.
        texts: one per item.
        options: of the encoder.
        work: a folder for finished batches; not every encoder uses it.
        device: ``auto`` or a device's name; not every encoder uses it.
        progress: called with the number of texts done since the last call.
        note: called with the digest of the model's weights, ``weights_sha256``, if it has any.
        cluster: where batches are encoded; not every encoder uses it.

    Raises:
        ValueError: no such encoder, or an option or a model that it cannot use.
        OSError: a finished batch cannot be written.
    """
    function = text_encoder(name)
    if function is None:
        raise EncoderError(f"there is no text encoder {name!r}")
    of_the_run: dict[str, Any] = {"device": device, "cluster": cluster}
    of_the_run |= {"progress": progress, "note": note, "work": work}
    known = inspect.signature(function).parameters
    taken = {option: value for option, value in of_the_run.items() if option in known}
    return function(texts, **options, **taken)
