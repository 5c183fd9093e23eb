"""How every command ends: its exit code, and a user's error in one line."""

from __future__ import annotations

import errno
import linecache
import logging
import re
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from recbole_m3rec.support import command_names

SOME_FAILED = 1
USER_ERROR = 2
INTERRUPTED = 130  # Ctrl-C
TERMINATED = 143  # SIGTERM
ADVICE = {
    errno.EROFS: "Run the command in a folder that can be written",
    errno.ENOSPC: "Make room on its disk",
}


def run_command(
    command: Callable[[Sequence[str]], int | None],
    arguments: Sequence[str] | None = None,
    *,
    when_interrupted: str = "The same command goes on.",
) -> int:
    """Run a command and return its exit code: its own, or 2 for a user's error.

    130 if interrupted by Ctrl-C, 143 if by SIGTERM.

    Args:
        command: parses arguments and does its work; None is 0.
        arguments: the arguments after the program's name; None takes the process's own.
        when_interrupted: what the user can do then, one sentence.
    """
    try:
        return command(list(sys.argv[1:] if arguments is None else arguments)) or 0
    except KeyboardInterrupt as stopped:
        saved = getattr(stopped, "saved", None)  # by a training that was under way
        resume = command_names.command(f"resume {saved}")
        advice = f"Resume it by {resume}" if saved else when_interrupted
        print(f"\n{str(stopped) or 'Interrupted'}. {advice}", file=sys.stderr)
        is_terminated = getattr(stopped, "number", None) == signal.SIGTERM
        return TERMINATED if is_terminated else INTERRUPTED
    except Exception as error:
        message = users_error(error)
        if message is None:
            raise
        print(f"error: {message}", file=sys.stderr)
        return USER_ERROR


@contextmanager
def log_lines_on_screen() -> Iterator[None]:
    """Show this package's log lines on stderr."""
    shown = logging.StreamHandler()
    shown.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("recbole_m3rec")
    level = logger.level
    logger.addHandler(shown)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(shown)
        logger.setLevel(level)


def users_error(error: Exception) -> str | None:
    """Return one line for an error that the user can correct, None for a fault of the program.

    Ours are the errors whose class this package defines, and those of a value or a file that it
    raises itself; RecBole's are those that its configuration or its data raise themselves. What a
    worker process raised arrives as the text of its traceback.
    """
    text = str(error)
    if type(error).__name__ == "ProcessRaisedException":
        messages = re.findall(r"^recbole_m3rec\.[\w.]+: (.+(?:\n.+)*)", text, re.MULTILINE)
        return one_line(messages[-1]) if messages else None
    if type(error).__module__.partition(".")[0] == "recbole_m3rec":
        return one_line(text)
    if isinstance(error, OSError) and error.filename is not None:
        advice = ADVICE.get(error.errno or 0)
        return one_line(f"{error.filename}: {error.strerror}" + (f". {advice}" if advice else ""))
    frame = list(traceback.walk_tb(error.__traceback__))[-1]
    raised_in = str(frame[0].f_globals.get("__name__"))
    line = linecache.getline(frame[0].f_code.co_filename, frame[1]).strip()
    if (
        isinstance(error, (ValueError, OSError))
        and raised_in.startswith("recbole_m3rec.")
        and line.startswith("raise ")  # our own words, not those of what we called
    ):
        return one_line(getattr(error, "strerror", None) or text)
    if isinstance(error, ModuleNotFoundError) and raised_in.startswith("recbole."):
        missing = error.name or text
        return one_line(
            f"{raised_in} needs {missing}, which is not installed: pip install {missing}"
        )
    if raised_in == "recbole.config.configurator":
        return one_line(f"RecBole refuses the configuration: {text or line}")
    if raised_in.startswith(("recbole.data.", "recbole.sampler.")) and line.startswith("raise "):
        return one_line(f"RecBole refuses the data or a setting of them: {text or line}")
    return None


def one_line(text: str) -> str:
    """Return a text without line breaks."""
    return " ".join(text.split())
