"""Arguments of the launcher, checked before anything runs."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence, Set
from pathlib import Path

from recbole_m3rec.cli.parsers import (
    DEED_OPTIONS,
    DEEDS,
    NEWEST,
    PORT,
    WITH_OPTIONS,
    UsageError,
    build_parser,
    help_parser,
)
from recbole_m3rec.config.keys import KEYS
from recbole_m3rec.config.literals import read_value
from recbole_m3rec.processes.launch import torchrun
from recbole_m3rec.processes.rendezvous import Options as ProcessOptions
from recbole_m3rec.processes.rendezvous import check as check_processes
from recbole_m3rec.support.suggestions import did_you_mean, nearest

# Lengths of ranked lists that no reader takes for numbers, such as none at all.
LENGTHS = re.compile(r"[-+\d\s,]*[\])]?")


def parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Split arguments into options of this program and settings for RecBole.

    Raises:
        UsageError: an argument is neither, or RecBole would drop it.
    """
    named = [argument for argument in arguments if is_setting(argument)]
    others = [argument for argument in arguments if not is_setting(argument)]
    helping = bool({"-h", "--help"} & set(others))
    asked = {argument.partition("=")[0][2:] for argument in others} & DEEDS.keys()
    if helping and len(asked) == 1:
        help_parser(*asked).parse_args(["--help"])
    parser = build_parser(helping or bool(asked & WITH_OPTIONS))
    check_deeds(others, asked)
    options, settings = parser.parse_known_args(others)
    settings += named + ["--verbose=True"] * options.verbose
    check_settings(settings, parser)
    if options.topk is not None and are_lengths(str(options.topk)):
        raise UsageError(
            f"--topk {options.topk} names no checkpoint. The setting of this name is written "
            f"--topk={options.topk}."
        )
    check_options(options, settings)
    settings += ["--download=False"] * options.no_download
    return options, settings


def is_setting(argument: str) -> bool:
    """Tell whether an argument is a setting though an option has its name: topk or verbose."""
    key, equals, value = argument.partition("=")
    return bool(equals) and (key == "--verbose" or (key == "--topk" and are_lengths(value)))


def are_lengths(text: str) -> bool:
    """Tell whether a text is a value of the setting topk, right or wrong, and no file's name.

    It is where it reads as a number, list, set or dict, or begins as one and is no file.
    """
    begins = text.strip()[:1] in ("[", "(", "{") and not os.path.isfile(text)
    return begins or bool(LENGTHS.fullmatch(text)) or not isinstance(read_value(text), str)


def check_deeds(arguments: Sequence[str], asked: Set[str]) -> None:
    """Raise for an option that belongs to another deed than the one asked for."""
    # Some models have a setting k.
    given = {a.partition("=")[0] for a in arguments if asked & WITH_OPTIONS or a[:4] != "--k="}
    for option in DEED_OPTIONS:
        flag = next((flag for flag in option.flags if flag in given), None)
        if flag is not None and not asked & set(option.deeds):
            deeds = " or ".join(f"--{name}" for name in option.deeds)
            raise UsageError(f"{flag} belongs to {deeds} CHECKPOINT, which is not given.")


def check_settings(settings: Sequence[str], parser: argparse.ArgumentParser) -> None:
    """Raise for an argument that RecBole would leave out of its configuration."""
    options = [option for option in parser._option_string_actions if option.startswith("--")]
    values: dict[str, str] = {}
    for place, setting in enumerate(settings):
        key, equals, value = setting.partition("=")
        near = nearest(key, options, count=1, likeness=0.85)
        if near and key != near[0] and key[2:] not in KEYS:
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
            raise UsageError(without_value(key, settings[place + 1 :]))
        if "=" in value:
            raise UsageError(
                f"{setting} has two equals signs, and RecBole would drop it. Write it into a YAML "
                f"file as `{key[2:]}: {value}` and give that by --config_files."
            )
        if values.setdefault(key, value) != value:
            raise UsageError(f"{key} is given twice, as {values[key]} and as {value}.")


def without_value(key: str, rest: Sequence[str]) -> str:
    """Return what to say of a key that no value is joined to: how it is written, and spelt."""
    from recbole_m3rec.config.known_keys import SLIP, keys_of_recbole

    shown = next((value for value in rest[:1] if not value.startswith("--")), "VALUE")
    known = KEYS.keys() | keys_of_recbole(every_model=False) | keys_of_recbole(every_model=True)
    meant = [] if key[2:] in known else nearest(key[2:], known, count=1, likeness=SLIP)
    if meant:
        return f"{key} is no setting and has no value. Did you mean --{meant[0]}={shown}?"
    return f"{key} has no value. A setting is written {key}={shown}."


def check_options(options: argparse.Namespace, settings: Sequence[str]) -> None:
    """Raise for options that do not go together or miss a part."""
    asked = next((name for name in DEEDS if getattr(options, name) is not None), None)
    if asked is not None and options.config_files and getattr(options, asked) != NEWEST:
        raise UsageError(
            "--config_files does not go with a checkpoint, which brings its own configuration. "
            "Change single settings by --key=value."
        )
    if asked is not None and options.resume is None:
        started = torchrun()
        by_torchrun = started is not None and started.world_size > 1
        if by_torchrun or options.nproc != 1 or options.world_size > 0:
            starter = "torchrun" if by_torchrun else "--nproc"
            raise UsageError(
                f"--evaluate, --topk, --export and --show run in one process; leave out {starter}."
            )
        deed = DEEDS[asked]
        refused = [key for key in keys(settings) if key not in deed.settings]
        if refused:
            raise UsageError(
                f"--{refused[0]} cannot be changed for a trained model. What `{deed.subcommand}` "
                f"takes: {', '.join(sorted(deed.settings))}."
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
    if options.show is not None and options.port != PORT:
        raise UsageError("--port is of several processes. The page's is --page_port.")
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
        UsageError: there is no name, or one is neither a file's nor a preset's.
    """
    names = [argument] if Path(argument).is_file() else re.findall(r"[^\s,]+", argument)
    if not names:
        raise UsageError("--config_files names no file. Leave it out, or name one.")
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
