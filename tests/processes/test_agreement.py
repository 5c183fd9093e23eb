"""Machines that were started with different settings or data train nothing together."""

import os
import time
from types import SimpleNamespace

import pytest
from recbole.quick_start import quick_start

from recbole_m3rec.cli import train
from recbole_m3rec.processes import agreement, watch
from recbole_m3rec.trainer import pipeline
from tests.processes.worlds import run_world
from tests.tiny import write_tiny
from tests.trainer.killed_runs import arguments

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="runs are forked"),
    pytest.mark.slow,
]


def run_two(tmp_path, *second, change=lambda folder: None, first=()):
    """Run two machines, the second with more arguments; return exit codes and errors of each."""
    names = {argument.partition("=")[0] for argument in second}
    shared = [each for each in arguments("M3Rec") if each.partition("=")[0] not in names]
    places = [write_tiny(tmp_path / name) for name in "ab"]
    change(places[1])

    def prepare(rank):
        original = train.main
        train.main = lambda given: original([*shared, *second] if rank == 1 else given)

    codes = run_world(places, [*arguments("M3Rec"), *first], 2, local_world_size=1, prepare=prepare)
    said = [(place / "output.txt").read_text(encoding="utf-8") for place in places]
    return codes, ["".join(t for t in text.splitlines() if t[:6] == "error:") for text in said]


@pytest.mark.parametrize(
    ("second", "says"),
    [
        ("--learning_rate=0.1", "learning_rate (0.02 in process 0, 0.1 in process 1)"),
        ("--learning_rate=0.0200000001", "(0.02 in process 0, 0.0200000001 in process 1)"),
        ("--seed=5", "seed (2024 in process 0, 5 in process 1)"),
    ],
)
def test_other_settings_are_one_message_on_every_machine(tmp_path, second, says):
    codes, errors = run_two(tmp_path, second)
    assert codes == [2, 2]
    for error in errors:
        assert error.startswith("error: The processes differ in ")
        assert says in error


def test_other_versions_are_named(tmp_path):
    def prepare(rank):
        pipeline.versions_of_training = lambda: {"torch": f"2.{rank}"}

    folder = write_tiny(tmp_path / "run")
    assert run_world(folder, arguments("M3Rec"), 2, prepare=prepare) == [2, 2]
    said = (folder / "output.txt").read_text(encoding="utf-8")
    assert "differ in torch (2.0 in process 0, 2.1 in process 1)" in said


def test_settings_are_named_before_the_files_that_follow_from_them(monkeypatch):
    told = [({"seed": "1"}, {"image": "a"}), ({"seed": "2"}, {"image": "b"})]
    gather = SimpleNamespace(
        get_world_size=lambda: 2,
        all_gather_object=lambda into, own: into.__setitem__(slice(None), told),
    )
    monkeypatch.setattr(agreement, "dist", gather)
    with pytest.raises(agreement.DifferingError, match=r"differ in seed .*; image "):
        agreement.agree(*told[0])


def test_one_that_reads_its_data_slowly_is_waited_for(tmp_path):
    def prepare(rank):
        watch.EVERY, watch.LIMIT = 0.2, 2.0
        original = quick_start.create_dataset
        quick_start.create_dataset = lambda config: (time.sleep(5 * rank), original(config))[1]

    assert run_world(write_tiny(tmp_path / "run"), arguments("M3Rec"), 2, prepare=prepare) == [0, 0]


@pytest.mark.parametrize("second", ["--weight_decay=0", "--weight_decay=0.0"])
def test_equal_numbers_and_files_that_one_alone_has_are_no_difference(tmp_path, second):
    def change(folder):
        item = folder / "dataset" / "tiny" / "tiny.net"
        item.write_text("source_id:token\ttarget_id:token\n", encoding="utf-8")

    codes, _ = run_two(tmp_path, second, change=change, first=["--weight_decay=0.0"])
    assert codes == [0, 0]


def test_other_data_are_named(tmp_path):
    def change(folder):
        [file] = folder.glob("dataset/tiny/tiny.inter")
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
        file.write_text("".join([lines[0], *lines[:0:-1]]), encoding="utf-8")

    codes, errors = run_two(tmp_path, change=change)
    assert codes == [2, 2]
    assert all("differ in tiny.inter (SHA-256 " in error for error in errors)


def test_what_may_differ_between_machines_does(tmp_path):
    def change(folder):
        (folder / "dataset").rename(folder / "elsewhere")

    codes, errors = run_two(
        tmp_path,
        "--data_path=elsewhere",
        "--checkpoint_dir=other",
        "--state=WARNING",
        change=change,
    )
    assert codes == [0, 0], errors
