"""Reading fields from, and writing, raw ``.item`` files; the items of a dataset."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from recbole_m3rec.atomic.atomic_file import (
    AtomicFileError,
    lines_of_rows,
    read_columns,
    read_header,
)

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ItemFile:
    """A raw ``.item`` file: a header of ``name:type`` fields, then one item a line.

    Attributes:
        path: where it is, or may be.
        id_field: the field with the items' tokens.
        separator: between fields, one character.
        encoding: None is UTF-8.
    """

    path: Path
    id_field: str = "item_id"
    separator: str = "\t"
    encoding: str | None = "utf-8"

    def types(self) -> dict[str, str]:
        """Read the type of each field by its name.

        Raises:
            FileNotFoundError: there is no such file.
            AtomicFileError: it has no header.
        """
        if not self.path.is_file():
            raise FileNotFoundError(
                f"{self.path}: there is no such file to make features from. Add it, bring a "
                "feature file, or leave the modality out of modalities:"
            )
        return read_header(self.path, self.separator, self.encoding)

    def read(self, fields: Sequence[str]) -> tuple[list[str], list[list[str]]]:
        """Read item tokens and some fields of all rows, as the text that stands in the file.

        A field that the file does not have counts as missing for every item, and a log line says
        so.

        Returns:
            ``n`` tokens, and per field ``n`` values, ``""`` where missing.

        Raises:
            FileNotFoundError: there is no such file.
            AtomicFileError: the file is not in the atomic format, all of the named fields are
                missing, or an item has no token or two lines.
        """
        there = self.types()
        absent = [field for field in fields if field not in there]
        present = list(fields)
        if absent and len(absent) < len(fields):
            present = [field for field in fields if field in there]
            names = ", ".join(absent), ", ".join(there)
            _logger.warning("%s: no field %s, left out; the file has %s", self.path, *names)
        columns = read_columns(self.path, [self.id_field, *present], self.separator, self.encoding)
        tokens: list[str] = columns[0].to_pylist()
        _check_tokens(self, tokens)
        values = dict(zip(present, (column.to_pylist() for column in columns[1:]), strict=True))
        return tokens, [values.get(field, [""] * len(tokens)) for field in fields]


def dataset_items(
    folder: Path, name: str, *, item_id_field: str = "item_id"
) -> tuple[Path, list[str]] | None:
    """Return the items of ``<name>.inter``, or else of ``<name>.item``, and which file it was.

    Returns:
        None where neither file is there.

    Raises:
        AtomicFileError: the file is not in the atomic format, or has no such field.
    """
    inter, item = folder / f"{name}.inter", folder / f"{name}.item"
    if inter.is_file():
        return inter, read_columns(inter, [item_id_field])[0].unique().to_pylist()
    if item.is_file():
        return item, ItemFile(item, item_id_field).read([])[0]
    return None


def write_row(file: IO[bytes], values: Sequence[str]) -> None:
    """Write a row of values without tabs and line breaks; nothing is quoted."""
    file.write("\t".join(values).encode() + b"\n")


def _check_tokens(file: ItemFile, tokens: list[str]) -> None:
    path, encoding = file.path, file.encoding
    row_of: dict[str, int] = {}
    for row, token in enumerate(tokens):
        if not token:
            [line] = lines_of_rows(path, [row], encoding)
            raise AtomicFileError(
                f"{path}, line {line}: {file.id_field} is empty. Give the item its token"
            )
        if token in row_of:
            first, line = lines_of_rows(path, [row_of[token], row], encoding)
            raise AtomicFileError(
                f"{path}, line {line}: item {token!r} stands on line {first} too. Keep one line per"
                " item"
            )
        row_of[token] = row
