"""Reads rows of CSV and JSON lines, some of them damaged; counts what cannot be read."""

from __future__ import annotations

import csv
import json
import re
import zipfile
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from recbole_m3rec.datasets.amazon.item_fields import parse_python
from recbole_m3rec.datasets.io.problems import Problems

PROBLEMS = {
    "lines_unparseable": "another number of values than the header has, or no whole object; the"
    " line is left out",
    "quotes_without_end": "a quote without its counterpart, taken as a letter",
    "lines_not_utf8": "bytes of another encoding, replaced by the sign for that",
}
# A quote that does not end would swallow the rest of the file.
_MOST_LINES = 1000
_UNDECODED = re.compile("[\ud800-\udfff]")


def table_rows(
    lines: Iterable[str],
    n_columns: int,
    problems: Problems,
    path: Path | zipfile.Path,
    *,
    separator: str = ",",
    quoted: bool = True,
    first_line: int = 1,
) -> Iterator[tuple[int, list[str]]]:
    """Yield each row with the number of its first line; empty lines are passed over.

    A line whose quotes do not match is read as if they were letters, where that gives the right
    number of values; lines after it are read on their own.

    Args:
        lines: text with line ends; what could not be decoded stands as surrogates.
        n_columns: values in a row; empty ones behind them are cut off.
        problems: of kinds ``PROBLEMS``, counted here.
        path: named in the log.
        separator: a character, or several where values are not quoted.
        quoted: whether values may stand in quotes, with line breaks in them.
        first_line: number of the first line.
    """
    csv.field_size_limit(2**31 - 1)  # Windows takes no more
    source = _Lines(lines, first_line - 1, problems, path)
    reader = _reader(source, separator, quoted)
    while True:
        source.taken = []
        start = source.number + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error:
            row = None
        if row is not None and len(row) == n_columns:
            yield start, row
            continue
        if not "".join(source.taken).strip():
            continue
        if row is not None and len(row) > n_columns and not any(row[n_columns:]):
            yield start, row[:n_columns]
            continue
        first = source.taken[0]
        if row is None or len(source.taken) > 1:
            source.give_back(len(source.taken) - 1)
            reader = _reader(source, separator, quoted)
        plain = first.rstrip("\r\n").split(separator)
        if len(plain) == n_columns and '"' in first:
            problems.add("quotes_without_end", path, [start])
            yield start, plain
        else:
            problems.add("lines_unparseable", path, [start])


def json_rows(
    lines: Iterable[str], names: Sequence[str], problems: Problems, path: Path | zipfile.Path
) -> Iterator[tuple[int, list[str]]]:
    """Yield the values of names in objects, one a line, with the number of the line.

    Numbers are text as it stands there; lists are joined by ``|``.

    Args:
        lines, problems, path: as for ``table_rows``.
        names: keys of the objects.
    """
    source = _Lines(lines, 0, problems, path)
    for line in source:
        source.taken = []
        try:
            record = json_record(line)
        except ValueError:
            if line.strip():
                problems.add("lines_unparseable", path, [source.number])
            continue
        yield source.number, [_text_of_json(record.get(name)) for name in names]


def json_record(line: str) -> dict[str, Any]:
    """Parse an object of JSON, or of Python, as older collections have them; nothing is run.

    Raises:
        ValueError: the line is anything else.
    """
    try:
        record = json.loads(line, parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        return parse_python(line)
    if not isinstance(record, dict):
        raise ValueError("no object")
    return record


def _text_of_json(value: Any) -> str:
    if isinstance(value, list):
        return "|".join(filter(None, map(_text_of_json, value)))
    if value is None:
        return ""
    if isinstance(value, str):
        return value if value.isascii() else _UNDECODED.sub("\ufffd", value)
    return json.dumps(value, ensure_ascii=False, default=str)


class _Lines:
    """Lines that remember those taken for the current row, and can take them back."""

    def __init__(
        self, lines: Iterable[str], number: int, problems: Problems, path: Path | zipfile.Path
    ) -> None:
        self._lines = iter(lines)
        self._waiting: deque[str] = deque()
        self._problems, self._path = problems, path
        self.number = number
        self.taken: list[str] = []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if len(self.taken) >= _MOST_LINES:
            raise csv.Error("a row of too many lines")
        if self._waiting:
            line = self._waiting.popleft()
        else:
            line = next(self._lines)
            if not line.isascii() and _UNDECODED.search(line):
                self._problems.add("lines_not_utf8", self._path, [self.number + 1])
                line = _UNDECODED.sub("\ufffd", line)
        self.number += 1
        self.taken.append(line)
        return line

    def give_back(self, n: int) -> None:
        self._waiting.extendleft(reversed(self.taken[len(self.taken) - n :]))
        self.number -= n


def _reader(source: _Lines, separator: str, quoted: bool) -> Iterator[list[str]]:
    if quoted:
        return csv.reader(source, delimiter=separator, strict=True)
    return (line.rstrip("\r\n").split(separator) for line in source)
