"""Statistics of the features of a modality, and whether they fit their items."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recbole_m3rec.features.feature_table import FeatureTable

# A column whose deviation is below this share of the median column's says next to nothing.
NEARLY = 0.01
_PAIRS = 20_000


@dataclass(frozen=True)
class Vectors:
    """The features of a dataset's items, centred and of length 1: products are similarities.

    ``values [n_items, d]`` float32, zeros for items without features; ``present [n_items]`` bool.
    """

    values: np.ndarray
    present: np.ndarray

    def nearest(self, item: int, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the ``k`` items most similar to an item, without itself, and how similar.

        An item without features has none.
        """
        alike = self.values @ self.values[item]
        alike[~self.present] = -np.inf
        alike[item] = -np.inf
        k = min(k, int(self.present.sum()) - 1) if self.present[item] else 0
        order = np.argsort(-alike, kind="stable")[:k]
        return order, alike[order]


@dataclass(frozen=True)
class Fit:
    """How alike are items that follow one another in histories, and items drawn at random.

    ``share`` is the chance that the first two are more alike: 0.5 says that the features know
    nothing of what people do, or belong to other items.
    """

    successive: np.ndarray
    random: np.ndarray
    share: float


@dataclass(frozen=True)
class ModalitySummary:
    """Features of the items of a dataset, in numbers."""

    dim: int
    n_items: int
    n_of_other_items: int
    share_of_items: float
    share_of_interactions: float
    n_duplicate_rows: int
    most_alike: int
    n_zero_rows: int
    zero_row: str  # an item that has one
    n_constant_columns: int
    n_nearly_constant_columns: int

    def rows(self, fit: Fit | None) -> list[tuple[str, str]]:
        """Return the lines of a table."""
        most = f" (up to {self.most_alike:,} alike)" if self.n_duplicate_rows else ""
        fits = "unknown" if fit is None else f"{100 * fit.share:.1f} % (chance 50 %)"
        return [
            ("dimensions", f"{self.dim:,}"),
            ("share of items", f"{percent(self.share_of_items)} ({self.n_items:,})"),
            ("share of interactions", percent(self.share_of_interactions)),
            ("rows of other items", f"{self.n_of_other_items:,}"),
            ("rows like an earlier one", f"{self.n_duplicate_rows:,}{most}"),
            ("rows of zeros", f"{self.n_zero_rows:,}"),
            ("constant columns", f"{self.n_constant_columns:,}"),
            ("nearly constant columns", f"{self.n_nearly_constant_columns:,}"),
            ("fit to histories", fits),
        ]


def percent(share: float) -> str:
    """Write a share, rounded down: 100.0 % means all."""
    return f"{math.floor(1000 * share + 1e-9) / 10:.1f} %"


def summarize_features(
    table: FeatureTable, item_ids: Sequence[str], popularity: np.ndarray
) -> tuple[ModalitySummary, Vectors]:
    """Judge features of a dataset's items.

    Args:
        table: rows keyed by item id; those of other items are counted only.
        item_ids: of the dataset's items, ``n``.
        popularity: interactions of each, ``[n]``.

    Raises:
        ValueError: there is no item.
    """
    file_ids = pa.array(table.item_ids, pa.string())
    rows = pc.index_in(pa.array(item_ids, pa.string()), value_set=file_ids)
    places = pc.fill_null(rows, -1).to_numpy()
    present = places >= 0
    values = table.values[places[present]].astype(np.float32)
    deviation = values.std(axis=0, dtype=np.float64) if len(values) else np.zeros(0)
    constant = np.ptp(values, axis=0) == 0 if len(values) else np.zeros(0, bool)
    low = deviation < NEARLY * np.median(deviation) if len(deviation) else constant
    of_zeros = np.flatnonzero(present)[~values.any(axis=1)]
    alike = Counter(row.tobytes() for row in values)
    summary = ModalitySummary(
        dim=table.values.shape[1],
        n_items=int(present.sum()),
        n_of_other_items=len(file_ids) - int(present.sum()),
        share_of_items=float(present.mean()),
        share_of_interactions=float(popularity[present].sum() / popularity.sum()),
        n_duplicate_rows=len(values) - len(alike),
        most_alike=max(alike.values(), default=0),
        n_zero_rows=len(of_zeros),
        zero_row=item_ids[of_zeros[0]] if len(of_zeros) else "",
        n_constant_columns=int(constant.sum()),
        n_nearly_constant_columns=int((low & ~constant).sum()),
    )
    if len(values):
        values -= values.mean(axis=0, dtype=np.float64).astype(np.float32)
        lengths = np.linalg.norm(values, axis=1, keepdims=True)
        values /= np.where(lengths > 0, lengths, 1)
    unit = np.zeros((len(places), table.values.shape[1]), np.float32)
    unit[present] = values
    return summary, Vectors(unit, present)


def fit_to_histories(vectors: Vectors, pairs: np.ndarray) -> Fit | None:
    """Compare successive items with random ones, drawn as often as they appear in the pairs.

    Args:
        vectors: of all items.
        pairs: of different items that follow one another, ``[n, 2]``; some are drawn if many.

    Returns:
        None where fewer than two pairs have features.
    """
    pairs = pairs[vectors.present[pairs].all(axis=1)]
    random = np.random.default_rng(0)
    if len(pairs) > _PAIRS:
        pairs = pairs[random.choice(len(pairs), _PAIRS, replace=False)]
    others = np.stack([pairs[:, 0], random.permutation(pairs[:, 1])], axis=1)
    others = others[others[:, 0] != others[:, 1]]
    if len(pairs) < 2 or not len(others):
        return None
    successive, drawn = (
        np.einsum("nd,nd->n", vectors.values[each[:, 0]], vectors.values[each[:, 1]])
        for each in (pairs, others)
    )
    ordered = np.sort(drawn)
    below = np.searchsorted(ordered, successive, "left")
    not_above = np.searchsorted(ordered, successive, "right")
    share = float((below + not_above).mean() / (2 * len(ordered)))
    return Fit(successive, drawn, share)


def example_items(
    vectors: Sequence[Vectors], popularity: np.ndarray, n: int, apart: int = 20
) -> list[int]:
    """Choose popular items that have all modalities and are not each other's near neighbours."""
    chosen: list[int] = []
    taken: set[int] = set()
    complete = np.all([each.present for each in vectors], axis=0)
    for item in np.argsort(-popularity, kind="stable").tolist():
        if len(chosen) == n or not popularity[item]:
            break
        if complete[item] and item not in taken:
            chosen.append(item)
            for each in vectors:
                taken.update(each.nearest(item, apart)[0].tolist())
    return chosen
