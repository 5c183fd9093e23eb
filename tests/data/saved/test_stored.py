"""A saved dataset holds no code and comes back as it was: attributes, splits and batches."""

import copy
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from recbole.data import create_dataset, data_preparation
from recbole.data.interaction import Interaction
from recbole.utils import KGDataLoaderState

from recbole_m3rec.data.saved import stored
from recbole_m3rec.features.feature_table import FeatureFileError

SAVED = {"save_dataset": True, "save_dataloaders": True}
POPULAR = {"distribution": "popularity", "sample_num": 1, "alpha": 1.0}
KG = {
    "tiny.kg": "head_id:token\trelation_id:token\ttail_id:token\n"
    + "".join(f"e{n}\tr{n % 2}\te{n + 1}\n" for n in range(12)),
    "tiny.link": "item_id:token\tentity_id:token\n"
    + "".join(f"i{n:02d}\te{n}\n" for n in range(12)),
}
CASES = {
    "SASRec": {"loss_type": "BPR", "train_neg_sample_args": POPULAR},
    "GRU4RecF": {"selected_features": ["title", "price", "tags"], "load_col": None}
    | {"numerical_features": ["price"], "rm_dup_inter": "first", "train_neg_sample_args": None},
    "M3Rec": {"modalities": ["noise"], "features": {"noise": {"encoder": "random-codes"}}}
    | {"cold_items": 0.2},
    "BPR": {"eval_args": {"order": "RO", "split": {"RS": [8, 1, 1]}, "group_by": None}},
    "CKE": {},
    "FM": {"threshold": {"timestamp": 600}, "normalize_all": False, "load_col": None}
    | {"metrics": ["AUC"], "topk": [3], "valid_metric": "AUC", "train_neg_sample_args": None}
    | {"eval_args": {"mode": "labeled", "order": "RO", "split": {"RS": [8, 1, 1]}}},
}


def same(a, b):
    """Compare nested values to the last bit."""
    if isinstance(a, Interaction):
        return same(a.interaction, b.interaction)
    if isinstance(a, pd.DataFrame):
        return all(same(a[name].to_numpy(), b[name].to_numpy()) for name in {*a, *b})
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and same(a.numpy(), b.numpy())
    if isinstance(a, np.ndarray):
        if a.dtype != b.dtype or a.shape != b.shape:
            return False
        return same(list(a), list(b)) if a.dtype == object else a.tobytes() == b.tobytes()
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


@pytest.mark.parametrize("model", CASES)
def test_a_saved_dataset_is_the_one_that_was_saved(model, make_config, write_dataset, caplog):
    caplog.set_level("INFO")
    folder = write_dataset()
    items = [f"i{n:02d}\tred hat\t{n + 0.5}\ta b c{n}" for n in range(12)]
    header = "item_id:token\ttitle:token_seq\tprice:float\ttags:token_seq"
    (folder / "tiny.item").write_text("\n".join([header, *items]) + "\n")
    if model == "CKE":
        for name, text in KG.items():
            (folder / name).write_text(text)

    def made():
        config = make_config(model, **SAVED, **CASES[model])
        torch.manual_seed(0)
        np.random.seed(0)
        dataset = create_dataset(config)
        before = copy.deepcopy(stored.attributes_of(dataset))
        loaders = data_preparation(config, dataset)
        np.random.seed(0)
        if model == "CKE":
            loaders[0].set_mode(KGDataLoaderState.RSKG)
        batches = [
            [batch[0] if isinstance(batch, tuple) else batch for batch in loader]
            for loader in loaders
        ]
        features = getattr(dataset, "item_features", {})
        values = {name: modality.values for name, modality in features.items()}
        return before, stored.attributes_of(dataset), batches, values

    first = made()
    assert "Load" not in caplog.text
    second = made()
    assert caplog.text.count("Load filtered dataset from") == 1
    assert caplog.text.count("Load split dataloaders from") == 1
    for kind, a, b in zip(("dataset", "built", "batches", "features"), first, second, strict=True):
        assert set(a) == set(b) if isinstance(a, dict) else True
        parts = a if isinstance(a, dict) else range(len(a))
        assert [part for part in parts if not same(a[part], b[part])] == [], kind
    assert not list(Path("saved").glob("*.pth"))


@pytest.mark.parametrize(
    "cells",
    [
        [np.array([2**53 + 1]), np.array([])],
        [np.array([1.5]), np.array(["a"])],
        [np.array([1]), np.ones((2, 2), int)],
        [np.array([1]), np.array([None, "a"], object)],
    ],
)
def test_cells_of_several_kinds_come_back_as_they_were(cells, tmp_path):
    column = np.empty(2, object)
    column[0], column[1] = cells
    stored.write({"cells": column}, tmp_path / "x.npz")
    assert same(stored.read(tmp_path / "x.npz")["cells"], column)


def test_a_tensor_that_numpy_has_not_is_named(tmp_path):
    with pytest.raises(stored.CannotStoreError, match="^x is a tensor that NumPy cannot hold"):
        stored.write({"x": torch.zeros(2, dtype=torch.bfloat16)}, tmp_path / "x.npz")


def test_what_has_no_form_is_not_saved_and_the_run_goes_on(make_config, caplog):
    create_dataset(make_config("DIEN", save_dataset=True))
    assert "tiny-DIENDataset.npz is not saved, and the run goes on: seq_sampler is a" in caplog.text
    assert not Path("saved").exists()


def test_a_damaged_file_is_one_error_and_never_a_pickle(tmp_path):
    path = tmp_path / "x.npz"
    stored.write({"a": np.arange(5), "b": {("x", 1): {"y"}}}, path)
    assert same(stored.read(path)["a"], np.arange(5))
    assert stored.read(path)["b"] == {("x", 1): {"y"}}
    whole = path.read_bytes()
    for end in range(0, len(whole), 40):
        path.write_bytes(whole[:end])
        with pytest.raises(FeatureFileError):
            stored.read(path)
    np.savez(path, tree=np.array([{"a": 1}], object))
    with pytest.raises(FeatureFileError, match="not read because unpickling can run"):
        stored.read(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tree.txt", "")
    with pytest.raises(FeatureFileError):
        stored.read(path)
