"""Random codes: features that identify an item and describe nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np

from recbole_m3rec.features.encoders.batches import check_counts


def random_codes(
    tokens: Iterable[str], *, seed: int, name: str, dim: int = 512, std: float = 0.02
) -> tuple[list[str], np.ndarray]:
    """Draw one code per token from N(0, std), the same for the same tokens, seed and name.

    Args:
        tokens: item tokens in any order; repeated ones count once.
        seed: any integer.
        name: makes the codes of one seed differ, e.g. the modality's name.
        dim: numbers per code, at least 1.
        std: standard deviation, above 0.

    Returns:
        The tokens, sorted, and their codes ``[n, dim]`` float32, drawn in that order.

    Raises:
        ValueError: ``dim`` or ``std`` out of range.
    """
    check_counts("random-codes", dim=dim)
    if isinstance(std, bool) or not isinstance(std, int | float) or not 0 < std < float("inf"):
        raise ValueError(f"random-codes: std must be a number above 0, found {std!r}")
    ordered = sorted(set(tokens))
    numbers = seeded(seed, name).standard_normal((len(ordered), dim))
    return ordered, (numbers * std).astype(np.float32)


def seeded(seed: int, name: str) -> np.random.RandomState:
    """Return a generator whose stream is its own for each seed and name, for ever.

    NumPy keeps RandomState's streams as they are; those of default_rng may change.
    """
    entropy = int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest(), "little")
    return np.random.RandomState(np.random.MT19937(np.random.SeedSequence(entropy)))
