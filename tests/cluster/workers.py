"""A Dask cluster of processes that a test may kill."""

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

from recbole_m3rec.cluster.connect import connected
from tests.fresh_python import PATHS

SCHEDULER = [sys.executable, "-m", "distributed.cli.dask_scheduler"]
WORKER = [sys.executable, "-m", "distributed.cli.dask_worker"]


class Workers:
    """A running cluster.

    Attributes:
        file: its scheduler file.
        processes: those of its workers, each with one thread and no nanny.
    """

    def __init__(self, folder):
        self.folder = folder
        self.file = folder / "scheduler.json"
        self.scheduler = self._start("scheduler", *SCHEDULER, "--host=127.0.0.1", "--port=0")
        wait_until(self.file.is_file)
        self.processes = []

    def _start(self, name, *command, **environment):
        log = open(self.folder / f"{name}.log", "w")  # noqa: SIM115
        return subprocess.Popen(
            [*command, "--no-dashboard", f"--scheduler-file={self.file}"],
            env={**os.environ, "PYTHONPATH": PATHS, "OMP_NUM_THREADS": "1", **environment},
            cwd=self.folder,
            stdout=log,
            stderr=subprocess.STDOUT,
        )

    def add(self, **environment):
        """Start a worker that is always there; return its process."""
        name = f"worker{len(self.processes)}"
        options = ["--nthreads=1", "--no-nanny", "--host=127.0.0.1", f"--name={name}"]
        self.processes.append(self._start(name, *WORKER, *options, **environment))
        return self.processes[-1]

    def close(self):
        for process in [*self.processes, self.scheduler]:
            process.kill()
            process.wait()


@contextmanager
def workers(folder, n=2):
    """Run a cluster of ``n`` workers; its logs are in the folder."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    cluster = Workers(folder)
    try:
        for _ in range(n):
            cluster.add()
        yield cluster
    finally:
        cluster.close()


def kill(process):
    """End a process as a machine that fails does."""
    os.kill(process.pid, signal.SIGKILL)


def wait_until(condition, seconds=60):
    """Wait until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def wait_for_workers(running):
    """Wait until all workers have joined."""
    with connected(str(running.file)) as cluster:
        wait_until(lambda: len(cluster.client.nthreads()) == len(running.processes))
