"""What makes two runs the same: configuration and data, and nothing else."""

import copy
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from recbole_m3rec.compare.comparison import plan
from recbole_m3rec.compare.runs import Run, configuration, identify, prepare
from recbole_m3rec.compare.settings import divide
from recbole_m3rec.config.data_checks import UnknownNameError
from recbole_m3rec.config.yaml_files import ConfigurationError
from tests.tiny import write_vectors

SMALL = {"data_path": "dataset", "gpu_id": "", "hidden_size": 8, "epochs": 1}
IMAGES = {**SMALL, "modalities": ["image"], "d_state": 4}


def hash_of(model="SASRec", seed=1, **settings):
    run = Run("any", model, "tiny", seed, {**SMALL, **settings})
    return identify(configuration(run)).hash


@pytest.fixture
def folder(write_dataset):
    return write_dataset("tiny")


def write_images(folder, scale=1.0):
    vectors = np.arange(48).reshape(12, 4) * scale
    write_vectors(folder, "image", [f"i{item:02d}" for item in range(12)], vectors)


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_size": 16},
        {"n_layers": 3},
        {"seed": 2},
        {"model": "GRU4Rec"},
        {"epochs": 2},
        {"mask_seen": True},
        {"topk": [1, 5], "valid_metric": "Hit@5"},
        {"eval_args": {"split": {"RS": [8, 1, 1]}, "order": "RO", "group_by": None}},
        {"user_inter_num_interval": "[2,inf)"},
    ],
)
def test_another_configuration_is_another_run(folder, change):
    assert hash_of(**change) != hash_of()


@pytest.mark.parametrize(
    "change",
    [
        {"checkpoint_dir": "elsewhere"},
        {"show_progress": True},
        {"state": "WARNING"},
        {"log_wandb": False},
        {"save_dataset": True},
        {"worker": 2},
        {"checkpoint_minutes": 5.0},
        {"checkpoint_format": "safe"},
    ],
)
def test_places_progress_and_logs_are_the_same_run(folder, change):
    assert hash_of(**change) == hash_of()


def test_the_same_data_in_another_place_is_the_same_run(folder, tmp_path, monkeypatch):
    before = hash_of()
    (tmp_path / "dataset").rename(tmp_path / "moved")
    assert hash_of(data_path="moved") == before
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert hash_of(data_path="../moved") == before


def test_arguments_of_this_process_are_no_settings(folder, monkeypatch):
    before = hash_of()
    monkeypatch.setattr(sys, "argv", ["compare", "--hidden_size=32"])
    assert hash_of() == before


KG = "head_id:token\trelation_id:token\ttail_id:token\n"


@pytest.mark.parametrize(
    ("file", "line", "model", "settings", "counts"),
    [
        ("tiny.inter", "u00\ti00\t9999\n", "SASRec", {}, True),
        ("tiny.item", "i99\tgrey hat\that\n", "SASRec", {}, False),
        ("tiny.item", "i99\tgrey hat\that\n", "SASRec", {"load_col": None}, True),
        # These two choose later what they read.
        ("tiny.item", "i99\tgrey hat\that\n", "SASRecF", {}, True),
        ("tiny.kg", KG + "a\tis\tb\n", "GRU4RecKG", {"additional_feat_suffix": ["ent"]}, True),
    ],
)
def test_a_file_counts_where_it_is_read(folder, file, line, model, settings, counts):
    before = hash_of(model, **settings)
    with open(folder / file, "a", encoding="utf-8") as end:
        end.write(line)
    assert (hash_of(model, **settings) != before) == counts


@pytest.mark.parametrize("model", ["M3Rec", "SASRecF"])
def test_features_count_where_they_are_read(folder, model):
    write_images(folder)
    with_images, without = hash_of(model, **IMAGES), hash_of()
    write_images(folder, scale=2.0)
    assert hash_of(model, **IMAGES) != with_images
    assert hash_of() == without


def test_a_checkpoint_to_begin_with_counts_by_its_contents(folder):
    begin = {"train_stage": "finetune", "pre_model_path": "begin.pth"}
    Path("begin.pth").write_bytes(b"one")
    before = hash_of("S3Rec", **begin)
    Path("begin.pth").write_bytes(b"other")
    assert hash_of("S3Rec", **begin) != before


def test_a_restored_backup_of_the_same_size_and_time_makes_another_run(folder):
    path = folder / "tiny.inter"
    before, times = hash_of("SASRec"), (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    path.write_bytes(path.read_bytes().replace(b"1", b"9", 1))
    os.utime(path, ns=times)
    assert hash_of("SASRec") != before


def test_the_name_in_the_table_is_no_part_of_a_run(folder, tmp_path):
    runs = [Run(name, "SASRec", "tiny", 1, SMALL) for name in ("one", "other")]
    first, second = plan(runs, tmp_path / "out")
    assert first.folder == second.folder


def test_an_identity_is_the_same_after_json(folder):
    identity = identify(configuration(Run("a", "SASRec", "tiny", 1, SMALL)))
    assert json.loads(json.dumps(identity.config)) == identity.config


def test_settings_of_a_run_stay_as_they_were_given(folder):
    settings = {**SMALL, "train_neg_sample_args": {"distribution": "uniform", "sample_num": 1}}
    settings["loss_type"] = "BPR"
    before = copy.deepcopy(settings)
    configuration(Run("a", "SASRec", "tiny", 1, settings))  # RecBole fills in what is missing
    assert settings == before


def test_features_are_made_before_any_run(folder):
    recipe = {"text": {"encoder": "tfidf-svd", "fields": ["title"], "dim": 2}}
    settings = {**SMALL, "features": recipe, "modalities": ["text"], "d_state": 4}
    prepare(configuration(Run("a", "M3Rec", "tiny", 1, settings)))
    assert (folder / "tiny.text.parquet").is_file()


def test_unknown_names_are_refused_before_anything_is_made(folder, tmp_path):
    good = Run("a", "SASRec", "tiny", 1, SMALL)
    for wrong, nearest in (
        (Run("b", "SASrec", "tiny", 1, SMALL), "SASRec"),
        (Run("b", "SASRec", "tinny", 1, SMALL), "tiny"),
    ):
        with pytest.raises(UnknownNameError, match=f"Did you mean.*{nearest}"):
            plan([good, wrong], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_each_model_gets_the_settings_that_it_knows(folder):
    given = {"n_layers": 3, "num_layers": 1, "epochs": 2, "modalities": [], "mask_seen": True}
    given["feature_rows"] = "shuffled"
    content = {"modalities": [], "feature_rows": "shuffled"}
    models = ["M3Rec", "SASRec", "GRU4Rec", "Mamba4Rec", "BPR", "SASRecF"]
    divided = divide(given, models, "tiny")
    common = {"epochs": 2, "mask_seen": True}
    assert divided["M3Rec"] == {**common, "num_layers": 1, **content}
    assert divided["SASRec"] == {**common, "n_layers": 3}
    assert divided["GRU4Rec"] == {**common, "num_layers": 1}
    assert divided["Mamba4Rec"] == {**common, "num_layers": 1}
    assert divided["BPR"] == common
    assert divided["SASRecF"] == {**common, "n_layers": 3, **content}


def test_settings_of_other_models_do_not_make_another_run(folder):
    for given in ({}, {"num_layers": 3}):
        own = divide(given, ["M3Rec", "SASRec"], "tiny")["SASRec"]
        assert hash_of(**own) == hash_of()


def test_a_key_that_no_model_knows_is_refused_with_the_nearest(folder):
    with pytest.raises(ConfigurationError, match=r"`num_layer`.*Did you mean num_layers"):
        divide({"num_layer": 3}, ["GRU4Rec", "BPR"], "tiny")


@pytest.mark.parametrize("key", ["evaluate", "saved", "config_file_list", "output"])
def test_what_no_run_of_a_comparison_can_do_is_refused(folder, key):
    with pytest.raises(
        ConfigurationError, match=f"None of BPR knows the configuration key `{key}`"
    ):
        divide({key: "a"}, ["BPR"], "tiny")


def test_a_weight_of_other_models_losses_is_for_those_alone(folder):
    divided = divide({"reg_weight": 0.1}, ["SASRec", "LightGCN"], "tiny")
    assert divided == {"SASRec": {}, "LightGCN": {"reg_weight": 0.1}}


def test_what_the_comparison_decides_itself_is_refused(folder):
    with pytest.raises(ConfigurationError, match="--models"):
        divide({"model": "BPR"}, ["SASRec"], "tiny")


def test_a_configuration_that_recbole_refuses_names_the_model(folder):
    settings = {**SMALL, "loss_type": "CE", "train_neg_sample_args": {"sample_num": 1}}
    with pytest.raises(ConfigurationError, match=r"SASRec on tiny: .*train_neg_sample_args"):
        configuration(Run("a", "SASRec", "tiny", 1, settings))
