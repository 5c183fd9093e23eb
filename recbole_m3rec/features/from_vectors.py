"""Features from vectors made elsewhere, matched to items and checked."""

from __future__ import annotations

import csv
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from recbole_m3rec.features.feature_table import (
    FeatureFileError,
    FeatureTable,
    checked_table,
)
from recbole_m3rec.features.safe_read import check_is_file
from recbole_m3rec.features.vector_files import Vectors, as_ids

# Columns of mapping files in use: the row of an item, and what is never one, even where it counts.
_ROW_NAMES = (
    *("itemid", "item_idx", "item_index", "iid", "idx", "index"),
    *("row", "remap_id", "new_id"),
)
_ID_NAMES = ("item_id", "asin", "parent_asin", "product_id", "sku")

_ARRAYS = {
    "image": ("image_feat.npy", "img_feat.npy", "image_feat.pt", "img_feat.pt"),
    "text": ("text_feat.npy", "txt_feat.npy", "text_feat.pt", "txt_feat.pt"),
    "audio": ("audio_feat.npy", "audio_feat.pt"),
    "video": ("video_feat.npy", "video_feat.pt"),
}
_MAPPINGS = ("i_id_mapping.csv", "i_id_mapping.tsv", "item_id_mapping.csv", "item_mapping.csv")


def find_layout(folder: Path) -> tuple[dict[str, Path], Path | None]:
    """Find the arrays of other toolkits in a folder, by modality, and the id mapping beside them.

    Raises:
        FeatureFileError: there is no known array, or two of one modality.
    """
    arrays: dict[str, Path] = {}
    for modality, names in _ARRAYS.items():
        files = [folder / name for name in names if (folder / name).is_file()]
        if len(files) > 1:
            raise FeatureFileError(
                f"{folder}: {files[0].name} and {files[1].name} are both of modality {modality}."
                " Name the file to import"
            )
        if files:
            arrays[modality] = files[0]
    if not arrays:
        expected = ", ".join(name for names in _ARRAYS.values() for name in names)
        raise FeatureFileError(f"{folder}: none of {expected} is there. Name the file to import")
    mappings = [folder / name for name in _MAPPINGS if (folder / name).is_file()]
    return arrays, mappings[0] if mappings else None


def with_ids(
    source: Path,
    vectors: Vectors,
    places: dict[str, int] | None,
    *,
    drop_unnamed: bool = False,
    first_row: int | None = None,
) -> tuple[FeatureTable, list[str]]:
    """Give each row the id of its item, and check that nothing is left over.

    Rows may be counted from 0 or from 1, the latter with or without a padding row 0: whichever
    fits exactly. Rows of zeros are left out, for an item without a vector is *missing*.

    Args:
        source: named in errors.
        vectors: as read.
        places: row by item id; None where the vectors bring their ids.
        drop_unnamed: leave out rows that belong to no item, instead of refusing them.
        first_row: the number of the first row in ``places``, 0 or 1; None finds it out.

    Returns:
        The features, and what a person should know about how they were matched.

    Raises:
        FeatureFileError: ids and rows do not match, or ``checked_table`` finds a fault.
    """
    notes: list[str] = []
    n_rows = len(vectors.values)
    if places is None:
        if vectors.ids is None:
            raise FeatureFileError(
                f"{source}: an array alone does not say which item a row belongs to. Give the ids"
                " by --ids FILE, or say --rows-are-ids if row k belongs to the item of id k"
            )
        ids, rows = vectors.ids, list(range(n_rows))
    else:
        if vectors.ids is not None:
            raise FeatureFileError(f"{source}: brings its own ids, so that --ids is one too many")
        ids = list(places)
        rows = _checked_rows(source, places, n_rows, drop_unnamed, first_row, notes)
    values = vectors.values[np.array(rows, dtype=np.int64)]
    says_something: np.ndarray = np.asarray(values.any(axis=1))
    n_zero = len(values) - int(says_something.sum())
    if n_zero:
        notes.append(f"{n_zero:,} rows of zeros are left out: their items are missing")
        values = values[says_something]
        ids = [item for item, is_filled in zip(ids, says_something, strict=True) if is_filled]
    table = checked_table(source, ids, values, {"encoder": "imported", "source": source.name})
    order = np.argsort(table.item_ids.astype(str), kind="stable")
    return FeatureTable(table.item_ids[order], table.values[order], table.metadata), notes


def rows_that_are_ids(
    source: Path, n_rows: int, catalogue: Collection[str], first_row: int | None = None
) -> tuple[dict[str, int], list[str]]:
    """Return the row of each id where these count the rows, and what a person should know of it.

    Args:
        source: named in errors.
        n_rows: of the array.
        catalogue: the dataset's ids; empty where they are not known.
        first_row: the id of the first row, 0 or 1; None finds it out: 0, unless the catalogue is
            exactly 1 to ``n_rows``.

    Raises:
        FeatureFileError: the last row has an id if ids are counted from 1 alone, as no item is 0,
            but others of these ids are no items.
    """
    known = set(catalogue)
    counts_from_1 = str(n_rows) in known and "0" not in known
    if first_row is None and counts_from_1 and known != {str(n) for n in range(1, n_rows + 1)}:
        raise FeatureFileError(
            f"{source}: {n_rows:,} rows. Counted from 0 they are of the ids 0 to {n_rows - 1}, but"
            f" there is no item 0, and item {n_rows} has no row; counted from 1 they are of the ids"
            f" 1 to {n_rows}, but the dataset's {len(known):,} items are not exactly these. Say by"
            " --first-row 0 or --first-row 1 which id the first row has"
        )
    first = int(counts_from_1) if first_row is None else first_row
    note = f"rows are counted from {first}: the first is of item {first}"
    if first_row is None and known and not first and "0" not in known:
        note += ", which the dataset does not have. If it is of item 1, say --first-row 1"
    return {str(row + first): row for row in range(n_rows)}, [note]


def _checked_rows(
    source: Path,
    places: Mapping[str, int],
    n_rows: int,
    drop_unnamed: bool,
    first_row: int | None,
    notes: list[str],
) -> list[int]:
    numbers = sorted(places.values())
    if first_row is None and numbers == list(range(1, n_rows)):
        notes.append("rows are counted from 1, after a row 0 for padding, which is left out")
        return list(places.values())
    fitting = [first for first in (0, 1) if first <= numbers[0] and numbers[-1] < n_rows + first]
    if first_row is None and drop_unnamed and len(fitting) > 1:
        item, row = next(iter(places.items()))
        raise FeatureFileError(
            f"{source}: {n_rows:,} rows, of which the mapping names neither the number 0 nor"
            f" {n_rows}, so that they may be counted from 0 or from 1: {row} or {row - 1} rows"
            f" lie before that of item {item!r}. Say which by --first-row 0 or --first-row 1"
        )
    first = int(fitting == [1]) if first_row is None else first_row
    rows = [row - first for row in places.values()]
    outside = [row for row in rows if not 0 <= row < n_rows]
    unnamed = sorted(set(range(n_rows)) - set(rows))
    if first and not outside:
        notes.append("rows are counted from 1")
    if not unnamed and not outside:
        return rows
    if drop_unnamed and not outside:
        notes.append(
            f"{len(unnamed):,} rows belong to no item and are left out"
            + ("" if first else ", counted from 0")
        )
        return rows
    raise FeatureFileError(
        f"{source}: {n_rows:,} rows, but the mapping names {len(places):,} ids on rows"
        f" {numbers[0]:,} to {numbers[-1]:,}{', counted from 1' if first else ''}: "
        + (f"{len(outside):,} of them are not there" if outside else "")
        + (" and " if outside and unnamed else "")
        + (f"{len(unnamed):,} rows (first: {unnamed[:3]}) belong to no item" if unnamed else "")
        + ". Give the mapping that was made with this file"
        + ("" if outside else ", or add --drop-unnamed-rows")
    )


def read_places(
    path: Path, *, id_column: str | None = None, row_column: str | None = None
) -> dict[str, int]:
    """Read which row belongs to which item.

    Args:
        path: a table with a header (``.csv``, ``.tsv``: commas or tabs) of ids and rows, ``.json``
            (a list of ids, or an object with the row of each id), ``.txt`` (an id a line) or
            ``.npy`` (ids).
        id_column: of a table; None guesses.
        row_column: of a table; None guesses.

    Raises:
        FileNotFoundError: there is no such file.
        FeatureFileError: it cannot be read so, or an id or a row stands there twice.
    """
    check_is_file(path, "file of ids")
    try:
        pairs = _pairs(path, id_column, row_column)
    except UnicodeDecodeError as error:
        raise FeatureFileError(f"{path}: not UTF-8 ({error.reason})") from error
    except (json.JSONDecodeError, csv.Error, RecursionError) as error:
        raise FeatureFileError(f"{path}: cannot be read ({error})") from error
    if not pairs:
        raise FeatureFileError(f"{path}: holds no ids")
    places: dict[str, int] = {}
    item_on: dict[int, str] = {}
    for item, row in pairs:
        if not item:
            raise FeatureFileError(f"{path}: the id of row {row} is empty")
        if item in places:
            raise FeatureFileError(
                f"{path}: item {item!r} stands there twice, for rows {places[item]} and {row}"
            )
        if row in item_on:
            raise FeatureFileError(
                f"{path}: row {row} is given to two items, {item_on[row]!r} and {item!r}"
            )
        places[item], item_on[row] = row, item
    return places


def _pairs(path: Path, id_column: str | None, row_column: str | None) -> list[tuple[str, int]]:
    kind = path.suffix.lower()
    if kind == ".npy":
        try:
            ids = np.load(path, allow_pickle=False)
        except ValueError as error:
            raise FeatureFileError(f"{path}: no array of strings or numbers ({error})") from error
        return [(item, row) for row, item in enumerate(as_ids(path, ids))]
    if kind == ".json":
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        if isinstance(content, dict):
            return [(str(item), _whole(path, row)) for item, row in content.items()]
        return [(item, row) for row, item in enumerate(as_ids(path, content))]
    if kind == ".txt":
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        return [(line.strip(), row) for row, line in enumerate(lines)]
    return _pairs_of_table(path, id_column, row_column)


def _pairs_of_table(
    path: Path, id_column: str | None, row_column: str | None
) -> list[tuple[str, int]]:
    with open(path, encoding="utf-8-sig", newline="") as file:
        separator = "\t" if "\t" in file.readline() else ","
        file.seek(0)
        rows = list(csv.reader(file, delimiter=separator))
    if not rows:
        return []
    header, *lines = rows
    for column in (id_column, row_column):
        if column is not None and column not in header:
            raise FeatureFileError(f"{path}, line 1: no column {column!r}; it has {header}")
    for number, line in enumerate(lines, start=2):
        if line and len(line) != len(header):
            raise FeatureFileError(
                f"{path}, line {number}: {len(line)} fields, expected {len(header)} ({header})"
            )
    lines = [line for line in lines if line]
    if row_column is None:
        row_column = _row_column(path, header, lines, id_column)
    if id_column is None:
        others = [name for name in header if name != row_column]
        if len(others) != 1:
            raise FeatureFileError(
                f"{path}, line 1: which of {header} is the id? Name it by --id-column"
            )
        id_column = others[0]
    id_place, row_place = header.index(id_column), header.index(row_column)
    return [(line[id_place], _whole(path, line[row_place])) for line in lines]


def _row_column(
    path: Path, header: Sequence[str], lines: Sequence[Sequence[str]], id_column: str | None
) -> str:
    """Guess which column holds rows: the one that counts, of those called so if there are any."""
    others = [name for name in header if name != id_column and name.lower() not in _ID_NAMES]
    usual = [name for name in others if name.lower() in _ROW_NAMES]
    counting = []
    for name in usual or others:
        values = [line[header.index(name)] for line in lines]
        if values and all(value.isdecimal() for value in values):
            numbers = sorted(map(int, values))
            if numbers in (list(range(len(lines))), list(range(1, len(lines) + 1))):
                counting.append(name)
    if len(counting) != 1:
        raise FeatureFileError(
            f"{path}, line 1: which of {list(header)} is the row? Name it by --row-column"
            + ("" if counting else " (none counts from 0 or 1 without a gap)")
        )
    return counting[0]


def _whole(path: Path, value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().isdecimal():
        return int(value)
    raise FeatureFileError(f"{path}: {value!r} is no row, a whole number from 0 on")
