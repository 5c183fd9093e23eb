"""Writes a report in three formats, its figures and ``results.csv``."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recbole_m3rec.compare.report import html, latex, markdown
from recbole_m3rec.compare.report.aggregate import Table, tables
from recbole_m3rec.compare.report.document import Block, Grid, Heading, Paragraph
from recbole_m3rec.compare.report.figures import draw
from recbole_m3rec.compare.report.lists import list_grid
from recbole_m3rec.compare.report.slices import cold_grid, slice_grids
from recbole_m3rec.compare.report.tables import (
    cost_grid,
    failure_grid,
    result_grid,
    test_grid,
)
from recbole_m3rec.compare.results import Outcome
from recbole_m3rec.config.keys import PROTOCOL
from recbole_m3rec.features.feature_table import FeatureTable
from recbole_m3rec.support.extras import no_pictures
from recbole_m3rec.support.safe_write import write_whole

COSTS = ("seconds_per_epoch", "training_seconds", "seconds", "best_epoch", "parameters")
MEMORY = ("peak_memory_mib", "peak_gpu_memory_mib")
NOT_TUNED = "Nothing was tuned: every model has its configured settings."
KEYED = (
    "A result belongs to a configuration and to the contents of the data files, whose hash is in "
    "results.csv; the versions of libraries stand beside it and do not count."
)


def write_report(
    outcomes: Sequence[Outcome],
    output: Path,
    *,
    reference: str | None = None,
    title: str = "Comparison",
    notes: Sequence[str] = (),
    tuned: str = NOT_TUNED,
    tuning: Sequence[Grid] = (),
    features: Mapping[str, Mapping[str, FeatureTable]] | None = None,
) -> list[Path]:
    """Write all files of the report and return their paths.

    Args:
        outcomes: in the order of the tables.
        output: the folder.
        reference: see :func:`~recbole_m3rec.compare.report.aggregate.tables`.
        title: plain text, as are ``notes``, paragraphs at the start, and ``tuned``, which says in
            every caption what was tuned.
        tuning: grids that say what it came to.
        features: of items, by dataset and modality, for the distances in lists.
    """
    from recbole.evaluator import smaller_metrics

    compared = tables(outcomes, reference, smaller_metrics)
    blocks: list[Block] = [Heading(title, level=1), *(Paragraph(note) for note in notes)]
    why = no_pictures()
    for place, table in enumerate(compared):
        blocks.append(Heading(heading(table, compared)))
        grids = [result_grid(table, tuned), cold_grid(table), test_grid(table)]
        grids += [list_grid(table, (features or {}).get(table.dataset, {})), *slice_grids(table)]
        blocks += filter(None, grids)
        blocks += [] if why else draw(table, output, f"{table.dataset}-{place + 1}")
        blocks += filter(None, [cost_grid(table)])
    if tuning:
        blocks += [Heading("Tuning"), *tuning]
    failed = failure_grid(compared)
    if failed:
        blocks += [Heading("Failures"), failed]
    blocks += [Heading("How to read this"), Paragraph(KEYED)]
    blocks += [Paragraph(f"There are no pictures: {why}.")] if why else []
    files = {
        "results.csv": results_csv(outcomes),
        "report.md": markdown.render(blocks),
        "report.tex": latex.render(blocks),
        "report.html": html.render(blocks, output),
    }
    for name, text in files.items():
        write_whole(output / name, text.encode())
    return [output / name for name in files]


def heading(table: Table, compared: Sequence[Table]) -> str:
    """Return a table's heading, which says what tells its protocol from others of the dataset."""
    alike = [each for each in compared if each.dataset == table.dataset]
    differing = [key for key in PROTOCOL if len({str(each.config.get(key)) for each in alike}) > 1]
    return ", ".join([table.dataset, *(f"{key}: {table.config.get(key)}" for key in differing)])


def results_csv(outcomes: Sequence[Outcome]) -> str:
    """Return a line for each run, metrics unrounded, empty where something is unknown.

    ``epochs`` counts the epochs trained; ``best_epoch`` is a number from 1 on.
    """
    head = ["name", "model", "dataset", "seed", "mask_seen", "status", *_names(outcomes, "test")]
    head += [f"valid_{name}" for name in _names(outcomes, "valid")]
    head += [*COSTS, "epochs", *MEMORY]
    head += [f"version_{name}" for name in _names(outcomes, "versions")]
    head += ["hash", "message"]
    file = io.StringIO()
    writer = csv.DictWriter(file, head, lineterminator="\n", restval="")
    writer.writeheader()
    for outcome in outcomes:
        writer.writerow(_row(outcome))
    return file.getvalue()


def _row(outcome: Outcome) -> dict[str, Any]:
    run, result = outcome.run, outcome.result
    row: dict[str, Any] = {
        "name": run.name,
        "model": run.model,
        "dataset": run.dataset,
        "seed": run.seed,
        "mask_seen": bool(outcome.identity.config.get("mask_seen")),
        "status": "failed" if result is None else "done",
        "hash": outcome.identity.hash,
        "message": outcome.failure,
    }
    if result is not None:
        row.update(result["test"])
        row.update({f"valid_{name}": value for name, value in result["valid"].items()})
        row.update({f"version_{name}": value for name, value in result["versions"].items()})
        row.update({key: result[key] for key in (*COSTS, *MEMORY)})
        row["epochs"] = len(result["epochs"])
        row["best_epoch"] = None if result["best_epoch"] is None else result["best_epoch"] + 1
    return row


def _names(outcomes: Sequence[Outcome], part: str) -> list[str]:
    return list(dict.fromkeys(name for each in outcomes for name in each.measured.get(part, ())))
