"""A run that is stopped at any moment and resumed ends as the unbroken one, to the last bit."""

import os
import re
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from recbole_m3rec.cli import train
from recbole_m3rec.trainer import checkpoint_file, interruption
from recbole_m3rec.trainer.interruption import Signals, Stopped
from recbole_m3rec.trainer.progress import Progress
from recbole_m3rec.trainer.trainer_state import carry
from tests.processes.worlds import free_port, run_world
from tests.trainer import killed_runs
from tests.trainer.killed_runs import MODELS, Trial, arguments, outcome, start, wait

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="runs are forked")

MODEL = "M3Rec"


@pytest.fixture(scope="module")
def trial(tmp_path_factory):
    """An unbroken run of M3Rec, with dropout and several batches an epoch."""
    return Trial(tmp_path_factory.mktemp("runs"), [MODEL])


def output(folder):
    return (folder / "output.txt").read_text(encoding="utf-8")


def at_call(owner, name, number, act):
    """Return what lets a process act when a method is called for the n-th time, before it runs."""

    def prepare():
        original, calls = getattr(owner, name), [0]

        def counted(*args, **kwargs):
            calls[0] += 1
            if calls[0] == number:
                act()
            return original(*args, **kwargs)

        setattr(owner, name, counted)

    return prepare


@pytest.mark.slow
def test_killed_runs_end_as_unbroken_ones(tmp_path):
    trial = Trial(tmp_path, MODELS)
    wrong = [story for seed in range(len(MODELS)) if (story := trial.differs(seed))]
    assert not wrong


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["SIGTERM", "Ctrl-C"]
)
def test_a_signal_within_an_epoch_saves_and_exits_with_its_code(trial, number, code):
    place = trial.place(number.name)
    stop = at_call(Progress, "_add_loss", 6, lambda: os.kill(os.getpid(), number))
    assert wait(start(place, arguments(MODEL), stop)) == code
    [last] = (place / "saved").glob("*-last.ckpt")
    assert f"{number.name}. Resume it by" in output(place)
    assert f"resume saved/{last.name}" in output(place)
    position = checkpoint_file.load(last)["progress"]["position"]
    assert 0 < position["batches"] < position["of"]
    assert wait(start(place, ["--resume", f"saved/{last.name}"])) == 0, output(place)
    assert outcome(place) == trial.expected[MODEL]


def test_a_signal_during_validation_loses_no_epoch(trial):
    from recbole.trainer import Trainer

    place = trial.place("validation")
    stop = at_call(Trainer, "_full_sort_batch_eval", 2, lambda: os.kill(os.getpid(), 15))
    assert wait(start(place, arguments(MODEL), stop)) == 143
    [last] = (place / "saved").glob("*-last.ckpt")
    content = checkpoint_file.load(last)
    position = content["progress"]["position"]
    assert (content["epoch"], position["batches"]) == (0, position["of"])
    assert wait(start(place, arguments(MODEL, "--resume"))) == 0, output(place)
    assert outcome(place) == trial.expected[MODEL]


def test_a_run_killed_after_its_last_epoch_goes_on_to_the_test(trial):
    from recbole.quick_start import quick_start

    place = trial.place("tested")
    stop = at_call(quick_start, "get_environment", 1, lambda: os._exit(9))
    assert wait(start(place, arguments(MODEL), stop)) == 9
    (place / "output.txt").unlink()
    assert wait(start(place, arguments(MODEL, "--resume"))) == 0, output(place)
    assert "training [" not in output(place)
    assert outcome(place) == trial.expected[MODEL]


def test_resuming_the_best_epoch_is_exact_too(trial):
    place = trial.place("best")
    assert wait(start(place, arguments("BPR"))) == 0
    [best] = (place / "saved").glob("*.pth")
    [last] = (place / "saved").glob("*-last.ckpt")
    expected = outcome(place)
    assert checkpoint_file.load(best)["epoch"] < checkpoint_file.load(last)["epoch"]
    last.unlink()
    assert wait(start(place, ["--resume", f"saved/{best.name}"])) == 0
    assert outcome(place) == expected


def test_resume_without_a_path_takes_the_newest_run_of_the_configuration(trial):
    place = trial.place("newest")
    assert wait(start(place, arguments(MODEL, "--resume"))) == 2
    assert "Name a checkpoint, or start the run without --resume" in output(place)
    for more in ([], ["--seed=5"]):
        stop = at_call(Progress, "_add_loss", 6, lambda: os.kill(os.getpid(), 15))
        assert wait(start(place, arguments(MODEL, *more), stop)) == 143
    assert wait(start(place, arguments(MODEL, "--seed=6", "--resume"))) == 2
    assert "has another seed (5, now 6)" in output(place)
    (place / "output.txt").unlink()
    [older, newer] = sorted((place / "saved").glob("*-last.ckpt"), key=os.path.getmtime)
    before = newer.read_bytes()
    assert wait(start(place, arguments(MODEL, "--resume"))) == 0, output(place)
    assert newer.read_bytes() == before  # of another seed than the default
    assert checkpoint_file.load(older)["progress"]["position"] is None
    older.unlink()
    assert wait(start(place, arguments(MODEL, "--resume"))) == 2
    assert "has another seed (5, now 2024)" in output(place)


@pytest.mark.parametrize("model", ["SASRecF", "S3Rec"])
def test_a_run_whose_columns_were_chosen_is_found_by_the_same_command(trial, model):
    place = trial.place(f"chosen {model}")
    rows = "".join(f"i{number:02d}\t{number % 3}\n" for number in range(40))
    items = place / "dataset" / "tiny" / "tiny.item"
    items.write_text(f"item_id:token\tkind:token\n{rows}", encoding="utf-8")
    given = [*arguments("SASRec")[1:], f"--model={model}", "--pretrain_epochs=1"]
    once = [each for each in given if not each.startswith("--epochs")]
    assert wait(start(place, [*once, "--epochs=1"])) == 0, output(place)
    assert wait(start(place, [*once, "--epochs=2", "--resume"])) == 0, output(place)


@pytest.mark.parametrize("form", ["recbole", "safe"])
def test_a_copied_run_is_resumed_where_it_lies(trial, form):
    place = trial.place(f"copied {form}")
    given = arguments(MODEL, f"--checkpoint_format={form}")
    stop = at_call(Progress, "_add_loss", 6, lambda: os.kill(os.getpid(), 15))
    assert wait(start(place, given, stop)) == 143
    [file] = (place / "saved").glob("*-last.ckpt")
    shutil.copytree(place / "saved", place / "copy")
    shutil.rmtree(place / "saved")
    again = [
        *given,
        "--checkpoint_dir=copy",
        "--resume",
        *([f"copy/{file.name}"] * (form == "safe")),
    ]
    assert wait(start(place, again)) == 0, output(place)
    assert checkpoint_file.load(place / "copy" / file.name)["epoch"] > 0


def test_a_full_disk_is_one_line_and_training_goes_on(trial):
    import resource

    [whole] = (trial.folder / MODEL / "saved").glob("*.pth")
    size = whole.stat().st_size

    def fill():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        original, calls = Progress.end_epoch, [0]

        def end_epoch(self, epoch):
            calls[0] += 1
            limit = size - 100 if calls[0] < 6 else hard  # no room, then room again
            original(self, epoch)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))

        Progress.end_epoch = end_epoch  # type: ignore[method-assign]

    place = trial.place("full")
    assert wait(start(place, arguments(MODEL), fill)) == 0, output(place)
    said = [line for line in output(place).splitlines() if "cannot write" in line]
    assert said
    assert all("saved/M3Rec-" in line for line in said)
    assert "Traceback" not in output(place)
    assert len(said) == len({re.search(r"saved/\S+", line)[0] for line in said})
    assert outcome(place) == trial.expected[MODEL]


def test_the_best_epoch_is_tested_from_memory_where_the_disk_stays_full(trial):
    import resource

    def fill():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        original = Progress.begin_epoch

        def begin_epoch(self, epoch):
            resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
            original(self, epoch)

        def write_metrics(results):
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
            killed_runs.write_metrics(results)

        Progress.begin_epoch = begin_epoch  # type: ignore[method-assign]
        train.print_metrics = write_metrics

    place = trial.place("full to the end")
    assert wait(start(place, arguments(MODEL), fill)) == 0, output(place)
    assert "tested from memory" in output(place)
    assert "checkpoint: none was saved" in output(place)
    metrics = (place / "metrics.json").read_text(encoding="utf-8")
    assert metrics == trial.expected[MODEL][0]


def test_a_missing_best_epoch_is_named(trial):
    place = shutil.copytree(trial.folder / MODEL, trial.folder / "missing")
    [best] = (place / "saved").glob("*.pth")
    best.unlink()
    assert wait(start(place, arguments(MODEL, "--resume"))) == 2
    assert f"{best.name} is missing" in output(place)


def test_schedules_and_averaged_weights_are_carried(prepare, tmp_path):
    """What a trainer registers before or after it resumes gets its state back."""
    from recbole.utils import get_model, get_trainer

    config, _, train, valid, _ = prepare("SASRec", epochs=2)

    def build():
        trainer = get_trainer(config["MODEL_TYPE"], "SASRec")(
            config, get_model("SASRec")(config, train.dataset)
        )
        steps = torch.optim.lr_scheduler.StepLR(trainer.optimizer, 1, gamma=0.5)
        average = torch.optim.swa_utils.AveragedModel(trainer.model)
        return trainer, steps, average

    trainer, steps, average = build()
    carry(trainer, "lr_scheduler", steps)
    carry(trainer, "averaged_weights", average)

    def step(epoch, score):
        trainer.optimizer.step()
        steps.step()
        average.update_parameters(trainer.model)

    trainer.fit(train, valid, callback_fn=step)
    again, steps_again, average_again = build()
    carry(again, "lr_scheduler", steps_again)
    again.resume_checkpoint(next(Path("saved").glob("*-last.ckpt")))
    carry(again, "averaged_weights", average_again)
    assert steps_again.state_dict() == steps.state_dict()
    for name, value in average.state_dict().items():
        assert torch.equal(average_again.state_dict()[name], value)


def test_a_second_signal_does_not_wait():
    signals = Signals()
    signals.deferring = True
    signals.receive(signal.SIGINT)
    with pytest.raises(Stopped):
        signals.receive(signal.SIGINT)
    signals = Signals()
    with pytest.raises(KeyboardInterrupt):
        signals.receive(signal.SIGTERM)


def test_signals_that_reach_a_worker_at_once_are_one(monkeypatch):
    monkeypatch.setattr(interruption.multiprocessing, "parent_process", object)
    signals = Signals()
    signals.deferring = True
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
        signals.receive(number)
    assert signals.pending == signal.SIGINT
    signals.since -= interruption.AT_ONCE
    with pytest.raises(Stopped):
        signals.receive(signal.SIGTERM)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("rank", [0, 1])
def test_who_is_interrupted_in_saving_enters_no_collective(monkeypatch, tmp_path, rank, error):
    """Another process would take it for the one that it is at itself."""
    calls = []
    monkeypatch.setattr(checkpoint_file.dist, "get_rank", lambda: rank)
    monkeypatch.setattr(checkpoint_file.dist, "barrier", lambda: calls.append("barrier"))
    monkeypatch.setattr(
        checkpoint_file.dist,
        "broadcast_object_list",
        lambda values, src: (calls.append("broadcast"), values.__setitem__(0, "other")),
    )

    def save(trainer):
        calls.append("save")
        raise error

    trainer = SimpleNamespace(config={"single_spec": False}, saved_model_file=str(tmp_path / "x"))
    with pytest.raises(error):
        checkpoint_file.save_once(save, trainer)
    after = calls[calls.index("save") + 1 :]
    assert after == (["broadcast", "barrier"][rank:] if error is ValueError else [])


@pytest.mark.slow
def test_two_processes_resume_exactly(trial, monkeypatch):
    """Those that the command starts itself go on with what torchrun's saved."""
    from recbole.quick_start import load_data_and_model

    unbroken, broken = trial.place("two"), trial.place("two-resumed")
    given = arguments("SASRec")  # without a schedule over all of its epochs
    assert run_world(unbroken, given, 2) == [0, 0], output(unbroken)
    short = [argument for argument in given if not argument.startswith("--epochs")]
    assert run_world(broken, [*short, "--epochs=2"], 2) == [0, 0], output(broken)
    [last] = (broken / "saved").glob("*-last.ckpt")
    again = ["--resume", f"saved/{last.name}", "--epochs=5", "--nproc=2", f"--port={free_port()}"]
    (broken / "output.txt").unlink()
    alone = lambda: os.environ.update(OMP_NUM_THREADS="1")  # noqa: E731
    assert wait(start(broken, again, alone)) == 0, output(broken)
    assert re.search(r"\ncheckpoint: \S*saved/SASRec-.*\nlog: ", output(broken))
    assert outcome(broken) == outcome(unbroken)
    [best] = (broken / "saved").glob("*.pth")
    assert checkpoint_file.load(best)["config"]["world_size"] == 2
    monkeypatch.chdir(broken)
    _, loaded, *_ = load_data_and_model(str(best))
    assert all(torch.isfinite(weight).all() for weight in loaded.parameters())
