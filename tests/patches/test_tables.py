"""RecBole's tables are what they were under pandas 2: each value worked out by hand."""

import warnings

import numpy as np
import pandas as pd
import pytest
from recbole.data.dataset import Dataset

from recbole_m3rec.patches import tables
from tests.tiny import ALL_USED


@pytest.fixture
def dataset_of(make_config, write_files):
    """Return a function that builds RecBole's plain Dataset from the text of atomic files."""

    def build(inter, item=None, **keys):
        write_files("hand", {"inter": inter, **({"item": item} if item else {})})
        return Dataset(make_config("BPR", "hand", load_col=None, **ALL_USED, **keys))

    return build


INTER = "user_id:token\titem_id:token\ttimestamp:float\nu1\ta\t1\nu1\tb\t2\nu2\tb\t3\n"
ITEM = (
    "item_id:token\tprice:float\tkind:token\ttags:token_seq\tsizes:float_seq\n"
    "a\t1\that\tred warm\t1 2 3\n"
    "b\t\t\t\t\n"
    "c\t4\tcoat\tred\t5\n"
)


def test_padding_rows_and_blanks_are_filled_and_sequences_split(dataset_of):
    item = dataset_of(INTER, ITEM).item_feat
    # padding, a, b, c (only in .item, hence filtered out or last); the mean of 1 and 4 is 2.5
    assert item["kind"].tolist()[:3] == [0, 1, 0]
    assert item["price"].tolist()[:3] == [2.5, 1.0, 2.5]
    assert not item["price"].isna().any()
    assert [len(tags) for tags in item["tags"][:3]] == [0, 2, 0]
    assert [len(sizes) for sizes in item["sizes"][:3]] == [0, 3, 0]
    assert item["sizes"][0].dtype == np.float64  # an empty one is no array of objects


def test_normalised_columns_have_no_nan(dataset_of):
    dataset = dataset_of(INTER, ITEM, normalize_all=True)
    assert dataset.item_feat["price"].between(0, 1).all()


def test_lists_are_measured_one_by_one(dataset_of):
    """Remapping splits the tokens of all rows at the length of each row's list."""
    dataset = dataset_of(INTER, ITEM.replace("b\t\t\t\t", "b\t2\that\twarm\t4"))
    tokens = [
        dataset.id2token("tags", list(row)).tolist() for row in dataset.item_feat["tags"][1:3]
    ]
    assert tokens == [["red", "warm"], ["warm"]]


def test_benchmark_histories_keep_their_own_lengths(make_config, write_files):
    """sequential_dataset.py:165 would give every history the number of rows as its length."""
    from recbole.data.dataset.sequential_dataset import SequentialDataset

    header = "user_id:token\titem_id_list:token_seq\titem_id:token\n"
    rows = "u1\ta b\tc\nu2\ta\tb\nu3\ta b c\ta\n"
    parts = ["train", "valid", "test"]
    write_files("hand", {f"{part}.inter": header + rows for part in parts})
    keys = {
        "benchmark_filename": parts,
        "alias_of_item_id": ["item_id_list"],
        "load_col": None,
        "TIME_FIELD": "timestamp",
    }
    dataset = SequentialDataset(make_config("SASRec", "hand", **keys))
    assert list(dataset.inter_feat["item_length"]) == [2, 1, 3] * 3


def test_len_of_anything_else_is_unchanged():
    from recbole.data.dataset import dataset as module

    measure = vars(module).get("len", len)
    assert (measure([1, 2]), measure("abc"), measure(pd.DataFrame({"a": [1]}))) == (2, 3, 1)


def test_nothing_is_done_where_pandas_needs_nothing(monkeypatch):
    monkeypatch.setattr(tables, "columns_are_copies", lambda: False)
    before = Dataset._fill_nan
    tables.fill_blanks_by_assignment()
    assert Dataset._fill_nan == before


def test_equal_times_keep_the_order_of_the_file(dataset_of):
    """Two thousand purchases at three times, each made twice at one time: the first must stay."""
    n = 2000
    lines = ["user_id:token\titem_id:token\ttimestamp:float\trow:float"]
    lines += [f"u{i % 7}\ti{i}\t{i % 3}\t{row}" for row, i in enumerate([*range(n), *range(n)])]
    dataset = dataset_of("\n".join(lines) + "\n", rm_dup_inter="first")
    expected = sorted(range(n), key=lambda row: row % 3)
    assert dataset.inter_feat["row"].astype(int).tolist() == expected


def test_only_that_one_sort_is_stable(dataset_of):
    dataset = dataset_of(INTER, rm_dup_inter="first")
    assert "sort_values" not in vars(dataset.inter_feat)


def test_no_warning_of_copies_reaches_the_user(dataset_of):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        dataset_of(INTER, ITEM)
    assert not [w for w in caught if "ChainedAssignment" in w.category.__name__]
