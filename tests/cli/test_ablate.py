"""M3Rec's own table: its rows, and that they are trained as they are named."""

import csv
from pathlib import Path

import pytest

from recbole_m3rec.cli import ablate
from recbole_m3rec.cli.parsers import UsageError
from recbole_m3rec.config.yaml_files import ConfigurationError
from tests.compare.conftest import forked_workers, tiny_of_fourteen  # noqa: F401  (fixtures)
from tests.tiny import TWO_MODALITIES

TITLES = "features: {text: {encoder: tfidf-svd, fields: [title], dim: 4}}"


def rows(make_config, **keys):
    return {r.name: r for r in ablate.variants(make_config("M3Rec", **{**TWO_MODALITIES, **keys}))}


def test_every_part_of_the_model_has_its_row(make_config):
    found = rows(make_config)
    assert list(found) == [
        *("M3Rec", "without image", "without text", "ID alone"),
        *("random features", "shuffled features", "one shared expert", "unshared Mamba blocks"),
        *("modality_gradient: frozen", "modality_gradient: detached", "train_positions: last"),
        *("score: dot", "repetition: False", "low_pass: 0", "lr_scheduler: none"),
        *("id_init: normal", "score_ids: offset", "score_ids: own", "feature_norm: none"),
        *("feature_norm: standardize", "hidden_size: 64", "hidden_size: 128"),
        *("train_batch_size: 512", "train_batch_size: 2048", "published preset"),
    ]
    assert found["without image"].settings == {"modalities": ["text"]}
    assert found["ID alone"].model == "Mamba4Rec"
    assert found["published preset"].settings["train_positions"] == "last"
    assert all(row.question.strip() for row in found.values())


def test_rows_differ_from_the_whole_model_as_it_is_configured(make_config):
    found = rows(make_config, modality_gradient="shared", train_positions="last")
    assert {"modality_gradient: frozen", "modality_gradient: detached"} <= set(found)
    assert "train_positions: all" in found
    assert "modality_gradient: shared" not in found
    assert "one shared expert" in found
    same = rows(make_config, share_experts=True, feature_rows="random")
    assert not {"one shared expert", "random features"} & set(same)


def test_a_single_modality_is_left_out_once(make_config):
    found = rows(make_config, modalities=["text"])
    assert "ID alone" in found
    assert not any(name.startswith("without") for name in found)


def test_without_content_there_is_nothing_to_take_away(make_config):
    with pytest.raises(ConfigurationError, match="leaves M3Rec its IDs alone"):
        rows(make_config, modalities=[])


def test_only_names_rows_and_keeps_the_whole_model(make_config):
    all_rows = list(rows(make_config).values())
    found = ablate.chosen(all_rows, "shuffled features, ID alone")
    assert [row.name for row in found] == ["M3Rec", "ID alone", "shuffled features"]
    with pytest.raises(UsageError, match="'random feature' is no row.*Did you mean random feat"):
        ablate.chosen(all_rows, "random feature")


def test_an_unknown_dataset_is_said_to_be_one(write_dataset, capsys):
    write_dataset("tiny")
    assert ablate.main(["--dataset", "tinny", "--data_path=dataset"]) == 2
    error = capsys.readouterr().err
    assert "There is no dataset `tinny`" in error
    assert "Did you mean tiny" in error


def test_rows_are_trained_as_they_are_named(
    tiny_of_fourteen,  # noqa: F811
    capsys,
    forked_workers,  # noqa: F811
):
    small = ["--hidden_size=8", "--d_state=4", "--epochs=1", "--topk=[3,5]", "--data_path=dataset"]
    small += ["--valid_metric=NDCG@5", "--modalities=[text]", "--config_files", "titles.yaml"]
    Path("titles.yaml").write_text(TITLES, encoding="utf-8")
    wanted = "random features,ID alone"
    assert ablate.main(["--dataset", "tiny", "--only", wanted, *small]) == 0
    assert "report: ablation" in capsys.readouterr().out
    with open("ablation/results.csv", encoding="utf-8", newline="") as file:
        found = {line["name"]: line for line in csv.DictReader(file)}
    assert list(found) == ["M3Rec", "ID alone", "random features"]
    assert {line["model"] for line in found.values()} == {"M3Rec", "Mamba4Rec"}
    assert len({line["hash"] for line in found.values()}) == 3
    assert "Is it what features say?" in Path("ablation/report.md").read_text(encoding="utf-8")
