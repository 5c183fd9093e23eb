"""Worker processes: one that dies, one that is stopped, an interrupt, and the threads of each."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from recbole_m3rec.compare import comparison, results, scheduler
from recbole_m3rec.compare.on_cluster import run_on


@pytest.fixture
def sham(monkeypatch, tmp_path):
    """Return a function that makes a job whose worker runs given Python lines."""
    real = subprocess.Popen
    code = {}

    def popen(command, **keys):
        return real([sys.executable, "-c", code[Path(command[-1]).name]], **keys)

    monkeypatch.setattr(scheduler.subprocess, "Popen", popen)

    def make(lines):
        folder = tmp_path / f"job{len(code)}"
        folder.mkdir()
        code[folder.name] = lines
        return scheduler.Job(folder, folder.name, epochs=2)

    return make


def run_jobs(*jobs, at_once=1):
    progress = comparison.Progress(len(jobs), shown=False)
    scheduler.run_all(scheduler.Listed(jobs), lambda: at_once, progress)


def failure(job):
    text = (job.folder / results.FAILURE).read_text(encoding="utf-8")
    return str(json.loads(text)["message"])


def test_a_worker_that_dies_is_a_failure_and_the_next_one_runs(sham):
    killed = sham("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    crashed = sham("import sys; print('why', file=sys.stderr); sys.exit(3)")
    fine = sham("open('fine', 'w').close()")
    (killed.folder / results.CHECKPOINTS).mkdir()
    run_jobs(killed, crashed, fine)
    assert "SIGKILL" in failure(killed)
    assert "memory" in failure(killed)
    assert "exit code 3" in failure(crashed)
    assert (crashed.folder / scheduler.LOG).read_text(encoding="utf-8") == "why\n"
    assert Path("fine").exists()
    assert not (fine.folder / results.FAILURE).exists()
    assert not (killed.folder / results.CHECKPOINTS).exists()


def test_workers_that_join_late_are_used(sham):
    counts = iter([1, 1, 1])

    class Growing:
        n_workers = property(lambda self: next(counts, 2))

    first = sham(
        "import os, sys, time\nend = time.time() + 20\nwhile not os.path.exists('second'):\n"
        "    time.sleep(0.05)\n    if time.time() > end:\n        sys.exit(3)"
    )
    second = sham("open('second', 'w').close()")
    progress = comparison.Progress(2, shown=False)
    run_on(Growing(), scheduler.Listed([first, second]), None, progress)
    assert not (first.folder / results.FAILURE).exists()


def test_what_a_worker_tells_arrives_and_may_stop_it(sham):
    job = sham(
        "import json, time\nprint('noise', flush=True)\n"
        "for e in (0, 1):\n    print(json.dumps({'epoch': e, 'score': 0.5}), flush=True)\n"
        "time.sleep(600)\n"
    )
    told = []

    def stop(epoch):
        told.append(epoch["epoch"])
        return epoch["epoch"] == 1

    job.on_epoch = stop
    run_jobs(job)
    assert told == [0, 1]
    assert job.stopped
    assert not (job.folder / results.FAILURE).exists()


def test_an_interrupt_ends_the_workers(sham, monkeypatch):
    job = sham("import time; print('{\"epoch\": 0}', flush=True); time.sleep(600)")
    (job.folder / results.CHECKPOINTS).mkdir()
    started = []
    real = scheduler.start

    def start(*args):
        started.append(real(*args))
        return started[-1]

    monkeypatch.setattr(scheduler, "start", start)

    def interrupt(epoch):
        raise KeyboardInterrupt

    job.on_epoch = interrupt
    with pytest.raises(KeyboardInterrupt):
        run_jobs(job)
    assert started[0].returncode is not None
    assert (job.folder / results.CHECKPOINTS).exists()  # from which the job can go on


def test_threads_are_divided_among_the_workers(monkeypatch):
    for name in scheduler.THREADS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(scheduler.os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    assert scheduler.environment_for(3)["OMP_NUM_THREADS"] == "2"
    assert scheduler.environment_for(99)["OMP_NUM_THREADS"] == "1"
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert {scheduler.environment_for(3)[name] for name in scheduler.THREADS} == {"5"}
    monkeypatch.setenv("MKL_NUM_THREADS", "4")
    assert scheduler.environment_for(3)["MKL_NUM_THREADS"] == "4"
