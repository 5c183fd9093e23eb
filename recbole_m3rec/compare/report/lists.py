"""Beyond accuracy: what lists of recommendations are like, whether or not they are right."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from recbole_m3rec.compare.report.aggregate import Table
from recbole_m3rec.compare.report.document import Entry, Grid
from recbole_m3rec.compare.report.tables import NONE
from recbole_m3rec.compare.user_values import Lists
from recbole_m3rec.features.feature_table import FeatureTable

# RecBole's metrics of lists: title, digits, and what it is.
METRICS = {
    "ItemCoverage": ("coverage", 3, "share of the items that are recommended to anybody"),
    "GiniIndex": ("Gini", 3, "0 if all items are recommended equally often, 1 if one alone is"),
    "ShannonEntropy": ("entropy", 3, "of what is recommended, by item, in nats"),
    "AveragePopularity": ("popularity", 1, "training interactions of a recommended item"),
    "TailPercentage": ("tail", 3, "share of recommendations from the rarest tenth of the items"),
}


def list_grid(table: Table, features: Mapping[str, FeatureTable]) -> Grid | None:
    """Return what each name recommends, means over seeds; None where no lists are known.

    Args:
        table: a dataset's results.
        features: of the dataset's items by modality, for the distance of items in a list.
    """
    known = {name: [o.lists for o in table.done(name) if o.lists] for name in table.cells}
    known = {name: runs for name, runs in known.items() if runs}
    if not known:
        return None
    k = list_length(table, known)
    rows = []
    for name, runs in known.items():
        values = [
            [*measures(each, k).values(), *(distance(each, k, f) for f in features.values())]
            for each in runs
        ]
        means = np.array(values, dtype=float).mean(axis=0)
        digits = [*(digits for _, digits, _ in METRICS.values()), 2, *[3] * len(features)]
        shown = [
            NONE if np.isnan(mean) else f"{mean:.{places}f}"
            for mean, places in zip(means, digits, strict=True)
        ]
        rows.append([Entry(name), *map(Entry, shown)])
    said = ", ".join(f"{title}: {meaning}" for title, _, meaning in METRICS.values())
    head = ["model", *(title for title, _, _ in METRICS.values()), "novelty, bits"]
    head += [f"distance by {modality}" for modality in features]
    caption = (
        f"{table.dataset}: the lists of {k} that were recommended in the test, means over seeds. "
        f"RecBole's {said}. Novelty: mean self-information of a recommended item, -log2 of its "
        "share of the training interactions (an item without any counts as having one)."
    )
    if features:
        caption += (
            " Distance: 1 - the mean cosine of two items of a list, by features of that modality."
        )
    return Grid(caption, head, rows)


def list_length(table: Table, known: Mapping[str, list[Lists]]) -> int:
    """Return the K of the main metric, or the longest that all lists have."""
    longest = min(lists.top.shape[1] for runs in known.values() for lists in runs)
    k = (table.main_metric or "").rpartition("@")[2]
    return min(int(k), longest) if k.isdigit() else longest


def measures(lists: Lists, k: int) -> dict[str, float]:
    """Return RecBole's metrics of the first ``k`` items of all lists, and their novelty."""
    from recbole.evaluator import metrics
    from recbole.evaluator.collector import DataStruct

    collected = DataStruct()
    collected.set("rec.items", torch.from_numpy(lists.top[:, :k].astype(np.int64)))
    collected.set("data.num_items", len(lists.items))
    used = np.flatnonzero(lists.popularity)
    counts = dict(zip(used.tolist(), lists.popularity[used].tolist(), strict=True))
    collected.set("data.count_items", counts)
    config = {"topk": [k], "metric_decimal_place": 12, "tail_ratio": 0.1}
    found: dict[str, float] = {}
    for name in METRICS:
        result = getattr(metrics, name)(config).calculate_metric(collected)
        found[name] = float(result[f"{name.lower()}@{k}"])
    return {**found, "novelty": novelty(lists, k)}


def novelty(lists: Lists, k: int) -> float:
    """Return the mean self-information of the recommended items in bits."""
    share = np.maximum(lists.popularity, 1) / max(1, lists.popularity.sum())
    return float(-np.log2(share)[lists.top[:, :k]].mean())


def distance(lists: Lists, k: int, features: FeatureTable) -> float:
    """Return the mean over lists of 1 - the mean cosine of two of its items.

    Items without features are left out, and so are lists in which fewer than two remain; NaN where
    none is left.
    """
    place = {token: row for row, token in enumerate(features.item_ids.tolist())}
    rows = np.array([place.get(token, -1) for token in lists.items.tolist()])
    values = np.zeros((len(rows), features.values.shape[1]), dtype=np.float32)
    values[rows >= 0] = features.values[rows[rows >= 0]]
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    np.divide(values, lengths, out=values, where=lengths > 0)
    total, n_lists = 0.0, 0
    for top in np.array_split(lists.top[:, :k], max(1, len(lists.top) // 1024)):
        n = (lengths[top, 0] > 0).sum(axis=1)
        # The cosines of all pairs are the squared length of the sum, less each with itself.
        summed = values[top].sum(axis=1, dtype=np.float64)
        pairs = n * (n - 1)
        cosines = ((summed**2).sum(axis=1) - n)[pairs > 0] / pairs[pairs > 0]
        total += float((1 - cosines).sum())
        n_lists += int((pairs > 0).sum())
    return total / n_lists if n_lists else float("nan")
