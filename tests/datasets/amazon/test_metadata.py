"""Metadata lines: parsed as data, cleaned, and written so that the table holds."""

import io
import json

import pytest

from recbole_m3rec.atomic.item_file import ItemFile
from recbole_m3rec.datasets.amazon.item_fields import (
    ITEM_COLUMNS,
    LONGEST_TEXT,
    clean,
    item_fields,
    parse_python,
)
from recbole_m3rec.datasets.amazon.metadata import PROBLEMS, MetadataFormat, write_items
from recbole_m3rec.datasets.io import raw_lines
from recbole_m3rec.datasets.io.problems import Problems

PYTHON, JSON = MetadataFormat("asin", python=True), MetadataFormat("asin")
ALL = tuple(ITEM_COLUMNS)


def written(tmp_path, lines, wanted=("B1", "B2"), form=PYTHON, columns=("title",)):
    path = tmp_path / "meta"
    path.write_bytes(
        b"".join((line.encode() if isinstance(line, str) else line) + b"\n" for line in lines)
    )
    problems = Problems(PROBLEMS)
    file = io.BytesIO()
    counts = write_items(path, form, wanted, columns, file, problems)
    rows = [row.split("\t") for row in file.getvalue().decode().split("\n")[:-1]]
    return rows, problems.found(), counts


def test_a_line_that_holds_code_does_not_run_it(tmp_path):
    trap = tmp_path / "trapped"
    codes = [
        f"__import__('pathlib').Path({str(trap)!r}).touch()",
        f"{{'asin': 'B1', 'title': open({str(trap)!r}, 'w')}}",
        "{'asin': 'B1', 'title': 'x' * 9**9**9}",
        "{'asin': 'B1'}.clear()",
        "f'{open}'",
    ]
    rows, problems, _ = written(tmp_path, [*codes, "{'asin': 'B2', 'title': 'fine'}"])
    assert rows[1:] == [["B2", "fine"]]
    assert problems == {"items_unparseable": 5}
    assert not trap.exists()


@pytest.mark.parametrize(
    ("line", "form", "kind"),
    [
        ("{'asin': 'B1', ", PYTHON, "items_unparseable"),
        ('{"asin": "B1", ', JSON, "items_unparseable"),
        ("<html>", JSON, "items_unparseable"),
        ("[" * 100_000, PYTHON, "items_unparseable"),
        ("[" * 100_000, JSON, "items_unparseable"),
        ("{'title': 'x'}", PYTHON, "items_without_id"),
        ('{"asin": null}', JSON, "items_without_id"),
        ("{'asin': 'B2', 'title': 'x'}", PYTHON, "items_with_two_titles"),
        ("{'asin': 'B2', 'title': 'fine'}", PYTHON, "items_repeated"),
    ],
)
def test_a_bad_line_is_counted_and_the_others_are_kept(line, form, kind, tmp_path, caplog):
    fine = {"asin": "B2", "title": "fine"}
    good = repr(fine) if form.python else json.dumps(fine)
    rows, problems, _ = written(tmp_path, [good, line], form=form)
    assert rows[1:] == [["B2", "fine"]]
    assert problems == {kind: 1}
    assert f"meta:2: {PROBLEMS[kind]}" in caplog.text


@pytest.mark.parametrize("size", [1, 1 << 20], ids=["a line a block", "one block"])
def test_blank_lines_count_where_a_line_is_named(size, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(raw_lines, "BLOCK_SIZE", size)
    good = repr({"asin": "B2", "title": "fine"})
    written(tmp_path, ["", good, "", "", "<html>"])
    assert f"meta:5: {PROBLEMS['items_unparseable']}" in caplog.text


def test_bytes_that_are_not_utf8_are_replaced_and_counted(tmp_path):
    rows, problems, _ = written(tmp_path, [b"{'asin': 'B1', 'title': 'caf\xe9'}"])
    assert rows[1:] == [["B1", "caf\ufffd"]]
    assert problems == {"items_not_utf8": 1}


def test_items_nobody_bought_are_counted_unparsed(tmp_path):
    lines = ["{'asin': 'B9', this is not parsed", "{'asin': 'B1', 'title': 'x'}"]
    rows, problems, counts = written(tmp_path, lines)
    assert rows[1:] == [["B1", "x"]]
    assert (counts.n_lines, counts.n_written, counts.n_other_items) == (2, 1, 1)
    assert problems == {}


def test_an_id_that_needs_parsing_is_found(tmp_path):
    lines = ['{"as\\u0069n": "B1", "title": "x"}', '{"asin": "B\\u0032", "title": "y"}']
    assert written(tmp_path, lines, form=JSON)[0][1:] == [["B1", "x"], ["B2", "y"]]


def test_the_id_of_a_related_item_is_not_taken_for_the_lines_own(tmp_path):
    lines = ["{'related': {'asin': 'B1'}, 'asin': 'B9'}", "{'x': [{'asin': 'B9'}], 'asin': 'B2'}"]
    rows, _, counts = written(tmp_path, lines, columns=())
    assert rows[1:] == [["B2"]]
    assert counts.n_other_items == 1


@pytest.mark.parametrize(
    "title",
    ["tab\tnew\nline\r\u2028end", '7" of "silk"', '"All" quoted', '"', "back\\slash", "\x00\x1bx",
     "🙂 日本", "\ud800 alone", " ", "None"],
)  # fmt: skip
def test_any_title_leaves_the_table_whole(title, tmp_path):
    lines = [repr({"asin": "B1", "title": title, "brand": "b"}), "{'asin': 'B2', 'brand': '\"c'}"]
    path = tmp_path / "x.item"
    path.write_text(
        "\n".join("\t".join(row) for row in written(tmp_path, lines, columns=ALL)[0]) + "\n"
    )
    tokens, columns = ItemFile(path).read(["title", "brand"])
    assert tokens == ["B1", "B2"]
    assert columns == [[clean(title), ""], ["b", '"c']]


def test_columns_that_no_item_fills_are_left_out(tmp_path):
    lines = [repr({"asin": "B1", "price": 2, "title": 'a "b"'}), repr({"asin": "B2"})]
    rows, _, counts = written(tmp_path, lines, columns=ALL)
    assert rows == [
        ["item_id:token", "title:token_seq", "price:float"],
        ["B1", 'a "b"', "2"],
        ["B2", "", ""],
    ]
    assert counts.filled["price"] == 1
    assert counts.filled["brand"] == 0


def test_a_text_longer_than_tables_bear_is_shortened(tmp_path):
    rows, problems, _ = written(tmp_path, [repr({"asin": "B1", "title": "ab " * LONGEST_TEXT})])
    assert len(rows[1][1]) == LONGEST_TEXT
    assert problems == {"texts_shortened": 1}


@pytest.mark.parametrize(
    ("price", "text"),
    [(9.99, "9.99"), (0, "0"), ("$12.50", "12.50"), ("$1,299.00", "1299.00"), ("5 - 7", "5"),
     ("from 3.5", "3.5"), (None, ""), ("", ""), ("free", ""), ("—", ""), (True, ""),
     (".a-box{width:30}", ""), ("12,50", "12.50"), ("1.299,00 €", "1299.00"),
     ("EUR 12,50", "12.50"), ("1,2,3", "")],
)  # fmt: skip
def test_prices_become_numbers_or_nothing(price, text):
    assert item_fields({"price": price})["price"] == text


def test_a_price_that_is_no_number_is_counted(tmp_path):
    lines = ["{'asin': 'B1', 'price': 'free'}", "{'asin': 'B2', 'price': 4}"]
    assert written(tmp_path, lines, columns=ALL)[1] == {"prices_not_understood": 1}


@pytest.mark.parametrize(
    ("record", "url"),
    [
        ({"imUrl": "http://h/a.jpg"}, "http://h/a.jpg"),
        ({"imageURL": ["http://h/s"], "imageURLHighRes": ["http://h/l"]}, "http://h/l"),
        ({"imageURL": ["http://h/s"], "imageURLHighRes": []}, "http://h/s"),
        ({"images": [{"thumb": "http://h/t", "large": None, "hi_res": "http://h/h"}]}, "http://h/h"),
        ({"images": {"large": ["http://h/1", "http://h/2"], "variant": ["PT01", "MAIN"]}},
         "http://h/2"),
        ({"imUrl": "javascript:alert(1)"}, ""),
        ({"imUrl": "file:///etc/passwd"}, ""),
        ({"imUrl": 5, "images": "x"}, ""),
    ],
)  # fmt: skip
def test_the_main_picture_of_each_release_is_found(record, url):
    assert item_fields(record)["image_url"] == url


@pytest.mark.parametrize("value", [[], [[]], "", None, {}, 5])
def test_an_empty_category_is_nothing(value):
    assert item_fields({"categories": value})["categories"] == ""


def test_python_literals_of_other_kinds_are_refused():
    with pytest.raises(ValueError, match="no object"):
        parse_python("['asin']")


@pytest.mark.parametrize("images", [5, True, "x", {"large": 3}, [None], {"large": ["a", 2]}])
def test_pictures_of_another_kind_are_no_picture(images):
    assert item_fields({"images": images})["image_url"] == ""
