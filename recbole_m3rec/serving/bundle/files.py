"""The files of a bundle: whole when they are read, and the same for as long as they are used."""

from __future__ import annotations

import os
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import SafetensorError, safe_open
from torch import Tensor

from recbole_m3rec.support.hashing import sha256_of

ABOUT, ITEMS, WEIGHTS = "model.json", "items.parquet", "model.safetensors"
HISTORIES, INDEX, ENCODERS = "histories.parquet", "index.safetensors", "encoders.safetensors"
VECTORS, FEATURES = "vectors.safetensors", "features.safetensors"
NEEDED, OPTIONAL = (WEIGHTS, VECTORS, ITEMS), (HISTORIES, INDEX, ENCODERS, FEATURES)

MAPPED_FROM = 256 * 2**20  # bytes; a smaller file is read into memory
Stamp = tuple[int, int, int]  # of a file: number, size, time of change
AGAIN = "Export the bundle again, or copy it again from where it is whole"


class BundleError(ValueError):
    """A folder that is no whole bundle of this format."""


class BundleOverwrittenError(RuntimeError):
    """A bundle in use whose files were written over."""


class MappedFiles:
    """The files that a bundle in use maps, kept open: who writes over one changes its answers.

    Args:
        stamps: of all files, as they were before they were read.

    Raises:
        BundleError: one has changed since.
    """

    def __init__(self, stamps: Mapping[Path, Stamp] | None = None) -> None:
        self._mapped: dict[int, tuple[Path, Stamp]] = {}
        for path, stamp in (stamps or {}).items():
            try:
                descriptor = os.open(path, os.O_RDONLY)
                close = weakref.finalize(self, os.close, descriptor)
                found = _stamp(descriptor)
            except OSError as error:
                raise BundleError(f"{path}: {error.strerror}. {AGAIN}") from error
            if found != stamp:
                raise BundleError(f"{path}: changed while the bundle was read. Read it again")
            if _is_mapped(path):
                self._mapped[descriptor] = path, stamp
            else:
                close()

    def check(self) -> None:
        """Raise where a file was written over; one that took its place does no harm.

        Raises:
            BundleOverwrittenError: see there.
        """
        for descriptor, (path, stamp) in self._mapped.items():
            if _stamp(descriptor) != stamp:
                raise BundleOverwrittenError(
                    f"{path.name} of the bundle in use was written over. Put a whole bundle in "
                    "the folder's place and reload"
                )


def _stamp(file: Path | int) -> Stamp:
    found = os.stat(file)
    return found.st_ino, found.st_size, found.st_mtime_ns


def _is_mapped(path: Path) -> bool:
    return path.stat().st_size >= MAPPED_FROM


def check_files(folder: Path, files: Mapping[str, Any]) -> dict[Path, Stamp]:
    """Compare the folder with the list of files, byte by byte, and return their stamps."""
    stamps = {}
    for name in (*NEEDED, *files):
        if name not in files or name not in (*NEEDED, *OPTIONAL):
            raise BundleError(
                f"{folder / ABOUT}: lists {sorted(files)}, expected {NEEDED}. {AGAIN}"
            )
    for path in sorted(folder.iterdir()):
        if path.name not in files and path.name != ABOUT:
            raise BundleError(f"{path}: no file of the bundle. Remove it, or export again")
    for name, known in files.items():
        path = folder / name
        if not path.is_file() or path.is_symlink():
            raise BundleError(f"{path}: missing, or no plain file. {AGAIN}")
        stamps[path] = _stamp(path)
        size = stamps[path][1]
        if size != known["bytes"]:
            raise BundleError(f"{path}: {size:,} bytes, expected {known['bytes']:,}. {AGAIN}")
        if sha256_of(path) != known["sha256"]:
            raise BundleError(f"{path}: its bytes do not fit their digest. {AGAIN}")
    return stamps


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file: a large one is mapped, a small one read into memory."""
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if _is_mapped(path):
            return tensors
        return {name: tensor.clone() for name, tensor in tensors.items()}
    except (SafetensorError, OSError, ValueError) as error:
        raise BundleError(f"{path}: not safetensors ({error}). {AGAIN}") from error


def read_table(path: Path) -> pa.Table:
    """Return the table of a Parquet file, in memory."""
    try:
        with pq.ParquetFile(path, memory_map=True) as file:  # read_table would import pandas
            if len(set(file.schema_arrow.names)) < len(file.schema_arrow.names):
                raise ValueError("two columns of one name")
            return file.read()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise BundleError(f"{path}: no Parquet table ({error}). {AGAIN}") from error


def check_columns(table: pa.Table, path: Path, columns: Mapping[str, pa.DataType]) -> None:
    """Refuse a table without these columns, or with empty cells in them."""
    for column, kind in columns.items():
        found = table.schema.field(column).type if column in table.column_names else None
        if found != kind:
            raise BundleError(f"{path}: column {column} is {found}, expected {kind}. {AGAIN}")
        if table[column].null_count:
            raise BundleError(f"{path}: column {column} has empty cells. {AGAIN}")
