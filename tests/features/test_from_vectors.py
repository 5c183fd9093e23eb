"""Which row belongs to which item, and the script that writes feature files."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from recbole_m3rec.atomic.item_file import dataset_items
from recbole_m3rec.cli.commands import run_script
from recbole_m3rec.cli.prepare import encode_images, encode_text, import_features
from recbole_m3rec.features.feature_file import read_features
from recbole_m3rec.features.feature_table import FeatureFileError
from recbole_m3rec.features.from_vectors import find_layout, read_places, with_ids
from recbole_m3rec.features.vector_files import Vectors

VALUES = np.float32([[1, 2], [3, 4], [5, 6], [7, 8]])


def matched(places, values=VALUES, **options):
    table, notes = with_ids(Path("a.npy"), Vectors(values, None), places, **options)
    return dict(zip(table.item_ids, table.values[:, 0].tolist(), strict=True)), notes


ZEROS = np.float32([[1, 2], [0, 0], [5, 6], [7, 8]])


@pytest.mark.parametrize(
    ("places", "values", "options", "rows", "note"),
    [
        ({"d": 2, "a": 0, "b": 3, "c": 1}, VALUES, {}, {"a": 1, "b": 7, "c": 3, "d": 5}, ""),
        (
            *({"a": 1, "b": 2, "c": 3, "d": 4}, VALUES, {}, {"a": 1, "b": 3, "c": 5, "d": 7}),
            "rows are counted from 1",
        ),
        (
            {"a": 1, "b": 2, "c": 3},
            VALUES,
            {},
            {"a": 3, "b": 5, "c": 7},
            "rows are counted from 1, after a row 0 for padding, which is left out",
        ),
        (
            *({"a": 0, "b": 2}, VALUES, {"drop_unnamed": True}, {"a": 1, "b": 5}),
            "2 rows belong to no item and are left out, counted from 0",
        ),
        (
            *({"a": 1, "b": 4}, VALUES, {"drop_unnamed": True}, {"a": 1, "b": 7}),
            "rows are counted from 1, 2 rows belong to no item and are left out",
        ),
        (
            *({"a": 2, "b": 3}, VALUES, {"drop_unnamed": True, "first_row": 1}, {"a": 3, "b": 5}),
            "rows are counted from 1, 2 rows belong to no item and are left out",
        ),
        (
            *({"a": 2, "b": 3}, VALUES, {"drop_unnamed": True, "first_row": 0}, {"a": 5, "b": 7}),
            "2 rows belong to no item and are left out, counted from 0",
        ),
        (
            *({"a": 0, "b": 1, "c": 2, "d": 3}, ZEROS, {}, {"a": 1, "c": 5, "d": 7}),
            "1 rows of zeros are left out: their items are missing",
        ),
    ],
    ids=["0", "1", "padding", "of no item", "gaps from 1", "said 1", "said 0", "zeros"],
)
def test_rows_go_where_the_mapping_says(places, values, options, rows, note):
    found, notes = matched(places, values, **options)
    assert list(found.items()) == list(rows.items())  # by id
    assert ", ".join(notes) == note


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        ({"a": 0, "b": 1, "c": 2}, r"1 rows \(first: \[3\]\) belong to no item.*--drop-unnamed"),
        ({"a": 0, "b": 2, "c": 3}, r"first: \[1\]"),
        ({"a": 0, "b": 1, "c": 2, "d": 3, "e": 4}, "5 ids on rows 0 to 4: 1 of them are not there"),
        ({"a": 0, "b": 9}, "1 of them are not there and 3 rows"),
        ({"a": 2, "b": 3, "c": 4, "d": 5}, "2 of them are not there and 2 rows"),
    ],
)
def test_another_number_of_rows_than_of_ids_is_refused(places, expected):
    with pytest.raises(FeatureFileError, match=f"4 rows, but .*{expected}"):
        matched(places)


def test_rows_of_no_item_are_left_out_only_where_the_counting_is_certain():
    with pytest.raises(
        FeatureFileError, match="2 or 1 rows lie before that of item 'a'.*first-row"
    ):
        matched({"a": 2, "b": 3}, drop_unnamed=True)


def test_ids_without_a_row_are_never_left_out():
    with pytest.raises(FeatureFileError, match="1 of them are not there"):
        matched({"a": 0, "b": 4}, drop_unnamed=True)


def test_an_array_alone_and_two_sources_of_ids_are_refused():
    with pytest.raises(FeatureFileError, match="does not say which item.*--ids"):
        matched(None)
    vectors = Vectors(VALUES, ["a", "b", "c", "d"])
    with pytest.raises(FeatureFileError, match="brings its own ids"):
        with_ids(Path("a.npz"), vectors, {"a": 0})


def test_faults_of_the_rows_are_named_by_item():
    values = VALUES.copy()
    values[2, 1] = np.nan
    with pytest.raises(FeatureFileError, match="item 'c'.* holds nan"):
        matched({"a": 0, "b": 1, "c": 2, "d": 3}, values)
    vectors = Vectors(VALUES, ["a", "b", "a", "d"])
    with pytest.raises(FeatureFileError, match="item 'a' has two rows"):
        with_ids(Path("a.npz"), vectors, None)


# Mapping files


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "asin,itemID\nx,1\ny,0\n"),
        ("a.csv", "asin\titemID\nx\t1\ny\t0\n"),
        ("a.tsv", "itemID\tasin\n0\ty\n1\tx\n"),
        ("a.csv", '"asin","n"\n"x","1"\n\n"y","0"\n'),
        ("a.json", '{"x": 1, "y": "0"}'),
        ("a.json", '["y", "x"]'),
        ("a.txt", "y\nx\n"),
        ("a.npy", np.array(["y", "x"])),
    ],
)
def test_mappings_of_all_kinds_say_the_same(tmp_path, name, content):
    path = tmp_path / name
    if isinstance(content, str):
        path.write_text(content)
    else:
        np.save(path, content)
    assert read_places(path) == {"x": 1, "y": 0}


def test_of_two_columns_that_count_the_usual_name_is_the_row(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("movie,itemID\n1,2\n2,1\n")
    assert read_places(path) == {"1": 2, "2": 1}
    path.write_text("movie,film\n1,2\n2,1\n")
    with pytest.raises(FeatureFileError, match=r"which of .* is the row\? Name it by --row-column"):
        read_places(path)
    assert read_places(path, row_column="film") == {"1": 2, "2": 1}
    assert read_places(path, id_column="film") == {"2": 1, "1": 2}


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.csv", "asin,itemID\nx,0\nx,1\n", "item 'x' stands there twice, for rows 0 and 1"),
        ("a.json", '{"x": 0, "y": 0}', "row 0 is given to two items, 'x' and 'y'"),
        ("a.csv", "asin,itemID\nx,0\ny,5\n", "which of .* is the row.*without a gap"),
        ("a.csv", "asin,itemID,title\nx,0,t\ny,1,u\n", "which of .* is the id"),
        ("a.csv", "asin,itemID\nx\n", "line 2: 1 fields, expected 2"),
        ("a.csv", "asin,itemID\n,0\n", "the id of row 0 is empty"),
        ("a.csv", "asin,itemID\n", "which of|holds no ids"),
        ("a.csv", "item_id,row\n1,2\n2,4\n", "which of .* is the row.*without a gap"),
        ("a.csv", "item_id,place\n1,2\n2,4\n", "which of .* is the row.*without a gap"),
        ("a.csv", "item_id,row\n1,-2\n2,-4\n", "which of .* is the row.*without a gap"),
        ("a.csv", "", "holds no ids"),
        ("a.json", "[" * 100_000, "cannot be read"),
        ("a.json", '{"x": 0.5}', "0.5 is no row"),
        ("a.json", "{", "cannot be read"),
        ("a.txt", "", "holds no ids"),
    ],
)
def test_a_wrong_mapping_is_named(tmp_path, name, content, expected):
    (tmp_path / name).write_text(content)
    with pytest.raises(FeatureFileError, match=f"{name}.*(?:{expected})"):
        read_places(tmp_path / name)


def test_a_column_that_is_not_there_is_named(tmp_path):
    (tmp_path / "a.csv").write_text("asin,itemID\nx,0\n")
    with pytest.raises(FeatureFileError, match="line 1: no column 'sku'"):
        read_places(tmp_path / "a.csv", id_column="sku")
    with pytest.raises(FileNotFoundError, match="none.csv"):
        read_places(tmp_path / "none.csv")


def test_a_folder_of_another_toolkit_is_understood(tmp_path):
    for name in ("image_feat.npy", "text_feat.pt", "i_id_mapping.csv", "other.npy"):
        (tmp_path / name).touch()
    arrays, mapping = find_layout(tmp_path)
    assert {modality: path.name for modality, path in arrays.items()} == {
        "image": "image_feat.npy",
        "text": "text_feat.pt",
    }
    assert mapping == tmp_path / "i_id_mapping.csv"
    (tmp_path / "img_feat.pt").touch()
    with pytest.raises(FeatureFileError, match="image_feat.npy and img_feat.pt are both"):
        find_layout(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FeatureFileError, match="none of image_feat.npy"):
        find_layout(tmp_path / "empty")


def test_items_of_a_dataset_are_those_of_its_log_or_else_of_its_item_file(tmp_path):
    assert dataset_items(tmp_path, "shop") is None
    (tmp_path / "shop.item").write_text("item_id:token\tt:token\n01\tx\n02\ty\n")
    assert dataset_items(tmp_path, "shop") == (tmp_path / "shop.item", ["01", "02"])
    inter = tmp_path / "shop.inter"
    inter.write_text("user_id:token\titem_id:token\nu\t02\nu\t007\nv\t02\n")
    assert dataset_items(tmp_path, "shop") == (inter, ["02", "007"])
    inter.write_text("user_id:token\tsku:token\nu\t02\n")
    with pytest.raises(ValueError, match="no field 'item_id'"):
        dataset_items(tmp_path, "shop")


# The script


@pytest.fixture
def toolkit(tmp_path):
    """A folder as other toolkits have it, and the dataset's log beside."""
    folder = tmp_path / "raw"
    folder.mkdir()
    np.save(folder / "image_feat.npy", VALUES.astype(np.float64))
    torch.save(torch.from_numpy(VALUES) * 10, folder / "text_feat.pt")
    (folder / "i_id_mapping.csv").write_text("asin\titemID\nd\t0\nc\t1\nb\t2\na\t3\n")
    dataset = tmp_path / "dataset" / "shop"
    dataset.mkdir(parents=True)
    (dataset / "shop.inter").write_text("user_id:token\titem_id:token\nu\ta\nu\tb\nu\tz\n")
    return folder


def run(*arguments):
    return run_script(import_features.import_features, ["--dataset", "shop", *arguments])


def test_the_script_imports_a_whole_folder(toolkit, tmp_path, capsys):
    assert run("--source", str(toolkit), "--dry-run") == 0
    assert "would write" in capsys.readouterr().out
    assert len(list((tmp_path / "dataset" / "shop").iterdir())) == 1
    assert run("--source", str(toolkit)) == 0
    said = capsys.readouterr().out
    assert "2 of the 3 items" in said
    assert "(66.7%)" in said
    assert "2 vectors are of other items" in said
    for modality, times in (("image", 1), ("text", 10)):
        table = read_features(tmp_path / "dataset" / "shop" / f"shop.{modality}.parquet")
        assert table.item_ids.tolist() == ["a", "b", "c", "d"]
        np.testing.assert_array_equal(table.values, VALUES[::-1] * times)
    assert run("--source", str(toolkit)) == 0
    assert "is up to date" in capsys.readouterr().out


def test_one_modality_of_a_folder_or_one_file_may_be_named(toolkit, tmp_path):
    assert run("--source", str(toolkit), "--modality", "text") == 0
    source = [str(toolkit / "image_feat.npy"), "--ids", str(toolkit / "i_id_mapping.csv")]
    assert run("--modality", "photo", "--source", *source) == 0
    made = {path.name for path in (tmp_path / "dataset" / "shop").iterdir()}
    assert made == {"shop.inter", "shop.text.parquet", "shop.photo.parquet"}


def test_rows_may_be_the_ids(toolkit, tmp_path):
    log = tmp_path / "dataset" / "shop" / "shop.inter"
    log.write_text("user_id:token\titem_id:token\nu\t0\nu\t3\n")
    assert run("--source", str(toolkit), "--rows-are-ids") == 0
    table = read_features(log.with_name("shop.image.parquet"))
    assert table.item_ids.tolist() == ["0", "1", "2", "3"]
    np.testing.assert_array_equal(table.values, VALUES)


@pytest.mark.parametrize(
    ("items", "more", "first"),
    [
        ("1234", [], 1),
        ("123", [], 0),  # row 0 is padding
        ("02", [], 0),
        ("04", [], 0),
        ("24", [], None),
        ("24", ["--first-row", "1"], 1),
        ("1234", ["--first-row", "0"], 0),
    ],
)
def test_ids_may_count_rows_from_1_where_they_do_so_exactly(toolkit, capsys, items, more, first):
    log = Path("dataset/shop/shop.inter")
    log.write_text("user_id:token\titem_id:token\n" + "".join(f"u\t{item}\n" for item in items))
    code = run("--source", str(toolkit), "--modality", "image", "--rows-are-ids", *more)
    said = capsys.readouterr()
    if first is None:
        assert code == 2
        assert "no item 0, and item 4 has no row; counted from 1 they are of the ids" in said.err
        return
    assert f"counted from {first}: the first is of item {first}" in said.out
    table = read_features(log.with_name("shop.image.parquet"))
    assert table.item_ids.tolist() == [str(row + first) for row in range(4)]
    np.testing.assert_array_equal(table.values, VALUES)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--source", "raw/text_feat.pt", "--modality", "text", "--first-row", "1"], "name one"),
        (["--source", "raw/image_feat.npy"], "name the --modality"),
        (["--source", "raw", "--modality", "video"], "holds nothing of video"),
        (["--source", "raw/image_feat.npy", "--modality", "image"], "does not say which item"),
        (["--source", "raw", "--ids", "short.json"], "1 ids on rows 0 to 0"),
        (["--source", "raw", "--ids", "other.json"], "none of its items is in"),
        (["--source", "raw", "--ids", "other.json", "--rows-are-ids"], "exclude each other"),
        (["--source", "nothing.npy", "--modality", "image"], "nothing.npy: there is no such file"),
    ],
)
def test_a_users_error_is_one_line_and_exit_code_2(toolkit, capsys, arguments, expected):
    Path("short.json").write_text('{"a": 0}')
    Path("other.json").write_text(json.dumps(["k", "l", "m", "n"]))
    assert run(*arguments) == 2
    last = capsys.readouterr().err.strip().split("\n")[-1]
    assert last.startswith("error: ")
    assert expected in last
    assert not list(Path("dataset/shop").glob("*.parquet"))


@pytest.mark.parametrize("script", [import_features, encode_images, encode_text])
@pytest.mark.parametrize(
    ("option", "expected"),
    [
        (["--modality", "../x"], "the modality '../x' is no name of letters"),
        (["--modality", "id"], "the modality 'id' is taken"),
        (["--modality", "repetition"], "the modality 'repetition' is taken"),
        (["--modality", "items"], "the modality 'items' is a name that PyTorch keeps"),
        (["--dataset", "../x"], "the name of a dataset '../x' begins with a dot"),
        (["--dataset", ""], "the name of a dataset '' is empty"),
    ],
)
def test_names_are_checked_before_anything_is_read(toolkit, capsys, script, option, expected):
    first = ["encode"] if script is encode_images else []
    needed = ["--source", "raw/image_feat.npy"] if script is import_features else []
    with pytest.raises(SystemExit) as stopped:
        script.main([*first, "--dataset", "shop", *needed, *option])
    assert stopped.value.code == 2
    assert expected in capsys.readouterr().err
    assert not list(Path("dataset").rglob("*.parquet"))


def test_a_file_that_is_there_is_kept_unless_told_otherwise(toolkit, capsys):
    assert run("--source", str(toolkit)) == 0
    np.save(toolkit / "image_feat.npy", VALUES + 1)
    assert run("--source", str(toolkit)) == 2
    assert "holds something else. Add --overwrite" in capsys.readouterr().err
    assert run("--source", str(toolkit), "--overwrite") == 0
    table = read_features(Path("dataset/shop/shop.image.parquet"))
    np.testing.assert_array_equal(table.values, VALUES[::-1] + 1)
