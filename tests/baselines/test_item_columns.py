"""Models of RecBole that read item features get some, of any dataset, and really see them."""

import logging

import numpy as np
import pytest
import torch

from recbole_m3rec.atomic.item_columns import Column, shared_columns
from recbole_m3rec.atomic.item_file import ItemFile
from recbole_m3rec.baselines import item_columns
from recbole_m3rec.baselines.item_columns import set_value
from recbole_m3rec.baselines.item_vectors import VectorEmbedding
from recbole_m3rec.config.yaml_files import ConfigurationError
from tests.tiny import metrics_in

WITH_COLUMNS = ["GRU4RecF", "SASRecF", "FDSA"]
PLAIN = {"n_layers": 1, "hidden_dropout_prob": 0.0, "attn_dropout_prob": 0.0, "dropout_prob": 0.0}


@pytest.fixture
def built(new_model):
    """Return a function that gives (model in evaluation, dataset, a batch) of a model by name."""

    def build(model, **keys):
        _, net, train, valid, _ = new_model(model, **{**PLAIN, **keys})
        return net.eval(), train.dataset, next(iter(valid))[0]

    return build


@pytest.fixture
def vectors(tmp_path, write_dataset, tiny_interactions):
    """Write ``tiny.text.npz`` and return its vectors by item token, in an order of its own."""
    write_dataset()
    tokens = sorted({item for _, item, _ in tiny_interactions}, reverse=True)
    values = np.random.default_rng(0).normal(size=(len(tokens), 6)).astype(np.float32)
    file = tmp_path / "dataset" / "tiny" / "tiny.text.npz"
    np.savez(file, item_id=np.array(tokens), embedding=values)
    return dict(zip(tokens, values, strict=True))


@pytest.mark.parametrize("model", WITH_COLUMNS)
def test_columns_are_chosen_from_the_file_and_logged(built, model, caplog):
    caplog.set_level(logging.INFO)
    net, dataset, batch = built(model)  # RecBole's default, `class`, is no column of this file
    assert f"Chosen for {model}: no sampled negatives; selected_features: kind" in caplog.text
    assert net.selected_features == ["kind"]
    with torch.no_grad():
        before = net.full_sort_predict(batch)
        net.feature_embed_layer.token_embedding_table["item"].embedding.weight.add_(1.0)
        assert not net.full_sort_predict(batch).equal(before)


def test_named_columns_are_kept_and_unknown_ones_refused(built):
    net, _, _ = built("GRU4RecF", selected_features=["kind"])
    assert net.selected_features == ["kind"]
    with pytest.raises(ConfigurationError, match="knd is no column of .*tiny.item.*title, kind"):
        built("GRU4RecF", selected_features=["knd"])


def test_a_dataset_without_item_file_says_what_to_bring(built, write_dataset):
    write_dataset(items={})
    for model, advice in (("FDSA", "--modalities"), ("S3Rec", "item_attribute")):
        with pytest.raises(
            ConfigurationError, match=f"{model} learns from item features.*{advice}"
        ):
            built(model)


def test_s3rec_gets_the_one_column_with_the_fewest_values(built, caplog):
    caplog.set_level(logging.INFO)
    net, _, _ = built("S3Rec")
    assert net.FEATURE_FIELD == "kind"
    assert "item_attribute: kind" in caplog.text


@pytest.mark.parametrize("model", ["DIN", "DIEN"])
def test_models_that_embed_every_column_get_those_of_the_dataset(built, model, caplog):
    caplog.set_level(logging.INFO)
    net, _, batch = built(model)
    assert "kind" in net.item_feat.interaction
    assert "kind of the .item file" in caplog.text
    assert "labelled 0 and targets 1" in caplog.text


@pytest.mark.parametrize("model", ["SASRec", "RepeatNet", "BPR"])
def test_models_that_read_no_columns_get_none(prepare, model):
    _, dataset, _, _, _ = prepare(model)
    assert dataset.item_feat is None


@pytest.mark.parametrize("model", WITH_COLUMNS)
def test_vectors_of_a_feature_file_are_the_items_features(built, model, vectors):
    net, dataset, batch = built(model, modalities=["text"], feature_path="dataset/tiny")
    layer = net.feature_embed_layer.item_vectors
    expected = torch.stack(
        [torch.from_numpy(vectors[token]) for token in dataset.field2id_token["item_id"][1:]]
    )
    assert layer.table0[1:].equal(expected)
    assert net.selected_features == ["text.vector"]
    with torch.no_grad():
        before = net.full_sort_predict(batch)
        layer.table0[batch["item_id_list"][0, 0]] += 1.0
        assert not net.full_sort_predict(batch)[0].equal(before[0])


def test_vectors_stand_beside_columns_that_are_named(built, vectors):
    keys = {"modalities": "text", "feature_path": "dataset/tiny"}
    net, _, batch = built("GRU4RecF", selected_features=["kind"], **keys)
    assert net.selected_features == ["kind", "text.vector"]
    assert net.full_sort_predict(batch).isfinite().all()


def test_a_vector_becomes_a_feature_by_a_linear_map():
    torch.manual_seed(0)
    tables = [torch.randn(5, 3), torch.randn(5, 2)]
    layer = VectorEmbedding(tables, 4)
    items = torch.tensor([[1, 4], [0, 2]])
    found = layer(items)
    assert found.shape == (2, 2, 2, 4)
    for number, table in enumerate(tables):
        by_hand = table[items] @ layer.projections[number].weight.T
        torch.testing.assert_close(found[:, :, number], by_hand)


def test_vectors_are_learned_from_and_come_back_with_a_checkpoint(
    vectors, call, small_arguments, tmp_path
):
    keys = ["--epochs=1", "--n_heads=2", "--modalities=text", "--feature_path=dataset/tiny"]
    code, trained, error = call("--model=SASRecF", *small_arguments, *keys)
    assert code == 0, error
    [checkpoint] = (tmp_path / "saved").glob("*.pth")
    assert metrics_in(call("--evaluate", str(checkpoint))[1]) == metrics_in(trained)


def test_what_is_chosen_is_kept_for_a_checkpoint(make_config):
    config = make_config("GRU4RecF", selected_features=["kind"])
    set_value(config, "selected_features", ["title"])
    assert config["selected_features"] == ["title"]
    assert config.external_config_dict["selected_features"] == ["title"]
    set_value(config, "load_col", None)
    assert "load_col" not in config.external_config_dict


def test_prose_and_names_tell_nothing_that_items_share(tmp_path):
    path = tmp_path / "x.item"
    rows = ["item_id:token\tname:token\tbrand:token\tprose:token_seq\ttags:token_seq\tprice:float"]
    for item in range(12):
        prose = " ".join(["word", "and"] * 20)
        tags = ("x", "x y", "")[item % 3]
        rows.append(f"{item}\tname{item}\t{'ab'[item % 2]}\t{prose}\t{tags}\t1.5")
    path.write_text("\n".join(rows) + "\n")
    assert shared_columns(ItemFile(path)) == [Column("brand", 2, 1), Column("tags", 2, 2)]
    assert shared_columns(ItemFile(tmp_path / "none.item")) == []


def test_long_rows_of_a_chosen_column_are_read_in_part(built, write_dataset, monkeypatch):
    monkeypatch.setattr(item_columns, "WORDS_READ", 1)
    write_dataset(items={f"i{n:02d}": ("red hat", "blue hat")[n % 2] for n in range(12)})
    net, dataset, _ = built("FDSA")
    assert net.selected_features == ["title"]
    assert dataset.item_feat["title"].shape == (13, 1)
