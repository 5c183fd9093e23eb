"""Starts workers side by side, listens to them, shows how far they are and stops them."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from tqdm import tqdm

from recbole_m3rec.compare import results

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
LOG = "log.txt"


@dataclass(eq=False)
class Job:
    """One worker's work.

    Attributes:
        folder: holds the worker's ``spec.json``.
        label: what the progress calls it.
        epochs: how many there may be.
        metric: what the score of an epoch is.
        on_epoch: gets what the worker tells of an epoch; True stops the worker.
    """

    folder: Path
    label: str
    epochs: int
    metric: str = ""
    on_epoch: Callable[[Mapping[str, Any]], bool] = field(default=lambda epoch: False)
    stopped: bool = False


class Source(Protocol):
    """Where the jobs come from; some may depend on what became of others."""

    def next_job(self) -> Job | None:
        """Return a job to start now, None where there is none before another ends."""

    def ended(self, job: Job) -> None:
        """Take notice that a job's worker ended; its folder says how."""


class Listed:
    """A source of jobs that are known from the start."""

    def __init__(self, jobs: Iterable[Job]) -> None:
        self.jobs = list(jobs)[::-1]

    def next_job(self) -> Job | None:
        """Return the first job that was not started."""
        return self.jobs.pop() if self.jobs else None

    def ended(self, job: Job) -> None:
        """Nothing depends on it."""


class Worker(Protocol):
    """A job that is being done."""

    def wait(self) -> int:
        """Return the exit code of the job's process, once its last event has arrived."""

    def kill(self) -> None:
        """End it."""


Events: TypeAlias = "queue.Queue[tuple[Job, str | None]]"
Start: TypeAlias = Callable[[Job, Events], Worker]


def run_all(
    source: Source,
    at_once: Callable[[], int],
    progress: Progress,
    begin: Start | None = None,
) -> None:
    """Run a source's jobs, so many at once; an error or interrupt here ends all workers.

    The checkpoints of workers that are ended so stay, and their jobs can go on from there.

    Args:
        at_once: asked again and again, as workers come and go.
        progress: shows them, and is closed at the end.
        begin: starts a job, whose lines and None at their end arrive as events; None starts a
            process of this machine.
    """
    environment = environment_for(at_once())
    events: Events = queue.Queue()
    running: dict[Job, Worker] = {}
    begin = begin or (lambda job, events: start(job, environment, events))
    try:
        while True:
            while len(running) < at_once() and (job := source.next_job()) is not None:
                running[job] = begin(job, events)
                progress.started(job)
            if not running:
                return
            try:
                job, line = events.get(timeout=1.0)  # Windows hears no Ctrl-C while it waits
            except queue.Empty:
                continue
            if line is None:
                code = running.pop(job).wait()
                note_death(job, code)
                results.drop_checkpoints(job.folder)
                progress.ended(job, failed=(job.folder / results.FAILURE).is_file())
                source.ended(job)
            elif not job.stopped and (epoch := read_line(line)) is not None:
                progress.epoch(job, epoch)
                if job.on_epoch(epoch):
                    job.stopped = True
                    running[job].kill()
    finally:
        for process in running.values():
            process.kill()
        for process in running.values():
            process.wait()
        progress.close()


def start(
    job: Job, environment: Mapping[str, str], events: Events, cwd: str | None = None
) -> subprocess.Popen[str]:
    """Start a worker, in this process's folder or another; its lines, then None, are events."""
    goes_on = (job.folder / results.CHECKPOINTS).is_dir()
    with open(job.folder / LOG, "a" if goes_on else "w", encoding="utf-8") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "recbole_m3rec.compare.worker", str(job.folder.resolve())],
            stdin=subprocess.PIPE,  # never written to: its end is this process's end
            stdout=subprocess.PIPE,
            stderr=log,
            env=dict(environment),
            cwd=cwd,
            text=True,
            encoding="utf-8",
            start_new_session=True,  # Ctrl-C is for this process, which ends its workers
        )

    def listen() -> None:
        if process.stdout is not None:
            for line in process.stdout:
                events.put((job, line))
        events.put((job, None))

    threading.Thread(target=listen, daemon=True).start()
    return process


def threads_of_a_worker(default: int) -> dict[str, str]:
    """Return the variables that say how many threads a worker has.

    A number that a person has set stays, and that of OMP_NUM_THREADS holds for all.
    """
    common = os.environ.get("OMP_NUM_THREADS", str(default))
    return {name: os.environ.get(name, common) for name in THREADS}


def environment_for(at_once: int) -> dict[str, str]:
    """Return this process's environment with its processors divided among the workers."""
    try:
        processors = len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        processors = os.cpu_count() or 1
    threads = threads_of_a_worker(max(1, processors // at_once))
    package = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
    return {**os.environ, **threads, "PYTHONPATH": path}


def read_line(line: str) -> dict[str, Any] | None:
    """Return what a worker told of an epoch, None for anything else."""
    try:
        told = json.loads(line)
    except json.JSONDecodeError:
        return None
    return told if isinstance(told, dict) else None


def note_death(job: Job, code: int) -> None:
    """Write a failure for a worker that ended without a word of its own."""
    if job.stopped or code == 0:
        return
    if (job.folder / results.RESULT).is_file() or (job.folder / results.FAILURE).is_file():
        return
    if code < 0:
        name = signal.Signals(-code).name
        why = " (the system does that when memory runs out)" if name == "SIGKILL" else ""
        message = f"ended by {name}{why}"
    else:
        message = f"ended with exit code {code}; {job.folder / LOG} says more"
    results.write_failure(job.folder, message)


class Progress:
    """Shows jobs as they start, get on and end."""

    def __init__(self, total: int, what: str = "runs", shown: bool = True) -> None:
        self.shown = shown
        self.bars: dict[Any, tqdm[Any]] = {}
        self.scores: dict[Any, str] = {}
        self.done = 0
        self.total = total
        self.terminal = shown and sys.stderr.isatty()
        self.all = tqdm(total=total, desc=what, unit="run") if self.terminal else None

    def started(self, job: Any) -> None:
        """Show a job that starts."""
        if not self.terminal:
            self.say(f"{job.label}: started")
            return
        self.bars[job] = tqdm(total=job.epochs, desc=job.label, unit="epoch", leave=False)

    def epoch(self, job: Any, epoch: Mapping[str, Any]) -> None:
        """Show how far a job is."""
        score = f"valid {job.metric} {epoch['score']:.4f}" if "score" in epoch else ""
        self.scores[job] = f"epoch {epoch['epoch'] + 1}, {score}"
        if (bar := self.bars.get(job)) is not None:
            bar.set_postfix_str(score, refresh=False)
            bar.update(epoch["epoch"] + 1 - bar.n)

    def ended(self, job: Any, failed: bool = False) -> None:
        """Show that a job ended."""
        self.done += 1
        if job in self.bars:
            self.bars.pop(job).close()
        if self.all is not None:
            self.all.update()
        end = "failed" if failed else "stopped early" if job.stopped else "done"
        last = f", last {self.scores.pop(job)}" if job in self.scores else ""
        self.say(f"{job.label}: {end}{last} ({self.done} of {self.total})")

    def say(self, text: str) -> None:
        """Write a line above the bars."""
        if self.terminal:
            tqdm.write(text, file=sys.stderr)
        elif self.shown:
            print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Take the bars away."""
        for bar in [*self.bars.values(), *filter(None, [self.all])]:
            bar.close()
