"""RecBole's checkpoints can be read everywhere; nobody else's ``torch.load`` is less strict."""

import pickle

import pytest
import torch
from recbole.quick_start import load_data_and_model

from recbole_m3rec.patches import checkpoints
from recbole_m3rec.trainer import checkpoint_file


class Pickled:
    """Something that no weights-only reader accepts."""


@pytest.fixture
def pickled(tmp_path):
    path = tmp_path / "whole.pth"
    torch.save({"config": Pickled()}, path)
    return path


@pytest.mark.parametrize("module", checkpoints.READERS)
def test_recboles_readers_read_whole_checkpoints(module, pickled):
    import importlib

    loaded = importlib.import_module(module).torch.load(pickled)
    assert isinstance(loaded["config"], Pickled)


def test_everybody_else_reads_weights_only(pickled):
    with pytest.raises(pickle.UnpicklingError):
        torch.load(pickled)


def test_a_module_that_asks_for_weights_only_gets_weights_only(pickled):
    from recbole.trainer import trainer

    with pytest.raises(pickle.UnpicklingError):
        trainer.torch.load(pickled, weights_only=True)


@pytest.fixture
def checkpoint(trained):
    """A checkpoint of SASRec on the tiny dataset."""
    return trained("SASRec")


def test_a_checkpoint_of_several_processes_on_gpus_opens_on_one_cpu(checkpoint, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    saved = checkpoint_file.load(checkpoint)
    saved["config"].final_config_dict.update(
        device=torch.device("cuda", 1), single_spec=False, local_rank=1, world_size=2
    )
    torch.save(saved, checkpoint)
    config, model, *_ = load_data_and_model(checkpoint)
    assert config["device"] == torch.device("cpu")
    assert next(model.parameters()).device.type == "cpu"


def test_torch_load_is_itself_again_after_success_and_failure(checkpoint):
    before = torch.load
    load_data_and_model(checkpoint)
    assert torch.load is before
    with pytest.raises(FileNotFoundError):
        load_data_and_model("no-such.pth")
    assert torch.load is before


def test_features_read_meanwhile_are_read_weights_only(checkpoint, pickled, monkeypatch):
    """Between RecBole's read and its end, datasets load files of the user's."""
    from recbole.quick_start import quick_start

    monkeypatch.setattr(quick_start, "create_dataset", lambda config: torch.load(pickled))
    with pytest.raises(pickle.UnpicklingError):
        load_data_and_model(checkpoint)


def test_a_gpu_keeps_its_device_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    config = {"device": torch.device("cuda"), "single_spec": True}
    checkpoints.move_to_this_machine(config)
    assert config["device"] == torch.device("cuda")


def test_training_resumes_from_a_checkpoint(checkpoint, new_trainer):
    trainer, train, valid, _ = new_trainer("SASRec", epochs=2)
    trainer.resume_checkpoint(checkpoint)
    assert trainer.start_epoch == 1
    trainer.fit(train, valid)
    assert list(trainer.train_loss_dict) == [0, 1]  # that of the checkpoint, and its own
