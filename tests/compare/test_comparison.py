"""Whole comparisons in worker processes: what fails, what is interrupted, what is kept."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from recbole.quick_start import run_recbole

from recbole_m3rec.compare import __main__, comparison, results, scheduler, tuning, worker
from recbole_m3rec.compare.arguments import parse
from recbole_m3rec.compare.comparison import compare
from recbole_m3rec.compare.numbers import tables
from recbole_m3rec.compare.runs import Run
from recbole_m3rec.data.atomic_files import CannotWriteError, FileInUseError, open_alone
from recbole_m3rec.plugin.arguments import UsageError
from recbole_m3rec.plugin.yaml_files import ConfigurationError

PACKAGE = Path(scheduler.__file__).parents[2]
SMALL: dict[str, Any] = {
    "epochs": 2,
    "hidden_size": 8,
    "train_batch_size": 32,
    "MAX_ITEM_LIST_LENGTH": 5,
    "topk": [3, 5],
    "valid_metric": "NDCG@5",
    "data_path": "dataset",
    "gpu_id": "",
}


def refuse_to_start(*args: Any) -> Any:
    raise AssertionError("a worker was started")


@pytest.mark.slow
def test_a_comparison_from_start_to_end(
    write_dataset: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One model under two names, one that fails, and the same command again."""
    write_dataset("tiny")
    good = [
        Run("one", "Mamba4Rec", "tiny", 1, {**SMALL, "d_state": 4}),
        Run("other", "Mamba4Rec", "tiny", 1, {**SMALL, "d_state": 4}),
        Run("BPR", "BPR", "tiny", 1, {**SMALL, "embedding_size": 8}),
    ]
    bad = Run("three heads", "SASRec", "tiny", 1, {**SMALL, "n_heads": 3})
    out = tmp_path / "out"
    outcomes = compare([*good, bad], out, jobs=2, show_progress=False)

    assert [outcome.failure is None for outcome in outcomes] == [True, True, True, False]
    assert "multiple of the number of attention heads" in (outcomes[3].failure or "")
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "three heads (failed)" in page
    assert "multiple of the number of attention heads" in page
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

    monkeypatch.setattr(scheduler, "start", refuse_to_start)
    again = compare(good, out, show_progress=False)
    assert [outcome.result for outcome in again] == [outcome.result for outcome in outcomes[:3]]
    assert "three heads" not in (out / "report.html").read_text(encoding="utf-8")
    with pytest.raises(AssertionError, match="a worker was started"):
        compare([Run("new", "BPR", "tiny", 2, good[2].settings)], out, show_progress=False)


def wait_for(found: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    while not found():
        assert process.poll() is None, "the comparison ended too early"
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="kills by signal")
def test_a_killed_comparison_goes_on_where_it_was(
    write_dataset: Callable[..., Path], tmp_path: Path
) -> None:
    write_dataset("tiny")
    settings = {**SMALL, "embedding_size": 8, "epochs": 300, "stopping_step": 300}
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
        wait_for(lambda: len(list(done.glob("*/checkpoint/*.pth"))) == 1, process)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    (first,) = done.glob("*/result.json")
    written = first.stat().st_mtime_ns
    (cut_off,) = [folder for folder in done.iterdir() if folder != first.parent]

    def size() -> int:
        return sum(file.stat().st_size for file in cut_off.rglob("*") if file.is_file())

    sizes = [size()]
    while len(sizes) < 3 or sizes[-1] != sizes[-3]:  # its worker ended with it
        time.sleep(1.0)
        sizes.append(size())
    assert not (cut_off / results.RESULT).exists()
    assert not (cut_off / results.FAILURE).exists()

    assert __main__.main(arguments) == 0
    assert first.stat().st_mtime_ns == written
    assert len(list(done.glob("*/result.json"))) == 2
    for log in done.glob("*/log.txt"):  # workers that did their work end in peace
        assert "Fatal" not in log.read_text(encoding="utf-8")


@pytest.mark.slow
def test_every_model_gets_as_many_trials_and_a_killed_search_goes_on(
    write_dataset: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    optuna = pytest.importorskip("optuna")
    write_dataset("tiny")
    spaces = tmp_path / "properties" / "tuning"
    spaces.mkdir(parents=True)
    (spaces / "BPR.hyper").write_text("learning_rate choice [0.05,0.001]\n", encoding="utf-8")
    runs = [
        Run("BPR", "BPR", "tiny", 1, {**SMALL, "embedding_size": 8}),
        Run("Pop", "Pop", "tiny", 1, SMALL),
    ]
    study = tuning._Study(runs[0], tmp_path / "out", 2)
    cut_off = study.study.ask()  # a trial whose program was killed
    rate = cut_off.suggest_categorical("learning_rate", ["0.05", "0.001"])
    found = tuning.tune(runs, tmp_path / "out", 2, jobs=2, show_progress=False)
    assert [each.run.name for each in found] == ["BPR", "Pop"]
    assert sum(found[0].trials.values()) == 2
    assert found[0].chosen["learning_rate"] in (0.05, 0.001)
    assert found[0].run.settings["learning_rate"] == found[0].chosen["learning_rate"]
    assert found[1].space is None
    assert found[1].run == runs[1]
    for folder in (tmp_path / "out" / "trials").iterdir():
        trial = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        assert trial["test"] == {}
        assert not (folder / results.USERS).exists()
    best = max(
        json.loads((folder / "result.json").read_text(encoding="utf-8"))["score"]
        for folder in (tmp_path / "out" / "trials").iterdir()
    )
    assert found[0].score == best
    trials = tuning._Study(runs[0], tmp_path / "out", 2).study.trials
    assert trials[0].state == optuna.trial.TrialState.FAIL
    assert trials[1].params == {"learning_rate": rate}  # what was cut off comes first

    monkeypatch.setattr(scheduler, "start", refuse_to_start)
    assert tuning.tune(runs, tmp_path / "out", 2, jobs=1, show_progress=False) == found
    sentence = tuning.tuning_sentence(found, 2)
    assert "Not tuned, configured settings: Pop." in sentence
    (bpr, pop) = tuning.tuning_grid(found).rows
    assert "learning_rate: 0.05, 0.001" in bpr[-1].text
    assert pop[-1].text == "no search space: configured settings"


def test_trials_that_draw_the_same_settings_at_once_share_one_result(
    write_dataset: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("optuna")
    write_dataset("tiny")
    spaces = tmp_path / "properties" / "tuning"
    spaces.mkdir(parents=True)
    (spaces / "BPR.hyper").write_text("learning_rate choice [0.05]\n", encoding="utf-8")
    study = tuning._Study(Run("BPR", "BPR", "tiny", 1, SMALL), tmp_path / "out", 2)
    job = study.next_job()
    assert job is not None
    assert study.next_job() is None
    assert study.left() == 0
    outcome = SimpleNamespace(result={"score": 0.5}, failure=None)
    monkeypatch.setattr(results, "read_outcome", lambda *_: outcome)
    study.ended(job)
    assert study.counted() == {"completed": 2, "pruned": 0, "failed": 0}


def test_a_model_whose_trials_all_fail_keeps_its_settings_and_the_report_says_why(
    write_dataset: Callable[..., Path], tmp_path: Path
) -> None:
    pytest.importorskip("optuna")
    write_dataset("tiny")
    run = Run("BPR", "BPR", "tiny", 1, {**SMALL, "embedding_size": 8})
    study = tuning._Study(run, tmp_path / "out", 1)
    study._fail(study.study.ask(), "no memory left")
    assert study.left() == 0
    found = study.outcome()
    assert found.run == run
    assert "no memory left" in tuning.tuning_grid([found]).rows[0][4].text
    assert "Not tuned, configured settings: BPR." in tuning.tuning_sentence([found], 1)


def test_without_optuna_tuning_says_how_to_get_it(
    write_dataset: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    write_dataset("tiny")
    here = tuning.importlib.util.find_spec
    monkeypatch.setattr(
        tuning.importlib.util,
        "find_spec",
        lambda name, *more: None if name == "optuna" else here(name, *more),
    )
    monkeypatch.setattr(scheduler, "start", refuse_to_start)
    assert __main__.main(["--models", "Pop", "--datasets", "tiny", "--tune", "2"]) == 2
    assert "pip install 'recbole_m3rec[tuning]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--models", "SASRek", "--datasets", "tiny"], "Did you mean SASRec"),
        (["--models", "SASRec", "--datasets", "tinny"], "Did you mean tiny"),
        (["--models", "BPR", "--datasets", "tiny", "--epoch=3"], "Did you mean epochs"),
        (["--models", "BPR", "--datasets", "tiny", "--job", "2"], "Did you mean --jobs"),
        (["--models", "BPR,,Pop", "--datasets", "tiny"], "nothing between two commas"),
        (["--models", "BPR", "--datasets", "tiny", "--seeds", "0"], "from 1 on"),
        (["--models", "BPR", "--datasets", "tiny", "--reference", "Pop"], "none of --models"),
        (["--datasets", "tiny"], "--models"),
    ],
)
def test_what_cannot_be_meant_is_said_in_one_line_before_anything_is_trained(
    write_dataset: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    given: list[str],
    said: str,
) -> None:
    write_dataset("tiny")
    monkeypatch.setattr(scheduler, "start", refuse_to_start)
    assert __main__.main([*given, "--data_path=dataset"]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not Path("comparison").exists()


def test_settings_of_files_come_before_those_of_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("epochs: 5\ntopk: [1]\n", encoding="utf-8")
    (tmp_path / "b.yaml").write_text("epochs: 6\nhidden_size: 8\n", encoding="utf-8")
    given = ["--models", "A,B", "--datasets", "x", "--config_files", "a.yaml,b.yaml"]
    options, settings = parse([*given, "--hidden_size=16"])
    assert options.models == ["A", "B"]
    assert settings == {"epochs": 6, "topk": [1], "hidden_size": "16"}


def test_a_setting_without_a_value_is_refused() -> None:
    with pytest.raises(UsageError, match="--epochs=3"):
        parse(["--models", "A", "--datasets", "x", "--epochs", "3"])


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--help"])
    assert "--models M3Rec,SASRec,GRU4Rec --datasets ml-100k" in capsys.readouterr().out


def test_two_comparisons_do_not_write_into_one_folder(
    write_dataset: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_dataset("tiny")
    monkeypatch.setattr(scheduler, "start", refuse_to_start)
    (tmp_path / "out").mkdir()
    with open_alone(tmp_path / "out" / ".lock"), pytest.raises(FileInUseError):
        compare([Run("Pop", "Pop", "tiny", 1, SMALL)], tmp_path / "out", show_progress=False)


def test_an_output_that_is_no_folder_is_said_in_one_line(
    write_dataset: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_dataset("tiny")
    monkeypatch.setattr(scheduler, "start", refuse_to_start)
    (tmp_path / "out").touch()
    with pytest.raises(CannotWriteError, match="--output .*out is no folder that can be written"):
        compare([Run("Pop", "Pop", "tiny", 1, SMALL)], tmp_path / "out", show_progress=False)


def test_a_run_whose_data_changed_since_the_comparison_began_is_a_failure(
    write_dataset: Callable[..., Path], tmp_path: Path
) -> None:
    folder = write_dataset("tiny")
    (planned,) = comparison.plan([Run("Pop", "Pop", "tiny", 1, SMALL)], tmp_path / "out")
    results.write_spec(planned.folder, planned.run, planned.identity, tests=True)
    spec = results.read_spec(planned.folder)
    worker.refuse_what_changed(spec)
    with open(folder / "tiny.inter", "a", encoding="utf-8") as file:
        file.write("u00\ti00\t9999.0\n")
    with pytest.raises(ConfigurationError, match=r"tiny\.inter changed while the comparison"):
        worker.refuse_what_changed(spec)


@pytest.fixture
def sham(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], scheduler.Job]:
    """Return a function that makes a job whose worker runs given Python lines."""
    real = subprocess.Popen
    code: dict[str, str] = {}

    def popen(command: list[str], **keys: Any) -> Any:
        return real([sys.executable, "-c", code[Path(command[-1]).name]], **keys)

    monkeypatch.setattr(scheduler.subprocess, "Popen", popen)

    def make(lines: str) -> scheduler.Job:
        folder = tmp_path / f"job{len(code)}"
        folder.mkdir()
        code[folder.name] = lines
        return scheduler.Job(folder, folder.name, epochs=2)

    return make


def run_jobs(*jobs: scheduler.Job, at_once: int = 1) -> None:
    progress = comparison.Progress(len(jobs), shown=False)
    scheduler.run_all(scheduler.Listed(jobs), at_once, progress)


def failure(job: scheduler.Job) -> str:
    text = (job.folder / results.FAILURE).read_text(encoding="utf-8")
    return str(json.loads(text)["message"])


def test_a_worker_that_dies_is_a_failure_and_the_next_one_runs(
    sham: Callable[[str], scheduler.Job],
) -> None:
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


def test_what_a_worker_tells_arrives_and_may_stop_it(
    sham: Callable[[str], scheduler.Job],
) -> None:
    job = sham(
        "import json, time\nprint('noise', flush=True)\n"
        "for e in (0, 1):\n    print(json.dumps({'epoch': e, 'score': 0.5}), flush=True)\n"
        "time.sleep(600)\n"
    )
    told: list[Any] = []

    def stop(epoch: Any) -> bool:
        told.append(epoch["epoch"])
        return epoch["epoch"] == 1

    job.on_epoch = stop
    run_jobs(job)
    assert told == [0, 1]
    assert job.stopped
    assert not (job.folder / results.FAILURE).exists()


def test_an_interrupt_ends_the_workers(
    sham: Callable[[str], scheduler.Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = sham("import time; print('{\"epoch\": 0}', flush=True); time.sleep(600)")
    (job.folder / results.CHECKPOINTS).mkdir()
    started = []
    real = scheduler.start

    def start(*args: Any) -> Any:
        started.append(real(*args))
        return started[-1]

    monkeypatch.setattr(scheduler, "start", start)

    def interrupt(epoch: Any) -> bool:
        raise KeyboardInterrupt

    job.on_epoch = interrupt
    with pytest.raises(KeyboardInterrupt):
        run_jobs(job)
    assert started[0].returncode is not None
    assert not (job.folder / results.CHECKPOINTS).exists()


def test_threads_are_divided_among_the_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in scheduler.THREADS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(scheduler.os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    assert scheduler.environment_for(3)["OMP_NUM_THREADS"] == "2"
    assert scheduler.environment_for(99)["OMP_NUM_THREADS"] == "1"
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert scheduler.environment_for(3)["OMP_NUM_THREADS"] == "5"
