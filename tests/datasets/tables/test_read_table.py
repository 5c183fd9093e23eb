"""Tables as people have them: what can be read is read as it stands, the rest is counted."""

import bz2
import gzip
from pathlib import Path
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recbole_m3rec.datasets.io.problems import Problems
from recbole_m3rec.datasets.io.raw_lines import RawFileError
from recbole_m3rec.datasets.tables.column_texts import as_strings
from recbole_m3rec.datasets.tables.read_table import open_table, sample
from recbole_m3rec.datasets.tables.text_rows import PROBLEMS, table_rows


def rows(text, n_columns, **options):
    problems = Problems(PROBLEMS, shown=0)
    lines = text.splitlines(keepends=True)
    return list(table_rows(lines, n_columns, problems, Path("t"), **options)), problems.found()


def test_values_in_quotes_may_hold_separators_line_breaks_and_quotes():
    found, problems = rows('a,"1,\n""2"""\nb,3\n', 2)
    assert found == [(1, ["a", '1,\n"2"']), (3, ["b", "3"])]
    assert not problems


def test_a_quote_without_end_costs_no_other_line():
    found, problems = rows('1,"tv 5\n2,x\n3,"radio"\n4,y\n', 2)
    assert found == [(1, ["1", '"tv 5']), (2, ["2", "x"]), (3, ["3", "radio"]), (4, ["4", "y"])]
    assert problems == {"quotes_without_end": 1}


def test_a_quote_without_end_at_the_end_of_the_file_is_a_letter_too():
    assert rows('1,x\n2,"y\n', 2) == (
        [(1, ["1", "x"]), (2, ["2", '"y'])],
        {"quotes_without_end": 1},
    )


def test_lines_with_other_numbers_of_values_are_counted_and_empty_ones_passed_over():
    found, problems = rows("1,x\n\n2\n3,y,z\n4,w,,\n", 2)
    assert found == [(1, ["1", "x"]), (5, ["4", "w"])]
    assert problems == {"lines_unparseable": 2}


def test_separators_of_several_letters_need_no_quotes():
    found, _ = rows('1::"Great" Escape::A\n', 3, separator="::", quoted=False)
    assert found == [(1, ["1", '"Great" Escape', "A"])]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"user,item\n007,1\n", "commas, utf-8"),
        (b"\xef\xbb\xbfuser;item\n007;1\n", "semicolons, utf-8"),
        ("user\titem\n007\tcaf\xe9\n".encode("cp1252"), "tabs, cp1252"),
        ("user\titem\n007\t1\n".encode("utf-16"), "tabs, utf-16"),
        (gzip.compress(b"user|item\r\n007|1\r\n", mtime=0), "vertical bars, utf-8"),
        (bz2.compress(b"user,item\n007,1\n"), "commas, utf-8"),
        (b'{"user": "007", "item": 1}\n', "JSON lines, utf-8"),
    ],
)
def test_dialects_are_recognised_and_zeros_in_front_stay(tmp_path, content, said):
    path = tmp_path / "log.csv"
    path.write_bytes(content)
    table = open_table(path)
    assert table.names == ("user", "item")
    assert said in str(table)
    assert sample(table)["user"] == ["007"]


def test_an_object_in_the_first_column_of_a_table_is_no_json_file(tmp_path):
    (tmp_path / "log.tsv").write_bytes(b'{"k": "v"}\tu1\ti1\n{}\tu2\ti2\n')
    table = open_table(tmp_path / "log.tsv", header=False)
    assert sample(table)["2"] == ["u1", "u2"]


def test_objects_a_line_are_rows_whose_numbers_and_order_stay(tmp_path):
    path = tmp_path / "log.json"
    path.write_bytes(
        b'{"id": "007", "n": 12345678901234567890.10, "of": ["a", {"b": 1}]}\n'
        b'{"n": null, "id": 7, "new": true}\n\n{"id": "cut\n'
        b"{u'id': u'py', 'n': 1}\n" + b'{"id": "\\ud800"}'
    )
    table = open_table(path)
    assert table.names == ("id", "n", "of", "new")
    problems = Problems(PROBLEMS, shown=0)
    [(arrays, lines)] = table.chunks(("n", "id", "of", "new"), problems)
    assert lines.tolist() == [1, 2, 5, 6]
    assert [array.to_pylist() for array in arrays.values()] == [
        ["12345678901234567890.10", "", "1", ""],
        ["007", "7", "py", "\ufffd"],
        ['a|{"b": "1"}', "", "", ""],
        ["", "true", "", ""],
    ]
    assert problems.found() == {"lines_unparseable": 1}


def test_bytes_of_another_encoding_far_into_the_file_are_counted(tmp_path):
    path = tmp_path / "log.csv"
    path.write_bytes(b"user,item\n" + b"1,x\n" * 300_000 + b"2,\xff\n")
    problems = Problems(PROBLEMS, shown=0)
    last = [arrays for arrays, _ in open_table(path).chunks(["item"], problems)][-1]
    assert last["item"][-1].as_py() == "\ufffd"
    assert problems.found() == {"lines_not_utf8": 1}


def test_names_of_columns_are_made_distinct(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("id,id,\n1,2,3\n")
    assert open_table(path).names == ("id", "id (2)", "column 3")
    assert open_table(path, header=False).names == ("1", "2", "3")


def test_parquet_ids_become_the_text_they_were(tmp_path):
    path = tmp_path / "log.parquet"
    columns = {
        "whole": pa.array([1, None, 3], pa.float64()),  # what nulls make of integers
        "code": pa.array([" 007", "x", None]).dictionary_encode(),
        "kinds": pa.array([["a", "b"], [], None]),
        "price": [0.5, 1.0, 2.0],
    }
    pq.write_table(pa.table(columns), path)
    assert sample(open_table(path)) == {
        "whole": ["1", "", "3"],
        "code": ["007", "x", ""],
        "kinds": ["a|b", "", ""],
        "price": ["0.5", "1", "2"],
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds nothing"),
        (b"PK\x03\x04", "Save the table as CSV"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1", "Save the table as CSV"),
        (b"ARROW1\0\0", r"read_feather\('.*log.csv'\).to_parquet\('.*log.csv.parquet'\)"),
        (
            b'[{"user": 1},\n {"user": 2}]',
            r"expected an object a line.*'.*log.csv'.*> log.lines.jsonl",
        ),
        (b'[\n{"user": 1},\n{"user": 2}\n]', "expected an object a line"),
        (b'{\n  "playlists": []\n}', "expected an object a line"),
        (gzip.compress(b"user,item\n" * 50_000, mtime=0)[:200], "cut off"),
        (b"\x00\x01\x02\x03", "neither text nor Parquet"),
        (b"PAR1 and nothing more", "damaged or cut off"),
    ],
)
def test_what_is_no_table_is_named(tmp_path, content, message):
    path = tmp_path / "log.csv"
    path.write_bytes(content)
    with pytest.raises(RawFileError, match=message):
        list(open_table(path).chunks([], Problems(PROBLEMS)))


def test_names_may_hold_line_breaks_and_a_line_before_them_the_separator(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text('user,"bought\nat",n\nx,"a\nb",1\n')
    table = open_table(path)
    assert table.names == ("user", "bought at", "n")
    assert sample(table) == {"user": ["x"], "bought at": ["a\nb"], "n": ["1"]}
    path.write_text("sep=;\nuser;a, b\nx;1,5\n")
    table = open_table(path)
    assert table.names == ("user", "a, b")
    [(arrays, lines)] = table.chunks(table.names, Problems(PROBLEMS))
    assert ([array.to_pylist() for array in arrays.values()], lines) == ([["x"], ["1,5"]], [3])


@pytest.mark.parametrize(
    ("first", "names"),
    [('user,"item\n', ("user", "item")), ('us"er,item\n', ('us"er', "item"))],
)
def test_a_quote_without_end_in_the_first_line_swallows_no_row(tmp_path, first, names):
    path = tmp_path / "log.csv"
    path.write_text(first + "x,y\n" * 200)
    table = open_table(path)
    assert table.names == names
    assert sample(table) == {names[0]: ["x"] * 200, names[1]: ["y"] * 200}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("user,item,\nx,y\nz,y\n", r"none of its 2 rows .* has 3 values \(user, item, column 3\)"),
        ("user,item\n", "holds names of columns and no row"),
    ],
)
def test_a_table_without_a_row_says_why(tmp_path, content, message):
    path = tmp_path / "log.csv"
    path.write_text(content)
    with pytest.raises(RawFileError, match=message):
        sample(open_table(path))


def test_parquet_columns_of_any_kind_are_text(tmp_path):
    vectors = pa.array([np.array([1, 2], np.float16)], pa.list_(pa.float16(), 2))
    pq.write_table(pa.table({"v": vectors, "s": [{"a": 1}]}), tmp_path / "x.parquet")
    [(arrays, _)] = open_table(tmp_path / "x.parquet").chunks(["v", "s"], Problems(PROBLEMS))
    assert [as_strings(array)[0].as_py() for array in arrays.values()] == ["1.0|2.0", "{'a': 1}"]


def test_ids_of_bytes_are_text_a_uuid_or_hexadecimal(tmp_path):
    ids = [UUID(int=0xFF << 100), UUID(int=7)]
    columns = {
        "uuid": pa.array([ids[0].bytes, None, ids[1].bytes], pa.binary(16)),
        "asin": pa.array([b"B000123456", b"B000123457", None], pa.binary(10)),
        "hash": pa.array([b"\xff\x00", b"ab", b"a\x00"], pa.binary(2)),
        "any": pa.array([b"\xff\x01", b"\xfe\x01", "é".encode()], pa.binary()),
    }
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    assert sample(open_table(tmp_path / "x.parquet")) == {
        "uuid": [str(ids[0]), "", str(ids[1])],
        "asin": ["B000123456", "B000123457", ""],
        "hash": ["ff00", "ab", "a"],
        "any": ["ff01", "fe01", "é"],
    }
    if hasattr(pa, "uuid"):
        typed = pa.ExtensionArray.from_storage(pa.uuid(), columns["uuid"])
        assert as_strings(typed).to_pylist() == [str(ids[0]), "", str(ids[1])]


def test_a_time_zone_that_nobody_knows_is_an_error(tmp_path):
    times = pa.array([1], pa.timestamp("s", "Middle/Earth"))
    pq.write_table(pa.table({"t": times}), tmp_path / "x.parquet")
    with pytest.raises(RawFileError, match=r"x\.parquet.*Middle/Earth"):
        list(open_table(tmp_path / "x.parquet").chunks(["t"], Problems(PROBLEMS)))
