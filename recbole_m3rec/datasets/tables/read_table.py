"""Reads CSV in its dialects, JSON lines and Parquet, some rows at a time."""

from __future__ import annotations

import bz2
import codecs
import csv
import gzip
import io
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recbole_m3rec.datasets.io.problems import Problems
from recbole_m3rec.datasets.io.raw_lines import RawFileError
from recbole_m3rec.datasets.tables.column_texts import as_strings
from recbole_m3rec.datasets.tables.text_rows import PROBLEMS, json_record, json_rows, table_rows
from recbole_m3rec.features.safe_read import check_is_file

_ROWS_AT_ONCE = 65_536
_HEAD = 1 << 20
_SEPARATORS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "vertical bars"}
_JSON = re.compile(r"\s*(\[\s*)?\{\s*(u?[\"']|$)")
_FROM_FEATHER = "pd.read_feather('{path}').to_parquet('{path}.parquet')"
_OTHER_KINDS = {  # by its first bytes, what a file is and how to go on
    b"PK": "a zip file or a spreadsheet. Save the table as CSV",
    b"\xd0\xcf\x11\xe0": "a spreadsheet. Save the table as CSV",
    b"ARROW1": f'Feather. Make it Parquet: python -c "import pandas as pd; {_FROM_FEATHER}"',
    b"\x28\xb5\x2f\xfd": "packed by zstd. Unpack it: zstd -d {path}",
    b"\xfd7zXZ": "packed by xz. Unpack it: unxz -k {path}",
}
_SEP_LINE = re.compile(r"sep=(.)\r?\n?", re.IGNORECASE)
_LONGEST_HEADER = 100  # lines
_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}

Chunk = tuple[dict[str, Any], np.ndarray]


@dataclass(frozen=True)
class TextTable:
    """A table as text; ``names`` are those of its columns, ``header`` says if they stand in it.

    ``quoted`` says whether values may stand in quotes, ``n_before`` how many lines are passed over.
    Without a separator each line is an object of JSON, and ``names`` are its keys.
    """

    path: Path | zipfile.Path
    names: tuple[str, ...]
    separator: str
    encoding: str
    header: bool = True
    quoted: bool = True
    n_before: int = 0

    def __str__(self) -> str:
        encoding = {"utf-8-sig": "utf-8"}.get(self.encoding, self.encoding)
        if not self.separator:
            return f"JSON lines, {encoding}"
        between = _SEPARATORS.get(self.separator, repr(self.separator))
        return f"text separated by {between}, {encoding}"

    def chunks(
        self,
        columns: Sequence[str],
        problems: Problems,
        progress: Callable[[int], object] = lambda n_bytes: None,
    ) -> Iterator[Chunk]:
        """Yield Arrow arrays by column name, and the numbers of their lines, int64.

        Args:
            columns: names, of ``names``.
            problems: counts what is wrong, of kinds ``table_rows.PROBLEMS``.
            progress: told how many bytes were read since the last call.

        Raises:
            RawFileError: the file is cut off, or in another encoding.
        """
        places = [self.names.index(name) for name in columns]
        with _explained(self.path), self.path.open("rb") as raw:
            lines = io.TextIOWrapper(
                _unpacked(raw), encoding=self.encoding, errors="surrogateescape", newline=""
            )
            if self.separator:
                rows = table_rows(
                    islice(lines, self.n_before, None),
                    len(self.names),
                    problems,
                    self.path,
                    separator=self.separator,
                    quoted=self.quoted,
                    first_line=1 + self.n_before,
                )
            else:
                rows = json_rows(lines, self.names, problems, self.path)
            read = 0
            for chunk in _chunks(islice(rows, int(self.header), None)):
                numbers, values = zip(*chunk, strict=True)
                arrays = {
                    name: pa.array([row[place] for row in values], pa.string())
                    for name, place in zip(columns, places, strict=True)
                }
                progress(raw.tell() - read)
                read = raw.tell()
                yield arrays, np.array(numbers, np.int64)


@dataclass(frozen=True)
class ParquetTable:
    """A table in a Parquet file; its "lines" are rows, counted from 1."""

    path: Path
    names: tuple[str, ...]

    def __str__(self) -> str:
        return "Parquet"

    def chunks(
        self,
        columns: Sequence[str],
        problems: Problems,
        progress: Callable[[int], object] = lambda n_bytes: None,
    ) -> Iterator[Chunk]:
        """Yield Arrow arrays by column name, and the numbers of their rows; see ``TextTable``."""
        with _explained(self.path), pq.ParquetFile(self.path) as file:
            size, n_rows = self.path.stat().st_size, max(file.metadata.num_rows, 1)
            row = 1
            for batch in file.iter_batches(_ROWS_AT_ONCE, columns=list(columns)):
                arrays = {name: batch.column(name) for name in columns}
                for array in arrays.values():
                    array.validate(full=True)  # letters that are none would fail later
                    if pa.types.is_timestamp(array.type):
                        pc.cast(array[:1], pa.string())  # an error here where its zone is unknown
                yield arrays, np.arange(row, row + len(batch))
                progress(size * len(batch) // n_rows)
                row += len(batch)


Table = TextTable | ParquetTable


def open_table(
    path: Path, *, separator: str | None = None, encoding: str | None = None, header: bool = True
) -> Table:
    """Find out how a table is written; text packed by gzip or bzip2 is unpacked.

    A first line ``sep=;``, meant for Excel, names the separator and is passed over.

    Args:
        path: the first bytes decide, not the name.
        separator: of text; None guesses.
        encoding: of text; None guesses UTF-8, or else Windows-1252.
        header: whether text begins with names; otherwise columns are called 1, 2, …

    Raises:
        FileNotFoundError: no such file.
        FeatureFileError: a folder, a pipe or a device.
        RawFileError: an empty file, a spreadsheet, or no table.
    """
    check_is_file(path, "file")
    with _explained(path), open(path, "rb") as raw:
        head = raw.read(6)
        raw.seek(0)
        if head[:4] == b"PAR1":
            return ParquetTable(path, tuple(pq.read_schema(path).names))
        for mark, what in _OTHER_KINDS.items():
            if head.startswith(mark):
                raise RawFileError(f"{path} is {what.format(path=path)}")
        start = _unpacked(raw).read(_HEAD)
    encoding = encoding or _guessed_encoding(start)
    text = start.decode(encoding, "replace").lstrip("\ufeff")
    lines = io.StringIO(text, newline="").readlines()
    n_before = 0
    if named := _SEP_LINE.fullmatch(lines[0] if lines else ""):
        separator, n_before = separator or named[1], 1
    first = next((line for line in lines[n_before:] if line.strip()), "")
    if not first:
        raise RawFileError(f"{path} holds nothing")
    if separator is None and _JSON.match(text) and (keys := _keys(path, lines)):
        return TextTable(path, keys, "", encoding, header=False)
    if "\0" in first:
        raise RawFileError(f"{path}: neither text nor Parquet, it begins with {start[:20]!r}")
    if separator is None:
        separator = max(_SEPARATORS, key=lambda each: len(_values(first, each)))
    names = _first_record(lines[n_before:], separator) or _values(first, separator)
    called = _distinct(names) if header else tuple(map(str, range(1, len(names) + 1)))
    return TextTable(path, called, separator, encoding, header, n_before=n_before)


def sample(table: Table, n: int = 1000) -> dict[str, list[str]]:
    """Return the first ``n`` values of every column as text.

    Raises:
        RawFileError: no row can be read.
    """
    problems = Problems(PROBLEMS, shown=0)
    for arrays, _ in table.chunks(table.names, problems):
        return {name: as_strings(array[:n]).to_pylist() for name, array in arrays.items()}
    unread = problems.found().get("lines_unparseable", 0)
    if not unread:
        raise RawFileError(f"{table.path}: holds names of columns and no row")
    raise RawFileError(
        f"{table.path}: none of its {unread:,} rows can be read, for its first line has"
        f" {len(table.names)} values ({', '.join(table.names)}) and they have another number."
        " Correct the first line, or name the --separator"
    )


def _unpacked(raw: Any) -> Any:
    start = raw.peek(3)
    if start[:3] == b"BZh":
        return bz2.BZ2File(raw)
    return gzip.GzipFile(fileobj=raw) if start[:2] == b"\x1f\x8b" else raw


def _keys(path: Path, lines: Sequence[str]) -> tuple[str, ...]:
    """Return the keys of the objects in the first lines, of which the last may be cut off.

    Raises:
        RawFileError: objects in a list, or one over several lines.
    """
    keys: dict[str, None] = {}
    for line in lines:
        with suppress(ValueError):
            keys |= dict.fromkeys(map(str, json_record(line)))
    start = "".join(lines).lstrip()
    if start.startswith("[") or (not keys and not start.partition("\n")[0][1:].strip()):
        raise RawFileError(
            f"{path}: JSON, expected an object a line. A list of objects becomes that by: python"
            f' -c "import json; [print(json.dumps(row)) for row in'
            f" json.load(open('{path}', encoding='utf-8'))]\" > {path.stem}.lines.jsonl"
        )
    return tuple(keys)


def _guessed_encoding(start: bytes) -> str:
    for mark, encoding in _MARKS.items():
        if start.startswith(mark):
            return encoding
    try:
        codecs.getincrementaldecoder("utf-8")().decode(start)  # a letter cut in two is no error
    except UnicodeDecodeError:
        return "cp1252"
    return "utf-8"


def _first_record(lines: Sequence[str], separator: str) -> list[str]:
    """Return the first row's values, which may hold line breaks; [] where its quotes do not end."""
    csv.field_size_limit(2**31 - 1)  # Windows takes no more
    try:
        rows = csv.reader(lines[:_LONGEST_HEADER], delimiter=separator, strict=True)
        return next(filter(None, rows), [])
    except csv.Error:
        return []


def _values(line: str, separator: str) -> list[str]:
    csv.field_size_limit(2**31 - 1)  # Windows takes no more
    return next(csv.reader([line.rstrip("\r\n")], delimiter=separator), [])


def _distinct(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names, an empty one and one that stands there before with its number."""
    values: list[str] = []
    for number, name in enumerate(names, start=1):
        name = " ".join(name.split()) or f"column {number}"
        values.append(f"{name} ({number})" if name in values else name)
    return tuple(values)


def _chunks(rows: Iterator[Any]) -> Iterator[list[Any]]:
    while chunk := list(islice(rows, _ROWS_AT_ONCE)):
        yield chunk


@contextmanager
def _explained(path: Path | zipfile.Path) -> Iterator[None]:
    try:
        yield
    except (EOFError, OSError, zipfile.BadZipFile, zlib.error, pa.ArrowException) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the system's, not Arrow's
            raise
        raise RawFileError(f"{path}: damaged or cut off ({error}). Get it again") from error
    except (UnicodeDecodeError, LookupError) as error:
        raise RawFileError(f"{path}: cannot be read ({error}). Name its --encoding") from error
