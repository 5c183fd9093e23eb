"""The tables of a report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from recbole_m3rec.compare.report.aggregate import DIGITS, Cell, Table, Test
from recbole_m3rec.compare.report.captions import caption
from recbole_m3rec.compare.report.document import Entry, Grid
from recbole_m3rec.compare.results import Outcome

NONE = "–"
# RecBole writes its metrics in small letters.
TITLES = {"ndcg": "NDCG", "mrr": "MRR", "map": "MAP", "auc": "AUC", "gauc": "GAUC", "rmse": "RMSE"}


def metric_title(metric: str) -> str:
    """Return a metric's name as it is usually written."""
    name, at, k = metric.partition("@")
    return f"{TITLES.get(name, name.capitalize())}{at}{k}"


def result_grid(table: Table, tuned: str) -> Grid:
    """Return a row for each name: metrics over seeds; and the reference's gains below."""
    rows = []
    n_seeds = max((len(runs) for runs in table.outcomes.values()), default=0)
    for name, runs in table.outcomes.items():
        done = len(table.done(name))
        title = name
        if done < len(runs):
            title = f"{name} (failed)" if not done else f"{name} ({done} of {len(runs)} seeds)"
        cells = table.cells.get(name, {})
        rows.append([Entry(title), *(result_entry(cells.get(metric)) for metric in table.metrics)])
    said = f"{caption(table)} {tuned}"
    if table.gains:
        rows.append([Entry(f"gain of {table.reference}"), *_gains(table)])
        said += (
            f" Gain: of {table.reference} over the best of the others, in percent; * where both "
            "tests over users say so at 5 %, corrected."
        )
    if n_seeds and any(len(runs) != n_seeds for runs in table.outcomes.values()):
        said += " Not every row has the same number of seeds."
    return Grid(said, ["model", *map(metric_title, table.metrics)], rows)


def result_entry(cell: Cell | None) -> Entry:
    """Return mean and deviation over seeds as they are shown."""
    if cell is None:
        return Entry(NONE)
    text = f"{cell.mean:.{DIGITS}f}"
    if cell.deviation is not None:
        text += f" ± {cell.deviation:.{DIGITS}f}"
    return Entry(text, bold=cell.place == 1, underlined=cell.place == 2)


def _gains(table: Table) -> list[Entry]:
    entries = []
    for metric in table.metrics:
        gain = table.gains.get(metric)
        if gain is None or gain.percent is None:
            entries.append(Entry(NONE))
        else:
            entries.append(Entry(f"{gain.percent:+.1f} %{'*' if gain.significant else ''}"))
    return entries


def test_grid(table: Table) -> Grid | None:
    """Return the tests of the reference against every other name; None where there are none."""
    if not table.tests:
        return None
    over_seeds = any(test.seeds.t_test is not None for test in table.tests)
    head = ["metric", "against", "difference", "users", "t-test", "Wilcoxon"]
    head += ["seeds", "t-test over seeds"] if over_seeds else []
    rows = [_test(test, over_seeds) for test in table.tests]
    said = (
        f"{table.dataset}: {table.reference} against each of the others. Difference of the means; "
        "two-sided p of paired tests over users, on each user's mean over the seeds that both have"
    )
    said += ", and of a paired t-test over these seeds" if over_seeds else ""
    said += f". All p are corrected by Holm's method for the {len(table.tests)} rows."
    return Grid(said, head, rows, folded=len(rows) > 12, texts=frozenset([1]))


def _test(test: Test, over_seeds: bool) -> list[Entry]:
    t_test, wilcoxon = test.users_corrected
    row = [
        Entry(metric_title(test.metric)),
        Entry(test.other),
        Entry(f"{test.seeds.difference:+.{DIGITS}f}"),
        Entry(f"{test.users.n:,}" if test.users.n else NONE),
        Entry(p_value(t_test), bold=t_test is not None and t_test < 0.05),
        Entry(p_value(wilcoxon), bold=wilcoxon is not None and wilcoxon < 0.05),
    ]
    if over_seeds:
        p = test.seeds_corrected
        row += [Entry(str(test.seeds.n)), Entry(p_value(p), bold=p is not None and p < 0.05)]
    return row


def p_value(p: float | None) -> str:
    """Return a p value with three digits after the point."""
    if p is None or np.isnan(p):
        return NONE
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def cost_grid(table: Table) -> Grid | None:
    """Return what training took, a row for each name that has results."""
    rows = []
    for name in table.outcomes:
        done = table.done(name)
        if done:
            rows.append([Entry(name), *_costs(done)])
    if not rows:
        return None
    head = ["model", "parameters", "s per epoch", "epochs", "best epoch", "training, s"]
    head.append("peak memory, MiB")
    said = (
        f"{table.dataset}: what training took, means over seeds. Time of training epochs without "
        "validation; memory of the whole process, of the device where there is one."
    )
    return Grid(said, head, rows)


def _costs(done: Sequence[Outcome]) -> list[Entry]:
    def mean(key: str) -> float | None:
        values = [outcome.measured.get(key) for outcome in done]
        known = [value for value in values if value is not None]
        return float(np.mean(known)) if known else None

    memory = mean("peak_gpu_memory_mib")
    epochs = float(np.mean([len(outcome.measured["epochs"]) for outcome in done]))
    best = mean("best_epoch")
    return [
        Entry(number(mean("parameters"))),
        Entry(number(mean("seconds_per_epoch"), 2)),
        Entry(f"{round(epochs, 1):g}"),
        Entry(NONE if best is None else f"{round(best + 1, 1):g}"),
        Entry(number(mean("training_seconds"), 1)),
        Entry(number(memory if memory is not None else mean("peak_memory_mib"))),
    ]


def number(value: float | None, digits: int = 0) -> str:
    """Return a number with so many digits after the point, thousands apart."""
    return NONE if value is None else f"{value:,.{digits}f}"


def failure_grid(tables: Sequence[Table]) -> Grid | None:
    """Return the runs that failed and why; None where none did."""
    rows: list[list[Any]] = []
    for table in tables:
        for outcome in table.failed:
            run = outcome.run
            rows.append([Entry(t) for t in (run.name, run.dataset, str(run.seed))])
            rows[-1].append(Entry(outcome.failure or "no result"))
    if not rows:
        return None
    said = "Runs that failed. The same command tries them again; their folders hold a log each."
    return Grid(said, ["model", "dataset", "seed", "why"], rows, texts=frozenset([1, 3]))
