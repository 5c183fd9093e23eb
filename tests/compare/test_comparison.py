"""Whole comparisons in worker processes: what fails, what is interrupted, what is kept."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from recbole.quick_start import run_recbole

from recbole_m3rec.cli import compare as __main__
from recbole_m3rec.cluster.pieces import THIS_PROCESS
from recbole_m3rec.compare import comparison, results, worker
from recbole_m3rec.compare.comparison import compare
from recbole_m3rec.compare.report.aggregate import tables
from recbole_m3rec.compare.runs import Run
from recbole_m3rec.compare.user_values import Lists
from recbole_m3rec.config.yaml_files import ConfigurationError
from recbole_m3rec.support import written_here
from recbole_m3rec.support.hashing import sha256_of
from recbole_m3rec.support.safe_write import (
    CannotWriteError,
    FileInUseError,
    open_alone,
    write_whole,
)
from recbole_m3rec.trainer import safe_format

PACKAGE = Path(comparison.__file__).parents[2]


@pytest.mark.parametrize(
    ("runs", "reference", "said"),
    [
        ([Run("A", "Pop", "tiny", 1, {})], "B", "'B' is none of the runs, A"),
        (
            [Run("A", "ItemKNN", "tiny", 1, {"k": 1}), Run("A", "ItemKNN", "tiny", 1, {"k": 2})],
            None,
            "Two runs are called A on tiny, seeds 1 and 1, and differ in k: give",
        ),
        (
            [Run("A", "ItemKNN", "tiny", 1, {"k": 1}), Run("A", "ItemKNN", "tiny", 2, {"k": 2})],
            None,
            "Two runs are called A on tiny, seeds 1 and 2, and differ in k: give",
        ),
        (
            [Run("A", "Random", "tiny", 1, {}), Run("A", "Pop", "tiny", 2, {})],
            None,
            "Two runs are called A on tiny, seeds 1 and 2, and differ in .*model",
        ),
        (
            [Run("A", "Pop", "tiny", 1, {}), Run("B", "Pop", "tiny", 1, {"data_path": "other"})],
            None,
            "A and B read other files tiny.inter: one table is about one dataset",
        ),
    ],
)
def test_runs_that_a_table_would_mix_up_are_refused(
    write_dataset, tmp_path, refuse_workers, runs, reference, said
):
    write_dataset("tiny", shuffle=1)
    shutil.copytree("dataset", "other")
    write_dataset("tiny")
    refuse_workers()
    with pytest.raises(ConfigurationError, match=said):
        compare(runs, tmp_path / "out", reference=reference, show_progress=False)


@pytest.mark.slow
def test_a_comparison_from_start_to_end(
    tiny_of_fourteen, tmp_path, small_settings, forked_workers, refuse_workers
):
    """One model under two names, one that fails, and the same command again."""
    good = [
        Run("one", "Mamba4Rec", "tiny", 1, {**small_settings, "d_state": 4}),
        Run("other", "Mamba4Rec", "tiny", 1, {**small_settings, "d_state": 4}),
        Run("BPR", "BPR", "tiny", 1, {**small_settings, "embedding_size": 8}),
    ]
    bad = Run("one share", "NARM", "tiny", 1, {**small_settings, "dropout_probs": [0.1]})
    out = tmp_path / "out"
    outcomes = compare([*good, bad], out, jobs=2, show_progress=False)

    assert [outcome.failure is None for outcome in outcomes] == [True, True, True, False]
    assert "list index out of range" in (outcomes[3].failure or "")
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "one share (failed)" in page
    assert "list index out of range" in page
    assert (out / "results.csv").read_text(encoding="utf-8").count("\n") == 5
    assert len(list((out / "runs").iterdir())) == 3  # one and other share theirs
    assert not list((out / "runs").rglob("*.pth"))

    (table,) = tables(outcomes, reference="one")
    themselves = [test for test in table.tests if test.other == "other"]
    assert {test.users_corrected for test in themselves} == {(1.0, 1.0)}

    for outcome in (outcomes[0], outcomes[2]):
        alone = run_recbole(
            model=outcome.run.model, dataset="tiny", config_dict=dict(outcome.run.overrides)
        )
        rounded = {name: round(value, 4) for name, value in outcome.measured["test"].items()}
        assert rounded == dict(alone["test_result"])
        assert outcome.measured["valid"] == dict(alone["best_valid_result"])

    refuse_workers()
    again = compare(good, out, show_progress=False)
    assert [outcome.result for outcome in again] == [outcome.result for outcome in outcomes[:3]]
    assert "one share" not in (out / "report.html").read_text(encoding="utf-8")
    with pytest.raises(AssertionError, match="a worker was started"):
        compare([Run("new", "BPR", "tiny", 2, good[2].settings)], out, show_progress=False)


@pytest.mark.slow
def test_a_model_whose_checkpoint_is_recboles_alone_is_compared(
    write_dataset, tmp_path, small_settings, forked_workers
):
    write_dataset("tiny")
    settings = {**small_settings, "epochs": 1}
    del settings["hidden_size"]
    (outcome,) = compare([Run("KNN", "ItemKNN", "tiny", 1, settings)], tmp_path / "out")
    assert outcome.failure is None
    assert outcome.measured["test"]


def test_no_checkpoint_that_could_run_code_is_gone_on_with(tmp_path):
    assert worker.latest_state(tmp_path / "none") is None
    state = tmp_path / "BPR-last.ckpt"
    safe_format.write({"epoch": 1}, state)
    assert worker.latest_state(tmp_path) == state
    (tmp_path / "BPR.pth").write_bytes(b"a pickle of somebody else")
    assert worker.latest_state(tmp_path) is None
    write_whole(tmp_path / "BPR.pth", b"a pickle of our own")
    written_here.note(tmp_path / "BPR.pth", sha256_of(tmp_path / "BPR.pth"))
    assert worker.latest_state(tmp_path) == state


def results_of(folder):
    """Return what a run came to, without what the clock and the machine say."""
    result = json.loads((folder / results.RESULT).read_text(encoding="utf-8"))
    epochs = [{**epoch, "seconds": None} for epoch in result["epochs"]]
    assert all(epoch["seconds"] > 0 for epoch in result["epochs"])
    return epochs, {key: result[key] for key in ("test", "valid", "score", "best_epoch")}


def wait_for(found, process):
    while not found():
        assert process.poll() is None, "the comparison ended too early"
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="kills by signal")
def test_a_killed_comparison_goes_on_where_it_was(
    tiny_of_fourteen, tmp_path, small_settings, forked_workers
):
    settings = {**small_settings, "embedding_size": 8, "epochs": 60, "stopping_step": 60}
    del settings["hidden_size"]  # neither model knows it
    (tmp_path / "small.yaml").write_text(json.dumps(settings), encoding="utf-8")
    arguments = ["--models", "Pop,BPR", "--datasets", "tiny", "--output", "out"]
    arguments += ["--config_files", "small.yaml"]
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE)}
    command = [sys.executable, "-m", "recbole_m3rec.compare", *arguments]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    done = tmp_path / "out" / "runs"
    try:
        # Pop has its result, BPR is at work.
        wait_for(lambda: len(list(done.glob("*/result.json"))) == 1, process)
        wait_for(lambda: len(list(done.glob("*/checkpoint/*-last.ckpt"))) == 1, process)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    (first,) = done.glob("*/result.json")
    written = first.stat().st_mtime_ns
    (cut_off,) = [folder for folder in done.iterdir() if folder != first.parent]

    def size():
        return sum(file.stat().st_size for file in cut_off.rglob("*") if file.is_file())

    sizes = [size()]
    while len(sizes) < 3 or sizes[-1] != sizes[-3]:  # its worker ended with it
        time.sleep(0.5)
        sizes.append(size())
    assert not (cut_off / results.RESULT).exists()
    assert not (cut_off / results.FAILURE).exists()

    assert __main__.main(arguments) == 0
    assert first.stat().st_mtime_ns == written
    assert len(list(done.glob("*/result.json"))) == 2
    assert not (cut_off / results.CHECKPOINTS).exists()
    log = (cut_off / "log.txt").read_text(encoding="utf-8")
    assert log.count("epoch 0 training") == log.count("epoch 59 training") == 1
    unbroken = [*arguments[: arguments.index("out")], "unbroken", *arguments[-2:]]
    assert __main__.main(unbroken) == 0
    one, other = (results_of(Path(out) / "runs" / cut_off.name) for out in ("out", "unbroken"))
    assert one == other
    for log in done.glob("*/log.txt"):  # workers that did their work end in peace
        assert "Fatal" not in log.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (results.RESULT, b"[]"),
        (results.RESULT, b"\xff"),
        (results.RESULT, None),  # its hash alone
        (results.USERS, b"PK\x03\x04 and no end"),
        (results.LISTS, b"PK"),
        (results.LISTS, "deleted"),
        (results.FAILURE, b'["message"]'),
    ],
)
def test_a_damaged_result_is_none(outcome, name, content):
    lists = Lists(np.ones((1, 5), np.int32), np.array(["", "a"]), np.array([0, 1]))
    made = outcome("A", {"hit@5": [1.0]}, lists=lists)
    file = made.folder / name
    if name == results.FAILURE:
        (made.folder / results.RESULT).unlink()
    if content == "deleted":
        file.unlink()
    else:
        file.write_bytes(content or json.dumps({"hash": made.identity.hash}).encode())
    assert results.read_outcome(made.run, made.identity, made.folder) is None


def test_checkpoints_of_a_run_that_has_its_result_are_removed(
    write_dataset, tmp_path, small_settings, refuse_workers
):
    write_dataset("tiny")
    refuse_workers()
    (planned,) = comparison.plan([Run("Pop", "Pop", "tiny", 1, small_settings)], tmp_path / "out")
    (planned.folder / results.CHECKPOINTS).mkdir(parents=True)
    result = {"hash": planned.identity.hash, "test": {}, "epochs": []}
    results.write_result(planned.folder, result, None)
    comparison.train_missing([planned], 1, False, THIS_PROCESS)
    assert not (planned.folder / results.CHECKPOINTS).exists()


def test_a_folder_that_is_none_or_of_another_comparison_is_refused(
    write_dataset, tmp_path, small_settings, refuse_workers
):
    write_dataset("tiny")
    refuse_workers()
    run, out = Run("Pop", "Pop", "tiny", 1, small_settings), tmp_path / "out"
    out.touch()
    with pytest.raises(CannotWriteError, match="--output .*out is no folder that can be written"):
        compare([run], out, show_progress=False)
    out.unlink()
    out.mkdir()
    with open_alone(out / ".lock"), pytest.raises(FileInUseError, match=f"^{out}: another run"):
        compare([run], out, show_progress=False)


def test_a_run_whose_data_changed_since_or_are_not_where_it_runs_is_a_failure(
    write_dataset, tmp_path, small_settings, monkeypatch
):
    folder = write_dataset("tiny")
    (planned,) = comparison.plan([Run("Pop", "Pop", "tiny", 1, small_settings)], tmp_path / "out")
    results.write_spec(planned.folder, planned.run, planned.identity, tests=True)
    spec = results.read_spec(planned.folder)
    worker.refuse_what_changed(spec)
    with open(folder / "tiny.inter", "a", encoding="utf-8") as file:
        file.write("u00\ti00\t9999.0\n")
    with pytest.raises(ConfigurationError, match=r"tiny\.inter changed while the comparison"):
        worker.refuse_what_changed(spec)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    says = r"tiny\.inter is not in dataset .*elsewhere.* same files"
    with pytest.raises(ConfigurationError, match=says):
        worker.refuse_what_changed(spec)
