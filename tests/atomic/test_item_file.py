"""Reading raw .item files."""

import pytest

from recbole_m3rec.atomic.atomic_file import AtomicFileError
from recbole_m3rec.atomic.item_file import ItemFile, write_row

HEADER = "item_id:token\ttitle:token_seq\tprice:float\n"


def written(tmp_path, content):
    path = tmp_path / "x.item"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_named_fields_come_in_the_order_asked_for(tmp_path):
    path = written(tmp_path, HEADER + "7\tToy Story\t1.5\n8\t\t2\n")
    tokens, columns = ItemFile(path).read(["price", "title"])
    assert tokens == ["7", "8"]
    assert columns == [["1.5", "2"], ["Toy Story", ""]]


@pytest.mark.parametrize("content", ["a\tb\t1", "a\tb\t1\r\n", "\na\tb\t1\n\n"])
def test_line_ends_and_blank_lines_do_not_matter(tmp_path, content):
    assert ItemFile(written(tmp_path, HEADER + content)).read(["title"]) == (["a"], [["b"]])


def test_a_field_that_is_absent_is_skipped_where_another_is_there(tmp_path, caplog):
    path = written(tmp_path, HEADER + "7\tToy Story\t1.5\n")
    with caplog.at_level("WARNING", "recbole_m3rec"):
        assert ItemFile(path).read(["brand", "title"]) == (["7"], [[""], ["Toy Story"]])
    assert "no field brand, left out; the file has item_id, title, price" in caplog.text


def test_fields_that_are_all_absent_are_an_error(tmp_path):
    with pytest.raises(AtomicFileError, match="no field 'titel'.*Did you mean title"):
        ItemFile(written(tmp_path, HEADER)).read(["titel", "brand"])


def test_the_item_id_field_must_be_there(tmp_path):
    with pytest.raises(AtomicFileError, match="no field 'asin'"):
        ItemFile(written(tmp_path, HEADER), "asin").read(["title"])


def test_separator_encoding_and_id_field_are_parameters(tmp_path):
    path = written(tmp_path, "name:token,asin:token\ncafé,B1\n".encode("latin-1"))
    found = ItemFile(path, "asin", ",", "latin-1").read(["name"])
    assert found == (["B1"], [["café"]])


def test_a_quote_is_a_character_like_any_other(tmp_path):
    path = written(tmp_path, HEADER + '"7\t"The ""Best"" hat"\t1\n8"\t7" of "silk"\t2\n')
    tokens, columns = ItemFile(path).read(["title"])
    assert tokens == ['"7', '8"']
    assert columns == [['"The ""Best"" hat"', '7" of "silk"']]


def test_what_write_row_writes_is_read_back(tmp_path):
    path = tmp_path / "x.item"
    rows = [['"', 'a "b" c'], ["'", '""'], ["\u2028", "\x85\x0b"]]
    with open(path, "wb") as file:
        write_row(file, ["item_id:token", "title:token_seq"])
        for row in rows:
            write_row(file, row)
    tokens, [titles] = ItemFile(path).read(["title"])
    assert [list(row) for row in zip(tokens, titles, strict=True)] == rows


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "line 1: expected a header"),
        ("1\tToy Story\t2\n", "line 1, column 1: .* name:type .* found '1'"),
        ("item_id:token\ttitle:text\n", "line 1, column 2: .* found 'title:text'"),
        ("item_id:token,title:token\n", "line 1, column 1: .* set field_separator"),
        ("item_id:token\ttitel:token\n", "line 1: no field 'title'.*Did you mean titel?"),
        ("asin:token\ttitle:token\n", "line 1: no field 'item_id'; the file has asin, title"),
        (HEADER + "1\ta\t2\n2\tb\n", "line 3: 2 fields, expected 3"),
        (HEADER + "1\ta\t2\n\tb\t2\n", "line 3: item_id is empty"),
        (HEADER + "1\ta\t2\n2\tb\t2\n1\tc\t3\n", "line 4: item '1' stands on line 2 too"),
        (HEADER + "1\ta\t2\n\n2\tb\tc\t2\n3\n", r"line 4: 4 fields, .*\(2 such lines\)"),
        (HEADER + "1\ta\t2\n2\tb\0\t2\n", "line 3: holds bytes that are no text"),
        ("item_id:token\titem_id:token\n", "line 1, column 2: field 'item_id' stands there twice"),
        (HEADER.encode() + b"1\ta\t1\n2\tcaf\xe9\t1\n", "line 3: not utf-8 .* Set encoding"),
    ],
)
def test_what_is_wrong_is_named_by_line(tmp_path, content, expected):
    with pytest.raises(AtomicFileError, match=f"x.item, {expected}"):
        ItemFile(written(tmp_path, content)).read(["title"])


def test_a_separator_of_several_characters_is_refused(tmp_path):
    with pytest.raises(AtomicFileError, match="field_separator must be one character"):
        ItemFile(written(tmp_path, HEADER), separator="::").read(["title"])


def test_a_missing_file_says_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"x.item: .*bring a feature file"):
        ItemFile(tmp_path / "x.item").read(["title"])
