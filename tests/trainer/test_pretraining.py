"""S3Rec and RaCT train their stages one after the other by one command."""

import logging

import pytest
import torch
from recbole.quick_start import run_recbole

from recbole_m3rec.trainer import checkpoint_file
from recbole_m3rec.trainer.pretraining import STAGES
from tests.tiny import metrics_in

SETTINGS = {"pretrain_epochs": 3, "save_step": 2, "n_layers": 1, "latent_dimension": 4}
SETTINGS |= {"mlp_hidden_size": [8], "critic_layers": [4], "metrics_k": 3}
ARGUMENTS = ["--n_heads=2", "--pretrain_epochs=1"]


@pytest.fixture
def run(make_config):
    """Return a function that trains and tests a model; keywords are configuration keys."""

    def start(model, **keys):
        config = make_config(model, **{**SETTINGS, **keys}).external_config_dict
        return run_recbole(model=model, dataset="tiny", config_dict=config)

    return start


@pytest.mark.parametrize("model", STAGES)
def test_each_stage_begins_with_what_the_one_before_learned(run, model, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    result = run(model)
    assert result["test_result"]["ndcg@5"] >= 0
    saved = {file.stem: file for file in tmp_path.glob("saved/*.pth")}
    stages = STAGES[model]
    for number, stage in enumerate(stages[:-1], start=1):
        assert f"this is stage {number}: {stage}, 3 epochs" in caplog.text
        [kept] = [file for name, file in saved.items() if name.endswith(f"-{stage}-3")]
        assert str(kept.relative_to(tmp_path)) in caplog.text
        assert any(name.endswith(f"-{stage}-2") for name in saved)  # save_step
    [best] = [file for name, file in saved.items() if not any(f"-{s}-" in name for s in stages)]
    assert checkpoint_file.load(best, map_location="cpu")["config"]["train_stage"] == "finetune"


def test_finetuning_starts_from_the_pretrained_parameters(run, tmp_path):
    run("S3Rec", epochs=0)  # saves the parameters with which finetuning would begin
    [pretrained] = tmp_path.glob("saved/*-pretrain-3.pth")
    [begun] = [file for file in tmp_path.glob("saved/*.pth") if "-pretrain-" not in file.name]
    before = checkpoint_file.load(pretrained, map_location="cpu")["state_dict"]
    after = checkpoint_file.load(begun, map_location="cpu")["state_dict"]
    assert all(after[name].equal(value) for name, value in before.items())


@pytest.mark.parametrize("save_step", [1, 5])
def test_a_named_stage_runs_alone_under_recboles_file_names(run, tmp_path, save_step):
    result = run("S3Rec", train_stage="pretrain", save_step=save_step)
    assert result["best_valid_result"] is None
    file = tmp_path / "saved" / "S3Rec-tiny-3.pth"
    assert file.is_file()
    result = run("S3Rec", train_stage="finetune", pre_model_path=str(file))
    assert result["best_valid_result"]


def test_a_finetuned_checkpoint_is_evaluated_and_resumed_without_the_pretrained_one(
    write_dataset, call, small_arguments, tmp_path
):
    write_dataset()
    code, trained, error = call("--model=S3Rec", *small_arguments, "--epochs=1", *ARGUMENTS)
    assert code == 0, error
    [pretrained] = tmp_path.glob("saved/*-pretrain-1.pth")
    pretrained.unlink()
    [checkpoint] = tmp_path.glob("saved/*.pth")
    assert metrics_in(call("--evaluate", str(checkpoint))[1]) == metrics_in(trained)
    assert call("--resume", str(checkpoint), "--epochs=2")[0] == 0
    assert not list(tmp_path.glob("saved/*-pretrain-*.pth"))


def test_bpr_finetuning_gets_negatives(run):
    assert run("S3Rec", loss_type="BPR")["test_result"]
    assert not torch.is_anomaly_enabled()
