"""The report's files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from recbole_m3rec.compare.results import Outcome


def write_report(
    outcomes: Sequence[Outcome],
    output: Path,
    *,
    reference: str | None,
    title: str,
    notes: Sequence[str],
) -> None:
    """Write all files of the report."""
