"""Mapped features beside those in memory."""

from __future__ import annotations

import copy
import errno
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from recbole_m3rec import FeatureTable, align, read_features, write_features
from recbole_m3rec.features import feature_map
from recbole_m3rec.features.align import ItemFeatures
from recbole_m3rec.features.feature_map import map_key, mapped_features
from recbole_m3rec.features.feature_table import FeatureFileError, NewValues
from recbole_m3rec.support.hashing import sha256_of
from recbole_m3rec.support.safe_write import CannotWriteError, open_alone

TOKENS = ["[PAD]", *(f"item {i}" for i in range(1, 2001))]
WIDTH = 24


def write(path: Path, dtype: type = np.float16, seed: int = 0) -> FeatureTable:
    """Write rows for 1,900 of the items and one that the dataset does not have, in no order."""
    ids = np.random.default_rng(seed).permutation(TOKENS[1:1901] + ["other"]).astype(object)
    values = np.random.default_rng(seed + 1).normal(size=(len(ids), WIDTH)).astype(dtype)
    table = FeatureTable(ids, values)
    if path.suffix == ".parquet":
        write_features(path, table)
    else:
        np.save(path, values)
        path.with_suffix(".ids.txt").write_text("\n".join(ids) + "\n", encoding="utf-8")
    return table


def mapped(path: Path, norm: str = "none", rows: str = "own") -> ItemFeatures:
    def make(table: FeatureTable, new_values: NewValues) -> ItemFeatures:
        named = table, "image", TOKENS, norm, "a file"
        return align(*named, feature_rows=rows, seed=3, new_values=new_values)

    key = map_key(sha256_of(path), TOKENS, norm, rows)
    return mapped_features(path, key, make)


@pytest.mark.parametrize(
    ("name", "dtype", "norm", "rows"),
    [
        ("shop.image.parquet", np.float16, "none", "own"),
        ("shop.image.npy", np.float32, "none", "shuffled"),
        ("shop.image.parquet", np.float32, "l2", "shuffled"),
        ("shop.image.npy", np.float16, "l2", "own"),
        ("shop.image.parquet", np.float16, "standardize", "shuffled"),
        ("shop.image.npy", np.float32, "standardize", "own"),
        ("shop.image.parquet", np.float32, "whiten", "own"),
        ("shop.image.npy", np.float16, "whiten", "shuffled"),
    ],
)
def test_mapped_features_are_those_in_memory_to_the_bit(
    tmp_path: Path, name: str, dtype: type, norm: str, rows: str
) -> None:
    table = write(tmp_path / name, dtype)
    expected = align(table, "image", TOKENS, norm, "a file", feature_rows=rows, seed=3)
    for features in (mapped(tmp_path / name, norm, rows), mapped(tmp_path / name, norm, rows)):
        assert torch.equal(features.values, expected.values)
        assert features.values.dtype == expected.values.dtype
        assert torch.equal(features.present, expected.present)
        assert features.fingerprint == expected.fingerprint
        assert features.description == expected.description


def test_rows_are_those_of_the_items_asked_for(tmp_path: Path) -> None:
    write(tmp_path / "shop.image.parquet")
    features = mapped(tmp_path / "shop.image.parquet")
    values = features.values.clone()
    for items in ([5, 3, 3, 2000, 0], range(2001), range(700, 1300), [7], [4, 6, 5, 7], []):
        asked = torch.tensor(list(items), dtype=torch.int64)
        assert torch.equal(features.map.rows(asked), values[asked])


def test_a_map_is_made_once_and_anew_where_the_file_changes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "shop.image.parquet"
    write(path)
    with caplog.at_level("INFO"):
        first = mapped(path)
        mapped(path)
        assert [r.message for r in caplog.records] == [f"making {path}.map, which is not there yet"]
        held = first.map.rows(torch.arange(9))
        table = write(path, seed=7)
        again = mapped(path)
    assert caplog.records[-1].message.endswith("whose features, items or norm have changed")
    assert torch.equal(again.values, align(table, "image", TOKENS, "none", "").values)
    assert torch.equal(first.map.rows(torch.arange(9)), held)  # its file was replaced, not changed
    assert {each.name for each in tmp_path.iterdir()} == {path.name, f"{path.name}.map"}


@pytest.mark.parametrize("size", [0, 5, 1000, -1])
def test_a_damaged_map_is_made_anew(
    tmp_path: Path, size: int, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "shop.image.parquet"
    write(path)
    expected = mapped(path).values.clone()
    file = tmp_path / "shop.image.parquet.map"
    os.truncate(file, size if size >= 0 else file.stat().st_size - 1)
    with caplog.at_level("INFO"):
        assert torch.equal(mapped(path).values, expected)
    assert caplog.records[-1].message.endswith("which was damaged")


def test_a_pickle_carries_the_name_of_the_map_and_a_copy_is_the_same(tmp_path: Path) -> None:
    path = tmp_path / "shop.image.parquet"
    write(path)
    features = mapped(path)
    pickled = pickle.dumps(features)
    assert len(pickled) < 1000
    again = pickle.loads(pickled)
    assert torch.equal(again.values, features.values)
    assert again.fingerprint == features.fingerprint
    assert torch.equal(again.map.rows(torch.tensor([3])), features.values[[3]])
    assert copy.deepcopy(features.map) is features.map
    mapped(path, "l2")
    with pytest.raises(FeatureFileError, match="whose features, items or norm have changed"):
        pickle.loads(pickled)


def test_one_process_makes_the_map_and_others_wait_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "shop.image.parquet"
    write(path)
    held, waits = open_alone(tmp_path / ".shop.image.parquet.map.tmp"), []
    held.write(b"what a killed process leaves")
    held.flush()

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 2:
            held.close()

    monkeypatch.setattr(feature_map.time, "sleep", wait)
    expected = align(read_features(path), "image", TOKENS, "none", "a file")
    assert torch.equal(mapped(path).values, expected.values)
    assert len(waits) == 2
    assert {each.name for each in tmp_path.iterdir()} == {path.name, f"{path.name}.map"}


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="needs posix_fallocate")
def test_a_full_disk_is_one_error_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "shop.image.parquet"
    write(path)

    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(CannotWriteError, match=r"parquet\.map: No space left .* Make room"):
        mapped(path)
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_a_file_written_into_under_the_map_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "shop.image.parquet"
    write(path)
    features = mapped(path)
    with open(f"{path}.map", "ab") as file:
        file.write(b"more")
    with pytest.raises(FeatureFileError, match=r"parquet\.map: was written into while this run"):
        features.map.rows(torch.tensor([1]))


def test_nothing_is_left_of_a_conversion_that_fails(tmp_path: Path) -> None:
    path = tmp_path / "shop.image.npy"
    write(path)
    values = np.load(path)
    values[77, 3] = np.inf
    np.save(path, values)
    before = set(tmp_path.iterdir())
    with pytest.raises(FeatureFileError, match=r"row 77 .* holds inf"):
        mapped(path)
    assert set(tmp_path.iterdir()) == before
