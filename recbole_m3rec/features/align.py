"""Item features in the order of RecBole's item ids, matched by token, never by row order."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from recbole_m3rec.features.encoders.random_codes import random_codes, seeded
from recbole_m3rec.features.feature_table import FeatureFileError, FeatureTable, NewValues
from recbole_m3rec.support.suggestions import expected_one_of

FEATURE_NORMS = ("none", "l2", "standardize", "whiten")
FEATURE_ROWS = ("own", "shuffled", "random")

_ROWS_AT_ONCE = 65_536
SMALLEST_VARIANCE = 1e-6  # of a direction, as a share of the widest one's; below it there is noise
_logger = logging.getLogger(__name__)

# Ways in which ids that mean the same item are commonly written differently.
_SPELLINGS: dict[str, Callable[[pa.Array], pa.Array]] = {
    "without white space around them": pc.utf8_trim_whitespace,
    "without a final '.0'": lambda ids: pc.replace_substring_regex(ids, r"\.0+$", ""),
    "without zeros in front": lambda ids: pc.replace_substring_regex(ids, r"^0+(\d)", r"\1"),
    "in lower case": pc.utf8_lower,
}


@dataclass(frozen=True)
class ItemFeatures:
    """The frozen features of one content modality, a row per item of the dataset.

    Attributes:
        modality: e.g. ``"text"``.
        values: ``[n_items, d]`` float16 or float32, rows in the order of RecBole's internal ids;
            zeros for missing items, and for padding (row 0) unless the table has a row for it.
        present: ``[n_items]`` bool, True where the table has the item; always True for padding,
            which is not missing.
        fingerprint: SHA-256 (hex) of the values before any norm, ``present`` and the norm's name.
        description: one line for the log, e.g. ``"text: 1,338 of 1,349 items (99.1 %), 512-d, …"``.
        map: the file that ``values`` is mapped from, which reads rows one by one; None if they are
            in memory.

    Example:
        Features that are in the right order already, without a file:

        >>> import torch
        >>> from recbole_m3rec import ItemFeatures
        >>> values = torch.tensor([[0.0, 0.0], [0.5, 0.1], [0.0, 0.0]])  # padding and two items
        >>> present = torch.tensor([True, True, False])  # the second item has no picture
        >>> image = ItemFeatures("image", values, present, "any name", "image: by hand")
        >>> image.values.shape
        torch.Size([3, 2])
    """

    modality: str
    values: Tensor
    present: Tensor
    fingerprint: str
    description: str
    map: Any = None

    def rows(self, items: Tensor) -> Tensor:
        """Return the rows of some items ``[n]`` int64, ``[n, d]``."""
        values: Tensor = self.values[items] if self.map is None else self.map.rows(items)
        return values


def align(
    table: FeatureTable,
    modality: str,
    id2token: Sequence[str],
    feature_norm: str,
    source: str,
    feature_rows: str = "own",
    seed: int = 0,
    new_values: NewValues = np.zeros,
) -> ItemFeatures:
    """Give each item of the dataset its row of the table, whatever the order of either.

    Args:
        table: rows keyed by token; those of items outside the dataset are left out.
        modality: the name of the modality.
        id2token: the dataset's item tokens by internal id; the first is padding, ``"[PAD]"``.
        feature_norm: ``none``, ``l2`` (rows of length 1), ``standardize`` (columns of mean 0 and
            deviation 1 over the items present; constant columns become 0) or ``whiten``
            (standardized, then :func:`.half_whitening`). Zero rows stay zero.
        source: where the table comes from, for the log and errors.
        feature_rows: ``own``; or, to see whether content matters, ``shuffled`` (rows dealt anew
            to the items that have one) or ``random`` (numbers of the table's mean and deviation).
        seed: what these two are drawn by, the same for the same tokens and modality.
        new_values: allocates the values.

    Raises:
        FeatureFileError: no item of the dataset is in the table.
        ValueError: unknown ``feature_norm`` or ``feature_rows``.

    Example:
        >>> import numpy as np
        >>> from recbole_m3rec import FeatureTable, align
        >>> vectors = np.array([[1, 2], [3, 4]], np.float32)
        >>> table = FeatureTable(np.array(["shoe", "hat"], object), vectors)
        >>> text = align(table, "text", ["[PAD]", "hat", "coat", "shoe"], "none", "by hand")
        >>> text.values.tolist()
        [[0.0, 0.0], [3.0, 4.0], [0.0, 0.0], [1.0, 2.0]]
        >>> text.present.tolist()
        [True, True, False, True]
        >>> text.description
        'text: 2 of 3 items (66.6 %), 2-d, by hand'
    """
    for key, value, choices in (
        ("feature_norm", feature_norm, FEATURE_NORMS),
        ("feature_rows", feature_rows, FEATURE_ROWS),
    ):
        if value not in choices:
            raise ValueError(expected_one_of(key, value, choices))
    tokens = pa.array(np.asarray(id2token, dtype=object), pa.string())
    file_ids = pa.array(table.item_ids, pa.string())
    rows = pc.fill_null(pc.index_in(tokens, value_set=file_ids), -1).to_numpy()

    n_items, n_found = len(tokens) - 1, int((rows[1:] >= 0).sum())
    hint = _spelling_hint(tokens[1:].filter(pa.array(rows[1:] < 0)), file_ids)
    if n_items and not n_found:
        raise FeatureFileError(
            f"{modality} features ({source}): none of the dataset's {n_items:,} items has a row."
            f" The dataset's ids look like {_examples(tokens[1:])}, those of the features like"
            f" {_examples(file_ids)}. {hint or 'Write them with the ids of the .inter file'}"
        )
    if hint:
        _logger.warning("%s features (%s), items without a row: %s", modality, source, hint)

    in_table = rows >= 0
    values = new_values((len(tokens), table.values.shape[1]), table.values.dtype)
    of_zeros: list[int] = []
    for items in _blocks(np.flatnonzero(in_table)):
        block = table.values[rows[items]]
        values[items] = block
        of_zeros += items[~block.any(axis=1) & (items > 0)].tolist()
    if of_zeros:
        _logger.warning(
            "%s features (%s): %s",
            modality,
            source,
            zeros_hint(len(of_zeros), id2token[of_zeros[0]]),
        )
    if feature_rows != "own":
        _mix_up(values, np.flatnonzero(in_table[1:]) + 1, id2token, feature_rows, modality, seed)
        source = f"{feature_rows} rows in place of {source}"
    present = in_table.copy()
    present[0] = True
    fingerprint = _fingerprint(values, present, feature_norm)
    # Rounded down: 100.0 % means every item.
    percent = math.floor(1000 * n_found / n_items) / 10 if n_items else 100.0
    _normalise(values, in_table, feature_norm)
    return ItemFeatures(
        modality=modality,
        values=torch.from_numpy(values),
        present=torch.from_numpy(present),
        fingerprint=fingerprint,
        description=f"{modality}: {n_found:,} of {n_items:,} items ({percent:.1f} %), "
        f"{values.shape[1]}-d, {source}",
    )


def zeros_hint(n: int, item: str) -> str:
    """Say how many items have a row of zeros, one of them named, and what to do."""
    return (
        f"rows of zeros, which count as known: {n:,}, such as that of {item!r}. If zeros stand for "
        "nothing, leave these rows out: an item without a row is missing, which the model knows"
    )


def _examples(ids: pa.Array) -> str:
    return ", ".join(repr(token) for token in ids[:3].to_pylist())


def _spelling_hint(missing: pa.Array, file_ids: pa.Array) -> str:
    """Say which other spelling of the ids would give missing items a row; never apply it."""
    if not len(missing):
        return ""
    matches = {
        spelling: pc.index_in(rewrite(missing), value_set=rewrite(file_ids))
        for spelling, rewrite in _SPELLINGS.items()
    }
    spelling, places = min(matches.items(), key=lambda pair: pair[1].null_count)
    count = len(places) - places.null_count
    if not count:
        return ""
    first = int(np.argmax(places.is_valid().to_numpy(zero_copy_only=False)))
    ours, theirs = missing[first].as_py(), file_ids[places[first].as_py()].as_py()
    return (
        f"{count:,} of them would match if the ids were compared {spelling}: the dataset has"
        f" {ours!r}, the features have {theirs!r}. Write both alike"
    )


def _mix_up(
    values: np.ndarray,
    items: np.ndarray,
    id2token: Sequence[str],
    feature_rows: str,
    modality: str,
    seed: int,
) -> None:
    """Replace the rows of ``items`` in place, in the order of their tokens, whatever their ids."""
    tokens = np.asarray(id2token, dtype=object)
    ordered = items[np.argsort(tokens[items].astype(str))]
    own = values[ordered]
    if feature_rows == "shuffled":
        values[ordered] = own[seeded(seed, f"shuffled {modality}").permutation(len(own))]
        return
    _, codes = random_codes(tokens[ordered], seed=seed, name=modality, dim=own.shape[1], std=1)
    values[ordered] = codes * own.std(dtype=np.float64) + own.mean(dtype=np.float64)


def _fingerprint(values: np.ndarray, present: np.ndarray, feature_norm: str) -> str:
    digest = hashlib.sha256(f"{values.dtype.name} {values.shape} {feature_norm}".encode())
    digest.update(present.tobytes())
    digest.update(values.data)
    return digest.hexdigest()


def _normalise(values: np.ndarray, in_table: np.ndarray, feature_norm: str) -> None:
    """Normalise rows of ``values`` in place, in blocks: wide tables leave no room for a copy."""
    if feature_norm == "l2":
        for block in _blocks(np.flatnonzero(in_table)):
            wide = values[block].astype(np.float64)
            lengths = np.linalg.norm(wide, axis=1, keepdims=True)
            values[block] = wide / np.where(lengths > 0, lengths, 1)
    elif feature_norm in ("standardize", "whiten"):
        items = np.flatnonzero(in_table[1:]) + 1  # padding is no item and moves no mean
        mean = sum(values[block].sum(axis=0, dtype=np.float64) for block in _blocks(items))
        mean = mean / max(len(items), 1)
        variance = np.zeros(values.shape[1])
        for block in _blocks(items):
            wide = values[block].astype(np.float64)
            variance += ((wide - mean) ** 2).sum(axis=0) / len(items)
        # A constant column has variance 0 to the bit: float64 holds n times a float32 exactly.
        scale = np.zeros_like(variance)
        np.divide(1, np.sqrt(variance), out=scale, where=variance > 0)
        for block in _blocks(np.flatnonzero(in_table)):
            values[block] = (values[block].astype(np.float64) - mean) * scale
        if feature_norm == "whiten" and len(items):
            whitening = half_whitening(values[block] for block in _blocks(items))
            for block in _blocks(np.flatnonzero(in_table)):
                values[block] = values[block].astype(np.float64) @ whitening


def _blocks(rows: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        yield rows[start : start + _ROWS_AT_ONCE]


def half_whitening(blocks: Iterable[np.ndarray]) -> np.ndarray:
    """Return the map that takes the square root of the deviation in each principal direction.

    Vectors of language and image models differ mostly in a few directions. Whitening gives all the
    same deviation, noise included; half of it gives each the square root of its own.

    Args:
        blocks: the rows ``[n, d]``, some at a time; columns have mean 0 and deviation 1, or are 0.

    Returns:
        ``[d, d]`` float64, symmetric. The mapped columns have a mean deviation of 1; directions
        without variance become 0.
    """
    covariance: np.ndarray | float = 0.0
    n = 0
    for block in blocks:
        rows = block.astype(np.float64)
        covariance, n = covariance + rows.T @ rows, n + len(rows)
    variances, directions = np.linalg.eigh(np.asarray(covariance) / n)
    wide = (variances > SMALLEST_VARIANCE * variances[-1]) & (variances > 0)
    variances, directions = variances[wide], directions[:, wide]
    deviations = np.sqrt((directions**2 * np.sqrt(variances)).sum(axis=1))
    is_column = deviations > 0
    scale = deviations[is_column].mean() if is_column.any() else 1.0
    mapped: np.ndarray = (directions * variances**-0.25 / scale) @ directions.T
    return mapped
