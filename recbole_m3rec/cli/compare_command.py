"""Exit code and last lines of a command that trains and reports several runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from recbole_m3rec.cli.exit_codes import SOME_FAILED
from recbole_m3rec.compare.results import Outcome


def say_what_became(outcomes: Sequence[Outcome], output: Path) -> int:
    """Print failures and where the report is; return the exit code."""
    failures = [outcome for outcome in outcomes if outcome.failure is not None]
    for outcome in failures:
        print(f"failed: {outcome.run}: {outcome.failure}", file=sys.stderr)
    print(f"report: {output / 'report.html'} (also .md, .tex, results.csv)")
    return SOME_FAILED if failures else 0
