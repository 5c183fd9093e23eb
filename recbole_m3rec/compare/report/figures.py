"""The figures of a report, as PNG files."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from recbole_m3rec.compare.report.aggregate import Table
from recbole_m3rec.compare.report.document import Picture
from recbole_m3rec.compare.report.tables import metric_title
from recbole_m3rec.compare.results import Outcome
from recbole_m3rec.compare.user_values import SEVERAL
from recbole_m3rec.support.safe_write import write_whole

FOLDER = "pictures"
LONGEST_LIST = 100
LONGEST_NAME = 30  # in a legend
FEWEST_FOR_BARS = 20  # with fewer, intervals by the normal distribution are too short
GROUPS = 5

# Okabe and Ito's colours, which the colour-blind tell apart, the darker ones first.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D31"]
MARKERS = "osD^vPX*<>"
LINES = ["-", "--", ":", "-."]

# Columns of ``UserValues`` that tests are grouped by, and what each is.
GROUPED = {
    "history": "interactions of the user before the test",
    "popularity": "interactions of the tested item in the training data",
}


def draw(table: Table, output: Path, name: str) -> list[Picture]:
    """Draw what a table's results allow into ``output/pictures``; files begin with ``name``."""
    names = list(table.cells)
    metric = table.main_metric
    if not names or metric is None:
        return []
    stem = re.sub(r"[^A-Za-z0-9.-]+", "-", name)
    drawings: dict[str, Callable[..., str | None]] = {
        "time": draw_time,
        "learning": draw_learning,
        **{column: partial(draw_groups, column) for column in GROUPED},
        "hit": draw_hits,
    }
    drawn = []
    for kind, drawing in drawings.items():
        with figure() as (canvas, axes):
            caption = drawing(axes, table, names, metric)
            if caption is None:
                continue
            file = Path(FOLDER) / f"{stem}-{kind}.png"
            legend(canvas, axes, names)
            image = io.BytesIO()
            canvas.savefig(image, format="png", dpi=160)
            write_whole(output / file, image.getvalue())
            drawn.append(Picture(file, f"{table.dataset}: {caption}"))
    return drawn


@contextmanager
def figure() -> Iterator[tuple[Any, Any]]:
    """Yield a figure and its axes; neither a display nor anybody's settings are touched."""
    from matplotlib.figure import Figure

    canvas = Figure(figsize=(6.6, 4.1), layout="constrained")
    axes = canvas.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e3e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    yield canvas, axes


def legend(canvas: Any, axes: Any, names: Sequence[str]) -> None:
    """Name the lines, whose labels are places in the table, beside axes as high as need be."""
    handles, places = axes.get_legend_handles_labels()
    plain = [legend_name(names[int(place)]) for place in places]
    canvas.set_figheight(max(canvas.get_figheight(), 0.3 + 0.21 * len(plain)))
    canvas.legend(handles, plain, loc="outside right upper", frameon=False, fontsize=9)


def legend_name(name: str) -> str:
    """Return a name as it is, its middle left out where it is long, with nothing to be typeset."""
    line = " ".join(name.split())
    if len(line) > LONGEST_NAME:
        line = f"{line[: LONGEST_NAME // 2]}…{line[-LONGEST_NAME // 2 + 1 :]}"
    return " " + line.replace("$", r"\$")  # matplotlib hides what begins with _


def style(place: int) -> dict[str, Any]:
    """Return the look of the line of a name, and its label, by its place in the table."""
    return {
        "label": str(place),
        "color": COLOURS[place % len(COLOURS)],
        "linestyle": LINES[place // len(COLOURS) % len(LINES)],
    }


def marker(place: int) -> str:
    """Return the marker of a name, by its place in the table."""
    return MARKERS[place % len(MARKERS)]


def draw_time(axes: Any, table: Table, names: Sequence[str], metric: str) -> str | None:
    """Draw a metric against the time of training, a point for each name."""
    times = {}
    for place, name in enumerate(names):
        cell = table.cells[name].get(metric)
        if cell is None:
            continue
        seconds = np.mean([o.measured["training_seconds"] for o in table.done(name)])
        times[name] = max(float(seconds), 1e-3)
        axes.errorbar(
            times[name],
            cell.mean,
            yerr=cell.deviation,
            color=style(place)["color"],
            marker=marker(place),
            markersize=8,
            capsize=3,
            linestyle="none",
            label=str(place),
        )
    if not times:
        return None
    if max(times.values()) > 5 * min(times.values()):
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("training, seconds")
    axes.set_ylabel(f"test {metric_title(metric)}")
    return f"test {metric_title(metric)} against the time of training; bars are one deviation."


def draw_learning(axes: Any, table: Table, names: Sequence[str], metric: str) -> str | None:
    """Draw a metric on validation after each epoch, a line for each run that measured it there."""
    longest = 0
    for place, name in enumerate(names):
        look = style(place)
        for outcome in table.done(name):
            scored = {
                epoch["epoch"] + 1: epoch["valid"][metric]
                for epoch in outcome.measured["epochs"]
                if metric in epoch.get("valid", ())
            }
            if not scored:
                continue
            x, y = zip(*scored.items(), strict=True)
            dots = {"marker": marker(place), "markersize": 4} if len(x) < 20 else {}
            axes.plot(x, y, linewidth=1.6, alpha=0.85, **dots, **look)
            look["label"] = None  # once in the legend
            longest = max(longest, len(x))
    if longest < 2:
        return None
    axes.set_xlabel("epoch")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_ylabel(f"valid {metric_title(metric)}")
    return f"valid {metric_title(metric)} after each epoch, a line for each seed."


def draw_groups(
    column: str, axes: Any, table: Table, names: Sequence[str], metric: str
) -> str | None:
    """Draw a metric's means over groups of tests that are alike in one of ``GROUPED``."""
    of_users = column == "history"
    alike = "length of the user's history" if of_users else "popularity of the tested item"
    what = "users" if of_users else "tests"
    edges: np.ndarray | None = None
    for place, name in enumerate(names):
        rows = rows_of(table.done(name), metric, column)
        if rows is None:
            continue
        by, values, seeds = rows
        if edges is None:
            edges = group_edges(by)
            labels = group_names(by, edges, seeds)
            axes.set_xticks(range(len(labels)))
            axes.set_xticklabels(label.replace(" (n", "\nn").rstrip(")") for label in labels)
        n, mean = group_means(by, values, edges)
        _, square = group_means(by, values**2, edges)
        # Values of one test under several seeds are no new tests.
        error = 1.96 * np.sqrt(np.maximum(square - mean**2, 0) / np.maximum(n / seeds, 1))
        error[n / seeds < FEWEST_FOR_BARS] = np.nan
        x = np.arange(len(n)) + (place - (len(names) - 1) / 2) * min(0.08, 0.6 / len(names))
        axes.errorbar(
            x, mean, yerr=error, marker=marker(place), capsize=2, linewidth=1.4, elinewidth=0.8,
            **style(place),
        )  # fmt: skip
    if edges is None:
        return None
    axes.set_xlabel(GROUPED[column])
    axes.set_ylabel(f"test {metric_title(metric)}")
    axes.set_ylim(bottom=0)
    return (
        f"test {metric_title(metric)} by the {alike}, in groups of about as many {what}; bars are "
        f"95 % intervals of the mean over {what}, of {FEWEST_FOR_BARS} at least."
    )


def rows_of(
    outcomes: Sequence[Outcome], metric: str, column: str
) -> tuple[np.ndarray, np.ndarray, int] | None:
    """Return what to group by and a metric's value for each test of each run, and the runs.

    None where the metric has no such values, or a test has several targets of several popularities.
    """
    users = [outcome.users for outcome in outcomes]
    known = [u for u in users if u is not None and metric in u.metrics]
    by = np.concatenate([getattr(u, column) for u in known]) if known else np.array([SEVERAL])
    if (by == SEVERAL).any():
        return None
    values = np.concatenate([u.values[:, u.metrics.index(metric)] for u in known])
    return by, values, len(known)


def group_edges(values: np.ndarray) -> np.ndarray:
    """Return where groups of about equal size begin, but for the first; at most four."""
    quantiles = np.quantile(values, np.arange(1, GROUPS) / GROUPS, method="lower")
    edges = np.unique(quantiles)
    return edges[edges > values.min()]


def group_means(
    by: np.ndarray, values: np.ndarray, edges: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return how many values each group has, and their mean, 0 where it has none."""
    group = np.searchsorted(edges, by, side="right")
    n = np.bincount(group, minlength=len(edges) + 1)
    return n, np.bincount(group, weights=values, minlength=len(n)) / np.maximum(n, 1)


def group_names(by: np.ndarray, edges: np.ndarray, seeds: int) -> list[str]:
    """Return the range of each group and how many tests it has, such as ``3 to 5 (n = 1,200)``."""
    starts = [int(by.min()), *map(int, edges)]
    ends = [*(int(edge) - 1 for edge in edges), int(by.max())]
    sizes = np.bincount(np.searchsorted(edges, by, side="right"), minlength=len(starts)) // seeds
    return [
        f"{a} (n = {n:,})" if a == b else f"{a} to {b} (n = {n:,})"
        for a, b, n in zip(starts, ends, sizes, strict=True)
    ]


def draw_hits(axes: Any, table: Table, names: Sequence[str], metric: str) -> str | None:
    """Draw the share of tests that have a target among the first K, for K up to 100."""
    ends = [int(o.users.rank.max()) for name in names for o in table.done(name) if o.users]
    longest = min(LONGEST_LIST, max(ends, default=1))
    lengths = np.arange(1, longest + 1)
    for place, name in enumerate(names):
        users = [outcome.users for outcome in table.done(name)]
        ranks = [u.rank for u in users if u is not None]
        if not ranks:
            continue
        ordered = np.sort(np.concatenate(ranks))
        share = np.searchsorted(ordered, lengths, side="right") / len(ordered)
        axes.plot(lengths, share, linewidth=1.8, **style(place))
    if not axes.lines:
        return None
    axes.set_xlabel("K, length of the list")
    axes.set_ylabel("Hit@K")
    axes.set_xlim(0, longest)
    axes.set_ylim(bottom=0)
    return f"share of tests with a tested item among the first K (Hit@K), K from 1 to {longest}."
