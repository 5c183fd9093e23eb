"""Amazon metadata files to the rows of an ``.item`` file."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

from recbole_m3rec.atomic.item_file import write_row
from recbole_m3rec.cluster.kept_pieces import KeptPieces, identity
from recbole_m3rec.cluster.pieces import THIS_PROCESS, Cluster
from recbole_m3rec.datasets.amazon.item_fields import (
    ITEM_COLUMNS,
    LONGEST_TEXT,
    clean,
    item_fields,
    parse_json,
    parse_python,
)
from recbole_m3rec.datasets.io.problems import Noted, Problems
from recbole_m3rec.datasets.io.raw_lines import Block, Range, line_pieces

PROBLEMS = {
    "items_unparseable": "this line cannot be parsed, it is left out",
    "items_not_utf8": "bytes that are not UTF-8, replaced by the sign for that",
    "items_without_id": "no item id, the line is left out",
    "items_repeated": "an item that an earlier line describes too, the first line wins",
    "items_with_two_titles": "an item that an earlier line gives another title, the first wins",
    "prices_not_understood": "a price that is no one number, left empty",
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
    cluster: Cluster = THIS_PROCESS,
    work: Path = Path(),
) -> ItemCounts:
    """Write an ``.item`` file of the wanted items that the metadata describes, in its order.

    Columns that no item fills are left out. Only ids and what is needed to see repetitions stay in
    memory.

    Args:
        path: the metadata, gzipped or plain.
        columns: of ``ITEM_COLUMNS``.
        file: new and empty, open for writing and reading.
        problems: of kinds ``PROBLEMS``, counted here.

    Raises:
        RawFileError: the file is no such file, damaged or cut off.
    """
    titles: dict[str, int | None] = dict.fromkeys(wanted)  # then the hash of the title
    n_lines = n_written = n_other = before = 0  # of them blank lines, too, in ``before``
    filled = dict.fromkeys(columns, 0)
    write_row(file, ["item_id:token", *(f"{name}:{ITEM_COLUMNS[name]}" for name in columns)])
    with line_pieces(path, cluster, work, progress) as pieces:
        digest = hashlib.sha256("\n".join(wanted).encode()).hexdigest()
        key = {"items": identity(path), "form": asdict(form), "wanted": digest}
        kept = KeptPieces(work, **key, columns=[*columns])
        more = form, cluster.keep(Wanted.of, tuple(wanted)), tuple(columns)
        for part in kept.parsed(cluster, parse_items, ParsedItems, pieces, *more):
            problems.add_all(part.noted, path, before)
            n_other += part.n_other_items
            for number, item, title, price_is_lost, fields in part.items:
                place = [before + number]
                title_hash, seen = hash(title), titles[item]
                if seen is not None:
                    same = title_hash == seen
                    kind = "items_repeated" if same else "items_with_two_titles"
                    problems.add(kind, path, place)
                    continue
                titles[item] = title_hash
                n_written += 1
                if price_is_lost:
                    problems.add("prices_not_understood", path, place)
                for name in columns:
                    filled[name] += bool(fields[name])
                    if len(fields[name]) > LONGEST_TEXT:
                        problems.add("texts_shortened", path, place)
                        fields[name] = clean(fields[name][:LONGEST_TEXT])
                write_row(file, [item, *(fields[name] for name in columns)])
            n_lines += part.n_lines
            before += part.n_read
    if not all(filled.values()):
        _drop_columns(file, [name for name in columns if not filled[name]])
    return ItemCounts(n_lines, n_written, n_other, filled)


class Wanted(NamedTuple):
    """Ids of items, and the same as bytes."""

    ids: frozenset[str]
    raw: frozenset[bytes]

    @classmethod
    def of(cls, ids: Sequence[str]) -> Wanted:
        """Return the ids ready for looking up."""
        return cls(frozenset(ids), frozenset(name.encode() for name in ids))


class ParsedItems(NamedTuple):
    """What a piece of a metadata file says of wanted items.

    ``items`` are number of the line, id, title, whether a price was not understood, and fields;
    ``n_read`` counts blank lines, too.
    """

    n_read: int
    n_lines: int
    n_other_items: int
    items: list[tuple[int, str, str, bool, dict[str, str]]]
    noted: Noted

    def to_bytes(self) -> bytes:
        """Return JSON."""
        return json.dumps([*self[:4], self.noted.cases]).encode()

    @classmethod
    def from_bytes(cls, content: bytes) -> ParsedItems:
        """Read what :meth:`to_bytes` made."""
        n_read, n_lines, n_other, items, cases = json.loads(content)
        return cls(n_read, n_lines, n_other, items, Noted(cases))


def parse_items(
    piece: Block | Range, form: MetadataFormat, wanted: Wanted, columns: Sequence[str]
) -> ParsedItems:
    """Parse the lines of wanted items of a piece of a metadata file; see ``write_items``."""
    data = piece.data if isinstance(piece, Block) else piece.read().data
    quote = "'" if form.python else '"'
    # Most lines are of items nobody wants; their ids are read without parsing the line.
    quick = re.compile(rf"{quote}{form.item_key}{quote}: ?{quote}([^{quote}\\]*){quote}".encode())
    n_lines = n_other = 0
    items = []
    noted = Noted()
    lines = data.split(b"\n")[:-1]
    for number, raw in enumerate(lines, start=1):
        if not raw.strip():
            continue
        n_lines += 1
        ids = quick.findall(raw)
        if ids and wanted.raw.isdisjoint(ids):
            n_other += 1
            continue
        record = _parsed(raw, form, number, noted)
        if record is None:
            continue
        item = record.get(form.item_key)
        if not isinstance(item, str) or not item:
            noted.add("items_without_id", [number])
            continue
        if item not in wanted.ids:
            n_other += 1
            continue
        fields = item_fields(record)
        price_is_lost = bool(record.get("price")) and not fields["price"]
        chosen = {name: fields[name] for name in columns}
        items.append((number, item, fields["title"], price_is_lost, chosen))
    return ParsedItems(len(lines), n_lines, n_other, items, noted)


def _parsed(raw: bytes, form: MetadataFormat, number: int, noted: Noted) -> dict[str, Any] | None:
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        text = raw.decode("utf-8", "replace")
        noted.add("items_not_utf8", [number])
    try:
        return parse_python(text) if form.python else parse_json(text)
    except ValueError:
        noted.add("items_unparseable", [number])
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
