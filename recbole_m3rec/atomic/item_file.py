"""Reading fields from, and writing, raw ``.item`` files."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from recbole_m3rec.atomic.atomic_file import (
    AtomicFileError,
    lines_of_rows,
    read_columns,
    read_header,
)

_logger = logging.getLogger(__name__)


def read_item_fields(
    path: Path,
    fields: Sequence[str],
    *,
    item_id_field: str = "item_id",
    field_separator: str = "\t",
    encoding: str | None = "utf-8",
) -> tuple[list[str], list[list[str]]]:
    """Read item tokens and some fields of all rows, as the text that stands in the file.

    A field that the file does not have counts as missing for every item, and a log line says so.

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
        AtomicFileError: the file is not in the atomic format, all of the named fields are missing,
            or an item has no token or two lines.
    """
    there = field_names(path, field_separator, encoding)
    absent = [field for field in fields if field not in there]
    if absent and len(absent) < len(fields):
        has = ", ".join(there)
        _logger.warning("%s: no field %s, left out; the file has %s", path, ", ".join(absent), has)
        present = [field for field in fields if field in there]
    else:
        present = list(fields)
    columns = read_columns(path, [item_id_field, *present], field_separator, encoding)
    tokens: list[str] = columns[0].to_pylist()
    _check_tokens(path, tokens, item_id_field, encoding)
    values = {name: column.to_pylist() for name, column in zip(present, columns[1:], strict=True)}
    return tokens, [values.get(field, [""] * len(tokens)) for field in fields]


def field_names(
    path: Path, field_separator: str = "\t", encoding: str | None = "utf-8"
) -> list[str]:
    """Read the names of a file's fields, without their types.

    Raises:
        FileNotFoundError: there is no such file.
        AtomicFileError: it has no header.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: there is no such file to make features from. Add it, bring a feature file, or"
            " leave the modality out of modalities:"
        )
    return list(read_header(path, field_separator, encoding))


def write_row(file: IO[bytes], values: Sequence[str]) -> None:
    """Write a row of values without tabs and line breaks; nothing is quoted."""
    file.write("\t".join(values).encode() + b"\n")


def _check_tokens(path: Path, tokens: list[str], field: str, encoding: str | None) -> None:
    row_of: dict[str, int] = {}
    for row, token in enumerate(tokens):
        if not token:
            [line] = lines_of_rows(path, [row], encoding)
            raise AtomicFileError(f"{path}, line {line}: {field} is empty. Give the item its token")
        if token in row_of:
            first, line = lines_of_rows(path, [row_of[token], row], encoding)
            raise AtomicFileError(
                f"{path}, line {line}: item {token!r} stands on line {first} too. Keep one line per"
                " item"
            )
        row_of[token] = row
