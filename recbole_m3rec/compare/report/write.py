"""Writes a report in three formats, its figures and ``results.csv``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from recbole_m3rec.compare.report import html, latex, markdown, results_csv
from recbole_m3rec.compare.report.aggregate import Table, tables
from recbole_m3rec.compare.report.document import Block, Grid, Heading, Paragraph
from recbole_m3rec.compare.report.figures import draw, missing_library
from recbole_m3rec.compare.report.lists import list_grid
from recbole_m3rec.compare.report.slices import cold_grid, slice_grids
from recbole_m3rec.compare.report.tables import (
    cost_grid,
    failure_grid,
    result_grid,
    test_grid,
)
from recbole_m3rec.compare.results import Outcome, write_text
from recbole_m3rec.compare.runs import smaller_is_better
from recbole_m3rec.features.feature_table import FeatureTable

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
    compared = tables(outcomes, reference, smaller_is_better())
    blocks: list[Block] = [Heading(title, level=1), *(Paragraph(note) for note in notes)]
    why = missing_library()
    for place, table in enumerate(compared):
        blocks.append(Heading(heading(table, compared)))
        grids = [result_grid(table, tuned), cold_grid(table), test_grid(table)]
        grids += [list_grid(table, (features or {}).get(table.dataset, {})), *slice_grids(table)]
        blocks += [grid for grid in grids if grid]
        blocks += [] if why else draw(table, output, f"{table.dataset}-{place + 1}")
        cost = cost_grid(table)
        blocks += [cost] if cost else []
    if tuning:
        blocks += [Heading("Tuning"), *tuning]
    failed = failure_grid(compared)
    if failed:
        blocks += [Heading("Failures"), failed]
    blocks += [Heading("How to read this"), *(Paragraph(t) for t in filter(None, [KEYED, why]))]
    files = {
        "results.csv": results_csv.render(outcomes),
        "report.md": markdown.render(blocks),
        "report.tex": latex.render(blocks),
        "report.html": html.render(blocks, output),
    }
    for name, text in files.items():
        write_text(output / name, text)
    return [output / name for name in files]


def heading(table: Table, compared: Sequence[Table]) -> str:
    """Return a table's heading, which names its protocol where a dataset has several."""
    alike = [each for each in compared if each.dataset == table.dataset]
    if len(alike) == 1:
        return table.dataset
    said = f"{table.dataset}, mask_seen: {table.mask_seen}"
    return said if len({each.mask_seen for each in alike}) > 1 else f"{said} (other protocol)"
