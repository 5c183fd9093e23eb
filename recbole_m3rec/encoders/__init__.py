"""Encoders: what turns the text of items into feature vectors, found by name.

A text encoder is called as ``encode(texts, *, progress=None, **options)``. It gets one text per
item, fields apart by line breaks, and returns ``[len(texts), d]`` float32, with a row of zeros
where it can say nothing about an item. ``progress`` is called with the number of texts done since
the last call; the other keyword arguments are the options that a recipe may set. To add an encoder,
write such a function and name it here; import what is heavy or optional inside the function.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from recbole_m3rec.encoders.random_codes import random_codes
from recbole_m3rec.encoders.tfidf_svd import encode_tfidf_svd

__all__ = ["ENCODER_NAMES", "RANDOM_CODES", "TEXT_ENCODERS", "TextEncoder", "random_codes"]

TextEncoder = Callable[..., "np.ndarray"]

TEXT_ENCODERS: dict[str, TextEncoder] = {"tfidf-svd": encode_tfidf_svd}

# Made from the items' tokens and a seed, not from texts, and never stored as a file.
RANDOM_CODES = "random-codes"

ENCODER_NAMES = (*TEXT_ENCODERS, RANDOM_CODES)
