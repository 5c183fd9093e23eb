"""What a command may say of a run that it resumes."""

from pathlib import Path

import pytest

from recbole_m3rec.quick_start.checkpoints import Checkpoint, CheckpointError
from recbole_m3rec.quick_start.resuming import newest_run, resumed_configuration
from recbole_m3rec.trainer.checkpoint_file import settings_of


@pytest.mark.parametrize(("value", "is_default"), [("2048", True), ("7", False)])
def test_a_key_that_a_checkpoint_is_older_than_has_its_default(
    value, is_default, make_config, monkeypatch
):
    settings = settings_of(make_config("SASRec"))
    del settings["train_batch_size"]
    monkeypatch.setattr("sys.argv", ["run", f"--train_batch_size={value}"])
    run = Checkpoint(Path("x.ckpt"), "SASRec", "tiny", epoch=1, settings=settings)
    if is_default:
        assert resumed_configuration(run)["train_batch_size"] == 2048
    else:
        with pytest.raises(CheckpointError, match="was trained with train_batch_size: 2048, which"):
            resumed_configuration(run)


@pytest.mark.parametrize(
    ("given", "trained"),
    [("--topk=[10,20]", (10, 20)), ("--metrics=Hit", ["Hit"]), ("--metrics=['Hit']", "Hit")],
)
def test_the_same_value_written_otherwise_is_no_change(given, trained, make_config, monkeypatch):
    keys = {"valid_metric": "Hit@10", "topk": [10, 20], "metrics": ["Hit"]}
    settings = settings_of(make_config("SASRec", **keys))
    settings[given[2:].partition("=")[0]] = trained
    monkeypatch.setattr("sys.argv", ["run", given])
    resumed_configuration(Checkpoint(Path("x.ckpt"), "SASRec", "tiny", epoch=1, settings=settings))


def test_files_that_are_no_latest_state_are_named(make_config):
    config = make_config("SASRec")
    folder = Path(config["checkpoint_dir"])
    folder.mkdir(exist_ok=True)
    with pytest.raises(CheckpointError, match="it has none of this model"):
        newest_run(config)
    (folder / "SASRec-Nov.pth").write_bytes(b"nothing")
    says = r"SASRec-Nov\.pth is not the latest state of a run, whose name ends in -last\.ckpt"
    with pytest.raises(CheckpointError, match=says):
        newest_run(config)
