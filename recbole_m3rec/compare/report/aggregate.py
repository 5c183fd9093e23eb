"""Outcomes of runs aggregated to the numbers of a table."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from recbole_m3rec.compare.report.significance import Paired, holm, paired
from recbole_m3rec.compare.results import Outcome
from recbole_m3rec.config.keys import PROTOCOL
from recbole_m3rec.evaluator.cold_items import split_name

DIGITS = 4

# The model that is compared with all others unless another is named.
OWN = "M3Rec"


@dataclass(frozen=True)
class Cell:
    """A metric over seeds: mean, sample standard deviation (None for one seed), and place.

    ``place`` is 1 for the best and 2 for the second best of a column, 0 otherwise.
    """

    mean: float
    deviation: float | None
    place: int = 0


@dataclass(frozen=True)
class Test:
    """The reference against another model in one metric.

    Attributes:
        metric: its name.
        other: name of the other model.
        users: tests over users, of means over the seeds that both have.
        users_corrected: p of t-test and Wilcoxon, corrected over all tests of the table.
        seeds: tests over seeds.
        seeds_corrected: p of the t-test, corrected likewise.
    """

    metric: str
    other: str
    users: Paired
    users_corrected: tuple[float | None, float | None]
    seeds: Paired
    seeds_corrected: float | None

    @property
    def significant(self) -> bool:
        """Both corrected tests over users say so at 5 %."""
        return all(p is not None and p < 0.05 for p in self.users_corrected)


@dataclass(frozen=True)
class Gain:
    """The reference's gain in a metric over the best of the others, in percent of that one."""

    other: str
    percent: float | None
    significant: bool


@dataclass
class Table:
    """One dataset under one protocol.

    Attributes:
        dataset: its name.
        config: the configuration of its first run, for what all have in common.
        metrics: columns, in RecBole's order; ``cells`` has those of cold and warm targets too.
        cells: by name and metric; a name whose runs all failed has none.
        outcomes: by name, in the order of the rows.
        reference: the name that ``gains`` and ``tests`` are about, None if it is alone or failed.
    """

    dataset: str
    config: Mapping[str, Any]
    metrics: list[str]
    outcomes: dict[str, list[Outcome]]
    cells: dict[str, dict[str, Cell]] = field(default_factory=dict)
    reference: str | None = None
    gains: dict[str, Gain] = field(default_factory=dict)
    tests: list[Test] = field(default_factory=list)

    def done(self, name: str) -> list[Outcome]:
        """Return the runs of a name that have a result."""
        return [outcome for outcome in self.outcomes[name] if outcome.result is not None]

    @property
    def failed(self) -> list[Outcome]:
        """All runs that have none."""
        return [each for runs in self.outcomes.values() for each in runs if each.result is None]

    @property
    def main_metric(self) -> str | None:
        """The metric that early stopping watched, if it is among those tested."""
        watched = str(self.config.get("valid_metric", "")).lower()
        return watched if watched in self.metrics else next(iter(self.metrics), None)


def tables(
    outcomes: Sequence[Outcome], reference: str | None = None, smaller: Iterable[str] = ()
) -> list[Table]:
    """Return a table for each dataset and protocol, in the order of the outcomes.

    Args:
        outcomes: of runs that may differ in anything.
        reference: the name that the others are compared with; default M3Rec, else the first.
        smaller: metrics, without their ``@k``, of which the smaller is the better.
    """
    groups: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        key = outcome.run.dataset + protocol_of(outcome.identity.config)
        groups.setdefault(key, []).append(outcome)
    return [_table(group, reference, frozenset(smaller)) for group in groups.values()]


def protocol_of(config: Mapping[str, Any]) -> str:
    """Return what stands in one table: the settings of ``PROTOCOL`` as JSON."""
    return json.dumps({key: config.get(key) for key in PROTOCOL}, sort_keys=True)


def _table(outcomes: Sequence[Outcome], reference: str | None, smaller: frozenset[str]) -> Table:
    by_name: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        by_name.setdefault(outcome.run.name, []).append(outcome)
    tested = [outcome.result["test"] for outcome in outcomes if outcome.result is not None]
    measured = list(dict.fromkeys(metric for result in tested for metric in result))
    metrics = [metric for metric in measured if not split_name(metric)[0]]
    table = Table(outcomes[0].run.dataset, outcomes[0].identity.config, metrics, by_name)
    for name in by_name:
        done = table.done(name)
        if done:
            table.cells[name] = _cells(done)
    for metric in measured:
        sign = -1.0 if split_name(metric)[1].partition("@")[0] in smaller else 1.0
        _mark_best(table.cells, metric, sign)
    if reference is None:
        own = [name for name in by_name if any(o.run.model == OWN for o in by_name[name])]
        reference = OWN if OWN in own else next(iter([*own, *by_name]))
    others = [name for name in table.cells if name != reference]
    if reference in table.cells and others:
        table.reference = reference
        table.tests = _tests(table, reference, others)
        table.gains = _gains(table, reference, others, smaller)
    return table


def _cells(done: Sequence[Outcome]) -> dict[str, Cell]:
    values: dict[str, list[float]] = {}
    for outcome in done:
        for metric, value in outcome.measured["test"].items():
            values.setdefault(metric, []).append(value)
    return {
        metric: Cell(
            float(np.mean(seeds)), float(np.std(seeds, ddof=1)) if len(seeds) > 1 else None
        )
        for metric, seeds in values.items()
    }


def _mark_best(cells: dict[str, dict[str, Cell]], metric: str, sign: float) -> None:
    """Give places 1 and 2; what looks the same as shown shares a place."""
    shown = {
        name: round(sign * row[metric].mean, DIGITS) for name, row in cells.items() if metric in row
    }
    if len(shown) < 2:
        return
    for place, value in enumerate(sorted(set(shown.values()), reverse=True)[:2], start=1):
        for name in shown:
            if shown[name] == value:
                cell = cells[name][metric]
                cells[name][metric] = Cell(cell.mean, cell.deviation, place)


def _gains(
    table: Table, reference: str, others: Sequence[str], smaller: frozenset[str]
) -> dict[str, Gain]:
    found = {(test.metric, test.other): test for test in table.tests}
    gains = {}
    for metric in table.metrics:
        cell = table.cells[reference].get(metric)
        if cell is None:
            continue
        sign = -1.0 if metric.partition("@")[0] in smaller else 1.0
        rivals = [name for name in others if metric in table.cells[name]]
        if not rivals:
            continue
        best = max(rivals, key=lambda name: sign * table.cells[name][metric].mean)
        base = table.cells[best][metric].mean
        percent = sign * (cell.mean - base) / abs(base) * 100 if base else None
        test = found.get((metric, best))
        gains[metric] = Gain(best, percent, test is not None and test.significant)
    return gains


def _tests(table: Table, reference: str, others: Sequence[str]) -> list[Test]:
    """Test the reference against every other name in every metric, and correct over all of them."""
    pairs = {other: common_seeds(table.done(reference), table.done(other)) for other in others}
    users = {other: _users_of_both(pairs[other]) for other in others}
    raw = []
    for metric in table.metrics:
        for other in others:
            over_seeds = _over_seeds(pairs[other], metric)
            if over_seeds is not None:
                raw.append((metric, other, _over_users(*users[other], metric), over_seeds))
    t_tests = holm([over_users.t_test for _, _, over_users, _ in raw])
    wilcoxons = holm([over_users.wilcoxon for _, _, over_users, _ in raw])
    seeds = holm([over_seeds.t_test for _, _, _, over_seeds in raw])
    return [
        Test(metric, other, over_users, (t_test, wilcoxon), over_seeds, corrected)
        for (metric, other, over_users, over_seeds), t_test, wilcoxon, corrected in zip(
            raw, t_tests, wilcoxons, seeds, strict=True
        )
    ]


def common_seeds(
    first: Sequence[Outcome], second: Sequence[Outcome]
) -> list[tuple[Outcome, Outcome]]:
    """Return the runs of two names side by side, for the seeds that both have."""
    seeds = {outcome.run.seed: outcome for outcome in second}
    return [(each, seeds[each.run.seed]) for each in first if each.run.seed in seeds]


def _over_seeds(pairs: Sequence[tuple[Outcome, Outcome]], metric: str) -> Paired | None:
    values = [[outcome.measured["test"].get(metric) for outcome in pair] for pair in pairs]
    if not values or any(value is None for pair in values for value in pair):
        return None
    first, second = np.array(values).T
    found = paired(first, second)
    if np.ptp(first) == 0 and np.ptp(second) == 0:
        # No seed changes either, as with ItemKNN: one measurement, repeated.
        return replace(found, t_test=None, wilcoxon=None)
    return found


def _over_users(here: pd.DataFrame, there: pd.DataFrame, metric: str) -> Paired:
    if metric not in here or metric not in there:
        return Paired(0, 0.0, None, None)
    return paired(here[metric].to_numpy(), there[metric].to_numpy())


def _users_of_both(
    pairs: Sequence[tuple[Outcome, Outcome]],
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the users that the runs of two names have in common, in one order.

    A user's values are means over the seeds in which both runs tested that user: a split that is
    drawn tests others with each seed.
    """
    both: tuple[list[pd.DataFrame], list[pd.DataFrame]] = ([], [])
    for pair in pairs:
        reference, other = (by_user(outcome) for outcome in pair)
        if reference is None or other is None:
            return pd.DataFrame(), pd.DataFrame()
        common = reference.index.intersection(other.index)
        both[0].append(reference.loc[common])
        both[1].append(other.loc[common])
    return _means(both[0]), _means(both[1])


def _means(runs: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return users' means over runs, in the metrics that all runs have."""
    if not runs:
        return pd.DataFrame()
    metrics = [metric for metric in runs[0] if all(metric in run for run in runs)]
    return pd.concat([run[metrics] for run in runs]).groupby(level=0).mean()


def by_user(outcome: Outcome) -> pd.DataFrame | None:
    """Return each user's means over the tests of a user in one run.

    Returns:
        A row for each user by token, a column for each metric; None where there are no such values.
    """
    users = outcome.users
    if users is None:
        return None
    values = pd.DataFrame(users.values, index=users.users, columns=list(users.metrics))
    return values.groupby(level=0).mean()
