"""RecBole's atomic files: a header of ``name:type`` fields, then a row a line, nothing quoted.

A quote is a character like any other. Blank lines, a byte order mark and any kind of line end are
read past; everything else that is not a row is an error that names the line.
"""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from recbole_m3rec.support.suggestions import did_you_mean

FIELD_TYPES = ("token", "token_seq", "float", "float_seq")

# The longest line that is read, in bytes.
_BLOCK = 1 << 26


class AtomicFileError(ValueError):
    """A file is not in the atomic format, or lacks a field."""


def text_encoding(encoding: str | None) -> str:
    """Return the codec that reads this encoding with or without a byte order mark.

    Raises:
        AtomicFileError: there is no such encoding.
    """
    try:
        name = codecs.lookup(encoding or "utf-8").name
        io.TextIOWrapper(io.BytesIO(), encoding=name)  # refuses base64 and the like
    except (LookupError, ValueError) as error:
        raise AtomicFileError(
            f"encoding: {encoding!r} is unknown, expected one such as utf-8"
        ) from error
    return "utf-8-sig" if name == "utf-8" else name


def read_header(
    path: Path, separator: str = "\t", encoding: str | None = "utf-8"
) -> dict[str, str]:
    """Return the type of each field by its name, in the order of the file.

    Raises:
        FileNotFoundError: there is no such file.
        AtomicFileError: line 1 is no header, a field stands there twice, or the separator is not
            one character.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file")
    if len(separator) != 1:
        raise AtomicFileError(f"{path}: field_separator must be one character, found {separator!r}")
    line = next(_lines(path, encoding), "").rstrip("\n")
    _check_characters(path, 1, line, encoding)
    types: dict[str, str] = {}
    for column, head in enumerate(line.split(separator) if line else [], start=1):
        name, _, kind = head.partition(":")
        if not name or kind not in FIELD_TYPES:
            raise AtomicFileError(
                f"{path}, line 1, column {column}: expected the header's name:type with a type of"
                f" {', '.join(FIELD_TYPES)}, found {head[:80]!r}. Give the file a header, and its"
                f" fields the separator {separator!r} (or set field_separator)"
            )
        if name in types:
            raise AtomicFileError(
                f"{path}, line 1, column {column}: field {name!r} stands there twice. Rename one"
            )
        types[name] = kind
    if not types:
        raise AtomicFileError(f"{path}, line 1: expected a header of name:type fields, found none")
    return types


def read_columns(
    path: Path, fields: Sequence[str], separator: str = "\t", encoding: str | None = "utf-8"
) -> list[pa.ChunkedArray]:
    """Read some fields of all rows as the strings that stand in the file, ``""`` where empty.

    Raises:
        FileNotFoundError: there is no such file.
        AtomicFileError: the header is wrong or lacks a field, a line has another number of fields
            than the header, or the file is binary or in another encoding.
    """
    header = read_header(path, separator, encoding)
    for field in fields:
        if field not in header:
            raise AtomicFileError(
                f"{path}, line 1: no field {field!r}; the file has {', '.join(header)}."
                + did_you_mean(field, header)
            )
    names = list(header)
    codec = text_encoding(encoding)
    try:
        table = pa_csv.read_csv(
            path,
            pa_csv.ReadOptions(
                column_names=names,
                skip_rows=1,
                block_size=_BLOCK,
                encoding="utf8" if codec == "utf-8-sig" else codec,
            ),
            pa_csv.ParseOptions(
                delimiter=separator, quote_char=False, double_quote=False, escape_char=False
            ),
            pa_csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()),
                include_columns=list(dict.fromkeys(fields)),
                null_values=[],
                strings_can_be_null=False,
            ),
        )
    except (pa.ArrowInvalid, UnicodeError) as error:
        if not check_lines(path, names, separator, encoding):  # a header alone
            return [pa.chunked_array([pa.array([], pa.string())]) for _ in fields]
        raise AtomicFileError(f"{path}: cannot be read ({error})") from error
    columns = [table[field] for field in fields]
    if any(pc.any(pc.match_substring(column, "\0")).as_py() for column in columns):
        check_lines(path, names, separator, encoding)
    return columns


def lines_of_rows(path: Path, rows: Sequence[int], encoding: str | None = "utf-8") -> list[int]:
    """Return the line numbers of rows, which count from 0 and from the line after the header."""
    line_of: dict[int, int] = {}
    remaining, row = set(rows), -1
    for number, line in enumerate(_lines(path, encoding), start=1):
        row += bool(line.rstrip("\n")) and number > 1
        if number > 1 and row in remaining:
            line_of.setdefault(row, number)
            if len(line_of) == len(remaining):
                break
    return [line_of[row] for row in rows]


def name_lines(lines: Sequence[int], count: int | None = None) -> str:
    """Return ``line 3`` or ``lines 3, 7, 9, … (12 in all)``."""
    count = len(lines) if count is None else count
    if count == 1:
        return f"line {lines[0]}"
    shown = ", ".join(map(str, lines))
    return f"lines {shown}" if count == len(lines) else f"lines {shown}, … ({count:,} in all)"


def _lines(path: Path, encoding: str | None) -> Iterator[str]:
    """Yield lines as text; bytes that are no text of this encoding come as lone surrogates."""
    codec = text_encoding(encoding)
    with open(path, encoding=codec, errors="surrogateescape") as file:
        try:
            yield from file
        except UnicodeError as error:
            raise AtomicFileError(
                f"{path}: not {encoding} ({error}). Set encoding to that of the file, or save it"
                " anew"
            ) from error


def _check_characters(path: Path, number: int, line: str, encoding: str | None) -> None:
    if "\0" in line or (number == 1 and line.startswith(("\x1f", "PK\3\4", "PAR1"))):
        raise AtomicFileError(
            f"{path}, line {number}: holds bytes that are no text, so the file is binary"
            " (compressed, or a table of another kind). Expected a text file of tab-separated"
            " fields: unpack or export it"
        )
    odd = [character for character in line if "\udc80" <= character <= "\udcff"]
    if odd:
        byte = ord(odd[0]) - 0xDC00
        raise AtomicFileError(
            f"{path}, line {number}: not {encoding or 'utf-8'} (byte 0x{byte:02x}). Set encoding to"
            " that of the file, or save it anew"
        )


def check_lines(
    path: Path, names: Sequence[str], separator: str = "\t", encoding: str | None = "utf-8"
) -> int:
    """Return the number of rows, or raise for the first line that is none.

    Raises:
        AtomicFileError: a line is binary, in another encoding, or has another number of fields.
    """
    ragged: list[tuple[int, int]] = []
    n_rows = 0
    for number, line in enumerate(_lines(path, encoding), start=1):
        line = line.rstrip("\n")
        _check_characters(path, number, line, encoding)
        n_rows += bool(line) and number > 1
        n_fields = line.count(separator) + 1
        if line and n_fields != len(names):
            ragged.append((number, n_fields))
    if ragged:
        number, n_fields = ragged[0]
        others = f" ({len(ragged):,} such lines)" if len(ragged) > 1 else ""
        raise AtomicFileError(
            f"{path}, line {number}: {n_fields} fields, expected {len(names)}"
            f" ({', '.join(names)}){others}. A value holds no separator {separator!r} and no line"
            " break, and nothing is quoted: correct the line"
        )
    return n_rows
