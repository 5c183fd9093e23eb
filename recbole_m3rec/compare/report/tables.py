"""The tables of a report, and their captions: the protocol in sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from recbole_m3rec.compare.report.aggregate import DIGITS, Cell, Table, Test
from recbole_m3rec.compare.report.document import Entry, Grid
from recbole_m3rec.compare.results import Outcome
from recbole_m3rec.data.splits import COLD, TIME

NONE = "–"
# RecBole writes its metrics in small letters.
TITLES = {"ndcg": "NDCG", "mrr": "MRR", "map": "MAP", "auc": "AUC", "gauc": "GAUC", "rmse": "RMSE"}
LEFT_OUT = {
    "valid_and_test": "leave one out: each user's last interaction tests, the one before validates",
    "valid_only": "leave one out: each user's last interaction validates",
    "test_only": "leave one out: each user's last interaction tests",
}
ORDERS = {"TO": "in the order of time", "RO": "in random order"}


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
    return [
        Entry(NONE)
        if (gain := table.gains.get(metric)) is None or gain.percent is None
        else Entry(f"{gain.percent:+.1f} %{'*' if gain.significant else ''}")
        for metric in table.metrics
    ]


def test_grid(table: Table) -> Grid | None:
    """Return the tests of the reference against every other name; None where there are none."""
    over_users = any(test.users.n for test in table.tests)
    over_seeds = any(test.seeds.t_test is not None for test in table.tests)
    if not (over_users or over_seeds):
        return None
    head = ["metric", "against", "difference", "users", "t-test", "Wilcoxon"]
    head += ["seeds", "t-test over seeds"] if over_seeds else []
    rows = [_test(test, over_seeds) for test in table.tests]
    said = f"{table.dataset}: {table.reference} against each of the others. Mean difference of the "
    said += (
        "users that both were tested by, each user's a mean over targets and seeds, and two-sided "
        "p of paired tests over them"
        if over_users
        else "seeds, for no metric has a value for each user"
    )
    said += "; and p of a paired t-test over the means of the seeds" if over_seeds else ""
    said += f". All p are corrected by Holm's method for the {len(table.tests)} rows."
    return Grid(said, head, rows, folded=len(rows) > 12, texts=frozenset([1]))


def _test(test: Test, over_seeds: bool) -> list[Entry]:
    row = [
        Entry(metric_title(test.metric)),
        Entry(test.other),
        Entry(f"{(test.users if test.users.n else test.seeds).difference:+.{DIGITS}f}"),
        Entry(f"{test.users.n:,}" if test.users.n else NONE),
        *map(p_value, test.users_corrected),
    ]
    if over_seeds:
        row += [Entry(str(test.seeds.n)), p_value(test.seeds_corrected)]
    return row


def p_value(p: float | None) -> Entry:
    """Return a p value with three digits after the point, bold where it is significant at 5 %."""
    if p is None or np.isnan(p):
        return Entry(NONE)
    return Entry("< 0.001" if p < 0.001 else f"{p:.3f}", bold=p < 0.05)


def cost_grid(table: Table) -> Grid | None:
    """Return what training took, a row for each name that has results."""
    rows = [[Entry(name), *_costs(table.done(name))] for name in table.cells]
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
    failed = [(each.run, each.failure or "no result") for table in tables for each in table.failed]
    rows = [[*map(Entry, (run.name, run.dataset, str(run.seed), why))] for run, why in failed]
    if not rows:
        return None
    said = "Runs that failed. The same command tries them again; their folders hold a log each."
    return Grid(said, ["model", "dataset", "seed", "why"], rows, texts=frozenset([1, 3]))


def caption(table: Table) -> str:
    """Return the caption of a table of results: data, split, candidates, seeds, marks."""
    config = table.config
    seeds = sorted({outcome.run.seed for runs in table.outcomes.values() for outcome in runs})
    named = ", ".join(str(seed) for seed in seeds)
    over = (
        f"Mean ± sample standard deviation over {len(seeds)} seeds ({named})."
        if len(seeds) > 1
        else f"One seed ({named}), hence no deviation."
    )
    return (
        f"{table.dataset}, tested by {tested(table)}. Split: {split(config)}. Candidates: "
        f"{candidates(config)}. Kept: {kept(config)}. {over} The best of a column is bold, the "
        "second underlined."
    )


def tested(table: Table) -> str:
    """Return how many users were tested, for each name where they are not as many for all."""
    names: dict[int, list[str]] = {}
    for name in table.outcomes:
        numbers = {len(set(o.users.users.tolist())) for o in table.done(name) if o.users}
        for number in sorted(numbers):
            names.setdefault(number, []).append(name)
    if not names:
        return (
            "metrics that have no value for each user" if table.cells else "none, all runs failed"
        )
    if len(names) == 1:
        return f"{next(iter(names)):,} users"
    each = "; ".join(f"{', '.join(names[number])}: {number:,}" for number in sorted(names))
    return f"numbers of users that differ, so that means and gains are of other users ({each})"


def split(config: Mapping[str, Any]) -> str:
    """Return how interactions are split into training, validation and test."""
    if config.get("benchmark_filename"):
        return "as the files " + ", ".join(map(str, config["benchmark_filename"])) + " have it"
    how = config["eval_args"]
    order = ORDERS.get(how["order"], str(how["order"]))
    held_out = ""
    if config.get(COLD):
        held_out = f"; a share of {config[COLD]:g} of the items is held out and tested by itself"
    if TIME in how["split"]:
        first, second = how["split"][TIME]
        return (
            f"by time, the first {first:.4g} of all interactions train, the next up to "
            f"{second:.4g} validate, the last test{held_out}"
        )
    if "LS" in how["split"]:
        method = LEFT_OUT.get(how["split"]["LS"], f"leave out, {how['split']['LS']}")
    else:
        shares = " : ".join(f"{share:g}" for share in next(iter(how["split"].values())))
        by = f" of each {how['group_by']}" if how["group_by"] not in (None, "none") else ""
        method = f"shares {shares}{by}"
    return f"{method}, {order}{held_out}"


def candidates(config: Mapping[str, Any]) -> str:
    """Return which items a target is ranked among."""
    mode = config["eval_args"]["mode"]["test"]
    if mode == "labeled":
        return "none, labelled interactions are classified"
    if mode != "full":
        how = {"uni": "uniformly", "pop": "by popularity"}.get(mode[:3], mode)
        return f"{mode[3:]} items sampled {how}"
    left = "without those" if config.get("mask_seen") else "with those"
    return f"all items, {left} of the user's history (mask_seen: {bool(config.get('mask_seen'))})"


def kept(config: Mapping[str, Any]) -> str:
    """Return which users and items are kept, by their interactions."""
    parts = [
        f"{what}s with {interval} interactions"
        for what in ("user", "item")
        if (interval := config.get(f"{what}_inter_num_interval")) not in (None, "", "[0,inf)")
    ]
    return " and ".join(parts) or "everything"
