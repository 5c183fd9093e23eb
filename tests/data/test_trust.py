"""No pickle is read unasked, caches follow their files, and changed data are said loudly."""

import os
import pickle
from pathlib import Path

import pytest
import torch
from recbole.data import create_dataset, data_preparation

from recbole_m3rec.data.saved import cache
from recbole_m3rec.support import written_here
from recbole_m3rec.trainer import checkpoint_file
from tests.tiny import metrics_in
from tests.trainer.killed_runs import arguments

SAVED = {"save_dataset": True, "save_dataloaders": True}


class Bomb:
    """Leaves a file behind when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("exploded",)


@pytest.fixture
def build(make_config):
    """Return a function that makes dataset and loaders and returns the number of interactions."""

    def run(**keys):
        config = make_config("SASRec", user_inter_num_interval="[0,inf)", **{**SAVED, **keys})
        dataset = create_dataset(config)
        n_interactions = len(dataset.inter_feat)
        data_preparation(config, dataset)
        return n_interactions

    return run


def test_a_changed_interaction_file_is_read_again_and_said(build, write_dataset, caplog):
    caplog.set_level("INFO")
    folder = write_dataset()
    before = build()
    caplog.clear()
    assert build() == before
    assert "Load filtered dataset" in caplog.text
    with open(folder / "tiny.inter", "a", encoding="utf-8") as file:
        file.write("u00\ti11\t5000\n")
    caplog.clear()
    assert build() == before + 1
    assert "saved/tiny-SequentialDataset.npz is made anew, for tiny.inter changed" in caplog.text
    assert "saved/tiny-for-SASRec-dataloader.npz is made anew" in caplog.text


@pytest.mark.parametrize("name", ["tiny-SequentialDataset.pth", "tiny-for-SASRec-dataloader.pth"])
def test_a_pickle_that_somebody_laid_into_saved_is_not_read(name, build, caplog):
    Path("saved").mkdir()
    with open(Path("saved") / name, "wb") as file:
        pickle.dump(Bomb(), file)
    build(save_dataset=False, save_dataloaders=False)
    assert not Path("exploded").exists()
    assert f"saved/{name} is a pickle, which can run code, and is not read" in caplog.text


def test_recboles_pickles_are_read_with_a_warning_where_the_user_names_them(make_config, caplog):
    config = make_config("SASRec")
    dataset = create_dataset(config)
    for key in (*cache.DATASET_KEYS, *cache.MORE_KEYS):  # as RecBole saves it
        config.final_config_dict.pop(key, None)
    Path("data.pth").write_bytes(pickle.dumps(dataset))
    config = make_config("SASRec")
    loaders = data_preparation(config, create_dataset(config))
    states = [(loader, loader.generator.get_state()) for loader in loaders]
    for loader in loaders:
        loader.generator = loader.sampler.generator = None
    Path("loaders.pth").write_bytes(pickle.dumps(states))
    caplog.clear()
    caplog.set_level("INFO")
    named = {"dataset_save_path": "data.pth", "dataloaders_save_path": "loaders.pth"}
    config = make_config("SASRec", **named)
    again = data_preparation(config, create_dataset(config))
    assert "Load filtered dataset" in caplog.text
    assert "Load split dataloaders" in caplog.text
    assert [len(loader) for loader in again] == [len(loader) for loader in loaders]
    for path in ("data.pth", "loaders.pth"):
        assert f"{path} is a pickle, and reading it can run code" in caplog.text
    assert "data.pth does not say which files it was made of" in caplog.text


def test_a_named_file_that_is_absent_or_of_other_data_is_said(build, write_dataset, caplog):
    build(dataset_save_path="none.npz")
    assert "dataset_save_path: none.npz does not exist" in caplog.text
    caplog.clear()
    assert build(dataset_save_path="saved/tiny-SequentialDataset.npz", val_interval=None)
    assert "made anew" not in caplog.text


def test_an_own_file_stays_own_when_it_is_moved_and_not_when_it_is_changed(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"content")
    assert not written_here.is_own(path)
    written_here.note(path, written_here.sha256_of(path))
    assert written_here.is_own(path)
    path.rename(tmp_path / "b")
    assert written_here.is_own(tmp_path / "b")
    (tmp_path / "b").write_bytes(b"other")
    assert not written_here.is_own(tmp_path / "b")


def test_a_program_killed_before_it_notes_a_file_leaves_an_own_one(tmp_path, monkeypatch):
    path = tmp_path / "x.pth"
    checkpoint_file.save({"epoch": 0}, path)
    monkeypatch.setattr(written_here, "note", lambda path, digest: None)
    for epoch in (1, 2):
        checkpoint_file.save({"epoch": epoch}, path)
        assert written_here.is_own(path)


def test_a_home_that_cannot_be_written_makes_files_foreign_and_nothing_worse(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    written_here.note(tmp_path / "file", "0")
    assert not written_here.is_own(tmp_path / "file")


def test_naming_a_foreign_checkpoint_is_one_line_of_warning(trained, call, caplog):
    checkpoint = trained("SASRec")
    caplog.clear()
    assert call("--evaluate", str(checkpoint))[0] == 0
    assert "not written by you" not in caplog.text
    content = torch.load(checkpoint, weights_only=False)
    torch.save({**content, "epoch": 0, "note": "by somebody else"}, checkpoint)
    caplog.clear()
    assert call("--evaluate", str(checkpoint))[0] == 0
    warnings = [line for line in caplog.text.splitlines() if "not written by you" in line]
    assert len(warnings) == 1
    assert f"{checkpoint} was not written by you on this machine" in warnings[0]


@pytest.mark.parametrize("option", ["--evaluate", "--resume"])
def test_changed_interactions_are_warned_of(option, trained, call, caplog):
    checkpoint = str(trained("SASRec"))
    caplog.clear()
    more = ["--epochs=2"] if option == "--resume" else []
    assert call(option, checkpoint, *more)[0] == 0
    assert "DATA CHANGED" not in caplog.text
    with open("dataset/tiny/tiny.inter", "a", encoding="utf-8") as file:
        file.write("u00\ti11\t5000\n")
    caplog.clear()
    more = ["--epochs=3"] if option == "--resume" else []
    assert call(option, checkpoint, *more)[0] == 0
    [warning] = [line for line in caplog.text.splitlines() if "DATA CHANGED" in line]
    assert f"{checkpoint} was trained with another tiny.inter than lies in" in warning


def test_a_safe_checkpoint_is_read_by_every_option(call, write_dataset, small_arguments):
    write_dataset()
    arguments = ["--model=SASRec", "--epochs=1", "--checkpoint_format=safe", *small_arguments]
    code, trained, error = call(*arguments)
    assert code == 0, error
    [checkpoint] = Path("saved").glob("*.safetensors")
    assert metrics_in(call("--evaluate", str(checkpoint))[1]) == metrics_in(trained)
    for given in (["--topk", "--output=top.csv"], ["--resume", "--epochs=2"]):
        code, _, error = call(given[0], str(checkpoint), given[1])
        assert code == 0, error
    assert not list(Path("saved").glob("*.pth"))


def test_recboles_loader_reads_a_safe_checkpoint(call, write_dataset):
    from recbole.quick_start import load_data_and_model

    write_dataset()
    code, _, error = call(*arguments("M3Rec", "--checkpoint_format=safe"))
    assert code == 0, error
    [checkpoint] = Path("saved").glob("*.safetensors")
    config, model, dataset, *_ = load_data_and_model(str(checkpoint))
    assert (config["model"], type(model).__name__) == ("M3Rec", "M3Rec")
    assert config["hidden_size"] == 8
    assert len(dataset.inter_feat) > 0
