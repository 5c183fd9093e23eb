"""Arguments of the launcher, checked before anything runs."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from recbole_m3rec.processes.rendezvous import Options as ProcessOptions
from recbole_m3rec.processes.rendezvous import check as check_processes
from recbole_m3rec.support.command_names import command
from recbole_m3rec.support.suggestions import did_you_mean, nearest

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
      a folder with all that recommending needs, for recbole_m3rec.serving
  recbole-m3rec show saved/M3Rec-Nov-23-2026_10-00-00.pth
      the model's recommendations on a page in the browser
"""

# Settings that change how a checkpoint is evaluated or where, and not what the model is.
EVALUATION_KEYS = frozenset(
    ["data_path", "feature_path", "download"]
    + ["metrics", "topk", "valid_metric", "metric_decimal_place", "eval_batch_size", "mask_seen"]
    + ["gpu_id", "use_gpu", "worker", "enable_amp", "scan_backend"]
    + ["state", "show_progress", "log_wandb", "verbose"]
)


# What --resume stands for when it names no checkpoint.
NEWEST = Path()

# The setting ``topk`` of RecBole, numbers that make no sense included.
LENGTHS = r"[\[(]?[-+\d\s,]*[\])]?"


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


def build_parser(recommending: bool) -> Parser:
    """Return the parser; ``--k`` and its like are settings of some models unless recommending."""
    parser = Parser("train", DESCRIPTION, EXAMPLES)
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
    several.add_argument("--port", default="5678", help="port there (5678)")
    several.add_argument(
        "--world_size", type=int, default=-1, help="processes on all machines (--nproc)"
    )
    several.add_argument(
        "--group_offset", type=int, default=0, help="processes on the machines before this one (0)"
    )
    saved = parser.add_argument_group("with a checkpoint, whose model and dataset are taken over")
    what = saved.add_mutually_exclusive_group()
    what.add_argument(
        "--resume",
        type=Path,
        nargs="?",
        const=NEWEST,
        metavar="CHECKPOINT",
        help="go on where a run was stopped, as if it had not been; without CHECKPOINT, the newest "
        "run of this configuration",
    )
    for option, does in (
        ("evaluate", "valid and test metrics, no training"),
        (
            "topk",
            "write the best items of every user, given the user's whole history: what comes after "
            "the last interaction, those that validate and test included",
        ),
        ("export", "write a bundle: model, items and metrics in a folder that is safe to pass on"),
        ("show", "show the recommendations on a page that this machine serves to itself"),
    ):
        what.add_argument(f"--{option}", type=Path, metavar="CHECKPOINT", help=does)
    if recommending:
        saved.add_argument(
            "--output",
            type=Path,
            metavar="PATH",
            help="where --topk writes user,rank,item,score, or --export its folder",
        )
        saved.add_argument(
            "--precision",
            choices=("float32", "float16"),
            default="float32",
            help="of the item vectors of --export (float32)",
        )
        saved.add_argument(
            *("--with-histories", "--with_histories"),
            action="store_true",
            help="let --export write the users' histories, too",
        )
        saved.add_argument(
            "--page_port", type=int, default=8000, help="port of --show; 0 takes a free one (8000)"
        )
        saved.add_argument(
            "--images",
            type=Path,
            metavar="FOLDER",
            help="images <item id>.jpg that --show shows",
        )
        saved.add_argument("--k", type=int, default=10, help="items per user of --topk (10)")
        saved.add_argument(
            "--keep_seen",
            action="store_true",
            help="let --topk recommend items of the user's history, too",
        )
    return parser


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


def parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Split arguments into options of this program and settings for RecBole.

    Raises:
        UsageError: an argument is neither, or RecBole would drop it.
    """
    # RecBole has a setting of the same name: the lengths of the ranked lists.
    lengths = re.compile(rf"--topk=\s*{LENGTHS}")
    arguments_left = [argument for argument in arguments if lengths.fullmatch(argument)]
    others = [argument for argument in arguments if not lengths.fullmatch(argument)]
    helping = bool({"-h", "--help"} & set(others))
    recommending = helping or any(
        re.fullmatch(r"--(topk|export|show)(=.*)?", argument) for argument in others
    )
    parser = build_parser(recommending)
    options, settings = parser.parse_known_args(others)
    settings += arguments_left
    check_settings(settings, parser)
    if options.topk is not None and re.fullmatch(LENGTHS, str(options.topk)):
        raise UsageError(
            f"--topk {options.topk} names no checkpoint. The setting of this name is written "
            f"--topk={options.topk}."
        )
    check_options(options, settings)
    settings += ["--download=False"] * options.no_download
    settings += ["--verbose=True"] * options.verbose
    return options, settings


def check_settings(settings: Sequence[str], parser: argparse.ArgumentParser) -> None:
    """Raise for an argument that RecBole would leave out of its configuration."""
    options = [option for option in parser._option_string_actions if option.startswith("--")]
    values: dict[str, str] = {}
    for place, setting in enumerate(settings):
        key, equals, value = setting.partition("=")
        if setting in ("--output", "--k", "--keep_seen") or key == "--output":
            raise UsageError(f"{setting} belongs to --topk CHECKPOINT, which is not given.")
        if key in ("--precision", "--with-histories", "--with_histories", "--images"):
            raise UsageError(f"{key} belongs to --export CHECKPOINT or --show, neither is given.")
        near = nearest(key, options, count=1, likeness=0.85)
        if near and key != near[0]:
            raise UsageError(f"There is no option {key}. Did you mean {near[0]}?")
        if not key.startswith("--") or key == "--":
            before = settings[place - 1] if place else ""
            if before.startswith("--") and "=" not in before:
                continue  # told about already, with its key
            raise UsageError(
                f"{setting!r} is no setting. Settings are written --key=value; the files of "
                "--config_files follow it after a space, or after = in quotes."
            )
        if not equals:
            following = settings[place + 1] if place + 1 < len(settings) else ""
            shown = following if following and not following.startswith("-") else "VALUE"
            raise UsageError(f"{key} has no value. A setting is written {key}={shown}.")
        if "=" in value:
            raise UsageError(
                f"{setting} has two equals signs, and RecBole would drop it. Write it into a YAML "
                f"file as `{key[2:]}: {value}` and give that by --config_files."
            )
        if values.setdefault(key, value) != value:
            raise UsageError(f"{key} is given twice, as {values[key]} and as {value}.")


def check_options(options: argparse.Namespace, settings: Sequence[str]) -> None:
    """Raise for options that do not go together or miss a part."""
    checkpoint = (
        options.resume or options.evaluate or options.topk or options.export or options.show
    )
    if checkpoint is not None:
        if options.config_files and checkpoint != NEWEST:
            raise UsageError(
                "--config_files does not go with a checkpoint, which brings its own configuration. "
                "Change single settings by --key=value."
            )
        if options.resume is None and (options.nproc != 1 or options.world_size > 0):
            raise UsageError(
                "--evaluate, --topk, --export and --show run in one process; leave out --nproc."
            )
    if options.resume is None and checkpoint is not None:
        refused = [key for key in keys(settings) if key not in EVALUATION_KEYS]
        if refused:
            raise UsageError(
                f"--{refused[0]} cannot be changed for a trained model. What can be: "
                f"{', '.join(sorted(EVALUATION_KEYS))}."
            )
    if options.topk is not None:
        if options.output is None:
            raise UsageError("--topk CHECKPOINT needs --output FILE.csv, the file to write.")
        if options.k < 1:
            raise UsageError(f"--k is {options.k}, but must be at least 1.")
        if not options.output.parent.is_dir():
            raise UsageError(f"--output names {options.output}, but there is no such folder.")
    check_processes(ProcessOptions(*(getattr(options, name) for name in ProcessOptions._fields)))
    if options.export is not None and options.output is None:
        raise UsageError("--export CHECKPOINT needs --output FOLDER, the bundle to write.")
    if options.show is not None and options.images is not None and not options.images.is_dir():
        raise UsageError(f"--images names {options.images}, but there is no such folder.")
    options.config_files = [
        file for argument in options.config_files for file in split_files(argument)
    ]


def keys(settings: Sequence[str]) -> list[str]:
    """Return the names of settings written ``--key=value``."""
    return [setting[2:].partition("=")[0] for setting in settings]


def split_files(argument: str) -> list[str]:
    """Split an argument at commas and spaces unless it is the name of one file; find presets.

    Raises:
        UsageError: a name is neither a file's nor a preset's.
    """
    names = [argument] if Path(argument).is_file() else re.findall(r"[^\s,]+", argument)
    return [name if Path(name).is_file() else str(preset(name)) for name in names]


def preset(name: str) -> Path:
    """Return the file of a preset, ``published`` being short for ``m3rec-published``.

    Raises:
        UsageError: there is none; names those that there are.
    """
    from recbole_m3rec.config.layers import properties_folder

    files = {file.stem: file for file in (properties_folder() / "presets").glob("*.yaml")}
    for stem in (name, f"m3rec-{name}"):
        if stem in files:
            return files[stem]
    raise UsageError(
        f"--config_files names {name}, which is no file and no preset; there are "
        f"{', '.join(sorted(files))}.{did_you_mean(name, files)}"
    )
