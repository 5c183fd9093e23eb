"""Compare models: ``recbole-m3rec compare --help``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from recbole_m3rec.cli.commands import run_script
from recbole_m3rec.cli.compare_arguments import parse
from recbole_m3rec.cluster.connect import connected
from recbole_m3rec.compare.comparison import compare
from recbole_m3rec.compare.report.write import NOT_TUNED
from recbole_m3rec.compare.results import Outcome
from recbole_m3rec.compare.runs import Run, first_seed, locked
from recbole_m3rec.compare.settings import divide
from recbole_m3rec.compare.tuning import tune, tuning_grid, tuning_sentence
from recbole_m3rec.support.exit_codes import SOME_FAILED


def run(arguments: Sequence[str]) -> int:
    """Do what the arguments ask for; return the exit code."""
    options, settings = parse(arguments)
    first = [
        Run(model, model, dataset, seed=first_seed(model, dataset, own), settings=own)
        for dataset in options.datasets
        for model, own in divide(settings, options.models, dataset).items()
    ]
    note, grids = NOT_TUNED, []
    with connected(options.cluster) as cluster:
        if options.tune:
            with locked(options.output):
                tuned = tune(first, options.output, options.tune, options.jobs, cluster=cluster)
            first = [each.run for each in tuned]
            note, grids = tuning_sentence(tuned, options.tune), [tuning_grid(tuned)]
        runs = [
            Run(each.name, each.model, each.dataset, each.seed + more, each.settings)
            for each in first
            for more in range(options.seeds)
        ]
        outcomes = compare(
            runs,
            options.output,
            options.jobs,
            cluster=cluster,
            reference=options.reference,
            title=f"{', '.join(options.models)} on {', '.join(options.datasets)}",
            tuned=note,
            tuning=grids,
        )
    return say_what_became(outcomes, options.output)


def say_what_became(outcomes: Sequence[Outcome], output: Path) -> int:
    """Print failures and where the report is; return the exit code."""
    failures = [outcome for outcome in outcomes if outcome.failure is not None]
    for outcome in failures:
        print(f"failed: {outcome.run}: {outcome.failure}", file=sys.stderr)
    print(f"report: {output / 'report.html'} (also .md, .tex, results.csv)")
    return SOME_FAILED if failures else 0


main = partial(run_script, run)
