"""A purchase log in any table format to interactions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from recbole_m3rec.atomic.inter_file import READ_AS_MISSING, Interactions
from recbole_m3rec.datasets.io.id_codes import IdCodes, interactions_of
from recbole_m3rec.datasets.io.prices import decimal_mark
from recbole_m3rec.datasets.io.problems import Problems
from recbole_m3rec.datasets.tables.column_texts import as_strings
from recbole_m3rec.datasets.tables.read_table import Table
from recbole_m3rec.datasets.tables.time_formats import to_milliseconds

_NOT_HELD = "a tab, a line break or another character that a dataset cannot hold"
_MISSING = "that RecBole takes for none, such as NA, null or [PAD]"
PROBLEMS = {
    "without_user": "no user id, the row is left out",
    "without_item": "no item id, the row is left out",
    "user_with_control_character": f"a user id with {_NOT_HELD}; the row is left out",
    "item_with_control_character": f"an item id with {_NOT_HELD}; the row is left out",
    "user_read_as_missing": f"a user id {_MISSING}; the row is left out",
    "item_read_as_missing": f"an item id {_MISSING}; the row is left out",
    "without_time": "no time between 1990 and 2100, the row is left out",
    "ratings_not_understood": "a rating that is no number, left empty",
}
PADDING = "[PAD]"  # RecBole's name for no item


def read_purchases(
    table: Table,
    columns: Mapping[str, str],
    time_format: str | None,
    problems: Problems,
    progress: Callable[[int], object] = lambda n_bytes: None,
) -> tuple[Interactions, int]:
    """Read the interactions of a log; only these stay in memory.

    Ids are text as it stands there, zeros in front included, without white space around it.

    Args:
        columns: names by role: ``user``, ``item``, and where there are any ``time``, ``rating``.
        time_format: of ``time``; None if the rows stand in the order of time: row ``k`` gets
            second ``k``.
        problems: of kinds ``PROBLEMS`` and those of ``table_rows``, counted here.
        progress: told how many bytes were read since the last call.

    Returns:
        The interactions that have user, item and time, and how many rows there are.

    Raises:
        RawFileError: the file is damaged.
    """
    codes = {"user": IdCodes(), "item": IdCodes()}
    times: list[np.ndarray] = []
    ratings: list[np.ndarray] = []
    n_rows = 0
    for arrays, lines in table.chunks(list(dict.fromkeys(columns.values())), problems, progress):
        ids = {role: as_strings(arrays[columns[role]]).dictionary_encode() for role in codes}
        is_kept = np.ones(len(lines), bool)
        for role in codes:
            for kind, bad in unusable(ids[role], role).items():
                is_kept &= _counted(kind, is_kept & bad, lines, table, problems)
        if time_format is None:
            moments = np.arange(n_rows, n_rows + len(lines)) * 1000
        else:
            moments, good = to_milliseconds(arrays[columns["time"]], time_format)
            is_kept &= _counted("without_time", is_kept & ~good, lines, table, problems)
        n_rows += len(lines)
        times.append(moments[is_kept])
        if "rating" in columns:
            texts = pd.Series(as_strings(arrays[columns["rating"]]).to_pylist(), dtype=object)
            pointed = texts.map(_with_decimal_point)
            numbers = pd.to_numeric(pointed, errors="coerce").to_numpy(np.float32)
            numbers[~np.isfinite(numbers)] = np.nan
            odd = is_kept & np.isnan(numbers) & (texts != "").to_numpy()
            _counted("ratings_not_understood", odd, lines, table, problems)
            ratings.append(numbers[is_kept])
        mask = pa.array(is_kept)
        for role, found in codes.items():
            found.add(ids[role].filter(mask).dictionary_decode().dictionary_encode())
    return interactions_of(codes["user"], codes["item"], ratings, times), n_rows


def unusable(ids: pa.DictionaryArray, role: str) -> dict[str, np.ndarray]:
    """Say of each id, by kind of ``PROBLEMS``, whether it would not come out as it went in."""
    words = ids.dictionary
    no_ids = pa.concat_arrays([READ_AS_MISSING, pa.array([PADDING])])
    kinds = {
        f"without_{role}": pc.equal(words, ""),
        f"{role}_with_control_character": pc.match_substring_regex(
            words, "[\\x00-\\x1f\\x7f\ufffd]"
        ),
        f"{role}_read_as_missing": pc.is_in(words, value_set=no_ids),
    }
    rows = ids.indices.to_numpy()
    return {kind: bad.to_numpy(zero_copy_only=False)[rows] for kind, bad in kinds.items()}


def _with_decimal_point(text: str) -> str:
    return text.replace(",", ".") if "," in text and decimal_mark(text) == "," else text


def _counted(
    kind: str, rows: np.ndarray, lines: np.ndarray, table: Table, problems: Problems
) -> np.ndarray:
    """Count rows of a mask, and return the mask of the others."""
    if rows.any():
        where: Any = lines[rows]
        problems.add(kind, table.path, where[:10].tolist(), n=len(where))
    return ~rows
