"""A table of items to the rows of an ``.item`` file."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import IO

from recbole_m3rec.atomic.item_file import write_row
from recbole_m3rec.datasets.amazon.item_fields import LONGEST_TEXT, clean
from recbole_m3rec.datasets.io.prices import decimal_mark, price
from recbole_m3rec.datasets.io.problems import Problems
from recbole_m3rec.datasets.tables.column_texts import as_strings
from recbole_m3rec.datasets.tables.read_table import Table

PROBLEMS = {
    "items_without_id": "no item id, the row is left out",
    "items_repeated": "an item that an earlier row describes too, the first one wins",
    "items_with_two_titles": "an item that an earlier row gives another title, the first one wins",
    "prices_not_understood": "a price that is no one number, left empty",
    "texts_shortened": f"a text of more than {LONGEST_TEXT:,} characters, cut off there",
}
# Name and type of the field that a role becomes, in the order of the file.
FIELDS = {
    "title": ("title", "token_seq"),
    "brand": ("brand", "token"),
    "categories": ("categories", "token_seq"),
    "price": ("price", "float"),
    "description": ("description", "token_seq"),
    "image": ("image_url", "token"),
}
TEXT_ROLES = ("title", "brand", "categories", "description")

# Of several in a cell the first: a comma is its own where no space and no address follows it.
_URL = re.compile(r"https?://[^\s\"'\]|]+?(?=[,;]?(?:[\s\"'\]|]|$)|[,;]https?://)")
_BETWEEN = re.compile(r"[>|;]|\s/\s")


class NoItemFoundError(ValueError):
    """A table of items describes none of those that were bought."""


@dataclass
class Items:
    """What a table says of the wanted items, in its order.

    ``rows`` holds clean values by item id and then by role, ``""`` where missing; ``image`` there
    is what the table says, an address or a file.
    """

    rows: dict[str, dict[str, str]] = field(default_factory=dict)
    n_others: int = 0

    def filled(self) -> dict[str, int]:
        """Return how many items have a value, by role, without roles that no item fills."""
        n_filled = {role: sum(bool(row.get(role)) for row in self.rows.values()) for role in FIELDS}
        return {role: n for role, n in n_filled.items() if n}


def read_items(
    table: Table,
    columns: Mapping[str, str],
    wanted: Collection[str],
    problems: Problems,
    progress: Callable[[int], object] = lambda n_bytes: None,
) -> Items:
    """Read the wanted items of a table.

    Where its prices show a comma as decimal mark, and none a point, it is that of all of them.

    Args:
        columns: names by role: ``item`` and any of ``FIELDS``.
        problems: of kinds ``PROBLEMS`` and those of ``table_rows``, counted here.
        progress: told how many bytes were read since the last call.

    Raises:
        RawFileError: the file is damaged.
        NoItemFoundError: none of the wanted items is there.
    """
    items = Items()
    others: dict[str, None] = {}
    prices: list[tuple[dict[str, str], int]] = []  # rows that have one, and their lines
    marks: set[str] = set()
    wanted = frozenset(wanted)
    roles = [role for role in FIELDS if role in columns]
    for arrays, lines in table.chunks(list(dict.fromkeys(columns.values())), problems, progress):
        ids = as_strings(arrays[columns["item"]]).to_pylist()
        values = [as_strings(arrays[columns[role]]).to_pylist() for role in roles]
        for line, item, *texts in zip(lines.tolist(), ids, *values, strict=True):
            if not item:
                problems.add("items_without_id", table.path, [line])
                continue
            if "price" in roles:
                marks.add(decimal_mark(texts[roles.index("price")]))
            if item not in wanted:
                others[item] = None
                continue
            row = {
                role: _tidy(role, text, problems, table, line)
                for role, text in zip(roles, texts, strict=True)
            }
            before = items.rows.get(item)
            if before is not None:
                same = row.get("title") == before.get("title")
                kind = "items_repeated" if same else "items_with_two_titles"
                problems.add(kind, table.path, [line])
                continue
            items.rows[item] = row
            if row.get("price"):
                prices.append((row, line))
    decimal = "," if marks - {""} == {","} else "."
    for row, line in prices:
        row["price"] = price(row["price"], decimal)
        if not row["price"]:
            problems.add("prices_not_understood", table.path, [line])
    items.n_others = len(others)
    if not items.rows:
        bare = {item.lstrip("0") for item in others}
        advice = "name the column by --item-column"
        if any(item.lstrip("0") in bare for item in wanted):
            advice = "keep the zeros in front in both"
        elif any(item.removesuffix(".0") in others or f"{item}.0" in others for item in wanted):
            advice = "write whole numbers without the .0 that programs add where values are missing"
        raise NoItemFoundError(
            f"{table.path}: none of its {len(others):,} items, such as {list(others)[:3]} in column"
            f" {columns['item']!r}, is one of the {len(wanted):,} of the log, such as"
            f" {sorted(wanted)[:3]}. Expected the same ids, letter by letter: " + advice
        )
    return items


def write_items(items: Items, file: IO[bytes]) -> None:
    """Write an ``.item`` file; an image that is no web address is left out of it."""
    roles = [role for role in items.filled() if role != "image" or addresses(items)]
    heads = [":".join(FIELDS[role]) for role in roles]
    write_row(file, ["item_id:token", *heads])
    for item, row in items.rows.items():
        write_row(file, [item, *(_written(role, row[role]) for role in roles)])


def addresses(items: Items) -> int:
    """Return how many items have the web address of an image."""
    return sum(bool(_URL.search(row.get("image", ""))) for row in items.rows.values())


def _tidy(role: str, text: str, problems: Problems, table: Table, line: int) -> str:
    text = clean(text)
    if role == "categories":
        text = clean(_BETWEEN.sub(" ", text))
    if len(text) > LONGEST_TEXT:
        problems.add("texts_shortened", table.path, [line])
        text = clean(text[:LONGEST_TEXT])
    return text


def _written(role: str, text: str) -> str:
    if role != "image":
        return text
    match = _URL.search(text)
    return match.group() if match else ""
