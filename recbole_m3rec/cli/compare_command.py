"""Exit code and last lines of a command that trains and reports several runs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from recbole_m3rec.cli.commands import run_script
from recbole_m3rec.compare.results import Outcome

SOME_FAILED = 1


def run_command(
    command: Callable[[Sequence[str]], bool], arguments: Sequence[str] | None = None
) -> int:
    """Return the exit code: 0, 1 if a run failed, 2 for a user's error, 130 if interrupted.

    Args:
        command: does what its arguments ask for, and returns whether a run failed.
        arguments: the arguments after the program's name; None takes the process's own.
    """
    failed: list[bool] = []

    def script(given: Sequence[str] | None) -> None:
        failed.append(command(sys.argv[1:] if given is None else given))

    return run_script(script, arguments) or (SOME_FAILED if failed[0] else 0)


def say_what_became(outcomes: Sequence[Outcome], output: Path) -> bool:
    """Print failures and where the report is; return whether a run failed."""
    failures = [outcome for outcome in outcomes if outcome.failure is not None]
    for outcome in failures:
        print(f"failed: {outcome.run}: {outcome.failure}", file=sys.stderr)
    print(f"report: {output / 'report.html'} (also .md, .tex, results.csv)")
    return bool(failures)
