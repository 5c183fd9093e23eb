"""What a model of RecBole needs is chosen, or it says in one sentence why it cannot run."""

import importlib.util
import logging
import re
import shlex
import sys

import pytest
from recbole.utils import get_model

from recbole_m3rec.baselines import requirements
from recbole_m3rec.baselines.requirements import scores_pair_by_pair
from recbole_m3rec.cli.train import main
from recbole_m3rec.config.yaml_files import ConfigurationError


@pytest.mark.parametrize(
    ("model", "reason"), [("KSR", "KSR cannot be run"), ("GRU4RecKG", r"tiny\.ent does not exist")]
)
def test_a_model_that_cannot_run_says_why_in_one_sentence(write_dataset, capsys, model, reason):
    write_dataset()
    assert main([f"--model={model}", "--dataset=tiny", "--data_path=dataset"]) == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert line.count(". ") == 0
    assert re.search(reason, line)


def test_a_model_of_labels_is_told_before_training_that_there_are_none(write_dataset, call):
    folder = write_dataset()
    run = ["--model=FM", "--dataset=tiny", "--data_path=dataset", "--epochs=1", "--gpu_id="]
    code, _, error = call(*run)
    assert code == 2
    assert re.search(r"FM learns from labels, but .*tiny\.inter has no column label:float", error)
    advice = shlex.split(error.split("such as ")[1].splitlines()[0].removesuffix("."))
    header, *rows = (folder / "tiny.inter").read_text().splitlines()
    labels = ["--load_col={inter: [user_id, item_id, label, timestamp]}"]
    ranks = ["--metrics=AUC", "--valid_metric=AUC", "--eval_args={mode: labeled}"]
    for column, scale, more in (("rating", 5, advice), ("label", 1, labels)):
        lines = [f"{row}\t{scale * (place % 2)}" for place, row in enumerate(rows)]
        (folder / "tiny.inter").write_text("\n".join([f"{header}\t{column}:float", *lines, ""]))
        code, _, error = call(*run, *ranks, *more)
        assert code == 0, error


def test_a_model_of_negatives_is_told_before_training_that_there_are_none(write_dataset, call):
    write_dataset()
    run = ["--dataset=tiny", "--data_path=dataset", "--epochs=1", "--gpu_id=", "--topk=[5]"]
    run += ["--valid_metric=Hit@5", "--train_neg_sample_args=None"]
    code, _, error = call("--model=BPR", *run)
    assert code == 2
    assert "BPR learns from negatives, but train_neg_sample_args is" in error
    assert call("--model=MultiVAE", *run)[0] == 0


@pytest.mark.parametrize(
    ("model", "library", "package"),
    [
        ("NCL", "faiss", "'recbole_m3rec[faiss]'"),
        ("KGAT", "dgl", "dgl"),
        ("KGIN", "torch_scatter", "torch_scatter"),
        ("MCCLK", "torch_scatter", "torch_scatter"),
    ],
)
def test_a_library_that_is_missing_is_named(prepare, monkeypatch, model, library, package):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == library else find(name, *rest),
    )
    said = f"{model} needs the library {library}, which is not installed: pip install {package}"
    with pytest.raises(ConfigurationError, match=re.escape(said)):
        prepare(model)


def test_a_library_that_recbole_imports_itself_is_named(write_dataset, call, monkeypatch):
    write_dataset()
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    code, _, error = call("--model=lightgbm", "--dataset=tiny", "--data_path=dataset")
    assert code == 2
    assert "needs lightgbm, which is not installed: pip install lightgbm" in error


def test_dssm_is_told_which_numbers_it_would_count_and_not_read(write_dataset, call):
    folder = write_dataset()
    for name, column in (("inter", "label"), ("item", "price")):
        header, *rows = (folder / f"tiny.{name}").read_text().splitlines()
        rows = [f"{row}\t{place % 2}" for place, row in enumerate(rows)]
        (folder / f"tiny.{name}").write_text("\n".join([f"{header}\t{column}:float", *rows]) + "\n")
    run = ["--model=DSSM", "--dataset=tiny", "--data_path=dataset", "--epochs=1", "--gpu_id="]
    run += ["--metrics=AUC", "--valid_metric=AUC", "--eval_args={mode: labeled}"]
    columns = "inter: [user_id, item_id, label, timestamp], item: [item_id, price]"
    run += [f"--load_col={{{columns}}}"]
    code, _, error = call(*run)
    assert code == 2
    assert "set --numerical_features=[price], or leave price out of load_col" in error
    assert call(*run, "--numerical_features=[price]")[0] == 0


def test_ncl_is_refused_more_clusters_than_users(write_dataset, prepare, monkeypatch):
    write_dataset()
    monkeypatch.setattr(requirements, "LIBRARIES", {})
    with pytest.raises(ConfigurationError, match=r"num_clusters: 1,000, but `tiny` has .* users"):
        prepare("NCL")
    assert prepare("NCL", num_clusters=3)


@pytest.mark.parametrize("model", ["GRU4RecCPR", "SASRecCPR"])
@pytest.mark.parametrize("chosen", [100, 13, 0, 2.5])
def test_models_that_score_some_items_anew_are_refused_more_than_there_are(prepare, model, chosen):
    said = rf"reranker_CAN_NUM: {chosen}, but `tiny` has 12 items .* from 1 to 12, such as .*=1, or"
    with pytest.raises(ConfigurationError, match=said):
        prepare(model, reranker_CAN_NUM=chosen)


@pytest.mark.parametrize("keys", [{"reranker_CAN_NUM": 12}, {"n_facet_reranker": 0}])
def test_a_number_of_items_scored_anew_that_fits_trains(new_trainer, keys):
    without = {"n_facet_all": 4} if "n_facet_reranker" in keys else {}
    trainer, train, valid, _ = new_trainer("SASRecCPR", **keys, **without)
    trainer.fit(train, valid)


def test_gru4reckg_runs_where_there_is_a_graph(write_dataset, tiny_interactions, new_trainer):
    folder = write_dataset()
    items = sorted({item for _, item, _ in tiny_interactions})
    vectors = "".join(f"{item}\t{n / 10} {1 - n / 10} 0.5\n" for n, item in enumerate(items))
    (folder / "tiny.ent").write_text("ent_id:token\tent_emb:float_seq\n" + vectors)
    links = "".join(f"{item}\te{n}\n" for n, item in enumerate(items))
    (folder / "tiny.link").write_text("item_id:token\tentity_id:token\n" + links)
    (folder / "tiny.kg").write_text("head_id:token\trelation_id:token\ttail_id:token\ne0\tr\te1\n")
    trainer, train, valid, _ = new_trainer("GRU4RecKG", embedding_size=3, hidden_size=4)
    vector = trainer.model.entity_embedding.weight[train.dataset.token2id("item_id", "i03")]
    assert vector.tolist() == pytest.approx([0.3, 0.7, 0.5])
    trainer.fit(train, valid)


def test_fearec_refuses_a_single_layer(prepare):
    with pytest.raises(ConfigurationError, match="n_layers: 1, but FEARec .* at least 2"):
        prepare("FEARec", n_layers=1)


@pytest.mark.parametrize(
    ("model", "keys", "said"),
    [
        ("SASRec", {}, "no sampled negatives"),
        ("SASRec", {"loss_type": "BPR"}, "1 uniform negative a target"),
        ("FPMC", {}, "1 uniform negative a target"),
        ("DIN", {}, "1 uniform negative a target, labelled 0 and targets 1"),
        ("BPR", {}, "1 uniform negative a target"),
        ("MultiVAE", {}, "whole histories, no sampled negatives"),
        ("Pop", {}, "one pass over the interactions"),
    ],
)
def test_the_log_says_what_the_loss_gets(prepare, caplog, model, keys, said):
    caplog.set_level(logging.INFO)
    prepare(model, **keys)
    [line] = [record.message for record in caplog.records if "Chosen for" in record.message]
    assert line.removeprefix(f"Chosen for {model}: ").split("; ")[0] == said


def test_modalities_for_a_model_without_are_warned_of(prepare, caplog):
    prepare("SASRec", modalities=["text"])
    assert "SASRec reads no vectors of items" in caplog.text
    assert "FDSA, GRU4RecF, SASRecF" in caplog.text


def test_models_that_score_pairs_get_as_many_users_as_fit_a_batch(prepare):
    assert [scores_pair_by_pair(get_model(name)) for name in ("DIN", "SASRec")] == [True, False]
    for size, users in ((40, 3), (5, 1)):  # 13 items with padding
        _, _, _, valid, _ = prepare("DIN", eval_batch_size=size)
        assert len(next(iter(valid))[0]) == users
        assert sum(len(batch[0]) for batch in valid) == 12
    _, _, _, valid, _ = prepare("SASRec", eval_batch_size=5)
    assert len(next(iter(valid))[0]) == 5
