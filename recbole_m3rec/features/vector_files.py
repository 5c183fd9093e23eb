"""Reads arrays as other programs save them, with or without item ids."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import torch

from recbole_m3rec.features.feature_table import FeatureFileError, as_float32
from recbole_m3rec.features.safe_read import (
    as_numpy,
    check_is_file,
    decoding,
    load_npy,
    load_npz,
)

_ID_KEYS = ("item_id", "item_ids", "ids", "id", "asin")
_INDEX = re.compile(r"|index|level_0|Unnamed: \d+(\.\d+)?|__index_level_\d+__")


@dataclass(frozen=True)
class Vectors:
    """``values [n, d]`` floats, and the ids of their items where the file tells them."""

    values: np.ndarray
    ids: list[str] | None


def read_vectors(path: Path, id_column: str | None = None) -> Vectors:
    """Read vectors of any known format. Nothing is unpickled.

    Args:
        path: ``.npy``, ``.npz``, ``.pt``/``.pth``, ``.csv``/``.tsv`` or ``.parquet``.
        id_column: the entry or column of the items' ids; None looks for one of a usual name.

    Raises:
        FileNotFoundError: there is no such file.
        FeatureFileError: it cannot be read, or holds no array of two dimensions.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        check_is_file(path, "file of vectors")
        raise FeatureFileError(
            f"{path}: unknown format {path.suffix!r}; vectors come in {', '.join(READERS)}"
        )
    with decoding(path, "file of vectors"):
        vectors = reader(path, id_column)
    if vectors.values.ndim != 2:
        raise FeatureFileError(
            f"{path}: holds numbers of shape {list(vectors.values.shape)}, expected [items,"
            " dimensions]"
        )
    if vectors.ids is not None and len(vectors.ids) != len(vectors.values):
        raise FeatureFileError(
            f"{path}: {len(vectors.ids):,} ids for {len(vectors.values):,} rows. "
            "Each row needs one id"
        )
    return Vectors(_as_floats(path, vectors), vectors.ids)


def as_ids(path: Path, ids: Any) -> list[str]:
    """Return ids as strings.

    Raises:
        FeatureFileError: they are neither strings nor whole numbers.
    """
    if isinstance(ids, torch.Tensor):
        ids = ids.numpy()
    array = np.asarray(ids)
    if array.dtype.kind == "S":
        array = np.char.decode(array, "utf-8")
    whole_or_text = array.dtype.kind in "iuU" or (
        array.dtype == object and all(isinstance(value, str) for value in array.flat)
    )
    if array.ndim != 1 or not whole_or_text:
        raise FeatureFileError(
            f"{path}: ids of type {array.dtype} and shape {list(array.shape)}, expected a list of"
            " strings or whole numbers"
        )
    return [str(value) for value in array.tolist()]


def _as_floats(path: Path, vectors: Vectors) -> np.ndarray:
    values = vectors.values
    if values.dtype.kind in "iub":
        return values.astype(np.float32)
    if values.dtype.kind != "f":
        raise FeatureFileError(f"{path}: the values are {values.dtype}, expected numbers")
    return values if values.dtype.itemsize <= 4 else as_float32(path, vectors.ids, values)


def _read_pt(path: Path, id_column: str | None) -> Vectors:
    content = torch.load(path, map_location="cpu", weights_only=True)
    if isinstance(content, torch.Tensor):
        return Vectors(as_numpy(content), None)
    if isinstance(content, list) and content and isinstance(content[0], torch.Tensor):
        return Vectors(as_numpy(torch.stack(content)), None)
    if not isinstance(content, dict):
        raise FeatureFileError(f"{path}: holds a {type(content).__name__}, expected a tensor")
    tensors = [value for value in content.values() if isinstance(value, torch.Tensor)]
    if len(tensors) == len(content) > 0 and all(tensor.dim() == 1 for tensor in tensors):
        widths = {len(tensor) for tensor in tensors}
        if len(widths) == 1 and id_column is None:  # a vector by id
            return Vectors(as_numpy(torch.stack(tensors)), [str(key) for key in content])
    entries = {
        str(key): as_numpy(value) if isinstance(value, torch.Tensor) else value
        for key, value in content.items()
    }
    return _of_entries(path, entries, id_column)


def _of_entries(path: Path, entries: dict[str, Any], id_column: str | None) -> Vectors:
    """Find the one array of vectors among named entries, and the ids beside it."""
    id_name = _id_name(path, list(entries), id_column)
    arrays = {
        name: value
        for name, value in entries.items()
        if name != id_name and isinstance(value, np.ndarray) and value.ndim == 2
    }
    if len(arrays) != 1:
        raise FeatureFileError(
            f"{path}: expected one array [items, dimensions], found {len(arrays)} among"
            f" {list(entries)}"
        )
    ids = None if id_name is None else as_ids(path, entries[id_name])
    return Vectors(next(iter(arrays.values())), ids)


def _id_name(path: Path, names: list[str], id_column: str | None) -> str | None:
    if id_column is not None:
        if id_column not in names:
            raise FeatureFileError(f"{path}: no {id_column!r}; it has {names}")
        return id_column
    return next((name for name in _ID_KEYS if name in names), None)


def _read_csv(path: Path, id_column: str | None) -> Vectors:
    separator = "\t" if path.suffix.lower() == ".tsv" else ","
    with open(path, encoding="utf-8-sig", newline="") as file:
        names = next(csv.reader(file, delimiter=separator), [""])
    if len(names) == 1 and names[0]:
        raise FeatureFileError(
            f"{path}, line 1: {names[0][:60]!r} is its only column, expected ids and vectors. A"
            " .csv has commas between its columns, a .tsv tabs, both points before decimals"
        )
    id_name = _id_name(path, names, id_column)
    if id_name is None and _are_values(names):
        raise FeatureFileError(
            f"{path}, line 1: expected the columns' names, found {', '.join(names[:3])}. Add a"
            " header, such as item_id and a name for each column"
        )
    id_name = names[0] if id_name is None else id_name
    table = pa_csv.read_csv(
        path,
        parse_options=pa_csv.ParseOptions(delimiter=separator),
        convert_options=pa_csv.ConvertOptions(column_types={id_name: pa.string()}),
    )
    return _of_table(path, table, id_name, named=id_column is not None)


def _are_values(cells: list[str]) -> bool:
    """Tell whether cells are those of an item, id first; columns may be called 0, 1, 2, …"""
    numbers = [part for cell in cells[1:] or cells for part in _parts(cell)]
    counted = [list(map(str, range(first, first + len(cells) - 1))) for first in (0, 1)]
    return all(map(_is_number, numbers)) and (cells[1:] not in counted or _is_number(cells[0]))


def _read_parquet(path: Path, id_column: str | None) -> Vectors:
    table = pq.read_table(path)
    table.validate(full=True)  # letters that are none would fail later
    id_name = _id_name(path, table.column_names, id_column)
    if id_name is None:
        raise FeatureFileError(
            f"{path}: no column of ids, such as item_id; it has {table.column_names}. Name it"
        )
    return _of_table(path, table, id_name, named=id_column is not None)


def _of_table(path: Path, table: pa.Table, id_name: str, named: bool) -> Vectors:
    """Take vectors from one column of lists or texts, or from many columns of numbers."""
    names = [name for name in table.column_names if name != id_name]
    ids = as_ids(path, table[id_name].to_pylist())
    if not names:
        raise FeatureFileError(f"{path}: {id_name!r} is its only column, expected ids and vectors")
    for name in filter(_INDEX.fullmatch, table.column_names):
        is_id = name == id_name and (named or ids != list(map(str, range(len(ids)))))
        if not is_id:
            raise FeatureFileError(
                f"{path}: column {name!r} is the row number that pandas writes, neither ids nor"
                " part of the vectors. Save the table without it (index=False), or name the ids by"
                " --id-column"
            )
    kinds = [table[name].type for name in names]
    if len(names) == 1 and not _is_numeric(kinds[0]):
        is_text = pa.types.is_string(kinds[0]) or pa.types.is_large_string(kinds[0])
        column = table[names[0]].combine_chunks()
        return Vectors(
            _of_texts(path, ids, column) if is_text else _of_lists(path, ids, column), ids
        )
    for name, kind in zip(names, kinds, strict=True):
        if not _is_numeric(kind):
            raise FeatureFileError(
                f"{path}: column {name!r} is of type {kind}, expected numbers. Leave out columns"
                " that are no part of the vectors"
            )
    columns = [table[name].to_numpy() for name in names]
    return Vectors(np.stack(columns, axis=1), ids)


def _of_lists(path: Path, ids: list[str], column: pa.Array) -> np.ndarray:
    kind = column.type
    lists = (pa.types.is_fixed_size_list, pa.types.is_list, pa.types.is_large_list)
    if not (any(is_list(kind) for is_list in lists) and _is_numeric(kind.value_type)):
        raise FeatureFileError(f"{path}: the vectors are of type {kind}, expected lists of numbers")
    _check_lengths(path, ids, pc.fill_null(pc.list_value_length(column), 0).to_numpy())
    numbers: np.ndarray = column.flatten().to_numpy(zero_copy_only=False)
    return numbers.reshape(len(ids), -1)


def _of_texts(path: Path, ids: list[str], column: pa.Array) -> np.ndarray:
    """Read vectors such as ``[0.1, 0.2]`` or ``0.1 0.2``, one text each."""
    rows = []
    for item, text in zip(ids, column, strict=True):
        try:
            rows.append(np.array(_parts(text.as_py() or ""), dtype=np.float64))
        except ValueError as error:
            raise FeatureFileError(
                f"{path}: item {item!r} has {text.as_py()[:40]!r}, expected numbers"
            ) from error
    _check_lengths(path, ids, np.array([len(row) for row in rows]))
    return np.stack(rows)


def _parts(text: str) -> list[str]:
    return text.strip().strip("[]()").replace(",", " ").split()


def _check_lengths(path: Path, ids: list[str], lengths: np.ndarray) -> None:
    if len(lengths) and (lengths != lengths[0]).any():
        row = int(np.argmax(lengths != lengths[0]))
        raise FeatureFileError(
            f"{path}: rows of unequal length: item {ids[row]!r} has {lengths[row]} numbers,"
            f" {ids[0]!r} has {lengths[0]}"
        )


def _is_numeric(kind: pa.DataType) -> bool:
    return pa.types.is_floating(kind) or pa.types.is_integer(kind)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


READERS: dict[str, Callable[[Path, str | None], Vectors]] = {
    ".npy": lambda path, _: Vectors(load_npy(path), None),
    ".npz": lambda path, id_column: _of_entries(path, load_npz(path), id_column),
    ".pt": _read_pt,
    ".pth": _read_pt,
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".parquet": _read_parquet,
}
