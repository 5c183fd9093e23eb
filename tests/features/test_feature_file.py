"""Feature files: reading every format, refusing every damage, writing all or nothing."""

import errno
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recbole_m3rec.features.feature_file import (
    FeatureFileError,
    FeatureTable,
    read_features,
    read_metadata,
    write_features,
)
from recbole_m3rec.support.safe_write import CannotWriteError
from tests.features.written_files import write

IDS = ["b", "a", "10"]
VALUES = np.arange(6, dtype=np.float32).reshape(3, 2)


def table(values=VALUES, ids=IDS, **metadata):
    return FeatureTable(np.array(ids, dtype=object), values, metadata)


def save_parquet(path, ids, embedding):
    pq.write_table(pa.table({"item_id": ids, "embedding": embedding}), path)


def save_npy_with_lines(path, ids, values):
    np.save(path, values)
    lines = "".join(f"{token}\r\n" for token in ids)  # as an editor on Windows writes them
    path.with_suffix(".ids.txt").write_text(lines, encoding="utf-8-sig", newline="")


def save_npy_with_ids(path, ids, values):
    np.save(path, values)
    np.save(path.with_suffix(".item_id.npy"), np.array(ids))


def save_npz(path, ids, values):
    np.savez(path, item_id=np.array(ids), features=values)


def save_pt(path, ids, values):
    torch.save({"item_id": list(ids), "embedding": torch.from_numpy(values)}, path)


def save_lists(path, ids, values):
    save_parquet(path, list(ids), pa.array(list(values)))


WRITERS = {
    "parquet with lists": (".parquet", save_lists),
    "npz": (".npz", save_npz),
    "npy with lines": (".npy", save_npy_with_lines),
    "npy with ids": (".npy", save_npy_with_ids),
    "pt": (".pt", save_pt),
}


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_a_written_file_is_read_back_to_the_bit(tmp_path, dtype):
    path = tmp_path / "new folder" / "x.text.parquet"
    written = table(VALUES.astype(dtype), encoder="tfidf-svd", fields=["title"])
    write_features(path, written)
    read = read_features(path)
    assert read.item_ids.tolist() == IDS
    assert read.values.dtype == dtype
    np.testing.assert_array_equal(read.values, written.values)
    assert read.metadata == read_metadata(path) == {"encoder": "tfidf-svd", "fields": ["title"]}
    assert pq.read_schema(path).field("embedding").type.list_size == 2


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_every_format_gives_the_same_table(tmp_path, writer, dtype):
    suffix, save = WRITERS[writer]
    path = tmp_path / f"x.text{suffix}"
    save(path, IDS, VALUES.astype(dtype))
    read = read_features(path)
    assert read.item_ids.tolist() == IDS
    assert read.values.dtype == (np.float16 if dtype is np.float16 else np.float32)
    np.testing.assert_array_equal(read.values, VALUES)
    assert read.metadata == read_metadata(path) == {}


@pytest.mark.parametrize(
    "ids", [np.array([3, 1, 2]), torch.tensor([3, 1, 2]), [3, 1, 2], np.array([b"3", b"1", b"2"])]
)
def test_whole_numbers_and_bytes_are_read_as_tokens(tmp_path, ids):
    if isinstance(ids, np.ndarray):
        path = tmp_path / "x.text.npz"
        np.savez(path, item_id=ids, embedding=VALUES)
    else:
        path = tmp_path / "x.text.pt"
        torch.save({"item_id": ids, "features": torch.from_numpy(VALUES)}, path)
    assert read_features(path).item_ids.tolist() == ["3", "1", "2"]


def test_bfloat16_becomes_float32(tmp_path):
    path = tmp_path / "x.text.pt"
    torch.save({"item_id": IDS, "features": torch.from_numpy(VALUES).bfloat16()}, path)
    assert read_features(path).values.dtype == np.float32


def test_a_file_of_many_row_groups_is_read_in_order(tmp_path):
    path = tmp_path / "x.text.parquet"
    ids, values = [f"i{n}" for n in range(100)], np.arange(300.0, dtype=np.float32).reshape(100, 3)
    column = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), 3)
    frame = pa.table({"item_id": pa.array(ids).dictionary_encode(), "embedding": column})
    pq.write_table(frame, path, row_group_size=7)
    read = read_features(path)
    assert read.item_ids.tolist() == ids
    np.testing.assert_array_equal(read.values, values)


# Refusals: each names the file and what to do.

TENSOR, NO_IDS = torch.from_numpy(VALUES), "which item a row belongs"


def with_ids(ids):
    return {"item_id": ids, "embedding": TENSOR}


def with_values(values):
    return {"item_id": np.array(IDS), "embedding": values}


def lists(*rows):
    return {"item_id": IDS, "embedding": list(rows)}


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("x.npy", VALUES, NO_IDS),
        ("x.npz", {"features": VALUES}, NO_IDS),
        ("x.pt", TENSOR, NO_IDS),
        ("x.pt", {"features": TENSOR}, NO_IDS),
        ("x.pt", with_ids(["a", "b", "a"]), "item 'a' has two rows, 0 and 2"),
        ("x.pt", with_ids(["a", "b"]), "2 item ids for 3 rows"),
        ("x.pt", with_ids(["a", "", "c"]), "row 1 .* has no item id"),
        ("x.pt", with_ids([1.0, 2.0, 3.0]), "item ids are of type double"),
        ("x.pt", with_ids(["a", 2, "c"]), "a string .or integer. per row"),
        ("x.pt", with_ids([["a"], ["b"], ["c"]]), "item ids are of type list"),
        ("x.pt", with_ids(["a", None, "c"]), "row 1 .* has no item id"),
        ("x.pt", with_ids(None), "cannot read the item ids"),
        (
            "x.npz",
            {"item_id": np.array([*"cbabab"]), "embedding": np.ones((6, 1), np.float32)},
            "'b' has two rows, 1 and 3 .* 3 rows repeat",
        ),
        ("x.npz", with_values(np.float32([[0, 1], [2, np.nan], [np.inf, 0]])),
         "row 1 .*'a'. holds nan in column 1"),
        ("x.npz", with_values(np.float16([[0, 1], [2, 3], [-np.inf, 0]])),
         "row 2 .*'10'. holds -inf in column 0"),
        ("x.npz", with_values(np.array([[0, 1], [1e300, 3], [0, 0]])),
         "row 1 .*holds 1e.300 in column 0, more than float32"),
        ("x.npz", with_values(np.arange(6).reshape(3, 2)),
         "the values are int64, expected float16 or float32"),
        ("x.npz", with_values(VALUES.astype(str)), "the values are <U"),
        ("x.npz", with_values(VALUES[0]), r"shape \[2\], expected \[items, dimensions\]"),
        ("x.npz", with_values(np.ones((3, 0), np.float32)), r"empty, .* have shape \[3, 0\]"),
        ("x.parquet", lists([1.0, 2.0], [1.0], [1.0, 2.0]),
         "unequal length: row 1 .*'a'. has 1 numbers.* has 2"),
        ("x.parquet", lists([1.0, 2.0], None, [1.0, 2.0]), "row 1 .*'a'. has no embedding"),
        ("x.parquet", lists([1.0, 2.0], [None, 3.0], [1.0, 2.0]), "row 1 .*'a'. holds nan"),
        ("x.parquet", lists(1.0, 2.0, 3.0), "embedding is of type double, expected a list"),
        ("x.parquet", lists(["1"], ["2"], ["3"]), "embedding is of type list<.*string>"),
        ("x.parquet", {"asin": IDS, "embedding": [[1.0]] * 3},
         r"no column item_id; it has \['asin', 'embedding'\]"),
        ("x.parquet", {"item_id": pa.array([], pa.string()),
                       "embedding": pa.array([], pa.list_(pa.float32(), 2))}, "empty"),
        ("x.csv", "item_id,a\n", "unknown format '.csv'.* .npz"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(tmp_path, name, content, expected):
    with pytest.raises(FeatureFileError, match=f"{name}: .*{expected}"):
        read_features(write(tmp_path / name, content))


def test_rows_of_unequal_length_in_another_row_group_are_named(tmp_path):
    frame = pa.table(lists([1.0, 2.0], [1.0, 2.0], [1.0]))
    pq.write_table(frame, tmp_path / "x.parquet", row_group_size=1)
    with pytest.raises(FeatureFileError, match="row 2 .*'10'. has 1 numbers"):
        read_features(tmp_path / "x.parquet")


def test_two_files_of_ids_and_none_of_vectors_are_refused(tmp_path):
    path = tmp_path / "x.text.npy"
    with pytest.raises(FileNotFoundError, match="x.text.npy: there is no such feature file"):
        read_features(path)
    save_npy_with_ids(path, IDS, VALUES)
    save_npy_with_lines(path, IDS, VALUES)
    with pytest.raises(FeatureFileError, match="it has both"):
        read_features(path)


def file_bytes(tmp_path, suffix):
    path = tmp_path / f"whole{suffix}"
    if not path.exists():
        save = {".parquet": save_lists, ".npz": save_npz, ".npy": save_npy_with_ids, ".pt": save_pt}
        save[suffix](path, IDS, VALUES)
    return path.read_bytes()


@pytest.mark.parametrize("suffix", [".parquet", ".npz", ".npy", ".pt"])
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 0.999))
def test_a_file_cut_off_anywhere_is_one_clear_error(tmp_path, suffix, share):
    content = file_bytes(tmp_path, suffix)
    path = tmp_path / f"cut{suffix}"
    path.write_bytes(content[: int(share * len(content))])
    np.save(tmp_path / "cut.item_id.npy", np.array(IDS))
    with pytest.raises(FeatureFileError, match=f"cut{suffix}: cannot be read .*truncated"):
        read_features(path)


# Writing


@pytest.mark.parametrize(
    "wrong", [table(np.float32([[np.nan, 0]] * 3)), table(ids=["a", "a", "b"]), table(VALUES[:2])]
)
def test_a_wrong_table_is_not_written(tmp_path, wrong):
    with pytest.raises(FeatureFileError):
        write_features(tmp_path / "x.parquet", wrong)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "x.parquet"
    write_features(path, table())
    before = path.read_bytes()

    def write_half(frame, file, **options):
        file.write(b"PAR1 half a file")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pq, "write_table", write_half)
    with pytest.raises(CannotWriteError, match=r"x.parquet: No space left.* unchanged"):
        write_features(path, table(VALUES + 1))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_metadata_that_is_no_object_is_an_error(tmp_path):
    frame = pa.table({"item_id": IDS, "embedding": [[1.0]] * 3})
    for content in (json.dumps([1]), "{half"):
        named = frame.replace_schema_metadata({"recbole_m3rec": content})
        pq.write_table(named, tmp_path / "x.parquet")
        with pytest.raises(FeatureFileError, match="x.parquet"):
            read_metadata(tmp_path / "x.parquet")
