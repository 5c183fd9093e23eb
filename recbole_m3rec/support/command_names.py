"""The shell commands that messages and help texts name, as this installation offers them."""

from __future__ import annotations

import shutil


def command(words: str = "") -> str:
    """Return a command line such as ``recbole-m3rec prepare amazon --category beauty``.

    Where the package runs from a clone that is not installed there is no such program, and
    ``python -m recbole_m3rec`` does the same.
    """
    return f"{program()} {words}".rstrip()


def program() -> str:
    """Return what the shell knows the command as."""
    return "recbole-m3rec" if shutil.which("recbole-m3rec") else "python -m recbole_m3rec"
