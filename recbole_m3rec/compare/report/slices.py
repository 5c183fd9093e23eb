"""Metrics of parts of a test: held-out items, like histories, items of like popularity."""

from __future__ import annotations

import numpy as np

from recbole_m3rec.compare.report.aggregate import DIGITS, Table
from recbole_m3rec.compare.report.document import Entry, Grid
from recbole_m3rec.compare.report.figures import (
    GROUPED,
    group_edges,
    group_means,
    group_names,
    rows_of,
)
from recbole_m3rec.compare.report.tables import NONE, metric_title, result_entry
from recbole_m3rec.evaluator.cold_items import COLD, WARM

SHOWN = ("hit", "ndcg")


def shown_metrics(table: Table) -> list[str]:
    """Return Hit and NDCG, or else all metrics, at the K of the main metric."""
    k = (table.main_metric or "").partition("@")[2]
    at_k = [metric for metric in table.metrics if metric.partition("@")[2] == k]
    return [metric for metric in at_k if metric.partition("@")[0] in SHOWN] or at_k


def cold_grid(table: Table) -> Grid | None:
    """Return the metrics of warm, cold and all targets; None where no item was held out."""
    names = [name for name in table.metrics if name.partition("@")[0] in SHOWN] or table.metrics
    if not any(f"{COLD} {name}" in row for row in table.cells.values() for name in names):
        return None
    parts = {WARM: f"{WARM} ", COLD: f"{COLD} ", "all": ""}
    rows = [
        [
            Entry(name),
            *(result_entry(cells.get(prefix + m)) for m in names for prefix in parts.values()),
        ]
        for name, cells in table.cells.items()
    ]
    users = next((o.users for name in table.cells for o in table.done(name) if o.users), None)
    counted = ""
    if users is not None:
        n_cold = int(users.cold.sum())
        counted = f" ({len(users.cold) - n_cold:,} warm and {n_cold:,} cold targets in the first)"
    said = (
        f"{table.dataset}: targets that training knew (warm), those whose item was held out of it "
        f"(cold), and all{counted}; each is ranked among all items. Mean ± sample standard "
        "deviation over seeds, which draw the items anew."
    )
    head = ["model", *(f"{metric_title(m)} {part}" for m in names for part in parts)]
    return Grid(said, head, rows)


def slice_grids(table: Table) -> list[Grid]:
    """Return a grid for each way to group tests, a row for each name and metric."""
    return list(filter(None, (_slices(table, column) for column in GROUPED)))


def _slices(table: Table, column: str) -> Grid | None:
    edges: np.ndarray | None = None
    head: list[str] = []
    rows = []
    for name in table.cells:
        for metric in shown_metrics(table):
            found = rows_of(table.done(name), metric, column)
            if found is None:
                continue
            by, values, seeds = found
            if edges is None:
                edges = edges_apart_from_zero(by)
                head = [f"{column} {label}" for label in group_names(by, edges, seeds)]
            groups = zip(*group_means(by, values, edges), strict=True)
            entries = [Entry(f"{mean:.{DIGITS}f}" if n else NONE) for n, mean in groups]
            rows.append([Entry(name), Entry(metric_title(metric)), *entries])
    if not rows:
        return None
    said = (
        f"{table.dataset}: tests in groups of about equal size by the {GROUPED[column]}; means "
        "over tests and seeds."
    )
    head = ["model", "metric", *head]
    return Grid(said, head, rows, folded=len(rows) > 12, texts=frozenset([1]))


def edges_apart_from_zero(by: np.ndarray) -> np.ndarray:
    """Return where groups begin, but for the first; zeros, such as held-out items, are a group."""
    some = by[by > 0]
    if len(some) in (0, len(by)):
        return group_edges(by)
    return np.concatenate([[some.min()], group_edges(some)])
