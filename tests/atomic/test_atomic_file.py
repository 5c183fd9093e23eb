"""Atomic files: every row is read as it stands, or the error names file and line."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recbole_m3rec.atomic.atomic_file import (
    AtomicFileError,
    lines_of_rows,
    read_columns,
    read_header,
)

HEADER = "user_id:token\titem_id:token\ttimestamp:float"
FIELDS = ["user_id", "item_id", "timestamp"]
PLAIN = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\t\r\n\0"))


def read(path, **keys):
    columns = read_columns(path, FIELDS, **keys)
    return list(zip(*(column.to_pylist() for column in columns), strict=True))


@given(
    st.lists(st.tuples(PLAIN, PLAIN, PLAIN), max_size=20),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
    st.booleans(),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_joined_by_tabs_is_read_back(tmp_path, rows, line_end, has_mark, has_last_end):
    path = tmp_path / "x.inter"
    text = line_end.join([HEADER, *("\t".join(row) for row in rows)]) + line_end * has_last_end
    path.write_bytes(text.encode("utf-8-sig" if has_mark else "utf-8"))
    assert read(path) == rows


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=60))
def test_any_bytes_are_rows_or_an_error_with_file_and_line(tmp_path, content):
    path = tmp_path / "x.inter"
    path.write_bytes(HEADER.encode() + b"\n" + content)
    lines = content.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    lines = [line for line in lines if line]
    is_text = b"\0" not in content and content.decode(errors="ignore").encode() == content
    if is_text and all(line.count(b"\t") == 2 for line in lines):
        assert ["\t".join(row).encode() for row in read(path)] == lines
    else:
        with pytest.raises(AtomicFileError, match="x.inter, line "):
            read(path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"a\tb\t1\nc\td\n", r"line 3: 2 fields, expected 3 \(user_id, item_id, timestamp\)"),
        (b"a\tb\tc\t1\n\nd\te\tf\t1\n", r"line 2: 4 fields, .*\(2 such lines\)"),
        (b"a\nb\tc\t1\n", "line 2: 1 fields"),
        (b"a\tb\t1\nc\xff\td\t1\n", r"line 3: not utf-8 \(byte 0xff\)\. Set encoding"),
        (b"a\tb\0\t1\n", "line 2: holds bytes that are no text"),
    ],
)
def test_what_is_no_row_is_named_by_line(tmp_path, content, says):
    path = tmp_path / "x.inter"
    path.write_bytes(HEADER.encode() + b"\n" + content)
    with pytest.raises(AtomicFileError, match=f"x.inter, {says}"):
        read(path)


@pytest.mark.parametrize("start", [b"\x1f\x8b\x08\0", b"PK\3\4", b"PAR1\x15", b"\x89HDF\r\n"])
def test_a_compressed_or_foreign_file_is_told_apart(tmp_path, start):
    path = tmp_path / "x.inter"
    path.write_bytes(start + b"\xb9\n\x00")
    with pytest.raises(AtomicFileError, match="line 1: (holds bytes|not utf-8)"):
        read_header(path)


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "cp1252"])
def test_other_encodings_are_read_by_name(tmp_path, encoding):
    path = tmp_path / "x.inter"
    path.write_bytes(f"{HEADER}\ncafé\tb\t1\n".encode(encoding))
    assert read(path, encoding=encoding) == [("café", "b", "1")]


@pytest.mark.parametrize("end", ["", "\n", "\n\n"])
def test_a_header_alone_has_no_rows(tmp_path, end):
    path = tmp_path / "x.inter"
    path.write_text(HEADER + end)
    assert read(path) == []


def test_lines_of_rows_count_header_and_blank_lines(tmp_path):
    path = tmp_path / "x.inter"
    path.write_text(f"{HEADER}\n\na\tb\t1\n\nc\td\t2\n")
    assert lines_of_rows(path, [1, 0]) == [5, 3]
