"""What a dataset holds, and whether its features fit its items."""

from pathlib import Path

import numpy as np
import pytest

from recbole_m3rec.atomic.atomic_file import AtomicFileError
from recbole_m3rec.atomic.inter_file import read_interactions
from recbole_m3rec.cli.commands import run_script
from recbole_m3rec.cli.prepare import describe
from recbole_m3rec.datasets.describe.features import (
    example_items,
    fit_to_histories,
    summarize_features,
)
from recbole_m3rec.datasets.describe.log import core_of, successive_items, summarize, summary_rows
from recbole_m3rec.features.feature_file import FeatureTable, write_features

N_ITEMS = 40


def taste_vectors(seed=0):
    """Return ``[40, 8]``: items 0 to 19 alike, and items 20 to 39."""
    random = np.random.default_rng(seed)
    centre = np.repeat(random.normal(size=(2, 8)), N_ITEMS // 2, axis=0)
    return (centre + 0.3 * random.normal(size=(N_ITEMS, 8))).astype(np.float32)


def write_log(folder):
    """Write 60 users with a taste each: half buy of the first 20 items, half of the others."""
    random = np.random.default_rng(1)
    lines = ["user_id:token\titem_id:token\ttimestamp:float"]
    for user in range(60):
        chosen = random.choice(N_ITEMS // 2, 8, replace=False) + N_ITEMS // 2 * (user % 2)
        lines += [f"u{user}\t{item:03}\t{time}" for time, item in enumerate(chosen)]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "shop.inter").write_text("\n".join([*lines, "rare\t000\t1", "rare\t000\t1"]) + "\n")
    titles = [f"{item:03}\tItem $number_{item}$" for item in range(N_ITEMS)]
    (folder / "shop.item").write_text("\n".join(["item_id:token\ttitle:token_seq", *titles]) + "\n")


def write_vectors(path, values, shift=0):
    ids = [f"{(item + shift) % N_ITEMS:03}" for item in range(len(values))]
    write_features(path, FeatureTable(np.array(ids, object), values))


def test_the_log_is_counted_before_and_after_the_filter(tmp_path):
    write_log(tmp_path)
    log = read_interactions(tmp_path / "shop.inter")
    whole, core = summarize(log), summarize(core_of(log, 5))
    rows = {name: numbers for name, *numbers in summary_rows(whole, core)}
    assert rows["users"] == ["61", "60"]
    assert rows["interactions"] == ["482", "480"]
    assert rows["history, shortest"] == ["2", "8"]
    assert rows["sparsity, %"] == [f"{100 - 48100 / (61 * 40):.4f}", "80.0000"]
    assert rows["repeated by the same user"] == ["1", "0"]
    assert rows["of these at the same time"] == ["1", "0"]
    assert summary_rows(whole, summarize(core_of(log, 99)))[0] == ("users", "61", "0")


def test_an_item_bought_again_at_once_follows_nothing(tmp_path):
    (tmp_path / "a.inter").write_text(
        "user_id:token\titem_id:token\ttimestamp:float\nu\ta\t3\nu\tb\t1\nu\tb\t2\nv\ta\t0\n"
    )
    log = read_interactions(tmp_path / "a.inter")
    pairs = [[log.item_ids[int(item)].as_py() for item in pair] for pair in successive_items(log)]
    assert pairs == [["b", "a"]]


def test_features_are_judged_by_the_items_that_have_them():
    values = np.array([[1, 0, 5, 0.0001], [1, 0, 5, 0], [0, 0, 5, 0], [3, 0, 5, 0], [9, 9, 9, 9]])
    values[2] = values[0]  # alike
    values[:4, 0] += [0, 3, 0, 7]
    table = FeatureTable(np.array(["a", "b", "c", "d", "other"], object), values.astype(np.float32))
    summary, vectors = summarize_features(
        table, ["b", "a", "x", "c", "d"], np.array([1, 2, 4, 2, 1])
    )
    assert (summary.n_items, summary.n_of_other_items, summary.dim) == (4, 1, 4)
    assert (summary.share_of_items, summary.share_of_interactions) == (0.8, 0.6)
    assert (summary.n_duplicate_rows, summary.most_alike) == (1, 2)
    assert (summary.n_constant_columns, summary.n_nearly_constant_columns) == (2, 0)
    assert vectors.present.tolist() == [True, True, False, True, True]
    assert vectors.nearest(1, 9)[0][0] == 3  # a's twin c, which is item 3 here
    assert 2 not in vectors.nearest(1, 9)[0]
    assert not len(vectors.nearest(2, 9)[0])  # nothing is known of it
    assert vectors.nearest(1, 9)[1].min() < 0  # centred: what all share says nothing


def test_a_column_that_hardly_changes_and_rows_of_zeros_are_counted():
    values = np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32)
    values[:, 1] *= 1e-4
    values[7] = 0
    ids = [str(item) for item in range(50)]
    summary, _ = summarize_features(FeatureTable(np.array(ids, object), values), ids, np.ones(50))
    assert (summary.n_nearly_constant_columns, summary.n_constant_columns) == (1, 0)
    assert (summary.n_zero_rows, summary.zero_row) == (1, "7")


def test_features_of_other_items_do_not_fit_the_histories(tmp_path):
    write_log(tmp_path)
    log = read_interactions(tmp_path / "shop.inter")
    ids = log.item_ids.to_pylist()
    pairs, popularity = successive_items(log), np.bincount(log.items)
    own = FeatureTable(np.array([f"{item:03}" for item in range(N_ITEMS)], object), taste_vectors())
    mixed = FeatureTable(np.random.default_rng(3).permutation(own.item_ids), own.values)
    shares = []
    for table in (own, mixed):
        fit = fit_to_histories(summarize_features(table, ids, popularity)[1], pairs)
        assert fit is not None
        shares.append(fit.share)
    assert shares[0] > 0.7
    assert abs(shares[1] - 0.5) < 0.1


def test_examples_are_popular_and_not_alike():
    ids = [f"{item:03}" for item in range(N_ITEMS)]
    table = FeatureTable(np.array(ids[1:], object), taste_vectors()[1:])
    popularity = np.arange(N_ITEMS, 0, -1)
    vectors = summarize_features(table, ids, popularity)[1]
    assert example_items([vectors], popularity, 2, apart=18) == [1, 20]  # item 0 has no features


def test_the_table_and_the_picture_are_made(tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    image = pytest.importorskip("PIL.Image")
    monkeypatch.chdir(tmp_path)
    folder = Path("dataset/shop")
    write_log(folder)
    write_vectors(folder / "shop.text.parquet", taste_vectors())
    pictures = taste_vectors(5)[:30]
    pictures[3:5] = 0
    write_vectors(folder / "shop.image.parquet", pictures)
    assert run_script(describe.describe, ["--dataset", "shop"]) == 0
    said = capsys.readouterr().out
    assert said.count("rows of zeros, which count as known: 2, such as that of '00") == 1
    assert "75.0 % (30)" in said
    assert "Item $number_" in said
    with image.open(folder / "shop.png") as plain:
        size = plain.size
        colors = plain.convert("RGB").getcolors(1 << 24)
        assert len(colors) > 100  # not an empty sheet
    Path("photos").mkdir()
    for item in range(N_ITEMS):
        image.new("RGB", (30, 40), (255, 0, 0)).save(f"photos/{item:03}.png")
    Path("photos/001.png").write_bytes(b"no image")
    arguments = ["--dataset", "shop", "--images", "photos", "--items", "001", "035"]
    assert run_script(describe.describe, arguments) == 0
    picture, text = capsys.readouterr().out.split("Item $number_35$\n")[1].split("\n")[:2]
    assert "Item $number_" in text
    assert picture == "  image: no image, so that nothing is near"
    with image.open(folder / "shop.png") as pictures:
        assert pictures.size != size
        red = [n for n, color in pictures.convert("RGB").getcolors(1 << 24) if color == (255, 0, 0)]
        assert red[0] > 10_000


def test_without_matplotlib_there_is_the_table_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    write_log(Path("dataset/shop"))
    assert run_script(describe.describe, ["--dataset", "shop"]) == 0
    said = capsys.readouterr().out
    assert "no features of these items" in said
    assert "recbole_m3rec[plots]" in said
    assert not list(Path("dataset/shop").glob("*.png*"))


def test_a_picture_that_is_asked_for_and_cannot_be_drawn_is_one_line_before_any_work(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    write_log(Path("dataset/shop"))
    there = sorted(tmp_path.rglob("*"))
    assert run_script(describe.describe, ["--dataset", "shop", "--output", "new/it.png"]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("error: --output new/it.png: a picture needs matplotlib (")
    assert said.err.endswith("): pip install 'recbole_m3rec[plots]'\n")
    assert said.err.count("\n") == 1
    assert not said.out
    assert sorted(tmp_path.rglob("*")) == there


def test_a_dataset_that_is_not_there_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run_script(describe.describe, ["--dataset", "shop"]) == 2
    assert "dataset/shop/shop.inter" in capsys.readouterr().err
    write_log(Path("dataset/shop"))
    assert run_script(describe.describe, ["--dataset", "shop", "--items", "no"]) == 2
    assert "no item 'no'" in capsys.readouterr().err
    assert run_script(describe.describe, ["--dataset", "shop", "--time-field", "nope"]) == 2
    error = capsys.readouterr().err
    assert "shop.inter, line 1: no field 'nope'; the file has user_id, item_id, timestamp" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("dataset/shop/shop.inter", "it is there and no picture (PNG). Name another --output"),
        ("dataset", "it is a folder. Name a file"),
    ],
)
def test_a_picture_that_cannot_be_written_is_told_first_and_replaces_no_other_file(
    tmp_path, monkeypatch, capsys, output, message
):
    monkeypatch.chdir(tmp_path)
    write_log(Path("dataset/shop"))
    before = Path("dataset/shop/shop.inter").read_bytes()
    assert run_script(describe.describe, ["--dataset", "shop", "--output", output]) == 2
    assert capsys.readouterr() == ("", f"error: cannot write {output}: {message}\n")
    assert Path("dataset/shop/shop.inter").read_bytes() == before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("user_id:token\tmovie:token\nu\ti\n", "no field 'item_id'"),
        ("user_id:token\titem_id:token\n", "no interaction"),
        ("user_id:token\titem_id:token\nu\ti\tx\n", "line 2: 3 fields, expected 2"),
    ],
)
def test_unusable_logs_are_named(tmp_path, content, message):
    (tmp_path / "a.inter").write_text(content)
    with pytest.raises(AtomicFileError, match=message):
        read_interactions(tmp_path / "a.inter")
