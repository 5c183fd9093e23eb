"""What the scripts in ``dataset_scripts/`` share: exit codes, errors in one line, arguments."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence

from recbole_m3rec.cli.train import INTERRUPTED, USER_ERROR, users_error
from recbole_m3rec.support.folder_names import fault_of_name


class NotConfirmedError(ValueError):
    """What is about to be done has not been confirmed."""


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
        message = users_error(error)
        if message is None:
            raise
        print(f"error: {message}", file=sys.stderr)
        return USER_ERROR
    finally:
        logger.removeHandler(shown)
        logger.setLevel(level)
    return 0


def confirm(yes: bool) -> None:
    """Ask on a terminal whether what was shown is right.

    Args:
        yes: it is, do not ask.

    Raises:
        NotConfirmedError: it is not, or there is no terminal to ask on.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise NotConfirmedError(
            "nothing was written. If what is shown above is right, add --yes; otherwise name the"
            " columns, --help shows how"
        )
    if input("Is this right? [y/N] ").strip().lower() not in ("y", "yes"):
        raise NotConfirmedError("nothing was written. Name the columns, --help shows how")


def dataset_name(text: str) -> str:
    """Return an argument that can name the folder of a dataset, and be typed without quotes."""
    fault = fault_of_name(text) or ("holds a space" if " " in text else None)
    if fault:
        raise argparse.ArgumentTypeError(f"{text!r} cannot name a dataset: it {fault}")
    return text


def positive(text: str) -> int:
    """Return an argument that is a whole number from 1 on."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 on, found {text!r}")
    return int(text)
