"""RecBole's atomic files, read as their format means them: nothing is quoted, every row counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from recbole_m3rec.atomic.atomic_file import (
    AtomicFileError,
    check_lines,
    lines_of_rows,
    name_lines,
    read_columns,
    read_header,
    text_encoding,
)
from recbole_m3rec.atomic.inter_file import READ_AS_MISSING
from recbole_m3rec.hooks import overlay, wrap
from recbole_m3rec.patches.tables import silent_about_copies

_LINES_SHOWN = 5


def read_without_quotes() -> None:
    """Repair data/dataset/dataset.py:459 and 486, which read quotes, and short lines, by pandas.

    A quote at the start of a value swallowed the lines up to the next one, a line with a field too
    few was filled up, and a byte order mark became part of the first field's name.
    """
    from recbole.data.dataset import Dataset
    from recbole.data.dataset import dataset as dataset_module

    overlay(dataset_module, "pd", read_csv=read_frame)

    @wrap(Dataset, "_load_feat")
    def load(original: Callable[..., Any], self: Any, filepath: Any, source: Any) -> Any:
        encoding, separator = self.config["encoding"], self.config["field_separator"]
        header = read_header(Path(filepath), separator, encoding)
        self.config["encoding"] = text_encoding(encoding)
        try:
            with silent_about_copies():  # RecBole fills blanks, of which none are left
                return original(self, filepath, source)
        except UnicodeDecodeError:  # RecBole reads ahead when it looks at the header
            check_lines(Path(filepath), list(header), separator, encoding)
            raise
        finally:
            self.config["encoding"] = encoding


def read_frame(
    filepath: Any,
    delimiter: str,
    usecols: list[str],
    dtype: Mapping[str, type],
    encoding: str | None,
    engine: str = "python",
) -> pd.DataFrame:
    """Read columns of an atomic file into the frame that RecBole expects of ``pandas.read_csv``.

    Args:
        usecols: header fields ``name:type``, in the order of the file.
        dtype: ``str`` or ``numpy.float64`` by header field.
        engine: taken and ignored.

    Returns:
        columns named by header field: float64, or objects with NaN for a missing value and ``""``
        for a missing sequence.

    Raises:
        AtomicFileError: the file is not in the atomic format, or a float is no number.
    """
    path = Path(filepath)
    columns = read_columns(path, [head.partition(":")[0] for head in usecols], delimiter, encoding)
    frame: dict[str, Any] = {}
    for head, strings in zip(usecols, columns, strict=True):
        is_missing = np.asarray(pc.is_in(strings, value_set=READ_AS_MISSING))
        if dtype[head] is np.float64:
            frame[head] = _floats(path, head, strings, is_missing, encoding)
            continue
        values = np.array(strings.to_pylist(), dtype=object)
        values[is_missing] = "" if head.endswith("_seq") else np.nan
        frame[head] = pd.Series(values, dtype=object)
    return pd.DataFrame(frame)


def _floats(
    path: Path, head: str, strings: pa.ChunkedArray, is_missing: np.ndarray, encoding: str | None
) -> np.ndarray:
    values = np.full(len(strings), np.nan)
    there = strings.filter(pa.array(~is_missing))
    try:
        values[~is_missing] = pc.cast(there, pa.float64()).to_numpy()
        return values
    except pa.ArrowInvalid:  # something that only Python reads, or that is no number
        numbers = pd.to_numeric(pd.Series(there.to_pylist(), dtype=object), errors="coerce")
    bad = np.flatnonzero(~is_missing)[np.flatnonzero(numbers.isna())]
    if len(bad):
        lines = lines_of_rows(path, bad[:_LINES_SHOWN].tolist(), encoding)
        raise AtomicFileError(
            f"{path}, {name_lines(lines, len(bad))}: {strings[int(bad[0])].as_py()!r} is no number,"
            f" expected one in {head}. Correct it, leave it empty, or give the field another type"
        )
    values[~is_missing] = numbers
    return values
