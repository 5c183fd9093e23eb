"""``compare()``: train the runs that are missing and report all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recbole_m3rec.cluster.pieces import THIS_PROCESS, Cluster
from recbole_m3rec.compare import results
from recbole_m3rec.compare.on_cluster import run_on
from recbole_m3rec.compare.report.aggregate import protocol_of
from recbole_m3rec.compare.report.document import Grid
from recbole_m3rec.compare.report.write import NOT_TUNED, write_report
from recbole_m3rec.compare.results import Outcome
from recbole_m3rec.compare.runs import (
    Identity,
    Run,
    configuration,
    content_digests,
    feature_table,
    has_data,
    identify,
    locked,
    prepare,
)
from recbole_m3rec.compare.scheduler import Job, Listed, Progress
from recbole_m3rec.config.yaml_files import ConfigurationError
from recbole_m3rec.data.dataset import modality_sources
from recbole_m3rec.features.feature_table import FeatureTable


@dataclass(frozen=True)
class Planned:
    """A run with all that is known before it starts."""

    run: Run
    config: Any
    identity: Identity
    folder: Path


def compare(
    runs: Sequence[Run],
    output: Path,
    jobs: int | None = None,
    *,
    cluster: Cluster = THIS_PROCESS,
    reference: str | None = None,
    title: str = "Comparison",
    notes: Sequence[str] = (),
    tuned: str = NOT_TUNED,
    tuning: Sequence[Grid] = (),
    show_progress: bool = True,
) -> list[Outcome]:
    """Train and test what has no result yet, keep results, and write the report.

    A row of the report's tables is a (name, dataset) over its seeds. Writes ``results.csv``,
    ``report.md``, ``report.tex``, ``report.html`` and ``pictures/`` into ``output``; results stay
    in ``output/runs``. A run that failed before is tried again.

    Args:
        runs: in the order of the tables; two that are the same but for their names share a result.
        output: a folder, made if need be.
        jobs: how many runs train at once, each in a process; default as many as the cluster's
            workers have threads, 1 without one.
        cluster: where they train, from ``recbole_m3rec.cluster.connect.connected``.
        reference: the name that is compared with all others; default M3Rec, or the first.
        title: of the report.
        notes: paragraphs for the report, plain text, on how the runs were chosen.
        tuned: what was tuned, a sentence for every caption.
        tuning: grids for the report that say what the tuning came to.
        show_progress: whether to show it on stderr.

    Returns:
        What became of each run, in their order.

    Raises:
        ValueError: an unknown model, dataset or reference, an invalid setting, or runs of one name
            and dataset that differ in more than the seed; nothing was trained then.
        FileInUseError: another comparison is at work in the same folder.

    Example:
        >>> from pathlib import Path
        >>> from recbole_m3rec.compare import Run, compare
        >>> runs = [Run("Pop", "Pop", "ml-100k", seed=2024, settings={"epochs": 1})]
        >>> [outcome] = compare(runs, Path("comparison"), show_progress=False)
        >>> round(outcome.measured["test"]["ndcg@10"], 4)
        0.0226
        >>> Path("comparison", "report.md").is_file()
        True
    """
    names = list(dict.fromkeys(run.name for run in runs))
    if reference is not None and reference not in names:
        raise ConfigurationError(
            f"reference: {reference!r} is none of the runs, {', '.join(names)}."
        )
    planned = plan(runs, output)
    with locked(output):
        train_missing(planned, jobs, show_progress, cluster)
        outcomes = [outcome_of(each) for each in planned]
        write_report(
            outcomes,
            output,
            reference=reference,
            title=title,
            notes=notes,
            tuned=tuned,
            tuning=tuning,
            features=features_of(planned),
        )
    return outcomes


def features_of(planned: Sequence[Planned]) -> dict[str, dict[str, FeatureTable]]:
    """Read the features of each dataset's items, those of the first run that reads any.

    Random codes say nothing of items and are left out.
    """
    found: dict[str, dict[str, FeatureTable]] = {}
    for each in planned:
        if each.run.dataset not in found and content_digests(each.config):
            found[each.run.dataset] = {
                source.modality: feature_table(each.config, source)
                for source in modality_sources(each.config)
                if source.path is not None
            }
    return found


def plan(runs: Sequence[Run], output: Path) -> list[Planned]:
    """Check all runs, see to their data, and find the folders of their results.

    Raises:
        ValueError: an unknown model or dataset, or an invalid setting.
    """
    configs = [configuration(run) for run in runs]
    for config in configs:
        has_data(config)  # all names, before the first file is fetched or made
    for run, config in zip(runs, configs, strict=True):
        try:
            prepare(config)
        except ValueError as error:
            raise ConfigurationError(f"{run.name} on {run.dataset}: {error}") from error
    planned = [
        Planned(run, config, identity, output / "runs" / identity.hash[:20])
        for run, config in zip(runs, configs, strict=True)
        for identity in [identify(config)]
    ]
    refuse_mixtures(planned)
    return planned


def refuse_mixtures(planned: Sequence[Planned]) -> None:
    """Raise where one row of a table would mix settings, or one table files.

    Raises:
        ConfigurationError: seeds of one name that differ in more, or files of one dataset.
    """
    settings: dict[tuple[str, str, str], Planned] = {}
    files: dict[tuple[str, str], tuple[str, str]] = {}
    for each in planned:
        run, config = each.run, each.identity.config
        first = settings.setdefault((run.name, run.dataset, protocol_of(config)), each)
        other = first.identity.config
        differing = sorted(
            key for key in {*config, *other} - {"seed"} if config.get(key) != other.get(key)
        )
        if differing:
            raise ConfigurationError(
                f"Two runs are called {run.name} on {run.dataset}, seeds {first.run.seed} and"
                f" {run.seed}, and differ in {', '.join(differing)}: give each a name of its own."
            )
        for file, digest in each.identity.data.items():
            known, by = files.setdefault((run.dataset, file), (digest, run.name))
            if known != digest and file.startswith(f"{run.dataset}."):
                raise ConfigurationError(
                    f"{by} and {run.name} read other files {file}: one table is about one dataset."
                    " Give the datasets names of their own."
                )


def train_missing(
    planned: Sequence[Planned], jobs: int | None, show_progress: bool, cluster: Cluster
) -> None:
    """Run a worker for each of the planned runs that has no result."""
    missing: dict[Path, Job] = {}
    for each in planned:
        known = results.read_outcome(each.run, each.identity, each.folder)
        if known is not None and known.result is not None:
            results.drop_checkpoints(each.folder)  # of a kill between the two
        elif each.folder not in missing:
            results.write_spec(each.folder, each.run, each.identity, tests=True)
            missing[each.folder] = job_of(each)
    if show_progress:
        there = len({each.folder for each in planned}) - len(missing)
        print(f"{len(missing)} runs to train, {there} of earlier are taken over.", flush=True)
    progress = Progress(len(missing), shown=show_progress)
    run_on(cluster, Listed(missing.values()), jobs, progress)


def job_of(planned: Planned) -> Job:
    """Return the job that trains and tests a planned run."""
    config = planned.config
    return Job(planned.folder, str(planned.run), config["epochs"], config["valid_metric"])


def outcome_of(planned: Planned) -> Outcome:
    """Return what became of a run whose worker has ended."""
    known = results.read_outcome(planned.run, planned.identity, planned.folder)
    if known is not None:
        return known
    missing = "its result is gone; run the comparison again"
    return Outcome(planned.run, planned.identity, planned.folder, None, missing)
