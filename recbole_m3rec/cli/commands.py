"""What the commands share that read, write or show data: parsers, arguments, a question."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

from recbole_m3rec.support.command_names import command
from recbole_m3rec.support.exit_codes import log_lines_on_screen, run_command
from recbole_m3rec.support.folder_names import fault_of_name, fault_of_new_name


class NotConfirmedError(ValueError):
    """What is about to be done has not been confirmed."""


def run_script(
    script: Callable[[Sequence[str]], int | None], arguments: Sequence[str] | None = None
) -> int:
    """Run a command with this package's log lines on the screen, and return its exit code."""
    with log_lines_on_screen():
        return run_command(script, arguments)


def documented_parser(doc: str | None, words: str, epilog: str = "") -> argparse.ArgumentParser:
    """Return a parser whose help is a module's docstring.

    Args:
        doc: its first line is the description, the rest, with examples, comes after the options.
        words: the subcommand, such as ``prepare amazon``.
        epilog: what comes after that.
    """
    head, _, tail = (doc or "").replace("recbole-m3rec", command()).partition("\n")
    return argparse.ArgumentParser(
        prog=command(words),
        description=head,
        epilog=tail + epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


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


def show_files(stem: Path, kinds: Sequence[str], perhaps: Sequence[Path] = ()) -> None:
    """Show which files of a dataset a command writes, what they replace, and what stays beside.

    Args:
        stem: the files' path without their endings.
        kinds: the endings.
        perhaps: files that it writes if the data, not read yet, hold something for them.
    """
    paths = [*(Path(f"{stem}.{kind}") for kind in kinds), *perhaps]
    for path in paths:
        before = path.stat() if path.exists() else None
        day = datetime.fromtimestamp(before.st_mtime) if before else None
        old = f", replacing {before.st_size:,} bytes of {day:%Y-%m-%d %H:%M}" if before else ""
        condition = ", if bought items have something for it" if path in perhaps else ""
        print(f"to write{condition}: {path}{old}")
    others = sorted(set(stem.parent.glob(f"{stem.name}.*")) - set(paths))
    if others:
        print(f"there, and stays as it is: {', '.join(map(str, others))}")


def dataset_name(text: str) -> str:
    """Return an argument that can name the folder of a dataset, and be typed without quotes."""
    fault = fault_of_new_name(text)
    if fault is not None:
        raise argparse.ArgumentTypeError(f"{text!r} cannot name a dataset: {fault}")
    return text


def folder_name(text: str) -> str:
    """Return an argument that names a dataset which is there."""
    fault = fault_of_name(text)
    if fault is not None:
        raise argparse.ArgumentTypeError(f"the name of a dataset {text!r} {fault}")
    return text


def modality_name(text: str) -> str:
    """Return an argument that can name a modality."""
    from recbole_m3rec.features.recipe_config import fault_of_modality  # loads torch

    fault = fault_of_modality(text)
    if fault is not None:
        raise argparse.ArgumentTypeError(f"the modality {text!r} {fault}")
    return text


def short(text: str) -> str:
    """Return the beginning of a text, at most 40 characters."""
    return text if len(text) <= 40 else text[:39] + "…"


def add_cluster(parser: argparse.ArgumentParser) -> None:
    """Add ``--cluster``, which ``cluster.connect.connected`` takes."""
    parser.add_argument(
        "--cluster",
        metavar="PLACE",
        help="Dask workers that share the work: local, tcp://HOST:PORT or a scheduler file",
    )
