"""The files of ``properties/``: plain YAML, every key explained, known, and as published."""

import ast
import re
from pathlib import Path

import pytest
import recbole
import yaml
from recbole.config import Config

from recbole_m3rec.config.keys import KEYS, as_markdown
from recbole_m3rec.config.layers import properties_folder

ROOT = properties_folder()
FILES = sorted(ROOT.rglob("*.yaml"))
BASELINES = [
    *("BERT4Rec", "BPR", "CORE", "Caser", "FEARec", "GRU4Rec", "S3Rec"),
    *("SASRec", "SRGNN", "STAMP"),
]
RECBOLES = Path(recbole.__file__).parent

# A key, its value and its explanation: "(type) what it is, its unit or range".
LINE = re.compile(
    r"^ *[\w-]+:(?P<value>.*?)  ?# "
    r"\((int|float|bool|str|list|dict|str or list|str or int)\) .+, .+$"
)


def load(name):
    values = yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))
    assert isinstance(values, dict)
    return values


def transformer(width="hidden_size", **changed):
    return {
        "n_layers": 2,
        "n_heads": 2,
        width: 64,
        "inner_size": 256,
        "hidden_dropout_prob": 0.5,
        "attn_dropout_prob": 0.5,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
        "initializer_range": 0.02,
        "loss_type": "CE",
    } | changed


MAMBA = {
    "hidden_size": 64,
    "num_layers": 2,
    "d_state": 32,
    "d_conv": 4,
    "expand": 2,
    "dropout_prob": 0.5,
    "loss_type": "CE",
    "mamba_init": "mamba",
}

PUBLISHED = {
    "SASRec": transformer(),
    "BERT4Rec": transformer(hidden_dropout_prob=0, attn_dropout_prob=0)
    | {"mask_ratio": 0.2, "ft_ratio": 0.5},
    "CORE": transformer("embedding_size")
    | {"dnn_type": "trm", "sess_dropout": 0.2, "item_dropout": 0.2, "temperature": 0.07},
    "FEARec": transformer()
    | {"lmd": 0.1, "lmd_sem": 0.1, "tau": 1, "global_ratio": 1, "topk_factor": 1, "fredom": False},
    "S3Rec": transformer()
    | {"mask_ratio": 0.2, "aap_weight": 1, "mip_weight": 0.2, "map_weight": 1, "sp_weight": 0.5}
    | {"item_attribute": "class", "pretrain_epochs": 500},
    "GRU4Rec": {
        "embedding_size": 64, "hidden_size": 128, "num_layers": 2, "dropout_prob": 0.3,
        "loss_type": "CE",
    },
    "Caser": {
        "embedding_size": 64, "dropout_prob": 0.4, "reg_weight": 1e-4, "nv": 4, "nh": 8,
        "loss_type": "CE",
    },
    "SRGNN": {"embedding_size": 64, "step": 1, "loss_type": "CE"},
    "STAMP": {"embedding_size": 64, "loss_type": "CE"},
    "BPR": {"embedding_size": 64},
}  # fmt: skip

PUBLISHED_TRAINING = (
    *("epochs", "train_batch_size", "learner", "learning_rate", "stopping_step"),
    *("valid_metric", "MAX_ITEM_LIST_LENGTH"),
)

PROTOCOL = {
    "seed": 2024,
    "MAX_ITEM_LIST_LENGTH": 50,
    "user_inter_num_interval": "[5,inf)",
    "item_inter_num_interval": "[5,inf)",
    "epochs": 300,
    "train_batch_size": 2048,
    "learner": "adam",
    "learning_rate": 0.001,
    "stopping_step": 5,
    "eval_args": {
        "group_by": "user", "order": "TO", "split": {"LS": "valid_and_test"}, "mode": "full",
    },
    "metrics": ["Hit", "NDCG", "MRR"],
    "topk": [5, 10, 20],
    "valid_metric": "Hit@20",
    "eval_batch_size": 4096,
}  # fmt: skip


def test_every_key_has_a_comment_with_type_and_range():
    wrong = []
    for path in FILES:
        lines = path.read_text(encoding="utf-8").splitlines()
        keys = [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
        assert isinstance(yaml.safe_load("\n".join(keys)), dict), path
        wrong += [f"{path.name}: {line}" for line in keys if not LINE.match(line)]
    assert not wrong, "expected `key: value  # (type) meaning, unit or range`"


@pytest.mark.parametrize("model", PUBLISHED)
def test_models_have_the_published_settings(model):
    values = load(f"model/{model}.yaml")
    assert {key: values.get(key) for key in PUBLISHED[model]} == PUBLISHED[model]


def test_the_protocol_is_the_published_one():
    values = load("overall.yaml")
    assert {key: values.get(key) for key in PROTOCOL} == PROTOCOL


def test_there_is_a_file_for_every_published_baseline_and_dataset():
    models = {path.stem for path in (ROOT / "model").glob("*.yaml")}
    assert models == {*BASELINES, "M3Rec", "Mamba4Rec", "SASRecMM", "ContentKNN"}
    datasets = {path.stem for path in (ROOT / "dataset").glob("*.yaml")}
    assert datasets == {"ml-100k", "beauty", "toys", "sports", "clothing"}


def test_the_preset_is_what_the_released_program_does():
    values = load("presets/m3rec-published.yaml")
    assert values == MAMBA | {
        "low_pass": 0,
        "mamba_init": "normal",
        "score": "dot",
        "repetition": False,
        "id_init": "normal",
        "score_ids": "same",
        "softmax_items": "all",
        "shard_softmax": False,
        "id_updates": "dense",
        "modalities": ["image", "text"],
        "features": {
            "image": {"encoder": "random-codes", "dim": 512, "std": 0.02},
            "text": {"encoder": "random-codes", "dim": 768, "std": 0.02},
        },
        "feature_norm": "none",
        "modality_gradient": "detached",
        "train_positions": "last",
        **{key: PROTOCOL[key] for key in PUBLISHED_TRAINING},
        "weight_decay": 0.0,
        "lr_scheduler": "none",
        "time_order": "recbole",
    }
    known = set(load("model/M3Rec.yaml")) | set(load("overall.yaml"))
    assert set(values) <= known


def test_a_setting_of_the_recipe_is_taken_back_by_the_preset_of_the_released_program():
    """Whatever the recipe changes that decides a result, the preset names."""
    only_how_it_runs = {"feature_path", "feature_rows", "scan_backend", "projector", "warmup_steps"}
    same_in_both = {"projector_experts", "share_mamba", "share_experts", "temperature"}
    recipe = set(load("model/M3Rec.yaml"))
    assert recipe - set(load("presets/m3rec-published.yaml")) == only_how_it_runs | same_in_both


def test_mamba4rec_has_the_recipe_of_m3rec():
    of_m3rec, values = load("model/M3Rec.yaml"), load("model/Mamba4Rec.yaml")
    assert values == {key: of_m3rec[key] for key in values}
    assert {"hidden_size", "score", "temperature", "repetition", "epochs"} <= set(values)


@pytest.mark.parametrize("model", BASELINES)
def test_every_key_of_a_baseline_is_one_that_recbole_reads(model):
    source = next(RECBOLES.glob(f"model/*/{model.lower()}.py")).read_text(encoding="utf-8")
    source += (RECBOLES / "trainer" / "trainer.py").read_text(encoding="utf-8")
    for key in load(f"model/{model}.yaml"):
        assert re.search(rf"config\[\s*\"{key}\"", source) or key == "ft_ratio", key


def test_every_key_of_the_protocol_is_one_that_recbole_has_or_the_plugins_own():
    known = {"mask_seen", "cold_items", "time_order", "lr_scheduler", "warmup_steps", "download"}
    known |= {"checkpoint_format", "checkpoint_minutes"}
    for name in ("overall.yaml", "dataset/sample.yaml"):
        known |= set(yaml.safe_load((RECBOLES / "properties" / name).read_text(encoding="utf-8")))
    assert set(load("overall.yaml")) <= known


def test_datasets_say_how_features_are_made_and_where_amazons_come_from():
    from recbole_m3rec.data.sources import checked
    from recbole_m3rec.datasets.amazon.releases import find_category, find_release, short_name
    from recbole_m3rec.features.encoders import ENCODER_NAMES

    for path in (ROOT / "dataset").glob("*.yaml"):
        values = load(f"dataset/{path.name}")
        assert set(values) == ({"features"} if path.stem == "ml-100k" else {"source", "features"})
        if "source" in values:
            source = checked(values["source"], path.stem)
            release = find_release(str(source["release"]))
            assert short_name(release, find_category(release, source["amazon"])) == path.stem
        assert all(recipe["encoder"] in ENCODER_NAMES for recipe in values["features"].values())


def test_the_fields_of_the_recipe_for_ml_100k_exist():
    header = (RECBOLES / "dataset_example" / "ml-100k" / "ml-100k.item").read_text().split("\n")[0]
    columns = {column.split(":")[0] for column in header.split("\t")}
    assert set(load("dataset/ml-100k.yaml")["features"]["text"]["fields"]) <= columns


def test_the_search_space_reads_as_recboles_hyper_tuning_reads_it():
    """``name choice list``, split at spaces and evaluated, comment included."""
    known = {**load("overall.yaml"), **load("model/M3Rec.yaml")}
    space = {}
    for line in (ROOT / "tuning" / "M3Rec.hyper").read_text(encoding="utf-8").splitlines():
        parts = line.strip().split(" ")
        if len(parts) < 3:
            continue
        name, kind, value = parts[0], parts[1], "".join(parts[2:])
        assert kind == "choice"
        space[name] = ast.literal_eval(value)
        assert "# (" in line
    assert set(space) <= set(known)
    assert all(known[name] in values for name, values in space.items())


# A remark in a comment, which no range is: "(unit length)", but not "(0, 1)".
REMARK = re.compile(r" \((?!-?[\d.]+, )[^()]*\)")
COMMENTED = re.compile(r"^(?P<key>\w+):.*# \((?P<type>[a-z ]+)\) (?P<text>.+)$", re.MULTILINE)


def test_comments_agree_with_the_table_of_keys():
    for path in FILES:
        for line in COMMENTED.finditer(path.read_text(encoding="utf-8")):
            key, where = KEYS[line["key"]], f"{path.name}: {line['key']}"
            text = REMARK.sub("", line["text"])
            assert set(line["type"].split(" or ")) <= set(key.type.split(" or ")), where
            assert key.range in text, f"{where}: {text!r} does not say {key.range!r}"
            if path.name == "overall.yaml":  # one meaning for all models
                assert text == f"{key.meaning}, {key.range}", where


def test_values_agree_with_the_table_of_keys():
    """So no number is read as a string, as YAML 1.1 reads ``1e-4``."""
    for path in FILES:
        for name, value in load(path.relative_to(ROOT)).items():
            assert KEYS[name].complaint(name, value) is None, path


def test_every_key_of_recboles_own_files_is_in_the_table():
    for name in ("overall.yaml", "dataset/sample.yaml"):
        text = (RECBOLES / "properties" / name).read_text(encoding="utf-8")
        assert set(re.findall(r"^(\w+):", text, re.MULTILINE)) <= set(KEYS), name


def test_the_documented_table_is_the_one_that_is_checked():
    documented = (ROOT.parent / "docs" / "keys.md").read_text(encoding="utf-8")
    assert as_markdown(Config("M3Rec", "any").internal_config_dict) in documented
