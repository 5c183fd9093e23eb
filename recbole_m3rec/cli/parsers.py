"""The parsers of training and of what is done with a checkpoint, and their help."""

from __future__ import annotations

import argparse
import re
from collections.abc import Set
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from recbole_m3rec.support.command_names import command

DESCRIPTION = """\
Train and test a model of RecBole, M3Rec among them, or use a checkpoint of one.

Any setting is written --key=value, with the equals sign, and wins over every file:
--epochs=5  --train_batch_size=4096  --modalities=text,image  --metrics="['Hit','NDCG']"
"""

EXAMPLES = """\
examples:
  recbole-m3rec train --model=M3Rec --dataset=ml-100k
      train, let validation choose the epoch, and test
  recbole-m3rec train --model=SASRec --dataset=ml-100k --epochs=1
      any other model of RecBole under the same protocol
  recbole-m3rec train --model=M3Rec --dataset=beauty --config_files=published
      what the authors' released program does
  recbole-m3rec train --model=M3Rec --dataset=beauty --nproc=2 --gpu_id=0,1
      two processes, each on a GPU of its own
  recbole-m3rec train --model=M3Rec --dataset=ml-100k --resume
      resume the newest such run where it was stopped, as if it had not been
  recbole-m3rec resume saved/M3Rec-Nov-23-2026_10-00-00-last.ckpt
  recbole-m3rec evaluate saved/M3Rec-Nov-23-2026_10-00-00.pth --topk=[1,10]
      valid and test metrics again, without training
  recbole-m3rec recommend saved/M3Rec-Nov-23-2026_10-00-00.pth --output top.csv --k 20
      the 20 best new items of every user
  recbole-m3rec export saved/M3Rec-Nov-23-2026_10-00-00.pth --output shop-bundle
      a folder with all that recommending needs, for recbole-m3rec serve
  recbole-m3rec show saved/M3Rec-Nov-23-2026_10-00-00.pth
      the model's recommendations on a page in the browser
"""

# Settings that change where and how fast a checkpoint is used, and those that change its metrics.
PLACE_KEYS = frozenset(
    ["data_path", "feature_path", "download"]
    + ["gpu_id", "use_gpu", "worker", "enable_amp", "scan_backend", "eval_batch_size"]
    + ["state", "show_progress", "log_wandb", "verbose"]
)
METRIC_KEYS = frozenset(["metrics", "topk", "metric_decimal_place", "mask_seen"])


# What --resume stands for when it names no checkpoint.
NEWEST = Path()
PORT = "5678"  # at which several processes meet


class UsageError(ValueError):
    """An argument that means nothing here; says what to write instead."""


class Parser(argparse.ArgumentParser):
    """An argument parser that leaves exiting to its caller."""

    def __init__(self, words: str, description: str, examples: str) -> None:
        super().__init__(
            prog=command(words),
            description=description,
            epilog=examples.replace("recbole-m3rec", command()),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        raise UsageError(message)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Keep a setting with a space in its value from being taken for a file of an option."""
        given = list(args or ())
        options = self._option_string_actions
        spaced = [a for a in given if " " in a and re.match("--[^ ]+=", a)]
        settings = [a for a in spaced if a.partition("=")[0] not in options]
        known, unknown = super().parse_known_args(
            [a for a in given if a not in settings], namespace
        )
        return known, unknown + settings


class Deed(NamedTuple):
    """What is done with a checkpoint.

    Attributes:
        subcommand: of ``recbole-m3rec``, which does the same as the option.
        does: one line.
        settings: those that the command line may change, where nothing is trained.
    """

    subcommand: str
    does: str
    settings: Set[str] = PLACE_KEYS | METRIC_KEYS


DEEDS = {
    "resume": Deed(
        "resume",
        "go on where a run was stopped, as if it had not been; without CHECKPOINT, the newest run "
        "of this configuration",
    ),
    "evaluate": Deed("evaluate", "valid and test metrics, no training"),
    "topk": Deed(
        "recommend",
        "write the best items of every user, given the user's whole history: what comes after the "
        "last interaction, those that validate and test included",
        PLACE_KEYS,
    ),
    "export": Deed(
        "export", "write a bundle: model, items and metrics in a folder that is safe to pass on"
    ),
    "show": Deed("show", "show the recommendations on a page that this machine serves to itself"),
}


class DeedOption(NamedTuple):
    """An option that belongs to some deeds alone.

    Attributes:
        flags: its spellings.
        deeds: names in :data:`DEEDS`.
        settings: those of ``ArgumentParser.add_argument``.
        is_required: whether its deeds need it.
    """

    flags: tuple[str, ...]
    deeds: tuple[str, ...]
    settings: dict[str, Any]
    is_required: bool = False


DEED_OPTIONS = (
    DeedOption(
        ("--output",),
        ("topk", "export"),
        {
            "type": Path,
            "metavar": "PATH",
            "help": "CSV file of recommendations, or folder of an exported bundle",
        },
        is_required=True,
    ),
    DeedOption(("--k",), ("topk",), {"type": int, "default": 10, "help": "items per user (10)"}),
    DeedOption(
        ("--keep_seen",),
        ("topk",),
        {"action": "store_true", "help": "recommend items of the user's history, too"},
    ),
    DeedOption(
        ("--precision",),
        ("export",),
        {
            "choices": ("float32", "float16"),
            "default": "float32",
            "help": "of the item vectors (float32)",
        },
    ),
    DeedOption(
        ("--with-histories", "--with_histories"),
        ("export",),
        {"action": "store_true", "help": "write the users' histories, too"},
    ),
    DeedOption(
        ("--page_port",),
        ("show",),
        {"type": int, "default": 8000, "help": "port of the page; 0 takes a free one (8000)"},
    ),
    DeedOption(
        ("--images",),
        ("show",),
        {"type": Path, "metavar": "FOLDER", "help": "images <item id>.jpg to show"},
    ),
)
WITH_OPTIONS = frozenset(name for option in DEED_OPTIONS for name in option.deeds)


def build_parser(recommending: bool) -> Parser:
    """Return the parser; ``--k`` and its like are settings of some models unless recommending."""
    parser = Parser("train", DESCRIPTION, EXAMPLES)
    add_training(parser)
    saved = parser.add_argument_group("with a checkpoint, whose model and dataset are taken over")
    what = saved.add_mutually_exclusive_group()
    for name, deed in DEEDS.items():
        newest: dict[str, Any] = {"nargs": "?", "const": NEWEST} if name == "resume" else {}
        what.add_argument(f"--{name}", type=Path, metavar="CHECKPOINT", help=deed.does, **newest)
    for option in DEED_OPTIONS if recommending else ():
        belongs = " and ".join(f"--{name}" for name in option.deeds)
        of_deed = {**option.settings, "help": f"{belongs}: {option.settings['help']}"}
        saved.add_argument(*option.flags, **of_deed)
    return parser


def help_parser(name: str) -> Parser:
    """Return the parser whose help tells what the subcommand of a deed takes."""
    deed = DEEDS[name]
    parser = Parser(deed.subcommand, f"{deed.does[0].upper()}{deed.does[1:]}.", "")
    parser.add_argument(
        "checkpoint",
        metavar="CHECKPOINT",
        nargs="?" if name == "resume" else None,
        help="a file of the folder saved/",
    )
    parser.formatter_class = argparse.HelpFormatter
    if name == "resume":
        add_training(parser)
        return parser
    for option in DEED_OPTIONS:
        if name in option.deeds:
            parser.add_argument(*option.flags, **option.settings, required=option.is_required)
    parser.epilog = "Settings that can be changed, by --key=value: " + ", ".join(
        sorted(deed.settings)
    )
    return parser


def add_training(parser: argparse.ArgumentParser) -> None:
    """Add what a training takes."""
    train = parser.add_argument_group("training and testing")
    train.add_argument("--model", help="name of a model, such as M3Rec, Mamba4Rec, SASRec")
    train.add_argument("--dataset", help="name of a dataset, such as ml-100k")
    add_settings(train)
    parser.add_argument(
        "--verbose",
        action="store_true",
        help="show on the screen what else goes into the log file alone",
    )
    several = parser.add_argument_group("several processes")
    several.add_argument("--nproc", type=int, default=1, help="processes on this machine (1)")
    several.add_argument(
        "--ip", default="localhost", help="address of the first machine (localhost)"
    )
    several.add_argument("--port", default=PORT, help=f"port there ({PORT})")
    several.add_argument(
        "--world_size", type=int, default=-1, help="processes on all machines (--nproc)"
    )
    several.add_argument(
        "--group_offset", type=int, default=0, help="processes on the machines before this one (0)"
    )


def add_settings(group: argparse._ActionsContainer) -> None:
    """Add files with settings, and the option that refuses to fetch a dataset."""
    group.add_argument(
        "--config_files",
        nargs="+",
        default=[],
        metavar="FILE",
        help="YAML files with settings, or names of presets such as published, each over those "
        "before it (spaces or commas between)",
    )
    group.add_argument(
        "--no-download",
        "--no_download",
        action="store_true",
        help="refuse to fetch a dataset that is not there and says where it comes from",
    )
