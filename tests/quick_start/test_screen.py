"""The screen shows few lines and one bar; the log file has everything."""

import io
import logging
import sys
from pathlib import Path

import pytest

from recbole_m3rec.cli.train import main
from recbole_m3rec.quick_start import screen


@pytest.fixture
def train(write_dataset, small_arguments):
    """Return a function that trains two epochs and shows its progress, from a fresh logger."""
    write_dataset()
    settings = [each for each in small_arguments if "show_progress" not in each]

    def run(*more):
        root = logging.getLogger()
        for handler in root.handlers[:]:  # pytest's keep RecBole from setting its own up
            root.removeHandler(handler)
        assert main(["--model=SASRec", "--epochs=2", *settings, *more]) == 0

    return run


def test_the_configuration_goes_into_the_log_file_alone(train, capfd):
    train()
    out, err = capfd.readouterr()
    [log] = Path("log/SASRec").glob("*.log")
    written = log.read_text()
    for text in ("train_batch_size", "Configuration files", "epoch 1 training"):
        assert text in written
        assert text not in out + err
    assert "tiny: 12 users, 12 items, 96 interactions" in err
    assert len(err.splitlines()) < 12, err
    assert "recommend saved" in out


def test_without_a_terminal_each_validation_is_one_line(train, capfd):
    train()
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("epoch ")]
    assert [line.split(",")[0] for line in lines] == ["epoch 1/2", "epoch 2/2"]
    assert all("loss " in line and "best ndcg@5 0." in line for line in lines)


def test_verbose_leaves_the_screen_to_recbole(train, capfd):
    train("--verbose")
    err = capfd.readouterr().err
    assert "train_batch_size" in err
    assert "Train     0" in err


def test_a_terminal_gets_one_bar_with_epoch_loss_best_and_time_left(train, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    original = screen.tqdm
    monkeypatch.setattr(screen, "tqdm", lambda **k: original(file=terminal, mininterval=0, **k))
    train()
    shown = terminal.getvalue()
    assert "epoch 2/2, loss " in shown
    assert "best ndcg@5 0." in shown
    assert "100%" in shown
    assert "left" in shown
    assert "Train" not in shown


def test_what_was_changed_for_a_run_is_given_back(train):
    from recbole.trainer import trainer as trainers

    before = (trainers.tqdm, trainers.Trainer.fit, trainers.Trainer._valid_epoch)
    train()
    assert (trainers.tqdm, trainers.Trainer.fit, trainers.Trainer._valid_epoch) == before
