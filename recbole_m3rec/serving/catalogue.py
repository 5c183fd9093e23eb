"""The items of a bundle: ids to numbers and back, and what to show of them."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import chain, repeat
from typing import Any

import numpy as np
import pyarrow as pa

from recbole_m3rec.features.encoders.text_fields import clean
from recbole_m3rec.serving.arguments import as_id, as_list
from recbole_m3rec.support.suggestions import did_you_mean

# What people are shown, and the columns that hold it, the likeliest first.
COLUMNS = {
    "title": ("title", "movie_title", "name", "product_name", "item_name"),
    "brand": ("brand", "store", "artist", "author", "manufacturer"),
    "categories": ("categories", "category", "genres", "genre", "class", "main_category"),
    "price": ("price",),
    "year": ("release_year", "year"),
    "image": ("image", "image_url", "image_path", "imUrl", "img"),
}
SHOWN = tuple(COLUMNS)
PADDING = "[PAD]"
NEAR_OF_AT_MOST = 50_000  # ids that are compared for a "did you mean"


def columns_shown(names: Collection[str]) -> dict[str, str]:
    """Return which of the columns of items holds what is shown, by :data:`SHOWN`."""
    return {
        shown: next(name for name in candidates if name in names)
        for shown, candidates in COLUMNS.items()
        if not set(candidates).isdisjoint(names)
    }


class UnknownItemError(ValueError):
    """An item that the catalogue does not have."""


class Catalogue:
    """Items by number, from 1 on; 0 is padding.

    Args:
        table: ``item_id``, ``count``, any of :data:`SHOWN`, ``has_<modality>``.
    """

    def __init__(self, table: pa.Table) -> None:
        ids = table["item_id"].to_pylist()
        self.ids = np.array([PADDING, *ids], dtype=object)
        self._numbers = {item: number for number, item in enumerate(ids, start=1)}
        self._shown = {
            name: [None, *table[name].to_pylist()] for name in SHOWN if name in table.column_names
        }
        self.counts = np.concatenate([[0], table["count"].to_numpy()])
        self.has = {
            name.removeprefix("has_"): np.concatenate([[False], table[name].to_numpy()])
            for name in table.column_names
            if name.startswith("has_")
        }
        self._search_text: list[str] | None = None

    def __len__(self) -> int:
        return len(self.ids) - 1

    def __contains__(self, item: object) -> bool:
        return item in self._numbers

    def number(self, item: str) -> int:
        """Return an item's number.

        Raises:
            UnknownItemError: there is no such item.
            RequestError: neither a text nor a whole number.
        """
        found = self._numbers.get(item if isinstance(item, str) else as_id(item, "item"))
        if found is None:
            near = did_you_mean(str(item), self._numbers) if len(self) <= NEAR_OF_AT_MOST else ""
            raise UnknownItemError(f"there is no item {str(item)[:80]!r} in the catalogue.{near}")
        return found

    def numbers(
        self, items: Iterable[str], name: str = "history", *, is_ordered: bool = True
    ) -> tuple[np.ndarray, int]:
        """Return the numbers of the items that there are, in order, and how many there are not.

        Raises:
            RequestError: no list of item ids; calls it by ``name``.
        """
        [numbers], n_unknown = self.numbers_of_all(
            [as_list(items, name, is_ordered=is_ordered)], name
        )
        return numbers, n_unknown

    def numbers_of_all(
        self, histories: Sequence[Sequence[str]], name: str = "history {}"
    ) -> tuple[list[np.ndarray], int]:
        """Return the numbers of each history's items that there are, and how many there are not.

        Raises:
            RequestError: no lists of item ids; calls them by ``name``, where ``{}`` is the place.
        """
        # No line of Python runs per history or item that is as expected.
        if not set(map(type, histories)) <= {list, tuple}:
            histories = [as_list(one, name.format(n)) for n, one in enumerate(histories)]
        lengths = np.fromiter(map(len, histories), np.int64, len(histories))
        try:
            found = map(self._numbers.get, chain.from_iterable(histories), repeat(0))
            numbers = np.fromiter(found, np.int64, int(lengths.sum()))
        except TypeError:  # one has no hash, so it is neither a text nor a number
            numbers = np.zeros(int(lengths.sum()), np.int64)
        is_known = numbers > 0
        known = numbers[is_known]
        if len(known) < len(numbers):
            texts = self._as_texts(histories, name)
            if texts is not histories:
                return self.numbers_of_all(texts, name)
        ends = np.concatenate([[0], is_known.cumsum()])[lengths.cumsum()].tolist()
        parts = [known[first:last] for first, last in zip([0, *ends], ends, strict=False)]
        return parts, len(numbers) - len(known)

    @staticmethod
    def _as_texts(histories: Sequence[Sequence[str]], name: str) -> Sequence[Sequence[str]]:
        """Return ids of which some are unknown as texts: the same lists where all are."""
        if set(map(type, chain.from_iterable(histories))) <= {str}:
            return histories
        return [
            [as_id(item, f"item {place} of {name.format(n)}") for place, item in enumerate(history)]
            for n, history in enumerate(histories)
        ]

    def show(self, number: int) -> dict[str, Any]:
        """Return an item as people see it: its id, what there is of :data:`SHOWN`, ``cold``."""
        shown = {name: column[number] for name, column in self._shown.items()}
        return {
            "item": self.ids[number],
            **{name: one for name, one in shown.items() if one is not None and str(one).strip()},
            "cold": bool(self.counts[number] == 0),  # nobody used it before the bundle was written
        }

    def search(self, words: str, limit: int) -> list[int]:
        """Return items whose text has all words; those that begin so, then the most used, first.

        No words find what is used most.
        """
        if self._search_text is None:
            self._search_text = [""] + [self._text(n) for n in range(1, len(self.ids))]
        texts, wanted = self._search_text, _plain(words).split()
        found = [n for n in range(1, len(texts)) if all(word in texts[n] for word in wanted)]
        first = wanted[0] if wanted else ""
        exact = self._numbers.get(words.strip(), 0)

        def order(number: int) -> tuple[bool, bool, int, int]:
            starts = texts[number].startswith(first)
            return number != exact, not starts, -int(self.counts[number]), number

        return sorted(found, key=order)[:limit]

    def _text(self, number: int) -> str:
        parts = [self._shown[name][number] for name in SHOWN[:5] if name in self._shown]
        return _plain(" ".join(str(part) for part in [*parts, self.ids[number]] if part))

    def add(
        self, ids: Sequence[str], shown: Mapping[str, Sequence[Any]], has: Mapping[str, np.ndarray]
    ) -> None:
        """Add items after the last one; nobody has used them yet."""
        n_before = len(self.ids)
        self.ids = np.concatenate([self.ids, np.array([*ids, None], dtype=object)[:-1]])
        self._numbers |= {item: n_before + n for n, item in enumerate(ids)}
        for name in SHOWN:
            if name in shown:
                self._shown.setdefault(name, [None] * n_before)
        for name, column in self._shown.items():
            column.extend(shown.get(name, [None] * len(ids)))
        self.counts = np.concatenate([self.counts, np.zeros(len(ids), self.counts.dtype)])
        self.has = {
            name: np.concatenate([column, has.get(name, np.zeros(len(ids), bool))])
            for name, column in self.has.items()
        }
        self._search_text = None


def as_shown(name: str, texts: Iterable[str]) -> list[str]:
    """Return what a column of :data:`SHOWN` says to people: without tags, and entities decoded."""
    return list(map(clean, texts) if name in ("title", "brand", "categories") else texts)


def _plain(text: str) -> str:
    """Return a text in lower case and without accents."""
    parts = unicodedata.normalize("NFKD", text.casefold())
    return "".join(letter for letter in parts if not unicodedata.combining(letter))
