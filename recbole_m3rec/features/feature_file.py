"""Feature files: one vector per item, keyed by item token.

Written as Parquet; read from Parquet, ``.npz``, ``.npy`` with an id file, and ``.pt``. Nothing here
unpickles: a feature file from elsewhere can be wrong, but cannot run code.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

from recbole_m3rec.features.feature_table import (
    FeatureFileError,
    FeatureTable,
    checked_table,
    row_name,
)
from recbole_m3rec.features.safe_read import as_numpy, decoding, load_npy, load_npz
from recbole_m3rec.support.hashing import sha256_of
from recbole_m3rec.support.safe_write import new_files

_METADATA_KEY = b"recbole_m3rec"
_VALUE_KEYS = ("embedding", "features")
IDS_BESIDE = (".ids.txt", ".item_id.npy")  # of an .npy


def read_features(path: Path, scratch: Path | None = None) -> FeatureTable:
    """Read a feature file of any known format and check it whole.

    Args:
        path: the file.
        scratch: a folder where the values of a ``.parquet`` are mapped, in a file that is removed
            already, while those of an ``.npy`` are mapped where they are; None reads into memory.

    Raises:
        FileNotFoundError: there is no such file.
        FeatureFileError: it cannot be read as what its name says, has no item ids, or has duplicate
            ids, rows of unequal length, no rows, or numbers that are not finite floats.

    Example:
        >>> import numpy as np
        >>> from recbole_m3rec import read_features
        >>> np.savez("shop.image.npz", item_id=["shoe", "hat"], embedding=np.ones((2, 4)))
        >>> table = read_features("shop.image.npz")
        >>> table.item_ids.tolist(), table.values.shape, table.values.dtype.name
        (['shoe', 'hat'], (2, 4), 'float32')
    """
    path = Path(path)
    if path.suffix not in FORMATS:
        raise FeatureFileError(
            f"{path}: unknown format {path.suffix!r}; a feature file ends in {', '.join(FORMATS)}"
        )
    with decoding(path, "feature file"):
        ids, values, metadata = FORMATS[path.suffix](path, scratch)
    return checked_table(path, ids, values, metadata)


def read_metadata(path: Path) -> dict[str, Any]:
    """Read what a feature file says about its making; ``{}`` for one from elsewhere."""
    path = Path(path)
    if path.suffix != ".parquet":
        return {}
    with decoding(path, "feature file"):
        return _metadata_of(path, pq.read_schema(path))


def features_digest(path: Path) -> str:
    """Return the SHA-256 of a feature file, hex; that of an ``.npy`` counts the ids beside it."""
    parts = [path, *(_ids_beside(path) if path.suffix == ".npy" else ())]
    digests = [sha256_of(part) for part in parts]
    return digests[0] if len(parts) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def write_features(path: Path, table: FeatureTable) -> None:
    """Write a Parquet feature file all or nothing: on any failure the old file stays as it was.

    Missing folders are made. Several processes may write the same file; the last one wins whole.

    Raises:
        FeatureFileError: the table would not pass ``read_features``.
        CannotWriteError: it cannot be written, e.g. the disk is full.

    Example:
        >>> import numpy as np
        >>> from recbole_m3rec import FeatureTable, read_features, write_features
        >>> vectors = np.array([[1, 2], [3, 4]], np.float32)
        >>> table = FeatureTable(np.array(["shoe", "hat"], object), vectors, {"encoder": "mine"})
        >>> write_features("dataset/shop/shop.image.parquet", table)
        >>> read_features("dataset/shop/shop.image.parquet").metadata
        {'encoder': 'mine'}
    """
    path = Path(path)
    if path.suffix != ".parquet":
        raise FeatureFileError(f"{path}: feature files are written as .parquet")
    table = checked_table(path, table.item_ids, table.values, table.metadata)
    number = pa.from_numpy_dtype(table.values.dtype)
    # Without nulls the format keeps no definition levels, and reads three times faster.
    vector = pa.list_(pa.field("element", number, nullable=False), table.values.shape[1])
    schema = pa.schema(
        [
            pa.field("item_id", pa.string(), nullable=False),
            pa.field("embedding", vector, nullable=False),
        ],
        metadata={_METADATA_KEY: json.dumps(table.metadata, sort_keys=True)},
    )
    numbers = pa.array(np.ascontiguousarray(table.values).reshape(-1))
    columns = [
        pa.array(table.item_ids, pa.string()),
        pa.FixedSizeListArray.from_arrays(numbers, type=vector),
    ]
    with new_files(path, shared=True) as [new], new.writing():
        pq.write_table(
            pa.table(columns, schema=schema),
            new.file,
            compression="none",  # floats do not compress
            use_dictionary=False,
            write_statistics=False,
            row_group_size=65_536,
        )


# Reading: each returns ids, values and metadata as found; checked_table judges them.


def _read_parquet(path: Path, scratch: Path | None) -> tuple[Any, np.ndarray, dict[str, Any]]:
    with pq.ParquetFile(path, memory_map=True) as file:
        schema = file.schema_arrow
        missing = [name for name in ("item_id", "embedding") if name not in schema.names]
        if missing:
            raise FeatureFileError(
                f"{path}: no column {' and no column '.join(missing)}; it has {schema.names}."
                " A feature file has item_id (string) and embedding (fixed-size list of float)"
            )
        metadata = _metadata_of(path, schema)
        ids = file.read(columns=["item_id"])["item_id"]
        ids.validate(full=True)  # letters that are none would fail later
        values = np.empty((0, 0), dtype=np.float32)
        start = 0
        for group in range(file.num_row_groups):  # one at a time: the whole is held only once
            column = file.read_row_group(group, columns=["embedding"])["embedding"]
            width = values.shape[1] if start else None
            rows = _rows_of_lists(path, ids, start, column.combine_chunks(), width)
            if not start:
                shape = len(ids), rows.shape[1]
                values = (
                    np.empty(shape, dtype=rows.dtype)
                    if scratch is None
                    else scratch_array(shape, rows.dtype, scratch)
                )
            values[start : start + len(rows)] = rows
            start += len(rows)
    return ids, values, metadata


def scratch_array(shape: tuple[int, int], dtype: np.dtype[Any], folder: Path) -> np.ndarray:
    """Make an array that is mapped from a file without a name, which goes with the array."""
    with tempfile.TemporaryFile(dir=folder) as file:
        reserve(file, shape[0] * shape[1] * dtype.itemsize)
        return np.memmap(file, dtype, "r+", shape=shape)


def reserve(file: IO[bytes], n_bytes: int) -> None:
    """Make a file so long, with room on the disk: a mapped file without would kill the process."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, n_bytes)
    else:
        file.truncate(n_bytes)


def _rows_of_lists(
    path: Path, ids: pa.ChunkedArray, start: int, column: pa.Array, width: int | None
) -> np.ndarray:
    """Return ``[n, width]`` numbers of the ``n`` rows from ``start`` on; None takes any width."""
    kind = column.type
    fixed = pa.types.is_fixed_size_list(kind)
    is_list = fixed or pa.types.is_list(kind) or pa.types.is_large_list(kind)
    if not (is_list and pa.types.is_floating(kind.value_type)):
        raise FeatureFileError(
            f"{path}: embedding is of type {kind}, expected a list of float16 or float32"
        )
    if column.null_count:
        row = start + int(np.argmax(column.is_null().to_numpy(zero_copy_only=False)))
        raise FeatureFileError(
            f"{path}: {row_name(ids, row)} has no embedding; leave an item without one out"
        )
    if len(column):
        lengths = pc.list_value_length(column).to_numpy()
        width = int(lengths[0]) if width is None else width
        if (lengths != width).any():
            row = int(np.argmax(lengths != width))
            raise FeatureFileError(
                f"{path}: rows of unequal length: {row_name(ids, start + row)} has {lengths[row]}"
                f" numbers, {row_name(ids, 0)} has {width}. Every item needs as many"
            )
    return column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), width or 0)


def _metadata_of(path: Path, schema: pa.Schema) -> dict[str, Any]:
    metadata = json.loads((schema.metadata or {}).get(_METADATA_KEY, b"{}"))
    if not isinstance(metadata, dict):
        raise FeatureFileError(f"{path}: its metadata is not a JSON object")
    return metadata


def _read_npz(path: Path, _: Path | None) -> tuple[Any, np.ndarray, dict[str, Any]]:
    archive = load_npz(path)
    key = _value_key(path, list(archive))
    return archive["item_id"], archive[key], {}


def _read_npy(path: Path, scratch: Path | None) -> tuple[Any, np.ndarray, dict[str, Any]]:
    files = _ids_beside(path)
    if len(files) != 1:
        both = "it has both" if files else "an array alone does not say which item a row belongs to"
        raise FeatureFileError(
            f"{path}: {both}. Put either {path.stem}{IDS_BESIDE[0]} (one item id a line) or"
            f" {path.stem}{IDS_BESIDE[1]} beside it"
        )
    values = load_npy(path, mmap_mode=None if scratch is None else "r")
    if files[0].suffix == ".npy":
        with decoding(files[0], "feature file"):
            return load_npy(files[0]), values, {}
    with decoding(files[0], "feature file"):
        lines = files[0].read_text(encoding="utf-8-sig").split("\n")
    return lines[:-1] if lines[-1] == "" else lines, values, {}


def _ids_beside(path: Path) -> list[Path]:
    return [file for file in map(path.with_suffix, IDS_BESIDE) if file.is_file()]


def _read_pt(path: Path, _: Path | None) -> tuple[Any, np.ndarray, dict[str, Any]]:
    content = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(content, dict):
        raise FeatureFileError(
            f"{path}: holds a {type(content).__name__}, which does not say which item a row belongs"
            " to. Save a dict with item_id and embedding"
        )
    ids, values = content.get("item_id"), content[_value_key(path, list(content))]
    if not isinstance(values, torch.Tensor):
        raise FeatureFileError(f"{path}: expected a tensor, found a {type(values).__name__}")
    return ids.numpy() if isinstance(ids, torch.Tensor) else ids, as_numpy(values), {}


def _value_key(path: Path, keys: list[str]) -> str:
    if "item_id" not in keys:
        raise FeatureFileError(
            f"{path}: no item_id (it has {keys}), and an array alone does not say which item a row"
            " belongs to. Add item_id, one token per row"
        )
    present = [key for key in _VALUE_KEYS if key in keys]
    if len(present) != 1:
        raise FeatureFileError(f"{path}: expected either embedding or features, it has {keys}")
    return present[0]


FORMATS: dict[str, Callable[[Path, Path | None], tuple[Any, np.ndarray, dict[str, Any]]]] = {
    ".parquet": _read_parquet,
    ".npz": _read_npz,
    ".npy": _read_npy,
    ".pt": _read_pt,
}
