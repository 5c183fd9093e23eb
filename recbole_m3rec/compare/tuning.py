"""Tuning: the same number of trials for every model, judged on validation."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from recbole_m3rec.cluster.pieces import THIS_PROCESS, Cluster
from recbole_m3rec.compare import results
from recbole_m3rec.compare.on_cluster import run_on
from recbole_m3rec.compare.report.document import Entry, Grid
from recbole_m3rec.compare.runs import Identity, Run, configuration, has_data, identify, prepare
from recbole_m3rec.compare.scheduler import Job, Progress
from recbole_m3rec.compare.search_space import Range, space_of
from recbole_m3rec.config.known_keys import SLIP, known_keys, unknown
from recbole_m3rec.config.yaml_files import ConfigurationError
from recbole_m3rec.support.safe_write import drop_half_line
from recbole_m3rec.support.suggestions import nearest

FAILED = "failure"  # attribute of a trial whose training failed, with the reason
PARTS = ("completed", "pruned", "failed")


@dataclass(frozen=True)
class Tuned:
    """What the tuning of a model on a dataset came to.

    Attributes:
        run: a run with the chosen settings.
        space: what was searched; None where the model has no search space.
        trials: how many there were by ``PARTS``.
        chosen: the best settings found.
        score: their validation score.
        metric: what it is.
        failure: why no trial succeeded, None where one did.
    """

    run: Run
    space: Mapping[str, Range] | None
    trials: Mapping[str, int]
    chosen: Mapping[str, Any]
    score: float | None
    metric: str
    failure: str | None = None


def tune(
    runs: Sequence[Run],
    output: Path,
    trials: int,
    jobs: int | None = None,
    *,
    cluster: Cluster = THIS_PROCESS,
    show_progress: bool = True,
) -> list[Tuned]:
    """Search each run's settings by Optuna's TPE, trials stopped early by its median rule.

    A trial trains with the run's seed and never sees the test data. Studies lie in
    ``output/tuning`` and go on where they were; another search space, configuration or dataset
    begins another study.

    Args:
        runs: one for each model and dataset; their settings stay as they are.
        output: the comparison's folder.
        trials: for each run, those counted that were stopped or failed.
        jobs: how many train at once, as in ``compare``.
        cluster: where they train.
        show_progress: whether to show it on stderr.

    Raises:
        ConfigurationError: Optuna is not installed.
    """
    if importlib.util.find_spec("optuna") is None:
        raise ConfigurationError("--tune needs Optuna: pip install 'recbole_m3rec[tuning]'.")
    for run in runs:
        has_data(configuration(run))  # all names, before the first study is opened
    studies = [_Study(run, output, trials) for run in runs]
    missing = sum(study.left() for study in studies)
    progress = Progress(missing, "trials", show_progress)
    run_on(cluster, _Trials(studies), jobs, progress)
    for study in studies:
        if failures := study.failures():
            progress.say(
                f"{study.run.name} on {study.run.dataset}: {len(failures)} of {trials} trials"
                f" failed, the last one: {failures[-1]}"
            )
    return [study.outcome() for study in studies]


class _Tried(NamedTuple):
    """Settings that are being tried: by one trial, and for those that drew them meanwhile."""

    run: Run
    identity: Identity
    trials: list[Any]


class _Study:
    """One model on one dataset."""

    def __init__(self, run: Run, output: Path, trials: int) -> None:
        self.run, self.output, self.trials = run, output, trials
        config = configuration(run)
        prepare(config)
        if not 0 < config["eval_step"] <= config["epochs"]:
            raise ConfigurationError(
                f"{run.name} on {run.dataset}: eval_step: {config['eval_step']} and epochs:"
                f" {config['epochs']} leave the validation out, by which --tune judges. Set"
                " eval_step: 1 and some epochs, or leave --tune out."
            )
        self.metric, self.bigger = config["valid_metric"], config["valid_metric_bigger"]
        self.epochs = config["epochs"]
        space = space_of(run.model)
        # without what a person has fixed
        self.space = space and {name: space[name] for name in space if name not in run.settings}
        known = known_keys(config)
        for name in sorted(set(self.space or ()) - known):
            meant = nearest(name, known, likeness=SLIP)
            raise ConfigurationError(
                unknown(name, f"the search space of {run.model}", meant, known, run.model)
            )
        self.running: dict[Path, _Tried] = {}
        if self.space:
            self.study = self._open(identify(config))

    def _open(self, identity: Identity) -> Any:
        """Open the study, as far as it came, and give back what a kill left unfinished."""
        import optuna
        from optuna.storages.journal import JournalFileBackend

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        ranges = {
            name: f"{values}{', whole' * values.is_whole}"
            for name, values in (self.space or {}).items()
        }
        text = json.dumps([identity.hash, ranges], sort_keys=True)
        key = hashlib.sha256(text.encode()).hexdigest()[:12]
        file = self.output / "tuning" / f"{self.run.model}-{self.run.dataset}-{key}.journal"
        file.parent.mkdir(parents=True, exist_ok=True)
        drop_half_line(file)
        study = optuna.create_study(
            study_name=file.stem,
            storage=optuna.storages.JournalStorage(JournalFileBackend(str(file))),
            load_if_exists=True,
            direction="maximize" if self.bigger else "minimize",
            pruner=optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=3),
        )
        # Not the numbers that the trials before a kill were drawn by.
        study.sampler = optuna.samplers.TPESampler(seed=self.run.seed + len(study.trials))
        for trial in study.get_trials(states=[optuna.trial.TrialState.RUNNING]):
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
            study.enqueue_trial(trial.params)
        return study

    def failures(self) -> list[str]:
        """Return why trials failed, in their order."""
        trials = self.study.get_trials(deepcopy=False) if self.space else []
        return [trial.user_attrs[FAILED] for trial in trials if FAILED in trial.user_attrs]

    def counted(self) -> dict[str, int]:
        """Return how many trials ended how; those that a kill cut off do not count."""
        if not self.space:
            return dict.fromkeys(PARTS, 0)
        trials = self.study.get_trials(deepcopy=False)
        states = [trial.state.name for trial in trials]
        ended = (states.count("COMPLETE"), states.count("PRUNED"), len(self.failures()))
        return dict(zip(PARTS, ended, strict=True))

    def left(self) -> int:
        """Return how many trials are still to be started."""
        if not self.space:
            return 0
        running = sum(len(tried.trials) for tried in self.running.values())
        return max(0, self.trials - sum(self.counted().values()) - running)

    def next_job(self) -> Job | None:
        """Return the job of another trial, None where there is none to start.

        Settings that were tried before have their result at once.
        """
        while self.left():
            trial = self.study.ask()
            chosen = {
                name: each.suggested(trial, name) for name, each in (self.space or {}).items()
            }
            label = f"{self.run.name} on {self.run.dataset}, trial {trial.number + 1}"
            run = replace(self.run, name=label, settings={**self.run.settings, **chosen})
            trial.set_user_attr("chosen", chosen)
            try:
                identity = identify(configuration(run))
            except ValueError as error:  # settings that do not go together
                self._fail(trial, str(error))
                continue
            folder = self.output / "trials" / identity.hash[:20]
            known = results.read_outcome(run, identity, folder)
            if known is not None and known.result is not None:
                results.drop_checkpoints(folder)
                self._tell(trial, known)
                continue
            if folder in self.running:
                self.running[folder].trials.append(trial)
                continue
            results.write_spec(folder, run, identity, tests=False)
            self.running[folder] = _Tried(run, identity, [trial])
            return Job(folder, label, self.epochs, self.metric, self._watch(trial))
        return None

    def _watch(self, trial: Any) -> Any:
        def stops(epoch: Mapping[str, Any]) -> bool:
            if "score" not in epoch:
                return False
            trial.report(epoch["score"], epoch["epoch"])
            return bool(trial.should_prune())

        return stops

    def ended(self, job: Job) -> None:
        """Tell the study what became of a trial, and of those that drew the same settings."""
        import optuna

        tried = self.running.pop(job.folder)
        known = results.read_outcome(tried.run, tried.identity, job.folder)
        for trial in tried.trials:
            if job.stopped and (known is None or known.result is None):
                self.study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            else:
                self._tell(trial, known)

    def _tell(self, trial: Any, known: results.Outcome | None) -> None:
        if known is None or known.result is None:
            self._fail(trial, (known.failure if known else None) or "no result")
        elif (score := known.result["score"]) is None or not math.isfinite(score):
            self._fail(trial, f"its validation score is {score}")
        else:
            self.study.tell(trial, score)

    def _fail(self, trial: Any, why: str) -> None:
        import optuna

        trial.set_user_attr(FAILED, why)
        self.study.tell(trial, state=optuna.trial.TrialState.FAIL)

    def outcome(self) -> Tuned:
        """Return the best settings; where every trial failed, the configured ones, and why."""
        counted = self.counted()
        if not self.space:
            return Tuned(self.run, self.space, counted, {}, None, self.metric)
        if not counted["completed"]:
            failure = (self.failures() or ["no trial came to its end"])[-1]
            return Tuned(self.run, self.space, counted, {}, None, self.metric, failure)
        best = self.study.best_trial
        chosen = best.user_attrs["chosen"]
        run = replace(self.run, settings={**self.run.settings, **chosen})
        return Tuned(run, self.space, counted, chosen, best.value, self.metric)


class _Trials:
    """The trials of several studies; the study with the most left comes first."""

    def __init__(self, studies: Sequence[_Study]) -> None:
        self.studies = studies

    def next_job(self) -> Job | None:
        """Return a trial to start."""
        for study in sorted(self.studies, key=lambda study: -study.left()):
            job = study.next_job()
            if job is not None:
                return job
        return None

    def ended(self, job: Job) -> None:
        """Hand a trial's end to its study."""
        next(study for study in self.studies if job.folder in study.running).ended(job)


def tuning_sentence(tuned: Sequence[Tuned], trials: int) -> str:
    """Return what was tuned, for captions."""
    metric = " or ".join(dict.fromkeys(each.metric for each in tuned)) or "the validation metric"
    rest = [each.run.name for each in tuned if not each.chosen]
    text = (
        f"Tuned: {trials} trials for each model with a search space, judged by valid {metric}; the "
        "test data was used once, for the chosen settings."
    )
    return text + (
        f" Not tuned, configured settings: {', '.join(dict.fromkeys(rest))}." * bool(rest)
    )


def tuning_grid(tuned: Sequence[Tuned]) -> Grid:
    """Return what was searched for each model and what was chosen."""
    rows = []
    for each in tuned:
        if each.space is None:
            space = "no search space: configured settings"
        elif not each.space:
            space = "all of its search space was set by hand"
        else:
            space = "; ".join(f"{name}: {values}" for name, values in each.space.items())
        counts = ", ".join(f"{each.trials[part]} {part}" for part in PARTS if each.trials[part])
        chosen = "; ".join(f"{name}: {value}" for name, value in each.chosen.items())
        if each.failure is not None:
            chosen = f"nothing, configured settings, for every trial failed: {each.failure}"
        score = "–" if each.score is None else f"{each.metric} {each.score:.4f}"
        texts = (each.run.name, each.run.dataset, score, counts or "none", chosen or "–", space)
        rows.append([Entry(text) for text in texts])
    said = (
        "What was tuned: random starts and then Optuna's TPE, trials that fall behind the median "
        "stopped early; each with the first seed, on validation alone."
    )
    head = ["model", "dataset", "validation", "trials", "chosen", "searched"]
    return Grid(said, head, rows, texts=frozenset([1, 3, 4, 5]))
