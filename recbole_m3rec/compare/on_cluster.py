"""Trains runs on a cluster: what a run is to do travels there, its lines and files come back."""

from __future__ import annotations

import os
import queue
import tempfile
import time
import uuid
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from recbole_m3rec.cluster.dask_cluster import DaskCluster
from recbole_m3rec.cluster.pieces import Cluster
from recbole_m3rec.compare import results
from recbole_m3rec.compare.scheduler import (
    LOG,
    Events,
    Job,
    Progress,
    Source,
    environment_for,
    run_all,
    start,
    threads_of_a_worker,
)
from recbole_m3rec.support.safe_write import write_whole

# In this order, so that what was written last says that all is there.
FILES = (LOG, results.USERS, results.LISTS, results.FAILURE, results.RESULT)


class NotWantedError(Exception):
    """The run was cancelled, or the process that asked for it is gone."""


def run_on(cluster: Cluster, source: Source, at_once: int | None, progress: Progress) -> None:
    """Run a source's jobs on a cluster; by default as many at once as it has workers."""
    begin = partial(_RemoteWorker, cluster) if isinstance(cluster, DaskCluster) else None
    try:
        run_all(source, lambda: at_once or cluster.n_workers, progress, begin)
    except KeyboardInterrupt as stopped:
        if begin is not None:
            stopped.args = ("Interrupted: finished runs are kept, those under way begin anew",)
        raise


class _RemoteWorker:
    """A job whose process runs on a worker of a cluster."""

    def __init__(self, cluster: DaskCluster, job: Job, events: Events) -> None:
        self.cluster, self.job, self.killed = cluster, job, False
        self.topic = f"recbole_m3rec-{uuid.uuid4().hex}"
        cluster.client.subscribe_topic(self.topic, lambda event: events.put((job, event[1])))
        threads = threads_of_a_worker(1)
        spec = (job.folder / results.SPEC).read_text(encoding="utf-8")
        self.future = cluster.submit(train, spec, os.getcwd(), threads, self.topic)
        self.future.add_done_callback(lambda future: events.put((job, None)))

    def wait(self) -> int:
        """Write the files that came back; return the exit code."""
        self.cluster.client.unsubscribe_topic(self.topic)
        if self.killed:
            return -9
        code, files = self.cluster.result(self.future)
        for name, content in files.items():
            write_whole(self.job.folder / name, content)
        return int(code)

    def kill(self) -> None:
        """End the process; the worker sees within a second that nobody waits for it."""
        self.killed = True
        self.future.cancel()


def train(
    spec: str, cwd: str, threads: Mapping[str, str], topic: str
) -> tuple[int, dict[str, bytes]]:
    """Run a comparison's worker process on a worker of the cluster.

    Args:
        spec: what the process is to do, as JSON.
        cwd: the folder that paths are relative to.
        threads: variables of the environment.
        topic: gets the lines that the process says.

    Returns:
        The exit code, and the files that the process left by name.
    """
    from distributed import get_worker

    here = get_worker()
    key = here.get_current_task()
    with tempfile.TemporaryDirectory(prefix="recbole_m3rec-") as folder:
        job = Job(Path(folder), "", epochs=0)
        (job.folder / results.SPEC).write_text(spec, encoding="utf-8")
        events: Events = queue.Queue()
        process = start(job, {**environment_for(1), **threads}, events, cwd)
        asked = time.monotonic()
        try:
            while (line := _next(events)) is not None:
                if line:
                    here.log_event(topic, line)
                if time.monotonic() - asked >= 1:
                    asked = time.monotonic()
                    if not _is_wanted(here, key):
                        raise NotWantedError(key)
        except BaseException:
            process.kill()
            raise
        finally:
            code = process.wait()
        there = [name for name in FILES if (job.folder / name).is_file()]
        return code, {name: (job.folder / name).read_bytes() for name in there}


def _next(events: Events) -> str | None:
    """Return the next line, None at their end, ``""`` where a second brought none."""
    try:
        return events.get(timeout=1.0)[1]
    except queue.Empty:
        return ""


def _is_wanted(worker: Any, key: Any) -> bool:
    """Whether the scheduler still wants a task.

    Not if it was cancelled, its client is gone, or the worker closes as it lost the scheduler.
    """
    task = worker.state.tasks.get(key)
    closes = worker.status.name in ("closing", "closed", "failed")
    return task is not None and task.state == "executing" and not closes
