"""RecBole reads atomic files without quoting, for every model and kind of file."""

import numpy as np
import pytest
from recbole.data import create_dataset
from recbole.data.dataset import dataset as recboles_module

from recbole_m3rec.atomic.atomic_file import AtomicFileError
from tests.tiny import ALL_USED

HEADER = "user_id:token\titem_id:token\ttimestamp:float"


@pytest.fixture
def create(make_config, write_files):
    """Return a function that makes a dataset of the bytes of atomic files, by suffix."""

    def made(model="BPR", keys=None, **files):
        write_files("hand", files)
        return create_dataset(make_config(model, "hand", **ALL_USED, **(keys or {})))

    return made


def pairs(dataset):
    log = dataset.inter_feat
    return list(
        zip(
            dataset.id2token("user_id", log["user_id"].to_numpy()),
            dataset.id2token("item_id", log["item_id"].to_numpy()),
            strict=True,
        )
    )


@pytest.mark.parametrize("model", ["BPR", "SASRec", "M3Rec"])
def test_a_quote_in_an_id_swallows_no_row(create, model):
    rows = [("u", 'a"b'), ('"u', "b"), ("v", '"c'), ('"u', "d"), ("v", 'e"'), ("w", '""')]
    lines = [f"{user}\t{item}\t{time}" for time, (user, item) in enumerate(rows)]
    dataset = create(model, inter="\n".join([HEADER, *lines, ""]).encode())
    assert pairs(dataset) == rows


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_byte_order_mark_and_line_ends_change_nothing(create, mark, end):
    inter = mark + end.join([HEADER.encode(), b"u\ta\t1", b"u\tb\t2", b"v\ta\t3", b""])
    item = mark + end.join([b"item_id:token\tprice:float", b"a\t1", b"b\t2", b""])
    dataset = create(inter=inter, item=item, keys={"load_col": None})
    assert pairs(dataset) == [("u", "a"), ("u", "b"), ("v", "a")]
    assert dataset.item_feat["price"].tolist()[1:] == [1, 2]
    assert dataset.config["encoding"] is None  # as it was


@pytest.mark.parametrize(
    ("item", "says"),
    [
        (b"a\tred\t1\nb\t2\n", r"hand\.item, line 3: 2 fields, expected 3"),
        (b"a\tr\xe9d\t1\n", r"hand\.item, line 2: not utf-8"),
        (b"a\tred\tcheap\nb\tblue\t1\nc\tred\tdear\n",
         r"hand\.item, lines 2, 4: 'cheap' is no number, expected one in price:float"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_an_item_file_is_named_by_line(create, item, says):
    inter = (HEADER + "\nu\ta\t1\nu\tb\t2\n").encode()
    head = b"item_id:token\tkind:token\tprice:float\n"
    with pytest.raises(AtomicFileError, match=says):
        create(inter=inter, item=head + item, keys={"load_col": None})


@pytest.mark.parametrize(
    ("inter", "says"),
    [
        (b"u\ta\t1\nu\tb\n", "line 3: 2 fields, expected 3"),
        (b"u\ta\tb\t1\n", "line 2: 4 fields, expected 3"),
        (b"u\t\xff\t1\n", "line 2: not utf-8"),
        (b"u\ta\0\t1\n", "line 2: holds bytes that are no text"),
    ],
)
def test_a_damaged_log_ends_with_one_line_and_code_2(call, write_files, inter, says):
    write_files("hand", {"inter": HEADER.encode() + b"\n" + inter})
    code, _, error = call("--model=SASRec", "--dataset=hand", "--gpu_id=")
    assert code == 2
    assert "hand.inter, " + says in error


def test_strings_are_objects_and_missing_ones_what_recbole_expects(tmp_path):
    path = tmp_path / "x.item"
    path.write_text("kind:token\ttags:token_seq\tn:float\that:token\nhat\ta b\t1\tx\nNA\t\t\ty\n")
    heads = ["kind:token", "tags:token_seq", "n:float"]
    types = {"kind:token": str, "tags:token_seq": str, "n:float": np.float64}
    frame = recboles_module.pd.read_csv(path, delimiter="\t", usecols=heads, dtype=types,
                                        encoding="utf-8", engine="python")  # fmt: skip
    assert list(frame) == heads
    assert [frame[head].dtype for head in heads] == [object, object, np.float64]
    assert frame["kind:token"][0] == "hat"
    assert np.isnan(frame["kind:token"][1])
    assert frame["tags:token_seq"].tolist() == ["a b", ""]
    assert np.isnan(frame["n:float"][1])
