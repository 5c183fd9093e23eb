"""Times of an atomic file as numbers that sort exactly as what is written there."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recbole_m3rec.atomic.atomic_file import AtomicFileError, lines_of_rows, name_lines

_NUMBER = r"^\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*$"
_INTEGER = r"^-?\d{1,18}$"

# Two decimals of at most this many characters are equal as float64 only where they are equal, but
# for those with an exponent, which may be too small for it.
_FLOAT64_CHARACTERS = 15


CONVERT = (
    "Dates are converted by pandas.to_datetime(column).astype('datetime64[s]').astype('int64'), or "
    "by recbole-m3rec prepare tables, which reads logs with times of any format"
)
_LINES_SHOWN = 5


class TimesError(AtomicFileError):
    """The times of an ``.inter`` file cannot be put in order."""


def check_times(
    path: Path, field: str, strings: pa.ChunkedArray, encoding: str | None = "utf-8"
) -> None:
    """Raise where a row's time cannot be ordered.

    Raises:
        TimesError: a time is missing, infinite, too large or no number; lines and counts are named.
    """
    parts = []
    for kind, rows in unusable_times(strings).items():
        lines = lines_of_rows(path, rows[:_LINES_SHOWN].tolist(), encoding)
        first = f", the first {strings[int(rows[0])].as_py()[:40]!r}" if kind != "missing" else ""
        parts.append(f"{len(rows):,} {kind} ({name_lines(lines, len(rows))}{first})")
    if parts:
        raise TimesError(
            f"{path}: of {len(strings):,} times in {field}, {' and '.join(parts)}. Expected a"
            " finite number in every row, such as seconds since 1970: a row without a time has no"
            f" place in a history. Correct these rows or leave them out. {CONVERT}"
        )


def unusable_times(strings: pa.ChunkedArray) -> dict[str, np.ndarray]:
    """Return the rows whose time cannot be ordered, by kind; a kind without rows is left out.

    Args:
        strings: times as they stand in the file, ``[n]``.

    Returns:
        ascending row numbers of the kinds ``missing``, ``infinite``, ``too large`` (for the float32
        that models see) and ``no number``.
    """
    words = pc.utf8_lower(pc.utf8_trim_whitespace(strings))
    kinds = {
        "missing": pc.match_substring_regex(words, r"^(|nan|na|null|none|n/a|<na>|#n/a|nat)$"),
        "infinite": pc.match_substring_regex(words, r"^[+-]?inf(inity)?$"),
    }
    is_number = pc.match_substring_regex(strings, _NUMBER)
    kinds["no number"] = pc.invert(pc.or_(is_number, pc.or_(kinds["missing"], kinds["infinite"])))
    if pc.any(pc.match_substring_regex(words, "e|.{19}")).as_py():  # may exceed float32
        with np.errstate(over="ignore"):
            values = np.array([float(word) for word in strings.filter(is_number).to_pylist()])
            large = np.zeros(len(strings), bool)
            large[np.asarray(is_number)] = np.isinf(values.astype(np.float32))
        kinds["too large"] = large
    rows = {kind: np.flatnonzero(np.asarray(is_wrong)) for kind, is_wrong in kinds.items()}
    return {kind: numbers for kind, numbers in rows.items() if len(numbers)}


def exact_order(strings: pa.ChunkedArray) -> np.ndarray:
    """Return a number for each time, ``[n]`` int64 or float64, that compares as the times do.

    Integers compare as integers and decimals exactly, whatever float32 or float64 would make of
    them; ``1``, ``1.0`` and ``1e0`` are equal.

    Args:
        strings: usable times as they stand in the file, ``[n]``.
    """
    if pc.all(pc.match_substring_regex(strings, _INTEGER)).as_py():
        integers: np.ndarray = pc.cast(strings, pa.int64()).to_numpy()
        return integers
    is_short = (pc.max(pc.binary_length(strings)).as_py() or 0) <= _FLOAT64_CHARACTERS
    if is_short and not pc.any(pc.match_substring(strings, "e", ignore_case=True)).as_py():
        return np.array([float(word) for word in strings.to_pylist()])
    codes = strings.combine_chunks().dictionary_encode()
    values = [Decimal(word.strip()) for word in codes.dictionary.to_pylist()]
    rank_of = {value: rank for rank, value in enumerate(sorted(set(values)))}
    ranks = np.array([rank_of[value] for value in values], np.int64)
    ordered: np.ndarray = ranks[codes.indices.to_numpy()]
    return ordered
