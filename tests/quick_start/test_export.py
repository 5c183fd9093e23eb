"""A checkpoint's bundle recommends what --topk writes, without RecBole and without the data."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import recbole_m3rec
from recbole_m3rec import Recommender
from recbole_m3rec.cli.commands import run_script
from recbole_m3rec.cli.prepare import encode_text
from recbole_m3rec.serving.bundle.read import read_bundle
from tests.trainer.killed_runs import start, wait

CLONE = Path(recbole_m3rec.__file__).parents[1]


@pytest.fixture
def train(call, write_dataset, small_arguments):
    """Return a function that trains M3Rec one epoch on the tiny dataset: the checkpoint."""

    def run(*more):
        write_dataset()
        unknown = ("--hidden_dropout", "--attn_", "--embedding_size")
        known = [one for one in small_arguments if not one.startswith(unknown)]
        code, _, error = call("--model=M3Rec", "--epochs=1", *known, *more)
        assert code == 0, error
        return next(Path("saved").glob("M3Rec-*.pth"))

    return run


def export(call, checkpoint, *more):
    code, out, error = call("--export", str(checkpoint), "--output", "shop", *more)
    assert code == 0, error
    assert "bundle: shop" in out
    return Path("shop")


def same_as_topk(call, checkpoint, *options):
    bundle = export(call, checkpoint, "--with-histories")
    code, _, error = call("--topk", str(checkpoint), "--output", "top.csv", "--k", "5", *options)
    assert code == 0, error
    csv = pd.read_csv("top.csv", dtype={"user": str, "item": str})
    shop = Recommender.load(bundle)
    users = list(csv["user"].unique())
    assert sorted(users) == shop.users
    frame = shop.recommend(users, 5, exclude_seen="--keep_seen" not in options)
    assert list(frame["user"]) == list(csv["user"])
    assert list(frame["item"]) == list(csv["item"])
    assert np.allclose(frame["score"], csv["score"], rtol=1e-5, atol=1e-5)
    return frame


@pytest.mark.parametrize("options", [(), ("--keep_seen",)])
def test_the_bundle_recommends_what_topk_writes(call, trained, options):
    same_as_topk(call, trained("Mamba4Rec"), *options)


@pytest.mark.parametrize(
    ("norm", "is_brought"),
    [("none", False), ("none", True), ("l2", False), ("standardize", False), ("whiten", False)],
)
def test_with_content_and_without_the_data(call, train, write_dataset, norm, is_brought):
    recipe = "--features={'text':{'encoder':'tfidf-svd','fields':['title'],'dim':4,'min_df':1}}"
    if is_brought:
        # of another .item file, as for ml-100k, whose interactions come with RecBole
        text = (write_dataset() / "tiny.item").read_text().replace("title:", "note:")
        Path("mine/tiny").mkdir(parents=True)
        Path("mine/tiny/tiny.item").write_text(text)
        options = ["--fields", "note", "--option", "dim=4", "--option", "min_df=1"]
        step = ["--dataset", "tiny", "--data-path", "mine", *options]
        assert run_script(encode_text.encode_text, step) == 0
        recipe = "--feature_path=mine/tiny"
    same_as_topk(call, train(recipe, f"--feature_norm={norm}"))
    shutil.rmtree("dataset")
    shop = Recommender.load("shop")
    assert shop.modalities == ("text", "id")
    assert set(shop.metrics) == {"valid", "test"}
    assert shop.items.show(1)["title"].split()[0] in ("red", "green", "blue")
    new = pd.DataFrame({"item_id": ["new"], "title": ["blue hat"], "note": ["blue hat"]})
    assert shop.add_items(new) == ["text"]
    same = shop.similar("new", "text", 1)
    assert shop.items.show(shop.items.number(same["item"][0]))["title"] == "blue hat"
    assert same["score"][0] == pytest.approx(1, abs=1e-4)


def test_no_histories_go_along_unless_asked_and_titles_as_people_read_them(call, trained):
    checkpoint, file = trained("Mamba4Rec"), Path("dataset/tiny/tiny.item")
    file.write_text(file.read_text().replace(" hat\t", " <b>hat</b> &amp; cap\t"))
    bundle = read_bundle(export(call, checkpoint))
    assert any(title.endswith(" hat & cap") for title in bundle.items["title"].to_pylist())
    assert bundle.histories is None
    assert bundle.about["protocol"]["topk"] == [3, 5]


@pytest.mark.parametrize("split", ["valid_only", "test_only"])
def test_a_split_that_is_empty_has_no_metrics(call, train, split):
    checkpoint = train("--modalities=[]", f"--eval_args={{'split': {{'LS': '{split}'}}}}")
    code, out, error = call("--evaluate", str(checkpoint))
    assert code == 0, error
    [line] = [line for line in out.splitlines() if line.startswith("ndcg@5")]
    assert line.split()[2 if split == "valid_only" else 1] == "-"
    measured = read_bundle(export(call, checkpoint)).about["metrics"]
    assert [name for name, result in measured.items() if result] == [split.removesuffix("_only")]


def test_other_models_and_other_folders_are_refused(call, trained):
    checkpoint = trained("SASRec")
    code, _, error = call("--export", str(checkpoint), "--output", "shop")
    assert code == 2
    assert "is of SASRec" in error
    code, _, error = call("--export", str(checkpoint), "--output", "saved")
    assert code == 2
    assert "other things" in error
    assert call("--export", str(checkpoint))[2].endswith("the bundle to write.")
    assert "belongs to --export" in call("--model=M3Rec", "--precision=float16")[2]
    assert not Path("shop").exists()


@pytest.mark.slow
def test_the_bundle_is_used_without_recbole(call, trained):
    export(call, trained("Mamba4Rec"))
    program = (
        "import sys; from recbole_m3rec import Recommender\n"
        "print(len(Recommender.load('shop').recommend([['i01', 'i02']], 3)))\n"
        "print([m for m in sys.modules if m.split('.')[0] in ('recbole', 'sklearn')])"
    )
    result = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": str(CLONE), "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.split("\n")[:2] == ["3", "[]"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the service is forked")
def test_show_serves_the_page_of_a_checkpoint(trained, tmp_path):
    process = start(tmp_path, ["--show", str(trained("Mamba4Rec")), "--page_port=0"])
    shown = tmp_path / "output.txt"
    try:
        while not (found := shown.exists() and re.search(r"http\S+(?= )", shown.read_text())):
            assert os.waitpid(process, os.WNOHANG) == (0, 0)
            time.sleep(0.05)
        with urllib.request.urlopen(found[0]) as page:
            assert b"What next?" in page.read()
        with urllib.request.urlopen(f"{found[0]}/users") as users:
            assert b"u00" in users.read()
    finally:
        os.kill(process, signal.SIGTERM)
        wait(process)


def test_without_the_service_show_says_what_to_install_before_it_reads_anything(call, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    code, _, error = call("--show", "saved/none.pth")
    assert code == 2
    assert error.startswith("error: ")
    assert error.rstrip().endswith("pip install 'recbole_m3rec[serving]'")


@pytest.mark.slow
def test_every_user_of_ml_100k_gets_what_topk_writes(call):
    keys = ["--train_batch_size=8192", "--MAX_ITEM_LIST_LENGTH=8", "--hidden_size=8", "--d_state=2"]
    keys += ["--epochs=1", "--num_layers=1", "--show_progress=False"]
    code, _, error = call("--model=M3Rec", "--dataset=ml-100k", *keys)
    assert code == 0, error
    frame = same_as_topk(call, next(Path("saved").glob("M3Rec-*.pth")))
    assert frame["user"].nunique() == 943
