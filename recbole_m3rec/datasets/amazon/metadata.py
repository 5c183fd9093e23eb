"""Amazon metadata files to the rows of an ``.item`` file."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from recbole_m3rec.atomic.item_file import write_row
from recbole_m3rec.datasets.amazon.item_fields import (
    ITEM_COLUMNS,
    LONGEST_TEXT,
    clean,
    item_fields,
    parse_json,
    parse_python,
)
from recbole_m3rec.datasets.io.problems import Problems
from recbole_m3rec.datasets.io.raw_lines import read_blocks

PROBLEMS = {
    "items_unparseable": "this line cannot be parsed, it is left out",
    "items_not_utf8": "bytes that are not UTF-8, replaced by the sign for that",
    "items_without_id": "no item id, the line is left out",
    "items_repeated": "an item that an earlier line describes too, the first line wins",
    "items_with_two_titles": "an item that an earlier line gives another title, the first wins",
    "prices_not_understood": "a price that is no number, left empty",
    "texts_shortened": f"a text of more than {LONGEST_TEXT:,} characters, cut off there",
}


@dataclass(frozen=True)
class MetadataFormat:
    """How a metadata file is written: as Python literals or JSON, and which key holds the id."""

    item_key: str
    python: bool = False


@dataclass(frozen=True)
class ItemCounts:
    """What became of the lines of a metadata file."""

    n_lines: int
    n_written: int
    n_other_items: int
    filled: dict[str, int]


def write_items(
    path: Path,
    form: MetadataFormat,
    wanted: Sequence[str],
    columns: Sequence[str],
    file: IO[bytes],
    problems: Problems,
    progress: Callable[[int], object] = lambda n_bytes: None,
) -> ItemCounts:
    """Write an ``.item`` file of the wanted items that the metadata describes, in its order.

    Columns that no item fills are left out. Only ids and what is needed to see repetitions stay in
    memory.

    Args:
        path: the metadata, gzipped or plain.
        form: its format.
        wanted: item ids.
        columns: of ``ITEM_COLUMNS``.
        file: new and empty, open for writing and reading.
        problems: of kinds ``PROBLEMS``, counted here.
        progress: as in ``read_blocks``.

    Raises:
        RawFileError: the file is no such file, damaged or cut off.
    """
    parse = parse_python if form.python else parse_json
    quote = "'" if form.python else '"'
    # Most lines are of items nobody wants; their ids are read without parsing the line.
    quick = re.compile(rf"{quote}{form.item_key}{quote}: ?{quote}([^{quote}\\]*){quote}".encode())
    places: dict[str, int | None] = dict.fromkeys(wanted)  # then the hash of the title
    names = [name.encode() for name in wanted]
    unwanted = set(names).isdisjoint
    n_lines = n_written = n_other = 0
    filled = dict.fromkeys(columns, 0)
    write_row(file, ["item_id:token", *(f"{name}:{ITEM_COLUMNS[name]}" for name in columns)])
    for block in read_blocks(path, progress):
        for number, raw in enumerate(block.data.split(b"\n")[:-1], start=block.first_line):
            if not raw.strip():
                continue
            n_lines += 1
            ids = quick.findall(raw)
            if ids and unwanted(ids):
                n_other += 1
                continue
            record = _parsed(raw, parse, path, number, problems)
            if record is None:
                continue
            item = record.get(form.item_key)
            if not isinstance(item, str) or not item:
                problems.add("items_without_id", path, [number])
                continue
            if item not in places:
                n_other += 1
                continue
            fields = item_fields(record)
            title, seen = hash(fields["title"]), places[item]
            if seen is not None:
                same = title == seen
                kind = "items_repeated" if same else "items_with_two_titles"
                problems.add(kind, path, [number])
                continue
            places[item] = title
            n_written += 1
            if record.get("price") and not fields["price"]:
                problems.add("prices_not_understood", path, [number])
            for name in columns:
                filled[name] += bool(fields[name])
                if len(fields[name]) > LONGEST_TEXT:
                    problems.add("texts_shortened", path, [number])
                    fields[name] = clean(fields[name][:LONGEST_TEXT])
            write_row(file, [item, *(fields[name] for name in columns)])
    if not all(filled.values()):
        _drop_columns(file, [name for name in columns if not filled[name]])
    return ItemCounts(n_lines, n_written, n_other, filled)


def _parsed(
    raw: bytes,
    parse: Callable[[str], dict[str, Any]],
    path: Path,
    number: int,
    problems: Problems,
) -> dict[str, Any] | None:
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        text = raw.decode("utf-8", "replace")
        problems.add("items_not_utf8", path, [number])
    try:
        return parse(text)
    except ValueError:
        problems.add("items_unparseable", path, [number])
        return None


def _drop_columns(file: IO[bytes], dropped: Sequence[str]) -> None:
    """Rewrite an ``.item`` file in place, without some columns; what goes is never longer."""
    file.flush()
    file.seek(0)
    names = [head.partition(b":")[0].decode() for head in file.readline()[:-1].split(b"\t")]
    keep = [place for place, name in enumerate(names) if name not in dropped]
    read = write = 0
    while True:
        file.seek(read)
        rows = file.readlines(1 << 24)
        if not rows:
            break
        read += sum(map(len, rows))
        # Texts hold no tabs, quoted or not, so that a row can be cut at them.
        cut = [row[:-1].split(b"\t") for row in rows]
        file.seek(write)
        new = b"".join(b"\t".join([row[place] for place in keep]) + b"\n" for row in cut)
        file.write(new)
        write += len(new)
    file.truncate(write)
