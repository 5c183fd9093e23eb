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

from recbole_m3rec.support.safe_write import new_files


def state_folder() -> Path:
    """Return the folder with one small file per path written, named by the path's hash."""
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "recbole_m3rec" / "written"


def sha256_of(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file's content."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def note(path: Path, digest: str) -> None:
    """Note that a file of this content was written here; a new content replaces the old one.

    Where the note cannot be kept, the file counts as foreign later on.
    """
    name = hashlib.sha256(os.fsencode(os.path.realpath(path))).hexdigest()
    try:
        with new_files(state_folder() / name) as [new]:
            new.file.write(digest.encode())
    except (OSError, ValueError, RuntimeError) as error:
        getLogger().debug(f"{path} is not noted as written here: {error}")


def is_own(path: Path) -> bool:
    """Tell whether a file has a content that was written here, at this path or any other."""
    digest = sha256_of(path).encode()
    with suppress(OSError, RuntimeError):
        for entry in state_folder().iterdir():
            with suppress(OSError):
                if entry.read_bytes() == digest:
                    return True
    return False
