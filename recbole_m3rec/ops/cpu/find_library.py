"""Where the compiled kernels are: in the package, in the user's cache, or compiled there now."""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

from recbole_m3rec.ops.cpu.compile import CompileError, compile_library, compiler, digest

fcntl: Any = importlib.import_module("fcntl") if os.name == "posix" else None

_logger = logging.getLogger(__name__)


def built_libraries() -> list[Path]:
    """Return the libraries that installing the package built: this one's, then others' on the path.

    A program that is started in a clone finds the clone's source, and beside it no library if the
    package was installed elsewhere.
    """
    here = Path(__file__).resolve().parent.parent
    elsewhere = [Path(entry or ".", "recbole_m3rec", "ops").absolute() for entry in sys.path]
    paths = [
        folder / f"_m3rec_ops{suffix}"
        for folder in dict.fromkeys([here, *elsewhere])
        for suffix in EXTENSION_SUFFIXES
    ]
    return [path for path in paths if path.is_file()]


def cache_folder() -> Path:
    """Return the folder of libraries that were compiled at first use."""
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(caches, "recbole_m3rec", "kernels")


def compiled_library() -> Path:
    """Return this source's library in the cache, compiled now if it is not there.

    Of processes that start together one compiles, and the others wait for it.

    Raises:
        CompileError: it cannot be compiled, or not be written.
    """
    try:
        path = cache_folder() / f"m3rec_ops-{digest()}.so"
        if path.is_file():
            return path
        words = compiler()  # before anything is made for it
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _locked(path.with_suffix(".lock")):
            if not path.is_file():
                _logger.info(
                    "Compiling the CPU kernels with %s, once, into %s; takes about ten seconds",
                    words[0],
                    path,
                )
                compile_library(path)
    except (OSError, RuntimeError) as error:  # RuntimeError: no home folder is known
        if isinstance(error, CompileError):
            raise
        raise CompileError(str(error)) from error
    return path


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with open(path, "w") as lock:
        if fcntl is not None:  # without locks both compile, and the last to end stays
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
