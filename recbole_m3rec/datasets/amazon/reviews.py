"""Amazon review files to columns, in blocks; line by line where a block fails."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json

from recbole_m3rec.atomic.inter_file import EARLIEST, LATEST, READ_AS_MISSING, Interactions
from recbole_m3rec.cluster.kept_pieces import KeptPieces, identity
from recbole_m3rec.cluster.pieces import THIS_PROCESS, Cluster
from recbole_m3rec.datasets.io.id_codes import IdCodes, interactions_of
from recbole_m3rec.datasets.io.problems import Noted, Problems
from recbole_m3rec.datasets.io.raw_lines import Block, Range, line_pieces

COLUMNS = ("user", "item", "rating", "time")

PROBLEMS = {
    "reviews_unparseable": "this line cannot be parsed, it is left out",
    "reviews_not_utf8": "bytes that are not UTF-8 in an id, the review is left out",
    "reviews_without_user": "no user id, or one that a table cannot hold; the review is left out",
    "reviews_without_item": "no item id, or one that a table cannot hold; the review is left out",
    "reviews_without_time": "no time between 1990 and 2100, the review is left out",
    "times_in_milliseconds": "time in milliseconds where seconds are due, converted",
    "times_in_seconds": "time in seconds where milliseconds are due, converted",
}

_SCHEMA = pa.schema(
    [("user", pa.string()), ("item", pa.string()), ("rating", pa.float64()), ("time", pa.int64())]
)
_IDS = pa.dictionary(pa.int32(), pa.string())
_PARSED = pa.schema(
    [("user", _IDS), ("item", _IDS), ("rating", pa.float32()), ("time", pa.int64())]
)
_FEW_LINES = 128


@dataclass(frozen=True)
class ReviewFormat:
    """How a review file says who, what, how good and when.

    Args:
        names: for JSON, the keys of user, item, rating and time; for CSV, ``COLUMNS`` in the order
            of the file.
        milliseconds: whether times are due in milliseconds, not seconds.
        is_csv: whether lines are CSV without header, not JSON objects.
    """

    names: tuple[str, ...]
    milliseconds: bool = False
    is_csv: bool = False


def read_reviews(
    path: Path,
    form: ReviewFormat,
    problems: Problems,
    *,
    between: tuple[int | None, int | None] = (None, None),
    progress: Callable[[int], object] = lambda n_bytes: None,
    cluster: Cluster = THIS_PROCESS,
    work: Path = Path(),
) -> tuple[Interactions, int]:
    """Read a review file; only what is kept of it stays in memory.

    Args:
        path: gzipped or plain.
        problems: of kinds ``PROBLEMS``, counted here.
        between: earliest and latest time to keep, in milliseconds, both included.
        work: where other processes find the lines, and what is finished is kept for a next run.

    Returns:
        The reviews, and how many lines the file has.

    Raises:
        RawFileError: the file is no such file, damaged or cut off.
    """
    users, items = IdCodes(), IdCodes()
    ratings: list[np.ndarray] = []
    times: list[np.ndarray] = []
    n_lines = 0
    with line_pieces(path, cluster, work, progress) as pieces:
        kept = KeptPieces(work, reviews=identity(path), form=asdict(form), between=between)
        for part in kept.parsed(cluster, parse_reviews, ParsedReviews, pieces, form, between):
            problems.add_all(part.noted, path, n_lines)
            n_lines += part.n_lines
            for columns in part.columns:
                users.add(columns["user"])
                items.add(columns["item"])
                ratings.append(columns["rating"])
                times.append(columns["time"])
    return interactions_of(users, items, ratings, times), n_lines


class ParsedReviews(NamedTuple):
    """What a piece of a review file holds.

    ``columns`` are in parts, by name: ``user`` and ``item`` Arrow's dictionaries of texts,
    ``rating`` float32, ``time`` int64.
    """

    n_lines: int
    columns: list[dict[str, Any]]
    noted: Noted

    def to_bytes(self) -> bytes:
        """Return an Arrow stream."""
        about = {"n_lines": self.n_lines, "cases": self.noted.cases}
        schema = _PARSED.with_metadata({"about": json.dumps(about)})
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, schema) as stream:
            for part in self.columns:
                stream.write_batch(pa.record_batch(list(part.values()), schema=schema))
        return sink.getvalue().to_pybytes()

    @classmethod
    def from_bytes(cls, content: bytes) -> ParsedReviews:
        """Read what :meth:`to_bytes` made."""
        with pa.ipc.open_stream(content) as stream:
            about = json.loads(stream.schema.metadata[b"about"])
            columns = [dict(zip(_PARSED.names, batch.columns, strict=True)) for batch in stream]
        for part in columns:
            for name in ("rating", "time"):  # copies, that the other bytes need not stay
                part[name] = part[name].to_numpy().copy()
        return cls(about["n_lines"], columns, Noted(about["cases"]))


def parse_reviews(
    piece: Block | Range, form: ReviewFormat, between: tuple[int | None, int | None]
) -> ParsedReviews:
    """Parse a piece of a review file; see ``read_reviews``."""
    block = Block(1, piece.data) if isinstance(piece, Block) else piece.read()
    first, last = between
    noted = Noted()
    parts = []
    for table, lines in _parsed(block, form, noted):
        columns, kept = _usable(table, lines, form, noted)
        kept &= columns["time"] >= (EARLIEST * 1000 if first is None else first)
        kept &= columns["time"] <= (LATEST * 1000 if last is None else last)
        part = {name: _rows_of(columns[name], kept) for name in ("user", "item")}
        part["rating"] = columns["rating"][kept].astype(np.float32)
        part["time"] = columns["time"][kept]
        parts.append(part)
    return ParsedReviews(block.n_lines, parts, noted)


def _parsed(block: Block, form: ReviewFormat, noted: Noted) -> list[tuple[pa.Table, np.ndarray]]:
    """Return tables of ``_SCHEMA`` and, for each, the line numbers of its rows, int64."""
    n_lines = block.n_lines
    try:
        table = _parse_csv(block.data, form) if form.is_csv else _parse_json(block.data, form)
        if len(table) == n_lines:
            return [(table, np.arange(block.first_line, block.first_line + n_lines))]
    except pa.ArrowException:
        pass
    # Something is unusual: halve the block until only the few lines around it are left.
    if n_lines <= _FEW_LINES:
        return [_parse_lines(block, form, noted)]
    middle = block.data.find(b"\n", len(block.data) // 2) + 1
    if middle == len(block.data):  # the last line is longer than all others
        middle = block.data.rfind(b"\n", 0, middle - 1) + 1
    halves = Block(block.first_line, block.data[:middle]), block.data[middle:]
    second = Block(block.first_line + halves[0].n_lines, halves[1])
    return _parsed(halves[0], form, noted) + _parsed(second, form, noted)


def _parse_json(data: bytes, form: ReviewFormat) -> pa.Table:
    types = zip(form.names, _SCHEMA.types, strict=True)
    table = pyarrow.json.read_json(
        pa.BufferReader(data),
        read_options=pyarrow.json.ReadOptions(use_threads=False, block_size=len(data) + 1),
        parse_options=pyarrow.json.ParseOptions(
            explicit_schema=pa.schema(list(types)), unexpected_field_behavior="ignore"
        ),
    )
    table = table.select(form.names).rename_columns(_SCHEMA.names)
    table.validate(full=True)  # UTF-8, which reading does not check
    return table


def _parse_csv(data: bytes, form: ReviewFormat) -> pa.Table:
    table = pyarrow.csv.read_csv(
        pa.BufferReader(data),
        read_options=pyarrow.csv.ReadOptions(
            use_threads=False, block_size=len(data) + 1, column_names=list(form.names)
        ),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=_SCHEMA, null_values=[""], strings_can_be_null=True
        ),
    )
    return table.select(_SCHEMA.names)


def _parse_lines(block: Block, form: ReviewFormat, noted: Noted) -> tuple[pa.Table, np.ndarray]:
    """Parse line by line, leaving out and counting those that cannot be parsed."""
    columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    lines = []
    for number, raw in enumerate(block.data.split(b"\n")[:-1], start=block.first_line):
        if not raw.strip():
            continue
        text = raw.decode("utf-8", "replace")
        try:
            if form.is_csv:
                values = next(csv.reader([text]))
                if len(values) != len(form.names):
                    raise ValueError("another number of fields")
                record: dict[str, Any] = dict(zip(form.names, values, strict=True))
                float(record["rating"] or "nan"), float(record["time"] or "nan")
            else:
                found = json.loads(text)
                if not isinstance(found, dict):
                    raise ValueError("no object")
                record = dict(zip(COLUMNS, map(found.get, form.names), strict=True))
        except (ValueError, csv.Error, RecursionError):
            noted.add("reviews_unparseable", [number])
            continue
        user, item = _id(record["user"]), _id(record["item"])
        if "\ufffd" in (user or "") + (item or ""):
            noted.add("reviews_not_utf8", [number])
            continue
        rating, time = _number(record["rating"]), _number(record["time"])
        columns["user"].append(user)
        columns["item"].append(item)
        columns["rating"].append(rating)
        columns["time"].append(int(time) if time is not None and abs(time) < 1e18 else None)
        lines.append(number)
    return pa.table(columns, schema=_SCHEMA), np.array(lines, np.int64)


def _id(value: Any) -> str | None:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        return None
    return value.encode("utf-8", "replace").decode()  # a lone surrogate becomes "?"


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _usable(
    table: pa.Table, lines: np.ndarray, form: ReviewFormat, noted: Noted
) -> tuple[dict[str, Any], np.ndarray]:
    """Return the columns, times in milliseconds, and which rows have user, item and time."""
    columns: dict[str, Any] = {
        name: table[name].combine_chunks().dictionary_encode() for name in ("user", "item")
    }
    columns["rating"] = table["rating"].to_numpy()
    times = pc.fill_null(table["time"], 0).to_numpy()
    short = (times >= EARLIEST) & (times <= LATEST)
    long = (times >= EARLIEST * 1000) & (times <= LATEST * 1000)
    columns["time"] = np.where(short, times * 1000, times)
    kept = np.ones(len(table), bool)
    for kind, bad in (
        ("reviews_without_user", _unusable(columns["user"])),
        ("reviews_without_item", _unusable(columns["item"])),
        ("reviews_without_time", ~(short | long)),
    ):
        noted.add(kind, lines[kept & bad].tolist())
        kept &= ~bad
    kind = "times_in_seconds" if form.milliseconds else "times_in_milliseconds"
    noted.add(kind, lines[kept & (short if form.milliseconds else long)].tolist())
    return columns, kept


def _unusable(ids: pa.DictionaryArray) -> np.ndarray:
    """Say of each row whether its id is missing or would not come out of a table as it went in."""
    words = ids.dictionary
    bad = pc.is_in(words, value_set=READ_AS_MISSING).to_numpy(zero_copy_only=False)
    content = words.buffers()[2]
    letters = np.frombuffer(content, np.uint8) if content is not None else np.zeros(0, np.uint8)
    if ((letters <= 32) | (letters == 127)).any():
        bad = bad | pc.match_substring_regex(words, r"[\x00-\x20\x7f]").to_numpy(
            zero_copy_only=False
        )
    if not ids.null_count and not bad.any():
        return np.zeros(len(ids), bool)
    codes = pc.fill_null(ids.indices, len(words)).to_numpy()
    return np.append(bad, True)[codes]


def _rows_of(ids: pa.DictionaryArray, kept: np.ndarray) -> pa.DictionaryArray:
    """Return the rows of a mask, without the words that only other rows use."""
    if kept.all():
        return ids
    return ids.filter(pa.array(kept)).dictionary_decode().dictionary_encode()
