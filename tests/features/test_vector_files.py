"""Vectors as other programs save them."""

import numpy as np
import pytest
import torch

from recbole_m3rec.features.feature_table import FeatureFileError
from recbole_m3rec.features.vector_files import read_vectors
from tests.features.written_files import write

VALUES = np.float32([[1, 2], [3, 4], [5, 6]])
IDS = ["b", "a", "c"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.npy", VALUES),
        ("a.npy", VALUES.astype(np.float64)),
        ("a.npy", VALUES.astype(np.int64)),
        ("a.npz", {"features": VALUES}),
        ("a.pt", torch.from_numpy(VALUES)),
        ("a.pth", torch.from_numpy(VALUES).bfloat16()),
        ("a.pt", {"weight": torch.from_numpy(VALUES)}),
        ("a.pt", [torch.from_numpy(row) for row in VALUES]),
    ],
)
def test_arrays_alone_bring_no_ids(tmp_path, name, content):
    found = read_vectors(write(tmp_path / name, content))
    assert found.ids is None
    assert found.values.dtype == np.float32
    np.testing.assert_array_equal(found.values, VALUES)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.npz", {"item_id": np.array(IDS), "whatever": VALUES}),
        ("a.npz", {"asin": np.array(IDS, "S"), "whatever": VALUES}),
        ("a.pt", {"ids": IDS, "x": torch.from_numpy(VALUES)}),
        ("a.pt", {item: torch.from_numpy(row) for item, row in zip(IDS, VALUES, strict=True)}),
        ("a.csv", "item_id,d0,d1\nb,1,2\na,3.0,4\nc,5,6e0\n"),
        ("a.csv", "name,vector\nb,[1 2]\na,[3 4]\nc,[5 6]\n"),
        ("a.csv", 'name,vector\nb,"1, 2"\na,"[3,4]"\nc,"(5, 6)"\n'),
        ("a.tsv", "d0\titem_id\td1\n1\tb\t2\n3\ta\t4\n5\tc\t6\n"),
        ("a.parquet", {"item_id": IDS, "embedding": VALUES.tolist()}),
        ("a.parquet", {"x": [1, 3, 5], "id": IDS, "y": [2.0, 4.0, 6.0]}),
    ],
)
def test_files_with_ids_keep_them_by_their_rows(tmp_path, name, content):
    found = read_vectors(write(tmp_path / name, content))
    assert found.ids == IDS
    np.testing.assert_array_equal(found.values, VALUES)


def test_numbers_as_ids_are_texts_as_they_are_written(tmp_path):
    path = write(tmp_path / "a.csv", "item_id,d0,d1\n007,1,2\n12345678901234567890,3,4\n")
    assert read_vectors(path).ids == ["007", "12345678901234567890"]
    found = read_vectors(write(tmp_path / "a.npz", {"ids": np.arange(3), "x": VALUES}))
    assert found.ids == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (",0,1\nb,1,2\na,3,4\nc,5,6\n", None),  # a frame of pandas whose index are the ids
        ("item_id,0,1\nb,1,2\na,3,4\nc,5,6\n", None),
        ("index,1,2\nb,1,2\na,3,4\nc,5,6\n", None),
        ('"item, id",x,y\nb,1,2\na,3,4\nc,5,6\n', None),
        ("index,1,2\n0,1,2\n1,3,4\n2,5,6\n", "index"),
    ],
)
def test_columns_may_be_numbered_and_an_index_may_be_the_ids(tmp_path, content, named):
    found = read_vectors(write(tmp_path / "a.csv", content), named)
    assert found.ids == (["0", "1", "2"] if named else IDS)
    np.testing.assert_array_equal(found.values, VALUES)


def test_half_precision_stays(tmp_path):
    path = write(tmp_path / "a.npy", VALUES.astype(np.float16))
    assert read_vectors(path).values.dtype == np.float16


def test_the_column_of_ids_may_be_named(tmp_path):
    content = {"sku": IDS, "embedding": VALUES.tolist()}
    path = write(tmp_path / "a.parquet", content)
    assert read_vectors(path, "sku").ids == IDS
    with pytest.raises(FeatureFileError, match=r"no column of ids.*'sku'"):
        read_vectors(path)
    with pytest.raises(FeatureFileError, match="no 'asin'"):
        read_vectors(path, "asin")


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.npy", VALUES[0], r"shape \[2\], expected \[items, dimensions\]"),
        ("a.npy", np.array([["a"]]), "expected numbers"),
        ("a.npz", {"a": VALUES, "b": VALUES}, "expected one array .* found 2"),
        ("a.npz", {"item_id": np.array(["a"]), "b": VALUES}, "1 ids for 3 rows"),
        ("a.npz", {"item_id": np.float32([1, 2, 3]), "b": VALUES}, "ids of type float32"),
        ("a.pt", 5, "holds a int, expected a tensor"),
        ("a.csv", "1,2\n3,4\n", "line 1: expected the columns' names"),
        ("a.csv", "a,1.0,4.0\nb,2.0,5.0\n", "line 1: expected the columns' names, found a, 1.0"),
        ("a.csv", "a,[1 2]\nb,[3 4]\n", r"line 1: expected .* found a, \[1 2\]. Add a header"),
        ("a.csv", ",item_id,x\n0,a,1\n", "column '' is the row number that pandas writes"),
        ("a.csv", "Unnamed: 0,item_id,x\n7,a,1\n", "'Unnamed: 0' is the row number"),
        ("a.csv", "index,item_id,x\n7,a,1\n", "'index' is the row number"),
        ("a.csv", ",0,1\n0,1,2\n1,3,4\n", "column '' is the row number that pandas writes"),
        ("a.parquet", {"id": ["a"], "x": [1.0], "__index_level_0__": [3]}, "row number"),
        ("a.tsv", "item_id,x\na,1\n", "its only column.* a .tsv tabs"),
        ("a.csv", "item_id;x;y\na;1,5;2,5\n", "'item_id;x;y' is its only column.* has commas"),
        ("a.csv", "id,x\na,1e300\n", r"item 'a'\) holds 1e\+300 in column 0, more than float32"),
        ("a.csv", "id,x\na,[0 1e300]\n", r"holds 1e\+300 in column 1, more than float32"),
        ("a.npy", np.array([[1, -1e39]]), r"row 0 \(counted from 0\) holds -1e\+39 in column 1"),
        ("a.csv", "id,x,y\na,1,red\n", "column 'y' is of type string"),
        ("a.csv", "id,x\na,[1 2]\nb,[1]\n", "item 'b' has 1 numbers, 'a' has 2"),
        ("a.csv", "id,x\na,[1 red]\n", r"item 'a' has '\[1 red\]', expected numbers"),
        ("a.csv", "id,x\na,1\nb,1,2\n", "cannot be read as .csv"),
        ("a.parquet", {"id": ["a", "b"], "x": [[1.0], [1.0, 2.0]]}, "item 'b' has 2 numbers"),
        ("a.parquet", {"id": ["a", "b"], "x": [[1.0], None]}, "item 'b' has 0 numbers"),
        ("a.txt", "a", "unknown format '.txt'; vectors come in .npy, .npz"),
    ],
)
def test_what_holds_no_vectors_is_named(tmp_path, name, content, expected):
    path = write(tmp_path / name, content)
    with pytest.raises(FeatureFileError, match=f"{name}.*{expected}"):
        read_vectors(path)
