"""NaN ends the run with model, epoch and batch, for any model; infinite scores do not."""

import sys
import types
from importlib.machinery import ModuleSpec

import numpy as np
import pytest
import torch

from recbole_m3rec.evaluator.nan_checks import NotANumberError


def fail_at(function, call, spoil):
    """Wrap a function so that its `call`-th result (from 0) is spoiled."""
    calls = iter(range(10**6))
    return lambda *args: spoil(function(*args)) if next(calls) == call else function(*args)


@pytest.mark.parametrize("model", ["SASRec", "BPR", "Caser"])
def test_a_nan_loss_names_model_epoch_and_batch(model, new_trainer, monkeypatch):
    trainer, train, valid, _ = new_trainer(model, epochs=3)
    loss = fail_at(trainer.model.calculate_loss, len(train) + 1, lambda loss: loss * np.nan)
    monkeypatch.setattr(trainer.model, "calculate_loss", loss)
    with pytest.raises(NotANumberError, match=rf"loss of {model} is NaN in epoch 1, batch 1 "):
        trainer.fit(train, valid)


def test_a_nan_loss_is_found_by_trainers_with_epochs_of_their_own(new_trainer, monkeypatch):
    faiss = types.ModuleType("faiss")  # NCL's clusters, which are not made here
    faiss.__spec__ = ModuleSpec("faiss", None)
    monkeypatch.setitem(sys.modules, "faiss", faiss)
    trainer, train, valid, _ = new_trainer("NCL", epochs=3, warm_up_step=99, num_clusters=3)
    monkeypatch.setattr(trainer.model, "e_step", lambda: None)

    def loss(interaction):
        weight = trainer.model.user_embedding.weight.sum()
        return weight * 0, weight * 0

    spoiled = fail_at(loss, len(train) + 1, lambda losses: (losses[0] * np.nan, losses[1]))
    monkeypatch.setattr(trainer.model, "calculate_loss", spoiled)
    with pytest.raises(NotANumberError, match=r"loss of NCL is NaN in epoch 1, batch 1 "):
        trainer.fit(train, valid)


@pytest.mark.parametrize("model", ["SASRec", "GRU4Rec", "BPR"])
def test_nan_scores_name_model_epoch_and_batch_and_become_no_metric(
    model, new_trainer, monkeypatch
):
    keys = {"epochs": 3, "eval_batch_size": 5}
    trainer, train, valid, _ = new_trainer(model, **keys)

    def spoil(scores):
        scores = scores.clone().view(-1, trainer.tot_item_num)
        scores[0] = np.nan
        return scores

    spoiled = fail_at(trainer.model.full_sort_predict, len(valid) + 1, spoil)
    monkeypatch.setattr(trainer.model, "full_sort_predict", spoiled)
    with pytest.raises(NotANumberError, match=rf"of {model}.* batch 1 of epoch 1 "):
        trainer.fit(train, valid)
    assert trainer.best_valid_result is not None  # of epoch 0, the last without NaN


def test_nan_scores_of_sampled_candidates_are_found(new_trainer, monkeypatch):
    keys = {"eval_args": {"mode": "uni7", "split": {"LS": "valid_and_test"}, "order": "TO"}}
    trainer, train, valid, _ = new_trainer("BPR", **keys)
    monkeypatch.setattr(
        trainer.model, "predict", lambda interaction: torch.full((len(interaction),), np.nan)
    )
    with pytest.raises(NotANumberError, match="of BPR"):
        trainer.fit(train, valid)


def test_nan_values_of_a_model_of_labels_are_found(new_trainer, monkeypatch):
    trainer, train, valid, _ = new_trainer(
        "FM", metrics=["AUC"], valid_metric="AUC", threshold={"timestamp": 500}
    )
    monkeypatch.setattr(
        trainer.model, "predict", lambda interaction: torch.full((len(interaction),), np.nan)
    )
    with pytest.raises(NotANumberError, match="of FM"):
        trainer.fit(train, valid)


def test_a_test_of_a_saved_model_names_its_file(new_trainer, monkeypatch):
    trainer, train, valid, test = new_trainer("SASRec")
    trainer.fit(train, valid)
    monkeypatch.setattr(
        trainer.model, "full_sort_predict", lambda inter: torch.full((len(inter), 13), np.nan)
    )
    with pytest.raises(NotANumberError, match=r"batch 0 of checkpoint saved/SASRec-.*\.pth"):
        trainer.evaluate(test)


def test_plus_infinity_and_a_full_row_of_minus_infinity_pass(new_trainer, monkeypatch):
    trainer, train, valid, _ = new_trainer("SASRec")

    def extreme(interaction):
        scores = torch.full((len(interaction), 13), -np.inf)
        scores[0, 1] = np.inf
        return scores

    monkeypatch.setattr(trainer.model, "full_sort_predict", extreme)
    trainer.fit(train, valid)
