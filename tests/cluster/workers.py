"""A Dask cluster of processes that a test may kill."""

import json
import os
import socket
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
        host: this machine's address for its workers.
        processes: those of its workers, each with one thread and no nanny.
    """

    def __init__(self, folder, net=None):
        self.folder, self.net = folder, net
        self.file = folder / "scheduler.json"
        self.host = net.host if net else "127.0.0.1"
        self.scheduler = self._start("scheduler", [*SCHEDULER, f"--host={self.host}", "--port=0"])
        wait_until(self._is_written)
        self.processes = []

    def _is_written(self):
        """Tell whether the scheduler's file is whole: Dask writes it in place."""
        try:
            return bool(json.loads(self.file.read_text()))
        except (FileNotFoundError, json.JSONDecodeError):
            return False

    def _start(self, name, command, **environment):
        log = open(self.folder / f"{name}.log", "a")  # noqa: SIM115
        return subprocess.Popen(
            [*command, "--no-dashboard", f"--scheduler-file={self.file}"],
            env={**os.environ, "PYTHONPATH": PATHS, "OMP_NUM_THREADS": "1", **environment},
            cwd=self.folder,
            stdout=log,
            stderr=subprocess.STDOUT,
        )

    def add(self, **environment):
        """Start one more worker."""
        self.processes.append(self._worker(len(self.processes), **environment))

    def replace_lost(self):
        """Start a worker in place of each that has ended."""
        for number, process in enumerate(self.processes):
            if process.poll() is not None:
                self.processes[number] = self._worker(number)

    def _worker(self, number, **environment):
        inside = ["ip", "netns", "exec", self.net.spaces[number]] if self.net else []
        host = self.net.address(number) if self.net else "127.0.0.1"
        options = ["--nthreads=1", "--no-nanny", f"--host={host}"]
        return self._start(f"worker{number}", [*inside, *WORKER, *options], **environment)

    def close(self):
        for process in [*self.processes, self.scheduler]:
            process.kill()
            process.wait()


class Net:
    """Two network namespaces and a bridge of this machine between them."""

    def __init__(self):
        self.bridge = f"m3r{os.getpid()}"
        self.host = self.address(253)
        self.spaces = [f"{self.bridge}{side}" for side in "ab"]

    def address(self, number):
        # A bridge that a killed run of the tests left has the number of another process.
        high, low = divmod(os.getpid() % 2**14, 2**8)
        return f"10.{64 + high}.{low}.{number + 1}"

    def make(self):
        commands = [
            f"ip link add {self.bridge} type bridge",
            f"ip addr add {self.host}/24 dev {self.bridge}",
            f"ip link set {self.bridge} up",
        ]
        for number, space in enumerate(self.spaces):
            commands += [
                f"ip netns add {space}",
                f"ip link add {space}h type veth peer name {space}n",
                f"ip link set {space}h master {self.bridge} up",
                f"ip link set {space}n netns {space}",
                f"ip -n {space} addr add {self.address(number)}/24 dev {space}n",
                f"ip -n {space} link set {space}n up",
                f"ip -n {space} link set lo up",
            ]
        for command in commands:
            subprocess.run(command.split(), check=True, capture_output=True)
        with socket.create_server((self.host, 0)) as server:
            reach = f"exec 3<>/dev/tcp/{self.host}/{server.getsockname()[1]}"
            for space in self.spaces:
                inside = ["ip", "netns", "exec", space, "bash", "-c", reach]
                subprocess.run(inside, check=True, capture_output=True, timeout=10)

    def remove(self):
        for space in self.spaces:
            subprocess.run(["ip", "netns", "del", space], capture_output=True)
        subprocess.run(["ip", "link", "del", self.bridge], capture_output=True)


@contextmanager
def workers(folder, n=2, apart=False):
    """Run a cluster of ``n`` workers; its logs are in the folder.

    ``apart``: each worker in a network namespace of its own, or on loopback where that is refused
    or the namespaces do not reach this machine.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    net = Net() if apart else None
    try:
        net and net.make()
    except (OSError, subprocess.SubprocessError):
        net.remove()
        net = None
    cluster = None
    try:
        cluster = Workers(folder, net)
        for _ in range(n):
            cluster.add()
        yield cluster
    finally:
        if cluster:
            cluster.close()
        if net:
            net.remove()


def kill(process):
    """End a process as a machine that fails does."""
    process.kill()
    process.wait()


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
