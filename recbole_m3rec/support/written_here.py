"""Which files this user wrote on this machine, by their digests.

A pickle can run code when it is read. Files that this package writes are noted outside of the
working directory, so that a pickle which somebody else laid there is told from an own one.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from logging import getLogger
from pathlib import Path

from recbole_m3rec.support.hashing import sha256_of
from recbole_m3rec.support.safe_write import write_whole


def state_folder() -> Path:
    """Return the folder with one small file per path written, named by the path's hash."""
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "recbole_m3rec" / "written"


def expect(path: Path, digest: str) -> None:
    """Note a content that is about to be written here, beside the one that may still be there."""
    with suppress(OSError, RuntimeError):
        before = _entry(path).read_text() if _entry(path).is_file() else ""
        _write(path, f"{before}{digest}\n")


def note(path: Path, digest: str) -> None:
    """Note that a file of this content was written here; nothing else at its path was.

    Where the note cannot be kept, the file counts as foreign later on.
    """
    _write(path, f"{digest}\n")


def _entry(path: Path) -> Path:
    return state_folder() / hashlib.sha256(os.fsencode(os.path.realpath(path))).hexdigest()


def _write(path: Path, digests: str) -> None:
    try:
        write_whole(_entry(path), digests.encode())
    except (OSError, ValueError, RuntimeError) as error:
        getLogger().debug(f"{path} is not noted as written here: {error}")


def is_own(path: Path) -> bool:
    """Tell whether a file has a content that was written here, at this path or any other."""
    digest = sha256_of(path).encode()
    with suppress(OSError, RuntimeError):
        for entry in state_folder().iterdir():
            with suppress(OSError):
                if digest in entry.read_bytes().split():
                    return True
    return False
