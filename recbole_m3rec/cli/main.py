"""``recbole-m3rec``: one command, whose subcommands are imported when they are called."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from recbole_m3rec import __version__
from recbole_m3rec.support.command_names import command
from recbole_m3rec.support.exit_codes import USER_ERROR
from recbole_m3rec.support.process_settings import ending_at_interrupt
from recbole_m3rec.support.suggestions import did_you_mean


class Subcommand(NamedTuple):
    """What a subcommand calls.

    Attributes:
        module: in this package; its ``main`` takes the arguments and returns the exit code.
        help: one line.
        before: arguments put before the given ones.
        wants: what has to come first, such as CHECKPOINT.
    """

    module: str
    help: str
    before: tuple[str, ...] = ()
    wants: str = ""


SUBCOMMANDS = {
    "train": Subcommand("cli.train", "train and test a model"),
    "resume": Subcommand("cli.train", "resume a checkpoint, or the newest run", ("--resume",)),
    "evaluate": Subcommand("cli.train", "metrics of a checkpoint", ("--evaluate",), "CHECKPOINT"),
    "recommend": Subcommand("cli.train", "best items of every user", ("--topk",), "CHECKPOINT"),
    "export": Subcommand(
        "cli.train", "a bundle that recommends alone", ("--export",), "CHECKPOINT"
    ),
    "show": Subcommand(
        "cli.train", "a checkpoint's page, in the browser", ("--show",), "CHECKPOINT"
    ),
    "serve": Subcommand("serving.serve", "a bundle's page and service", wants="BUNDLE"),
    "onnx": Subcommand("serving.onnx", "a bundle as ONNX graphs", wants="BUNDLE"),
    "compare": Subcommand("cli.compare", "many models, datasets and seeds, one report"),
    "ablate": Subcommand("cli.ablate", "M3Rec without each of its parts"),
    "prepare amazon": Subcommand("cli.prepare.amazon", "a dataset from Amazon's review data"),
    "prepare movielens": Subcommand(
        "cli.prepare.movielens", "a dataset from a release of MovieLens"
    ),
    "prepare tables": Subcommand(
        "cli.prepare.tables", "a dataset from your own purchases and items"
    ),
    "prepare images": Subcommand(
        "cli.prepare.encode_images", "fetch the items' images", ("download",)
    ),
    "encode text": Subcommand("cli.prepare.encode_text", "text features from columns of the items"),
    "encode images": Subcommand(
        "cli.prepare.encode_images", "image features from pictures", ("encode",)
    ),
    "import": Subcommand("cli.prepare.import_features", "features from vectors made elsewhere"),
    "describe": Subcommand(
        "cli.prepare.describe", "what is in a dataset, and whether features fit"
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand and return its exit code: 0, 2 for a user's error, 130 if interrupted.

    Without a subcommand, settings such as ``--model=M3Rec`` mean ``train``.
    """
    argv = list(sys.argv[1:] if arguments is None else arguments)
    if not argv or argv[0] in ("-h", "--help", "--version"):
        build_parser().parse_args(argv or ["--help"])
    name = name_of(argv)
    if name is None and {"-h", "--help"} & set(argv[1:2]) and (members := group_of(argv[0])):
        print(f"usage: {command(argv[0])} COMMAND …\n\ncommands:\n{table(members)}")
        return 0
    if name is None:
        print(f"error: {unknown(argv)}", file=sys.stderr)
        return USER_ERROR
    subcommand = SUBCOMMANDS[name]
    rest = argv[len(name.split()) :] if argv[0][:1] != "-" else argv
    is_help = bool({"-h", "--help"} & set(rest))
    if subcommand.wants and not is_help and (not rest or rest[0].startswith("-")):
        print(f"error: expected {command(name)} {subcommand.wants} …", file=sys.stderr)
        return USER_ERROR
    return call(subcommand.module, [*subcommand.before, *rest])


def call(module: str, arguments: Sequence[str]) -> int:
    """Import a command, which takes seconds, and run it; Ctrl-C ends the import without a trace."""
    with ending_at_interrupt():
        main = importlib.import_module(f"recbole_m3rec.{module}").main
    exit_code: int = main(arguments)
    return exit_code


def name_of(given: Sequence[str]) -> str | None:
    """Return the name of the subcommand that arguments begin with, None where there is none."""
    if given[0].startswith("-"):
        return "train"
    return next((name for name in (given[0], " ".join(given[:2])) if name in SUBCOMMANDS), None)


def group_of(word: str) -> list[str]:
    """Return the names of the subcommands whose first word this is, of two."""
    return [name for name in SUBCOMMANDS if name.startswith(f"{word} ")]


def table(names: Iterable[str]) -> str:
    """Return a line for each of some subcommands."""
    width = max(map(len, SUBCOMMANDS)) + 2
    return "\n".join(f"  {name.ljust(width)}{SUBCOMMANDS[name].help}" for name in names)


def unknown(given: Sequence[str]) -> str:
    """Return what to say of arguments that begin with no subcommand."""
    if group := group_of(given[0]):
        words = " ".join(given[:2])
        return f"There is no command {words!r}; there are {', '.join(group)}." + did_you_mean(
            words, group
        )
    return (
        f"There is no command {given[0]!r}.{did_you_mean(given[0], SUBCOMMANDS)} "
        f"{command('--help')} lists them."
    )


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of what comes without a subcommand: help and version."""
    parser = argparse.ArgumentParser(
        prog=command(),
        usage=f"{command()} COMMAND …",
        description="M3Rec and every model of RecBole: data, training, comparison, use.",
        epilog="commands:\n"
        + table(SUBCOMMANDS)
        + f"\n\n{command('COMMAND --help')} shows what a command takes.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    return parser
