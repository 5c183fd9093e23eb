"""``recbole-m3rec compare``: train models on datasets, several seeds each, and report them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from recbole_m3rec.cli.arguments import check_settings, split_files
from recbole_m3rec.cli.commands import add_cluster, run_script
from recbole_m3rec.cli.parsers import Parser, UsageError, add_settings
from recbole_m3rec.cluster.connect import connected
from recbole_m3rec.compare.comparison import compare
from recbole_m3rec.compare.report.write import NOT_TUNED
from recbole_m3rec.compare.results import Outcome
from recbole_m3rec.compare.runs import Run, first_seed, locked
from recbole_m3rec.compare.settings import divide
from recbole_m3rec.compare.tuning import tune, tuning_grid, tuning_sentence
from recbole_m3rec.config.layers import lay
from recbole_m3rec.config.yaml_files import read_yaml
from recbole_m3rec.support.argument_types import positive
from recbole_m3rec.support.exit_codes import SOME_FAILED

DESCRIPTION = """\
Train models on datasets, several seeds each, and report them side by side.

What was trained before is not trained again: a result belongs to its whole configuration and to
the contents of the data files. The same command goes on where it was interrupted.

Any setting is written --key=value and holds for every model that knows it.
"""

EXAMPLES = """\
examples:
  recbole-m3rec compare --models M3Rec,SASRec,GRU4Rec --datasets ml-100k
      one seed each; the report is in comparison/
  recbole-m3rec compare --models M3Rec,SASRec --datasets beauty,ml-100k --seeds 3 --jobs 2
      mean and deviation over three seeds, two runs at once
  recbole-m3rec compare --models M3Rec,SASRec,BPR --datasets ml-100k --mask_seen=True \\
         --epochs=20 --output seen-removed
      settings for all models; items of the user's history are no candidates
  recbole-m3rec compare --models M3Rec,SASRec --datasets ml-100k --seeds 3 --tune 20
      20 trials for each model on validation, then the best settings with every seed
"""


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
        runs = [replace(r, seed=r.seed + more) for r in first for more in range(options.seeds)]
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


def build_parser() -> Parser:
    """Return the parser of all that is no setting."""
    parser = Parser("compare", DESCRIPTION, EXAMPLES)
    add = parser.add_argument
    add("--models", required=True, metavar="A,B", help="names of models, in the tables' order")
    add("--datasets", required=True, metavar="A,B", help="names of datasets")
    add_common_options(parser, output=Path("comparison"))
    add("--tune", type=positive, metavar="N", help="trials for each model before it is tested")
    add(
        "--reference",
        metavar="MODEL",
        help="the model tested against the others (M3Rec, or the first)",
    )
    return parser


def add_common_options(parser: Parser, output: Path) -> None:
    """Add what every command takes that trains several runs and reports them."""
    add = parser.add_argument
    add(
        "--seeds",
        type=positive,
        default=1,
        metavar="N",
        help="seeds: --seed and those after it (1)",
    )
    add_settings(parser)
    add(
        "--output",
        type=Path,
        default=output,
        metavar="DIR",
        help=f"folder of the results and the report ({output})",
    )
    add(
        "--jobs",
        type=positive,
        metavar="N",
        help="runs at once, each a process (1, or as many as the cluster has threads)",
    )
    add_cluster(parser)


def parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, dict[str, Any]]:
    """Split arguments into options and settings; ``models`` and ``datasets`` become lists.

    Raises:
        UsageError: an argument is neither, or names nothing.
    """
    parser = build_parser()
    options, others = parser.parse_known_args(arguments)
    settings = settings_of(options, others, parser)
    for option in ("models", "datasets"):
        names = [name.strip() for name in getattr(options, option).split(",")]
        if not all(names):
            raise UsageError(f"--{option} names nothing between two commas.")
        setattr(options, option, list(dict.fromkeys(names)))
    if options.reference is not None and options.reference not in options.models:
        raise UsageError(f"--reference {options.reference} is none of --models.")
    return options, settings


def settings_of(
    options: argparse.Namespace, others: Sequence[str], parser: Parser
) -> dict[str, Any]:
    """Return the settings of the configuration files, and over them those of the command line.

    Raises:
        UsageError: one of the other arguments is no setting.
    """
    check_settings(others, parser)
    settings: dict[str, Any] = {}
    for argument in options.config_files:
        for file in split_files(argument):
            lay(read_yaml(Path(file)), over=settings)
    if options.no_download:
        settings["download"] = False
    written = [setting[2:].partition("=") for setting in others]
    lay({key: value for key, _, value in written}, over=settings)
    return settings


main = partial(run_script, run)
