"""Blocks of whole lines from plain and packed files."""

import gzip
import os
from types import SimpleNamespace

import pytest

from recbole_m3rec.datasets.io import raw_lines
from recbole_m3rec.datasets.io.raw_lines import RawFileError, line_pieces, read_blocks

LINES = b"".join(b"line %d of many\n" % number for number in range(5000))
PACKED = gzip.compress(LINES, mtime=0)  # without the time, which would name the cases


def content(path):
    expected = 1
    parts = []
    for block in read_blocks(path):
        assert block.first_line == expected
        assert block.data.endswith(b"\n")
        expected += block.n_lines
        parts.append(block.data)
    return b"".join(parts)


@pytest.mark.parametrize("block_size", [7, 100, 1 << 20])
@pytest.mark.parametrize(
    "pack",
    [
        bytes,
        gzip.compress,
        lambda data: gzip.compress(data[:30_000]) + gzip.compress(data[30_000:]),  # two members
        lambda data: gzip.compress(data) + b"\0" * 100,  # padding
        lambda data: b"\xef\xbb\xbf" + data,  # byte order mark
        lambda data: data[:-1],  # no line feed at the end
    ],
)
def test_all_lines_come_in_blocks_of_whole_ones(pack, block_size, tmp_path, monkeypatch):
    monkeypatch.setattr(raw_lines, "BLOCK_SIZE", block_size)
    monkeypatch.setattr(raw_lines, "_READ_SIZE", 999)
    path = tmp_path / "lines"
    path.write_bytes(pack(LINES))
    read = [0]

    def progress(n_bytes):
        read[0] += n_bytes

    assert content(path) == LINES
    list(read_blocks(path, progress))
    assert read[0] in (path.stat().st_size, path.stat().st_size - 3)


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("x.gz", PACKED[:-20], r"x\.gz is cut off at byte"),
        ("x.gz", PACKED[:-4] + b"abcd", r"damaged before byte .*incorrect length"),
        ("x.gz", PACKED[:500] + b"x" * 500, "damaged before byte"),
        ("x.gz", b"<html>not found</html>", "not a gzip file, it begins with b'<html>"),
        ("x.gz", b"", "holds nothing"),
        ("x.gz", gzip.compress(b"", mtime=0), "holds nothing"),
        ("x.csv", b"", "holds nothing"),
    ],
)
def test_a_damaged_file_is_an_error_that_says_where(name, data, says, tmp_path):
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(RawFileError, match=says):
        content(path)


def test_a_line_without_end_does_not_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(raw_lines, "BLOCK_SIZE", 1000)
    monkeypatch.setattr(raw_lines, "LONGEST_LINE", 5000)
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(b"short\n" + b"x" * 100_000))
    with pytest.raises(RawFileError, match="line 2: a line is longer than"):
        content(path)


@pytest.mark.parametrize(
    ("pack", "more"),
    [(bytes, -9), (bytes, 9), (gzip.compress, -9)],
    ids=["short", "long", "packed"],
)
def test_pieces_of_a_copy_of_another_size_are_not_read(pack, more, tmp_path):
    path = tmp_path / "lines"
    path.write_bytes(pack(LINES))
    with line_pieces(path, SimpleNamespace(is_remote=True), tmp_path) as pieces:
        [piece] = pieces
        assert piece.read().data == LINES
        os.truncate(piece.path, len(LINES) + more)
        with pytest.raises(OSError, match=f"holds {len(LINES) + more:,} bytes in place of"):
            piece.read()
