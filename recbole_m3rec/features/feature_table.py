"""The table inside a feature file and its checks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

# Makes an array of zeros of a shape and a type, in memory or elsewhere.
NewValues = Callable[[tuple[int, int], np.dtype[Any]], np.ndarray]

_ROWS_AT_ONCE = 65_536


class FeatureFileError(ValueError):
    """A feature file, or a table to be written as one, breaks a rule that the message names.

    Example:
        >>> import numpy as np
        >>> from recbole_m3rec import FeatureTable, write_features
        >>> twice = FeatureTable(np.array(["hat", "hat"], object), np.ones((2, 3), np.float32))
        >>> write_features("shop.image.parquet", twice)
        Traceback (most recent call last):
        recbole_m3rec.features.feature_table.FeatureFileError: shop.image.parquet: item 'hat' has
        two rows, 0 and 1 (counted from 0); 1 rows repeat an earlier item. Keep one row per item
    """


@dataclass(frozen=True)
class FeatureTable:
    """Feature vectors and the tokens of the items they belong to.

    Attributes:
        item_ids: ``[n]`` ``str`` objects, no two alike.
        values: ``[n, d]`` finite float16 or float32.
        metadata: what JSON can hold; says where the values come from.

    Example:
        >>> import numpy as np
        >>> from recbole_m3rec import FeatureTable
        >>> vectors = np.array([[1, 2], [3, 4]], np.float32)
        >>> table = FeatureTable(np.array(["shoe", "hat"], object), vectors, {"encoder": "mine"})
        >>> table.values.shape
        (2, 2)
    """

    item_ids: np.ndarray
    values: np.ndarray
    metadata: dict[str, Any] = field(default_factory=dict)


def checked_table(
    path: Path, ids: Any, values: np.ndarray, metadata: dict[str, Any]
) -> FeatureTable:
    """Make a table of ids and values as found in a file, or say what is wrong with them.

    Args:
        path: named in errors.
        ids: ``n`` strings or integers, as a list, an array or an Arrow column.
        values: ``[n, d]`` float16, float32 or float64; the last becomes float32.
        metadata: kept as it is.

    Raises:
        FeatureFileError: no rows, ids that are empty, repeated or of another type, another number
            of ids than of rows, or values of another type or shape, NaN or infinite.
    """
    tokens = _tokens(path, ids)
    if values.ndim != 2:
        raise FeatureFileError(
            f"{path}: the values have shape {list(values.shape)}, expected [items, dimensions]"
        )
    if len(tokens) != len(values):
        raise FeatureFileError(
            f"{path}: {len(tokens):,} item ids for {len(values):,} rows. Each row needs one id"
        )
    if not values.size:
        raise FeatureFileError(f"{path}: empty, its values have shape {list(values.shape)}")
    _check_unique(path, tokens)
    values = _floats(path, tokens, values)
    _check_finite(path, tokens, values)
    return FeatureTable(tokens.to_numpy(zero_copy_only=False), values, metadata)


def row_name(ids: Any, row: int) -> str:
    """Name a row by its number and item, for errors."""
    token = ids[row].as_py() if isinstance(ids[row], pa.Scalar) else ids[row]
    return f"row {row} (counted from 0, item {token!r})"


def _tokens(path: Path, ids: Any) -> pa.StringArray:
    try:
        found = ids if isinstance(ids, pa.Array | pa.ChunkedArray) else pa.array(ids)
        if isinstance(found, pa.ChunkedArray):
            found = found.combine_chunks()
        if pa.types.is_dictionary(found.type):
            found = found.dictionary_decode()
        if pa.types.is_null(found.type) and not len(found):
            found = found.cast(pa.string())
        readable = (
            pa.types.is_string,
            pa.types.is_large_string,
            pa.types.is_binary,
            pa.types.is_integer,
        )
        if not any(is_readable(found.type) for is_readable in readable):
            raise FeatureFileError(
                f"{path}: the item ids are of type {found.type}, expected strings (or integers),"
                " written as the tokens in the .inter file"
            )
        tokens = found.cast(pa.string())
    except (pa.ArrowException, UnicodeError, TypeError) as error:
        raise FeatureFileError(
            f"{path}: cannot read the item ids, expected a string (or integer) per row ({error})"
        ) from error
    empty = pc.fill_null(pc.equal(tokens, ""), True).to_numpy(zero_copy_only=False)
    if empty.any():
        raise FeatureFileError(
            f"{path}: row {int(np.argmax(empty))} (counted from 0) has no item id"
        )
    return tokens


def _check_unique(path: Path, tokens: pa.StringArray) -> None:
    codes = tokens.dictionary_encode().indices.to_numpy()
    if int(codes.max()) + 1 == len(codes):
        return
    order = np.argsort(codes, kind="stable")
    again = np.flatnonzero(codes[order[1:]] == codes[order[:-1]])
    first, second = min(zip(order[again], order[again + 1], strict=True), key=lambda pair: pair[1])
    raise FeatureFileError(
        f"{path}: item {tokens[int(first)].as_py()!r} has two rows, {first} and {second} (counted"
        f" from 0); {len(again):,} rows repeat an earlier item. Keep one row per item"
    )


def as_float32(path: Path, ids: Any, values: np.ndarray) -> np.ndarray:
    """Return numbers ``[n, d]`` as float32, which holds none beyond 3.4e38.

    Args:
        path: named in errors.
        ids: of the rows; None where nothing tells them.

    Raises:
        FeatureFileError: a number is too large.
    """
    with np.errstate(over="ignore"):  # becomes infinite, which is reported as it stood there
        narrow = np.ascontiguousarray(values, dtype=np.float32)
    for start in range(0, len(values), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        too_large = np.isinf(narrow[part]) & np.isfinite(values[part])
        if too_large.any():
            row, column = np.argwhere(too_large)[0] + (start, 0)
            where = f"row {row} (counted from 0)" if ids is None else row_name(ids, int(row))
            raise FeatureFileError(
                f"{path}: {where} holds {values[row, column]} in column {column}, more than float32"
                " can hold. Correct it, or scale the column"
            )
    return narrow


def _floats(path: Path, tokens: pa.StringArray, values: np.ndarray) -> np.ndarray:
    if values.dtype.kind != "f" or values.dtype.itemsize > 8:
        raise FeatureFileError(
            f"{path}: the values are {values.dtype}, expected float16 or float32. Convert them"
        )
    if values.dtype.itemsize == 8:
        return as_float32(path, tokens, values)
    return np.ascontiguousarray(values, dtype=f"f{values.dtype.itemsize}")


def _check_finite(path: Path, tokens: pa.StringArray, values: np.ndarray) -> None:
    for start in range(0, len(values), _ROWS_AT_ONCE):
        finite = np.isfinite(values[start : start + _ROWS_AT_ONCE])
        if not finite.all():
            row, column = np.argwhere(~finite)[0]
            raise FeatureFileError(
                f"{path}: {row_name(tokens, start + int(row))} holds {values[start + row, column]}"
                f" in column {column}, expected finite numbers. Correct it, or leave the item out: "
                "an item without a row is missing, which the model knows"
            )
