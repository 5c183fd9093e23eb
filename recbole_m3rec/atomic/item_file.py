"""Reading fields from, and writing, raw ``.item`` files."""

from __future__ import annotations

import csv
import io
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from recbole_m3rec.support.suggestions import did_you_mean

_logger = logging.getLogger(__name__)

FIELD_TYPES = ("token", "token_seq", "float", "float_seq")


class ItemFileError(ValueError):
    """An ``.item`` file is not in the atomic format, or lacks a field."""


def read_item_fields(
    path: Path,
    fields: Sequence[str],
    *,
    item_id_field: str = "item_id",
    field_separator: str = "\t",
    encoding: str = "utf-8",
) -> tuple[list[str], list[list[str]]]:
    """Read item tokens and some fields of all rows, as the text that stands in the file.

    Quotes are read as RecBole reads them, so that tokens are the same here and there. A field that
    the file does not have counts as missing for every item, and a log line says so.

    Args:
        path: a header of ``name:type`` fields, then one item a line.
        fields: names without type.
        item_id_field: the field with the items' tokens.
        field_separator: one character.
        encoding: of the file.

    Returns:
        ``n`` tokens, and per field ``n`` values, ``""`` where missing.

    Raises:
        FileNotFoundError: there is no such file.
        ItemFileError: the header, the items' tokens or all of the named fields are missing, a line
            has another number of fields than the header, an item has no token or two lines, or the
            file is in another encoding.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: there is no such file to make features from. Add it, bring a feature file, or"
            " leave the modality out of modalities:"
        )
    if len(field_separator) != 1:
        raise ItemFileError(
            f"{path}: field_separator must be one character, found {field_separator!r}"
        )
    csv.field_size_limit(sys.maxsize)
    columns: list[list[str]] = []
    line_of: dict[str, int] = {}
    try:
        with open(path, encoding=encoding, newline="") as file:
            rows = csv.reader(file, delimiter=field_separator)
            names = _field_names(path, next(rows, []), field_separator)
            places = [_place(path, names, item_id_field), *_places(path, names, fields)]
            columns = [[] for _ in fields]
            line = 1
            for row in rows:
                start, line = line + 1, rows.line_num
                if not row:
                    continue
                _check_row(path, row, names, start, line, field_separator)
                token = row[places[0]]
                if not token:
                    raise ItemFileError(
                        f"{path}, line {start}: {item_id_field} is empty. Give the item its token"
                    )
                if token in line_of:
                    raise ItemFileError(
                        f"{path}, line {start}: item {token!r} stands on line {line_of[token]} too."
                        " Keep one line per item"
                    )
                line_of[token] = start
                row.append("")  # what stands at place -1, that of absent fields
                for column, place in zip(columns, places[1:], strict=True):
                    column.append(row[place])
    except UnicodeDecodeError as error:
        raise ItemFileError(
            f"{path}, line {_undecodable_line(path, encoding)}: not {encoding} ({error.reason})."
            " Set encoding to that of the file, or save it anew"
        ) from error
    return list(line_of), columns


def field_names(path: Path, field_separator: str = "\t", encoding: str = "utf-8") -> list[str]:
    """Read the names of a file's fields, without their types.

    Raises:
        FileNotFoundError: there is no such file.
        ItemFileError: it has no header.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file to make features from")
    with open(path, encoding=encoding, errors="replace", newline="") as file:
        header = next(csv.reader(file, delimiter=field_separator), [])
    return _field_names(path, header, field_separator)


def write_row(file: IO[bytes], values: Sequence[str]) -> None:
    """Write a row of values without tabs and line breaks, as RecBole reads it."""
    row = "\t".join(values)
    if '"' in row:  # in pairs, within quotes, is how the format says a quote
        text = io.StringIO()
        csv.writer(text, delimiter="\t", lineterminator="").writerow(values)
        row = text.getvalue()
    file.write(row.encode() + b"\n")


def _field_names(path: Path, header: list[str], field_separator: str) -> list[str]:
    """Return the names in a header ``name:type<separator>name:type…``."""
    names = []
    for column, head in enumerate(header, start=1):
        name, _, kind = head.partition(":")
        if not name or kind not in FIELD_TYPES:
            raise ItemFileError(
                f"{path}, line 1, column {column}: expected the header's name:type with a type of"
                f" {', '.join(FIELD_TYPES)}, found {head!r}. Give the file a header, and its"
                f" fields the separator {field_separator!r} (or set field_separator)"
            )
        names.append(name)
    if not names:
        raise ItemFileError(f"{path}, line 1: expected a header of name:type fields, found nothing")
    return names


def _places(path: Path, names: list[str], fields: Sequence[str]) -> list[int]:
    """Return where the fields stand, -1 for those absent where others are there."""
    absent = [field for field in fields if field not in names]
    if absent and len(absent) < len(fields):
        has = ", ".join(names)
        _logger.warning("%s: no field %s, left out; the file has %s", path, ", ".join(absent), has)
        return [names.index(field) if field in names else -1 for field in fields]
    return [_place(path, names, field) for field in fields]


def _place(path: Path, names: list[str], field: str) -> int:
    if field not in names:
        raise ItemFileError(
            f"{path}, line 1: no field {field!r}; the file has {', '.join(names)}."
            + did_you_mean(field, names)
        )
    return names.index(field)


def _check_row(
    path: Path, row: list[str], names: list[str], start: int, end: int, field_separator: str
) -> None:
    # An opening quote without its end swallows lines up to the next quote, and RecBole with it.
    swallowed = end > start and any(field_separator in value for value in row)
    if len(row) == len(names) and not swallowed:
        return
    where = f"line {start}" if end == start else f"lines {start} to {end}, taken as one"
    hint = "A value begins with a quote that does not end" if end > start else "Correct the line"
    raise ItemFileError(
        f"{path}, {where}: {len(row)} fields, expected {len(names)} ({', '.join(names)}). {hint}"
    )


def _undecodable_line(path: Path, encoding: str) -> int:
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode(encoding)
            except UnicodeDecodeError:
                return number
    return 1
