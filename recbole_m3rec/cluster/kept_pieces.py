"""Keeps what pieces gave in files, so that a cancelled job goes on from those that are finished."""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from recbole_m3rec.cluster.pieces import Cluster
from recbole_m3rec.support.safe_write import CannotWriteError
from recbole_m3rec.support.versions import versions

R = TypeVar("R")

_DIGEST_SIZE = hashlib.sha256().digest_size


class KeptPieces:
    """Bytes that pieces gave, a file each, in a folder named by what they depend on.

    A file begins with the digest of its content: what was cut off or damaged is made again.
    """

    def __init__(self, work: Path, **depends_on: Any) -> None:
        """Choose the folder.

        Args:
            work: where it lies, made where needed and left to the caller to remove once the job has
                ended.
            depends_on: what decides on the results besides this package and its libraries, as JSON
                can hold it.
        """
        self._work, self._depends_on = work, depends_on

    @cached_property
    def _folder(self) -> Path:
        key = json.dumps([versions(), self._depends_on], sort_keys=True)
        return self._work / hashlib.sha256(key.encode()).hexdigest()[:24]

    def parsed(
        self, cluster: Cluster, parse: Callable[..., R], kind: Any, pieces: Any, *more: Any
    ) -> Iterator[R]:
        """Yield ``parse(piece, *more)``; what other processes give is kept.

        ``kind`` is the class of the results, with ``to_bytes`` and ``from_bytes``.
        """
        if not cluster.is_remote:
            return cluster.map(parse, ((piece, *more) for piece in pieces))
        calls = ((piece.name, (parse, piece, *more)) for piece in pieces)
        return map(kind.from_bytes, self.map(cluster, parse_to_bytes, calls))

    def map(
        self,
        cluster: Cluster,
        function: Callable[..., bytes],
        pieces: Iterable[tuple[str, tuple[Any, ...]]],
    ) -> Iterator[bytes]:
        """Yield ``function(*piece)`` of each piece, in their order; only new ones are run.

        Args:
            cluster: where it is called.
            function: as of ``Cluster.map``.
            pieces: name and arguments of each.

        Raises:
            CannotWriteError: what a piece gave cannot be kept.
        """
        waiting: deque[tuple[Path, bool]] = deque()  # and whether it is there

        def new() -> Iterator[tuple[Any, ...]]:
            for name, piece in pieces:
                path = self._folder / name
                is_there = _read(path) is not None
                waiting.append((path, is_there))
                if not is_there:
                    yield piece

        made = cluster.map(function, new())
        while True:
            result = next(made, None)  # which also takes the next pieces
            while waiting and waiting[0][1]:
                yield waiting.popleft()[0].read_bytes()[_DIGEST_SIZE:]
            if result is None:
                return
            _write(waiting.popleft()[0], result)
            yield result


def parse_to_bytes(parse: Callable[..., Any], *arguments: Any) -> bytes:
    """Parse a piece on a worker."""
    content: bytes = parse(*arguments).to_bytes()
    return content


def identity(path: Path) -> list[Any]:
    """Return what changes when a file is written: path, size and times, as JSON can hold them."""
    state = path.stat()
    return [str(path.resolve()), state.st_size, state.st_mtime_ns, state.st_ctime_ns]


def _read(path: Path) -> bytes | None:
    """Return a file's content, None if it is not there as it was written."""
    try:
        found = path.read_bytes()
    except OSError:
        return None
    content = found[_DIGEST_SIZE:]
    return content if hashlib.sha256(content).digest() == found[:_DIGEST_SIZE] else None


def _write(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "wb") as file:
            file.write(hashlib.sha256(content).digest())
            file.write(content)
    except OSError as error:
        raise CannotWriteError(
            f"cannot write {path}: {error.strerror}; finished pieces of the job are kept there."
            " Make room; the same command resumes"
        ) from error
