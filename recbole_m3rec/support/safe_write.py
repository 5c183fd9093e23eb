"""Writes files that appear whole or not at all."""

from __future__ import annotations

import glob
import hashlib
import importlib
import os
import stat
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

fcntl: Any = importlib.import_module("fcntl") if os.name == "posix" else None


class FileInUseError(ValueError):
    """Another run writes the same file at this moment."""


class CannotWriteError(OSError):
    """A file cannot be written, e.g. because the disk is full."""


class NewFile:
    """A file in the making, ``.<name>.tmp`` beside the one whose place it takes.

    What a killed run left of it is overwritten; a run that is still at it is not disturbed. A pipe
    or a device, such as ``/dev/stdout``, is written into.

    Args:
        path: its place.
        shared: several runs may write it at once, each under a name of its own; the last one wins
            whole, and what killed ones left is cleared.
        named: what errors name, where the file stands for something else, such as a folder.

    Raises:
        FileInUseError: another run writes the same file, and it is not shared.
        CannotWriteError: it cannot be made, or is a folder, a disk or a socket.
    """

    def __init__(self, path: Path, shared: bool = False, named: Path | None = None) -> None:
        self.path, self.named = path, named or path
        self.is_stream = is_stream(path)
        target = Path(os.path.realpath(path))  # a link stays a link
        own = f".{uuid.uuid4().hex}" if shared else ""
        self.target, self.temporary = target, target.with_name(f".{target.name}{own}.tmp")
        self.file: IO[bytes]
        with self._explained():
            if self.is_stream:
                descriptor = own_descriptor(path)
                # A copy of a descriptor shares its position, so that later output follows.
                self.file = open(path if descriptor is None else os.dup(descriptor), "wb")  # noqa: SIM115
                return
            target.parent.mkdir(parents=True, exist_ok=True)
            if shared:
                clear_leftovers(target.parent, [f".{glob.escape(target.name)}.*.tmp"])
            self.file = open_alone(self.temporary, self.named)
            self.file.truncate(0)

    def to_disk(self) -> None:
        """Hand everything that was written to the system, and a file to the disk."""
        self.file.flush()
        if not self.is_stream:
            os.fsync(self.file.fileno())

    def put_in_place(self) -> None:
        """Let the file, complete and on the disk, take its place."""
        with self._explained():
            self.to_disk()
            if self.is_stream:
                self.file.close()
                return
            if fcntl is None:  # Windows renames closed files only
                self.file.close()
            os.replace(self.temporary, self.target)
            self.file.close()

    def give_up(self) -> None:
        """Remove what there is of the file, if it has not taken its place."""
        if self.is_stream:
            with suppress(OSError):
                self.file.close()
        elif not self.file.closed:
            if fcntl is not None:
                self.temporary.unlink(missing_ok=True)  # before the lock goes with the file
            with suppress(OSError):  # what is still to be written does not fit either
                self.file.close()
            if fcntl is None:
                self.temporary.unlink(missing_ok=True)

    def write(self, content: bytes) -> None:
        """Write all of a file; see :meth:`writing`."""
        with self.writing():
            self.file.write(content)

    def write_by_name(self, write: Callable[[Path], None]) -> None:
        """Let a library write the file that takes its name alone, and may put another in its place.

        That other one would have no lock, may be its user's alone, and not reach the disk.
        """
        with self.writing():
            write(self.temporary)
            if not os.path.samestat(os.stat(self.temporary), os.fstat(self.file.fileno())):
                mode = os.fstat(self.file.fileno()).st_mode
                self.file.close()
                self.file = open_alone(self.temporary, self.named)
                self.temporary.chmod(stat.S_IMODE(mode))

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Turn a failed write, of a full disk say, into one error that names the file."""
        try:
            yield
        except OSError as error:
            if error.filename is not None:  # not ours: writing knows no names
                raise
            with self._explained():
                raise

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn the system's errors into one that names the file and what to do."""
        try:
            yield
        except CannotWriteError:
            raise
        except OSError as error:
            state = "nothing was left there"
            if self.named.exists():
                is_file = self.named.is_file()
                state = f"{'the file that' if is_file else 'what'} was there is unchanged"
            reason = error.strerror or error
            if isinstance(error, FileExistsError | NotADirectoryError):
                reason = f"{self.target.parent} is no folder"
            raise CannotWriteError(
                f"cannot write {self.named}: {reason}; {state}. Make room, or name"
                " a folder that can be written"
            ) from error


def is_stream(path: Path) -> bool:
    """Tell whether a path is written into and not replaced.

    Such are pipes, devices and this process's own open files, as ``/dev/stdout`` may be.

    Raises:
        CannotWriteError: it is a folder, a disk or a socket.
    """
    try:
        mode = os.stat(path).st_mode
    except OSError:  # not there, or not to be seen: opening says why
        return False
    for kind, test in (("folder", stat.S_ISDIR), ("disk", stat.S_ISBLK), ("socket", stat.S_ISSOCK)):
        if test(mode):
            raise CannotWriteError(f"cannot write {path}: it is a {kind}. Name a file")
    return not stat.S_ISREG(mode) or own_descriptor(path) is not None


def own_descriptor(path: Path) -> int | None:
    """Return the number of this process's open file that ``/dev/stdout`` and the like stand for."""
    link = os.path.abspath(path)
    while os.path.islink(link):
        folder = os.path.dirname(link)
        if os.path.realpath(folder) == f"/proc/{os.getpid()}/fd":
            return int(os.path.basename(link))
        link = os.path.join(folder, os.readlink(link))
    return None


@contextmanager
def new_files(*paths: Path, shared: bool = False) -> Iterator[list[NewFile]]:
    """Open new files that take their places together, in this order, when the block ends well.

    Raises:
        FileInUseError: another run writes one of them, and they are not ``shared``.
        CannotWriteError: one of them cannot be written.
    """
    files: list[NewFile] = []
    try:
        for path in paths:
            files.append(NewFile(path, shared))
        yield files
        for file in files:  # all on the disk before the first takes its place
            with file.writing():
                file.to_disk()
        for file in files:
            file.put_in_place()
    finally:
        for file in files:
            file.give_up()


def write_whole(path: Path, content: bytes) -> None:
    """Write a file whole or not at all; errors as of :func:`new_files`."""
    with new_files(path) as [new]:
        new.write(content)


def drop_half_line(file: Path) -> None:
    """Cut a file, where there is one, after its last whole line: a kill may leave part of one."""
    if file.exists():
        os.truncate(file, file.read_bytes().rfind(b"\n") + 1)


class Sink:
    """Writes to a file, hashes what is written, and remembers why writing failed.

    Libraries that write through other languages lose the system's error; it is raised again from
    here.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.error: OSError | None = None
        self._digest = hashlib.sha256()

    def write(self, content: Any) -> int:
        """Write bytes or a buffer and return how many bytes these are."""
        try:
            size = self.file.write(content)
        except OSError as error:
            self.error = error
            raise
        self._digest.update(content)
        return size

    def flush(self) -> None:
        """Write what is buffered."""
        self.file.flush()

    @property
    def sha256(self) -> str:
        """Hexadecimal SHA-256 of everything written."""
        return self._digest.hexdigest()


def clear_leftovers(
    folder: Path, names: Iterable[str] = (".*.tmp", "*.unfinished"), seconds: float = 60.0
) -> list[Path]:
    """Remove what dead programs left of files in the making, and return the paths removed.

    Files of a program that is still at work, or younger than ``seconds``, stay. Without locks
    (Windows) an open file cannot be removed, so nothing is lost there either.
    """
    removed = []
    for path in [path for name in names for path in folder.glob(name)]:
        with suppress(OSError, FileInUseError):
            if abs(time.time() - path.stat().st_mtime) < seconds:
                continue
            file = open_alone(path)
            path.unlink()
            file.close()
            removed.append(path)
    return removed


def open_alone(path: Path, named: Path | None = None) -> IO[bytes]:
    """Open a file, made if need be, to read and write; no other run has it open this way.

    Args:
        path: the file.
        named: what it is called in the error; None is the path.

    Raises:
        FileInUseError: another run has.
    """
    while True:
        mode = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)
        file: IO[bytes] = os.fdopen(os.open(path, mode, 0o666), "r+b")
        if fcntl is None:
            return file
        try:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.stat(path), os.fstat(file.fileno())):
                    return file
        except BlockingIOError as error:
            file.close()
            raise FileInUseError(
                f"{named or path}: another run is writing it. Wait until it has ended"
            ) from error
        except OSError:  # a file system without locks
            return file
        file.close()  # renamed or removed between opening and locking: once more
