"""Encodes batch by batch; a killed run resumes from its finished batches."""

from __future__ import annotations

import hashlib
import json
import time
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from recbole_m3rec.support.safe_write import new_files

T = TypeVar("T")

# A killed run loses a tenth of its work, and never more than these seconds.
_MOST_SECONDS_LOST = 10.0


class EncoderError(ValueError):
    """An encoder cannot be had, or does not give what it has to."""


def check_counts(encoder: str, **counts: Any) -> None:
    """Raise EncoderError for an option that is no whole number of at least 1."""
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise EncoderError(
                f"{encoder}: {name} must be a whole number of at least 1, found {value!r}"
            )


def check_flags(encoder: str, **flags: Any) -> None:
    """Raise EncoderError for an option that is neither true nor false."""
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise EncoderError(f"{encoder}: {name} must be true or false, found {value!r}")


def encode_batches(
    batches: Sequence[Sequence[T]],
    encode: Callable[[Iterable[Sequence[T]]], Iterable[np.ndarray]],
    *,
    key: Mapping[str, Any],
    work: Path | None = None,
    progress: Callable[[int], object] | None = None,
) -> np.ndarray:
    """Encode batches in their order, leaving out those that an earlier run has finished.

    Args:
        batches: what to encode; the same cut in every run of one ``key``.
        encode: gets the batches left to do, one after the other, and gives ``[len(batch), d]``
            numbers for each, in that order.
        key: everything that the numbers depend on, as JSON can hold it; batches finished under
            another key are not used.
        work: a folder for finished batches, made where needed and left to the caller to remove
            once the result is stored; None keeps nothing.
        progress: called with the number of entries done since the last call.

    Returns:
        ``[sum of len(batch), d]`` float32.

    Raises:
        EncoderError: a batch gives another number of rows than it has entries, or rows of another
            width than those before.
        CannotWriteError: a finished batch cannot be written.
    """
    kept = None if work is None else _Kept(work, key)
    rows = {} if kept is None else kept.read([len(batch) for batch in batches])
    width = next((made.shape[1] for made in rows.values()), None)
    if progress is not None and rows:
        progress(sum(map(len, rows.values())))
    left = [number for number in range(len(batches)) if number not in rows]
    try:
        made_batches = encode(batches[number] for number in left)
        for number, made in zip(left, made_batches, strict=True):
            rows[number] = _checked(made, len(batches[number]), width)
            width = rows[number].shape[1]
            if kept is not None:
                kept.add(number, rows[number])
            if progress is not None:
                progress(len(batches[number]))
    finally:
        if kept is not None:
            kept.write()
    if not rows:
        return np.empty((0, 0), dtype=np.float32)
    return np.concatenate([rows[number] for number in range(len(batches))])


def _checked(made: Any, n_rows: int, width: int | None) -> np.ndarray:
    values = np.asarray(made, dtype=np.float32)
    if values.ndim != 2 or len(values) != n_rows or width not in (None, values.shape[1]):
        expected = f"[{n_rows}, {'dimensions' if width is None else width}]"
        raise EncoderError(
            f"the encoder gave numbers of shape {list(values.shape)} for a batch, expected"
            f" {expected}: a row for each entry, all of one length"
        )
    return values


def _longest_wait(elapsed: float) -> float:
    """Return after how many seconds finished batches are written, that long into a run."""
    return min(0.5 + elapsed / 10, _MOST_SECONDS_LOST)


class _Kept:
    """Rows of finished batches in files, several batches each, under a folder named by the key."""

    def __init__(self, work: Path, key: Mapping[str, Any]) -> None:
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
        self._folder = work / digest[:24]
        self._waiting: dict[int, np.ndarray] = {}
        self._started = self._written = time.monotonic()

    def read(self, sizes: Sequence[int]) -> dict[int, np.ndarray]:
        """Return the rows of the batches found; ``sizes`` are the entries of every batch."""
        found: dict[int, np.ndarray] = {}
        for path in sorted(self._folder.glob("*.npz")) if self._folder.is_dir() else []:
            try:
                with np.load(path, allow_pickle=False) as file:
                    numbers, rows = file["numbers"].tolist(), file["rows"]
            except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
                continue  # cut off or damaged: its batches are done again
            ends = np.cumsum([sizes[number] for number in numbers])
            if len(rows) == ends[-1]:
                found.update(zip(numbers, np.split(rows, ends[:-1]), strict=True))
        return found

    def add(self, number: int, rows: np.ndarray) -> None:
        self._waiting[number] = rows
        now = time.monotonic()
        if now - self._written >= _longest_wait(now - self._started):
            self.write()

    def write(self) -> None:
        if not self._waiting:
            return
        path = self._folder / f"{min(self._waiting):08d}.npz"
        with new_files(path, shared=True) as [new], new.writing():
            np.savez(
                new.file,  # type: ignore[arg-type]
                numbers=np.array(list(self._waiting)),
                rows=np.concatenate(list(self._waiting.values())),
            )
        self._waiting.clear()
        self._written = time.monotonic()
