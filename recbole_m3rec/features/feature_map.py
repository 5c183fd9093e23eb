"""Item features in a mapped file, for catalogues that are larger than memory.

A large feature file is converted once, whole or not at all: to an ``.npy`` array of the dataset's
items in the order of their ids, after the norm, of which the system reads the rows that are used.
Behind the array lie ``present``, the rest of :class:`ItemFeatures` as JSON, and the JSON's length.
"""

from __future__ import annotations

import hashlib
import json
import logging
import mmap
import os
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from recbole_m3rec.features.align import ItemFeatures
from recbole_m3rec.features.feature_file import read_features, reserve
from recbole_m3rec.features.feature_table import FeatureFileError, FeatureTable, NewValues
from recbole_m3rec.support.safe_write import FileInUseError, new_files

MAPPED_FROM = 2**30  # bytes of a feature file
SECONDS_BETWEEN_LOOKS = 5.0
FORMAT = "recbole_m3rec map 1"

_LENGTH = struct.Struct("<Q")
_logger = logging.getLogger(__name__)


def is_large(path: Path | None) -> bool:
    """Tell whether a feature file, if it is one, is mapped and not read into memory."""
    return path is not None and path.is_file() and path.stat().st_size >= MAPPED_FROM


def map_key(file_digest: str, id2token: Sequence[str], *settings: Any) -> str:
    """Identify what a map holds: SHA-256, hex.

    Args:
        file_digest: of the feature file, by ``features_digest``.
        id2token: the dataset's item tokens by internal id.
        *settings: what else the rows depend on, such as the norm.
    """
    digest = hashlib.sha256(json.dumps([FORMAT, file_digest, *settings]).encode())
    for token in id2token:
        digest.update(f"{token}\0".encode())
    return digest.hexdigest()


def mapped_features(
    source: Path, key: str, make: Callable[[FeatureTable, NewValues], ItemFeatures]
) -> ItemFeatures:
    """Return the features of a large file from the map beside it, which is made where it is not.

    Args:
        source: the feature file; the map is ``<source>.map``.
        key: from :func:`map_key`; a map of another key is replaced.
        make: aligns the table, with values that the second argument allocates.

    Raises:
        FeatureFileError: the feature file is not what it has to be.
        CannotWriteError: there is no room for the map.
    """
    path = source.with_name(f"{source.name}.map")
    while not isinstance(found := _opened(path, key), ItemFeatures):
        try:
            with new_files(path) as [new], new.writing():
                _logger.info("making %s, %s", path, found)
                table = read_features(source, scratch=path.parent)
                features = make(table, partial(_values_in, new.file))
                _append(new.file, features, key)
        except FileInUseError:
            _logger.info("waiting for another process that makes %s", path)
            time.sleep(SECONDS_BETWEEN_LOOKS)
    return found


@dataclass(frozen=True)
class MappedFeatures(ItemFeatures):
    """Features in a map; a pickle that goes to another process carries the map's name alone."""

    key: str = ""

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (self.map.path, self.key)


def _reopened(path: Path, key: str) -> ItemFeatures:
    features = _opened(path, key)
    if isinstance(features, ItemFeatures):
        return features
    raise FeatureFileError(
        f"{path}: the saved dataset reads its features from this map, {features}. Remove the saved"
        " dataset, which is then made anew"
    )


def _values_in(file: IO[bytes], shape: tuple[int, int], dtype: np.dtype[Any]) -> np.ndarray:
    """Make the array at the beginning of an empty file, zeros that take no memory."""
    header = {"descr": dtype.str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_2_0(file, header)
    offset = file.tell()
    file.flush()
    reserve(file, offset + shape[0] * shape[1] * dtype.itemsize)
    return np.memmap(file, dtype, "r+", offset, shape)


def _append(file: IO[bytes], features: ItemFeatures, key: str) -> None:
    about = {name: getattr(features, name) for name in ("modality", "fingerprint", "description")}
    encoded = json.dumps({**about, "key": key}).encode()
    file.seek(0, os.SEEK_END)
    file.write(features.present.numpy().tobytes() + encoded + _LENGTH.pack(len(encoded)))


def _opened(path: Path, key: str) -> ItemFeatures | str:
    """Return the features in a map, or why there are none."""
    if not path.is_file():
        return "which is not there yet"
    try:
        with open(path, "rb") as file:
            file.seek(-_LENGTH.size, os.SEEK_END)
            (length,) = _LENGTH.unpack(file.read())
            file.seek(-_LENGTH.size - length, os.SEEK_END)
            about = json.loads(file.read(length))
            values = np.load(path, mmap_mode="c", allow_pickle=False)
            ends = values.offset + values.nbytes
            file.seek(ends)
            present = np.frombuffer(file.read(len(values)), dtype=bool).copy()
            is_whole = path.stat().st_size == ends + len(values) + length + _LENGTH.size
            if not is_whole or about["key"] != key:
                return "whose features, items or norm have changed"
        return MappedFeatures(
            values=torch.from_numpy(values),
            present=torch.from_numpy(present),
            map=FeatureMap(path, values),
            **about,
        )
    except (ValueError, KeyError, TypeError, AttributeError, OSError, struct.error):
        return "which was damaged"


class FeatureMap:
    """Rows of a mapped file, read as they are asked for."""

    def __init__(self, path: Path, values: np.memmap[Any, Any]) -> None:
        self.path, self._values = path, values
        self.width = values.shape[1]
        self._pages: mmap.mmap = values._mmap  # type: ignore[attr-defined]
        self._start = values.offset % mmap.ALLOCATIONGRANULARITY
        self._as_opened = path.stat()
        self._advise("MADV_RANDOM", 0, len(self._pages))

    def __deepcopy__(self, memo: dict[int, Any]) -> FeatureMap:
        """Return the same map, which nothing writes into."""
        return self

    def rows(self, items: Tensor) -> Tensor:
        """Return the rows of some items ``[n]``, ``[n, d]``.

        What was read leaves the process's memory when it is copied; a run of items is read ahead.

        Raises:
            FeatureFileError: somebody has written into the file.
        """
        self._check()
        items = items.cpu()
        if not len(items) or not bool((items.diff() == 1).all()):
            rows = torch.from_numpy(self._values)[items]
            self._advise("MADV_DONTNEED", 0, len(self._pages))
            return rows
        first, stop = int(items[0]), int(items[-1]) + 1
        width = self._values.strides[0]
        page = mmap.ALLOCATIONGRANULARITY
        begin = (self._start + first * width) // page * page
        end = min(len(self._pages), self._start + stop * width)
        self._advise("MADV_WILLNEED", begin, end - begin)
        rows = torch.from_numpy(self._values[first:stop]).clone()
        self._advise("MADV_DONTNEED", begin, end - begin)
        return rows

    def _advise(self, how: str, start: int, length: int) -> None:
        if hasattr(mmap, how):  # not on Windows
            self._pages.madvise(getattr(mmap, how), start, length)

    def _check(self) -> None:
        try:
            now = os.stat(self.path)
        except FileNotFoundError:
            return  # what is mapped stays
        was = self._as_opened
        same_file = (now.st_dev, now.st_ino) == (was.st_dev, was.st_ino)
        if same_file and (now.st_size, now.st_mtime_ns) != (was.st_size, was.st_mtime_ns):
            raise FeatureFileError(
                f"{self.path}: was written into while this run reads features from it, expected"
                f" {was.st_size:,} bytes as they were, found {now.st_size:,}. Remove it and start"
                " or resume the run, which makes it anew"
            )
