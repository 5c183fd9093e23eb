"""Whole runs through RecBole's own quick start: what must not change the result, and what must."""

import numpy as np
import pytest
import torch
from recbole.quick_start import run_recbole

from tests.tiny import N_ITEMS, small, write_vectors

SETTINGS = {**small("M3Rec"), "epochs": 2, "train_batch_size": 16, "metric_decimal_place": 12}
SETTINGS |= {"modalities": ["image"], "dropout_prob": 0.2}


def train(**keys):
    return run_recbole(model="M3Rec", dataset="tiny", config_dict={**SETTINGS, **keys})


def write_images(folder, order, seed=0):
    """One vector for each item, the same whatever the order of the rows."""
    vectors = np.random.default_rng(seed).normal(size=(N_ITEMS, 6)).astype(np.float32)
    ids = np.array([f"i{item:02d}" for item in range(N_ITEMS)])
    write_vectors(folder, "image", ids[order], vectors[order])


@pytest.fixture
def folder(write_dataset):
    made = write_dataset("tiny")
    write_images(made, np.arange(N_ITEMS))
    return made


def test_the_order_of_a_feature_files_rows_changes_no_bit_of_the_metrics(folder):
    first = train()
    write_images(folder, np.random.default_rng(1).permutation(N_ITEMS))
    assert train() == first
    write_images(folder, np.arange(N_ITEMS), seed=1)
    assert train() != first  # so the features did take part


@pytest.mark.parametrize(("positions", "loss"), [("all", "CE"), ("last", "BPR")])
def test_a_seed_gives_the_same_run_twice_and_another_seed_another(folder, positions, loss):
    keys = {"train_positions": positions, "loss_type": loss}
    first = train(**keys)
    assert train(**keys) == first
    assert train(**keys, seed=7) != first


def test_mixed_precision_trains_in_bfloat16_and_evaluates_in_float32(folder, monkeypatch):
    from recbole.trainer import Trainer

    seen = {"training": set(), "evaluation": set()}
    now = "training"
    linear, evaluate = torch.nn.functional.linear, Trainer.evaluate

    def watch(*args):
        out = linear(*args)
        seen[now].add(out.dtype)
        return out

    def evaluating(*args, **kwargs):
        nonlocal now
        now = "evaluation"
        try:
            return evaluate(*args, **kwargs)
        finally:
            now = "training"

    monkeypatch.setattr(torch.nn.functional, "linear", watch)
    monkeypatch.setattr(Trainer, "evaluate", evaluating)
    result = train(enable_amp=True)
    assert torch.bfloat16 in seen["training"]
    assert seen["evaluation"] == {torch.float32}
    assert result["test_result"]["ndcg@5"] > 0
