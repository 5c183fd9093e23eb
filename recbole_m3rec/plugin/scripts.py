"""What the scripts in ``dataset_scripts/`` share: their exit codes, and errors in one line."""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from recbole_m3rec.plugin.command_line import INTERRUPTED, USER_ERROR, one_line, users_error


def run_script(
    script: Callable[[Sequence[str] | None], None], arguments: Sequence[str] | None = None
) -> int:
    """Run a script and return its exit code: 0, 2 for a user's error, 130 if interrupted.

    Args:
        script: parses arguments and does its work; log lines of this package are shown.
        arguments: the arguments after the program's name; None takes the process's own.
    """
    shown = logging.StreamHandler()
    shown.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("recbole_m3rec")
    level = logger.level
    logger.addHandler(shown)
    logger.setLevel(logging.INFO)
    try:
        script(arguments)
    except KeyboardInterrupt:
        print("\nInterrupted. The same command goes on where it was.", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        message = users_error(error) or _own_system_error(error)
        if message is None:
            raise
        print(f"error: {message}", file=sys.stderr)
        return USER_ERROR
    finally:
        logger.removeHandler(shown)
        logger.setLevel(level)
    return 0


def _own_system_error(error: Exception) -> str | None:
    """Return the message of a missing file or a full disk that this package reports itself."""
    frames: list[tuple[Any, int]] = list(traceback.walk_tb(error.__traceback__))
    raised_in = str(frames[-1][0].f_globals.get("__name__")) if frames else ""
    if isinstance(error, OSError) and raised_in.startswith("recbole_m3rec."):
        return one_line(error.strerror or str(error))
    return None
