"""A lost process ends the others soon, with one message; torchrun's restart goes on by itself."""

import functools
import os
import re
import signal
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException

from recbole_m3rec.processes import launch, watch
from recbole_m3rec.processes.rendezvous import Options
from recbole_m3rec.support.safe_write import CannotWriteError
from recbole_m3rec.trainer import checkpoint_file
from recbole_m3rec.trainer.progress import Progress
from tests.processes.worlds import free_port, run_world, start_world
from tests.tiny import write_tiny
from tests.trainer.killed_runs import arguments, outcome, start, wait

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="runs are forked"),
    pytest.mark.slow,
]

GIVEN = arguments("M3Rec")
OPTIONS = Options(nproc=2, world_size=4, ip="localhost", port="1", group_offset=2)
# Exit codes where one of two processes is killed, whichever of the two the other hears of it from.
SEEN_BY_COLLECTIVE_OR_WATCH = [[-signal.SIGKILL, 2], [-signal.SIGKILL, watch.LOST]]


def full_at_first(rank):
    """Let the first process find the disk full three times."""
    original, left = checkpoint_file.new_files, [3 * (rank == 0)]

    def new_files(*paths):
        if left[0]:
            left[0] -= 1
            raise CannotWriteError(f"cannot write {paths[0]}")
        return original(*paths)

    checkpoint_file.new_files = new_files


def at_step(step, rank, number):
    """Return what lets one process send itself a signal after a step; watches look often."""

    def prepare(own_rank):
        watch.EVERY, watch.LIMIT = 0.2, 3.0
        if own_rank != rank:
            return
        original, steps = Progress._add_loss, [0]

        def counted(self):
            steps[0] += 1
            if steps[0] == step:
                os.kill(os.getpid(), number)
            original(self)

        Progress._add_loss = counted

    return prepare


def errors_in(folder):
    lines = (folder / "output.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.startswith("error: ")]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = write_tiny(tmp_path_factory.mktemp("runs") / "undisturbed")
    assert run_world(folder, GIVEN, 2) == [0, 0]
    return outcome(folder)


def test_a_disk_that_is_full_for_a_while_stops_none_of_them(tmp_path, undisturbed):
    folder = write_tiny(tmp_path / "run")
    assert run_world(folder, GIVEN, 2, prepare=full_at_first) == [0, 0]
    assert outcome(folder) == undisturbed


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_ends_the_other_and_a_restart_ends_as_undisturbed(
    tmp_path, undisturbed, rank
):
    folder = write_tiny(tmp_path / "run")
    codes = run_world(folder, GIVEN, 2, prepare=at_step(6, rank, signal.SIGKILL))
    assert sorted(codes) in SEEN_BY_COLLECTIVE_OR_WATCH
    error = errors_in(folder)[0]
    assert re.match(r"error: .*rocess.* (lost|gave no sign)", error)
    assert "--resume continues from the latest state that was saved." in error
    (folder / "output.txt").unlink()
    assert run_world(folder, GIVEN, 2, TORCHELASTIC_RESTART_COUNT="1") == [0, 0]
    assert "torchrun restart 1: from saved/M3Rec" in (folder / "output.txt").read_text()
    assert outcome(folder) == undisturbed


@pytest.mark.parametrize(
    ("number", "to_parent", "code"),
    [(signal.SIGTERM, False, 143), (signal.SIGINT, False, 130), (signal.SIGINT, True, 130)],
    ids=["SIGTERM to one", "Ctrl-C to one", "Ctrl-C to the parent"],
)
def test_a_stopped_worker_stops_all_and_the_last_line_names_the_checkpoint(
    tmp_path, undisturbed, number, to_parent, code
):
    folder = write_tiny(tmp_path / "run")
    original, steps = Progress._add_loss, [0]

    def counted(self):
        steps[0] += 1
        if steps[0] == 6 and dist.get_rank() == 1:
            os.kill(os.getppid() if to_parent else os.getpid(), number)
        original(self)

    def prepare():
        launch.mp.spawn = functools.partial(mp.start_processes, start_method="fork")
        Progress._add_loss = counted

    given = [*GIVEN, "--nproc=2", f"--port={free_port()}"]
    assert wait(start(folder, given, prepare)) == code
    [last] = (folder / "saved").glob("*-last.ckpt")
    said = (folder / "output.txt").read_text(encoding="utf-8").splitlines()
    assert said[-1].startswith(f"{number.name}. Resume it by ")
    assert said[-1].endswith(f"resume saved/{last.name}")
    assert run_world(folder, [*GIVEN, "--resume"], 2) == [0, 0]
    assert outcome(folder) == undisturbed


def test_a_restart_before_any_checkpoint_begins_anew(tmp_path, undisturbed):
    folder = write_tiny(tmp_path / "run")
    stop = at_step(2, 1, signal.SIGKILL)
    assert sorted(run_world(folder, GIVEN, 2, prepare=stop)) in SEEN_BY_COLLECTIVE_OR_WATCH
    assert run_world(folder, GIVEN, 2, TORCHELASTIC_RESTART_COUNT="1") == [0, 0]
    assert "torchrun restart 1: from the start" in (folder / "output.txt").read_text()
    assert outcome(folder) == undisturbed


def test_a_restart_does_not_go_on_from_another_start(tmp_path):
    folder = write_tiny(tmp_path / "run")
    assert run_world(folder, GIVEN, 1, TORCHELASTIC_RUN_ID="a") == [0]
    again = {"TORCHELASTIC_RUN_ID": "b", "TORCHELASTIC_RESTART_COUNT": "1"}
    assert run_world(folder, GIVEN, 1, **again) == [0]
    assert "torchrun restart 1: from the start" in (folder / "output.txt").read_text()


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_hangs_ends_the_other(tmp_path, rank):
    folder = write_tiny(tmp_path / "run")
    processes = start_world(folder, GIVEN, 2, prepare=at_step(6, rank, signal.SIGSTOP))
    begun = time.monotonic()
    try:
        assert wait(processes[1 - rank]) == watch.LOST
    finally:
        os.kill(processes[rank], signal.SIGKILL)
        wait(processes[rank])
    assert time.monotonic() - begun < 60
    [error] = errors_in(folder)
    assert "gave no sign" in error or "lost the first process" in error
    assert list((folder / "saved").glob("*-last.ckpt"))


def test_a_slow_save_after_a_signal_is_waited_for(tmp_path):
    folder, stop = write_tiny(tmp_path / "run"), at_step(2, 1, signal.SIGTERM)

    def prepare(rank):
        stop(rank)
        watch.LIMIT = 2.0
        original = checkpoint_file.new_files

        def slow(*paths):
            time.sleep(5 * (rank == 0))
            return original(*paths)

        checkpoint_file.new_files = slow

    assert run_world(folder, GIVEN, 2, prepare=prepare) == [143, 143]
    assert list((folder / "saved").glob("*-last.ckpt"))


def test_processes_that_hang_together_end_when_they_are_told_to(tmp_path):
    folder = write_tiny(tmp_path / "run")

    def prepare(rank):
        watch.EVERY, watch.PATIENCE = 0.2, 3.0

        def wait_for_ever(self):
            Path(f"hangs {rank}").touch()
            dist.recv(torch.zeros(1), src=1 - rank)  # each waits for the other

        Progress._add_loss = wait_for_ever

    processes = start_world(folder, GIVEN, 2, prepare=prepare)
    until = time.monotonic() + 60
    try:
        while len(list(folder.glob("hangs *"))) < 2 and time.monotonic() < until:
            time.sleep(0.1)
        for process in processes:
            os.kill(process, signal.SIGTERM)
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
        while time.monotonic() < until and not all(
            os.waitid(os.P_PID, process, flags) for process in processes
        ):
            time.sleep(0.1)
    finally:
        for process in processes:
            os.kill(process, signal.SIGKILL)
        codes = [wait(process) for process in processes]
    assert watch.LOST in codes
    assert set(codes) <= {2, watch.LOST}
    assert any(
        "was told to end by SIGTERM and stood still for 3 s. Every" in error
        for error in errors_in(folder)
    )


def test_torchrun_says_how_many_processes_there_are(tmp_path):
    folder = write_tiny(tmp_path / "run")
    port = f"--port={free_port()}"  # the default one may be another program's
    assert run_world(folder, [*GIVEN, "--nproc=2", port], 2) == [2, 2]
    assert "torchrun says how many processes there are: leave out --nproc" in errors_in(folder)[0]


def test_without_its_variables_torchrun_has_started_nothing(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "3")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    started = launch.torchrun()
    assert started is not None
    assert started.settings()["offset"] == 0
    monkeypatch.delenv("LOCAL_RANK")
    assert launch.torchrun() is None


def raised(text):
    return ProcessRaisedException(text, 0, 1)


def killed(name, code):
    return ProcessExitedException("gone", 0, 1, exit_code=code, signal_name=name)


def test_what_a_process_raised_explains_the_others():
    lost, own = raised("recbole_m3rec.processes.launch.LostError: gone"), raised("ValueError: NaN")
    assert launch.worst({0: lost, 1: own}, OPTIONS) is own
    told = launch.worst({0: lost, 1: killed("SIGKILL", -9)}, OPTIONS)
    assert str(told).startswith("Process 3 was killed by SIGKILL, perhaps for want of memory. ")
    assert launch.worst({0: lost, 1: killed(None, watch.LOST)}, OPTIONS) is lost
    assert "ended with code 7" in str(launch.worst({0: killed(None, 7)}, OPTIONS))
    assert "as said above" in str(launch.worst({0: killed(None, watch.LOST)}, OPTIONS))


def hang_or_die(rank, folder, *_):
    """Stand in for a worker: the second is killed, the first ignores SIGTERM and never ends."""
    if rank == 1:
        while not Path(folder, "0").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    Path(folder, "0").touch()
    time.sleep(600)


def test_a_process_that_ignores_it_is_ended_when_another_was_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(launch, "GRACE", 0.5)
    forks = functools.partial(mp.start_processes, start_method="fork")  # no second import
    monkeypatch.setattr(launch.mp, "spawn", forks)
    names = ("model", "dataset", "config_file_list", "config_dict")
    given = dict.fromkeys(names) | {"model": str(tmp_path)}
    begun = time.monotonic()
    with pytest.raises(launch.LostError, match="Process 1 was killed by SIGKILL"):
        launch.spawn(hang_or_die, OPTIONS._replace(world_size=-1, group_offset=0), given)
    assert time.monotonic() - begun < 300
