"""Reads large line-based files, gzipped or plain, in blocks and little memory."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, TypeVar

from tqdm import tqdm

from recbole_m3rec.cluster.pieces import Cluster, check_size

BLOCK_SIZE = 16 << 20
# Larger pieces name an id less often, so that less is left to merge; each should be one of many.
LARGEST_RANGE, PIECES_OF_A_FILE = 64 << 20, 128
LONGEST_LINE = 64 << 20
_READ_SIZE = 1 << 20
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"

T = TypeVar("T")


class RawFileError(ValueError):
    """A raw file is damaged, cut off, empty or something else."""


@dataclass(frozen=True)
class Block:
    """Whole lines of a file, each ended by a line feed; ``first_line`` counts from 1."""

    first_line: int
    data: bytes

    @cached_property
    def n_lines(self) -> int:
        return self.data.count(b"\n")


@dataclass(frozen=True)
class Range:
    """Whole lines of a plain file, from one byte to before another, for another process to read.

    ``size`` is the whole file's, None while it grows.
    """

    path: Path
    start: int
    stop: int
    size: int | None = None

    @property
    def name(self) -> str:
        """What tells it from the other pieces of its file."""
        return f"{self.start}-{self.stop}"

    def read(self) -> Block:
        """Read the lines, counted from 1 as if they were all.

        Raises:
            OSError: the file is another one there.
        """
        with open(self.path, "rb") as file:
            file.seek(self.start)
            data = file.read(self.stop - self.start)
        if self.size is not None:
            check_size(self.path, self.size)
        elif len(data) < self.stop - self.start:
            check_size(self.path, self.stop, self.start + len(data))
        return Block(1, data if data.endswith(b"\n") else data + b"\n")


@contextmanager
def line_pieces(
    path: Path,
    cluster: Cluster,
    work: Path,
    progress: Callable[[int], object] = lambda n_bytes: None,
) -> Iterator[Iterator[Any]]:
    """Give a file's lines in pieces: what was read for this process, where to read for others.

    Args:
        cluster: where the pieces go.
        work: seen by the cluster, too; a gzipped file is unpacked there as its pieces are taken.

    Raises:
        FileNotFoundError, RawFileError: as in ``read_blocks``.
    """
    if not cluster.is_remote:
        yield read_blocks(path, progress)
    elif not _is_gzip(path):
        yield _ranges(path, progress)
    else:
        work.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=work, prefix=f".{path.name}.", suffix=".tmp") as unpacked:
            yield _unpacked(path, unpacked, progress)


def _ranges(path: Path, progress: Callable[[int], object]) -> Iterator[Range]:
    with open(path, "rb") as file:
        start = 3 if file.read(3) == _BYTE_ORDER_MARK else 0
        end = file.seek(0, os.SEEK_END)
        if start == end:
            raise _nothing_in(path)
        size = min(max(BLOCK_SIZE, end // PIECES_OF_A_FILE), LARGEST_RANGE)
        while start < end:
            file.seek(start + size)
            if len(file.readline(LONGEST_LINE)) == LONGEST_LINE:
                raise _too_long(path, f"at byte {start + size:,}")
            stop = min(file.tell(), end)
            progress(stop - start)
            yield Range(path.resolve(), start, stop, end)
            start = stop


def _unpacked(path: Path, file: Any, progress: Callable[[int], object]) -> Iterator[Range]:
    for block in read_blocks(path, progress):
        start = file.tell()
        file.write(block.data)
        file.flush()
        os.fsync(file.fileno())  # another machine may read it at once
        yield Range(Path(file.name).resolve(), start, file.tell())


def read_blocks(
    path: Path, progress: Callable[[int], object] = lambda n_bytes: None
) -> Iterator[Block]:
    """Read a file in blocks of whole lines, the next block being unpacked while one is worked on.

    Args:
        path: plain or gzipped; its first bytes decide, not its name.
        progress: told how many bytes of the file, packed as they are, were read since the last
            call.

    Raises:
        FileNotFoundError: there is no such file.
        RawFileError: a gzip file is damaged or cut off, a ``.gz`` file is none, the file is empty,
            or a line is longer than 64 MB.
    """
    return _ahead(_blocks(path, progress))


@contextmanager
def reading(path: Path | zipfile.Path, what: str) -> Iterator[Callable[[int], object]]:
    """Show on terminals how far a file is read; yields what is told of bytes."""
    if isinstance(path, zipfile.Path):
        archive: Any = path.root
        size = archive.getinfo(path.at).file_size
    else:
        size = path.stat().st_size
    with tqdm(
        total=size,
        desc=f"{what}: {path.name}",
        unit="B",
        unit_scale=True,
        disable=None,
    ) as bar:
        yield bar.update


def _blocks(path: Path, progress: Callable[[int], object]) -> Iterator[Block]:
    line = 1
    parts: list[bytes] = []
    held = 0
    for piece in _pieces(path, progress):
        parts.append(piece)
        held += len(piece)
        if held < BLOCK_SIZE:
            continue
        end = piece.rfind(b"\n") + 1
        if not end:
            if held > max(LONGEST_LINE, BLOCK_SIZE):
                raise _too_long(path, f"line {line}")
            continue
        parts[-1] = piece[:end]
        block = Block(line, b"".join(parts))
        parts, held = [piece[end:]], len(piece) - end
        yield block
        line += block.n_lines
    rest = b"".join(parts)
    if rest:
        yield Block(line, rest if rest.endswith(b"\n") else rest + b"\n")
    elif line == 1:
        raise _nothing_in(path)


def _nothing_in(path: Path) -> RawFileError:
    return RawFileError(f"{path} holds nothing. Get it again")


def _too_long(path: Path, place: str) -> RawFileError:
    return RawFileError(
        f"{path}, {place}: a line is longer than {LONGEST_LINE >> 20} MB. The file is not one of"
        " Amazon's releases: expected one record a line"
    )


def _is_gzip(path: Path) -> bool:
    """Whether a file is packed, as its first bytes say.

    Raises:
        RawFileError: its name says so, and its first bytes do not.
    """
    with open(path, "rb") as file:
        head = file.read(40)
    packed = head[:2] == b"\x1f\x8b"
    if head and not packed and path.suffix == ".gz":
        raise RawFileError(f"{path} is not a gzip file, it begins with {head!r}. Get it again")
    return packed


def _pieces(path: Path, progress: Callable[[int], object]) -> Iterator[bytes]:
    """Yield the unpacked content of a file in pieces of at most ``BLOCK_SIZE``."""
    is_plain = not _is_gzip(path)
    with open(path, "rb") as file:
        if is_plain:
            if file.read(3) != _BYTE_ORDER_MARK:
                file.seek(0)
            while piece := file.read(_READ_SIZE):
                progress(len(piece))
                yield piece
            return
        unpacker = zlib.decompressobj(wbits=31)
        fresh = True  # between two members of the archive
        while packed := file.read(_READ_SIZE):
            n_read = len(packed)
            while packed:
                try:
                    piece = unpacker.decompress(packed, BLOCK_SIZE)
                except zlib.error as error:
                    raise RawFileError(
                        f"{path}: damaged before byte {file.tell():,} ({error}). Get it again"
                    ) from error
                fresh = False
                if piece:
                    yield piece
                packed = unpacker.unconsumed_tail
                if unpacker.eof:
                    packed = unpacker.unused_data.lstrip(b"\0")  # padding is allowed
                    unpacker, fresh = zlib.decompressobj(wbits=31), True
            progress(n_read)
        if not fresh:
            raise RawFileError(f"{path} is cut off at byte {file.tell():,}. Get it again")


def _ahead(items: Iterator[T]) -> Iterator[T]:
    """Yield the same items, each made in another thread while the one before is worked on."""
    end = object()
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, items, end)
        while (item := coming.result()) is not end:
            coming = thread.submit(next, items, end)
            yield item  # type: ignore[misc]
