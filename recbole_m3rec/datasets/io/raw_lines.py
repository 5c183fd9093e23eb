"""Reads large line-based files, gzipped or plain, in blocks and little memory."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

BLOCK_SIZE = 16 << 20
LONGEST_LINE = 64 << 20
_READ_SIZE = 1 << 20

T = TypeVar("T")


class RawFileError(ValueError):
    """A raw file is damaged, cut off, empty or something else."""


@dataclass(frozen=True)
class Block:
    """Whole lines of a file, each ended by a line feed; ``first_line`` counts from 1."""

    first_line: int
    data: bytes

    @property
    def n_lines(self) -> int:
        return self.data.count(b"\n")


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
def reading(
    path: Path | zipfile.Path, what: str, show: bool | None = None
) -> Iterator[Callable[[int], object]]:
    """Show how far a file is read, with rate and remaining time; yields what is told of bytes.

    Args:
        path: the file.
        what: is read of it.
        show: None shows the bar on terminals alone.
    """
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
        disable=None if show is None else not show,
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
                raise RawFileError(
                    f"{path}, line {line}: longer than {LONGEST_LINE >> 20} MB. The file is not one"
                    " of Amazon's releases: expected one record a line"
                )
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
        raise RawFileError(f"{path} holds nothing. Get it again")


def _pieces(path: Path, progress: Callable[[int], object]) -> Iterator[bytes]:
    """Yield the unpacked content of a file in pieces of at most ``BLOCK_SIZE``."""
    with open(path, "rb") as file:
        start = file.read(3)
        file.seek(0)
        if start[:2] != b"\x1f\x8b":
            if path.suffix == ".gz" and start:
                raise RawFileError(
                    f"{path} is not a gzip file, it begins with {file.read(40)!r}. Get it again"
                )
            if start == b"\xef\xbb\xbf":  # a byte order mark
                file.seek(3)
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
