"""Checkpoints on disk: written whole or not at all, once for all processes, in either format.

RecBole's trainer/trainer.py:133 and 308 name a checkpoint by the time at which each process got
there; here rank 0 chooses the name and writes, and the others wait until the file is whole.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from logging import getLogger
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from recbole_m3rec.config.keys import OF_PROCESSES
from recbole_m3rec.support import written_here
from recbole_m3rec.support.safe_write import Sink, new_files
from recbole_m3rec.trainer import safe_format

# How the names end of a safe checkpoint, and of a run's latest state.
SAFE, LAST = ".safetensors", "-last.ckpt"

# What described a run's processes and files, not what it computed.
NOT_SETTINGS = OF_PROCESSES | {"MODEL_TYPE", "MODEL_INPUT_TYPE", "configuration_files", "resume"}

_warned_of: set[Any] = set()  # of this process: places and stamps


class SavedConfig(dict[str, Any]):
    """The configuration in a safe checkpoint: RecBole's ``config[key]``, None for unknown keys."""

    def __missing__(self, key: str) -> None:
        return None

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that files, dict and command line said, which makes the same configuration."""
        return dict(self["settings"])


def settings_of(config: Any) -> dict[str, Any]:
    """Return what RecBole had read before it derived anything, of its ``Config`` or a saved one."""
    if isinstance(config, SavedConfig):
        return config.settings
    read = {**config.internal_config_dict, **config.external_config_dict}
    return {key: value for key, value in read.items() if key not in NOT_SETTINGS}


# What is added to the checkpoint that is being saved, and where its content is noted.
_adding: list[tuple[Mapping[str, Any], list[Any]]] = []


@contextmanager
def adding(entries: Mapping[str, Any]) -> Iterator[list[Any]]:
    """Add entries to the checkpoint that RecBole's trainer saves inside, and note its content."""
    contents: list[Any] = []
    _adding.append((entries, contents))
    try:
        yield contents
    finally:
        _adding.pop()


def save(content: Any, target: Any, *args: Any, **kwargs: Any) -> None:
    """Save like ``torch.save``; a file keeps its previous content until the new one is whole.

    A checkpoint whose configuration says ``checkpoint_format: safe`` is written in that format.

    Raises:
        CannotWriteError: the disk is full or not writable; the old file is unchanged.
        CannotStoreError: the safe format has no form for something in it.
    """
    if not isinstance(target, (str, os.PathLike)):
        torch.save(content, target, *args, **kwargs)
        return
    path = Path(target)
    if _adding and isinstance(content, Mapping):
        entries, contents = _adding[-1]
        content = {**content, **entries}
        contents.append(content)
    config = content.get("config") if isinstance(content, Mapping) else None
    with new_files(path) as [new], new.writing():
        if config is not None and config["checkpoint_format"] == "safe":
            plain = {**content, "config": plain_config(config)}
            new.write_by_name(partial(safe_format.write, plain))
            return  # whoever wrote it, reading it runs nothing
        sink = Sink(new.file)
        try:
            torch.save(content, sink, *args, **kwargs)  # type: ignore[arg-type]  # writes and flushes
        except RuntimeError:  # torch's writer in C++ loses the system's error
            if sink.error is not None:
                raise sink.error from None
            raise
        written_here.expect(path, sink.sha256)  # whoever is killed from here on leaves an own file
    written_here.note(path, sink.sha256)


def plain_config(config: Any) -> dict[str, Any]:
    """Return what a safe checkpoint says of a configuration."""
    keys = (
        *("model", "dataset", "epochs", "seed", "train_stage", "world_size"),
        *("learning_rate", "weight_decay", "source_digests", "feature_digests"),
    )
    return {"settings": settings_of(config), **{key: config[key] for key in keys}}


class CutCheckpointError(ValueError):
    """A checkpoint is cut off or damaged; names it."""


def load(source: Any, *args: Any, **kwargs: Any) -> Any:
    """Read a checkpoint of either format; RecBole's holds a pickled ``Config`` beside the weights.

    Takes what ``torch.load`` takes.

    Raises:
        CutCheckpointError: it is of one of the formats, but not whole.
    """
    if not isinstance(source, (str, os.PathLike)):
        return torch.load(source, *args, **{"weights_only": False, **kwargs})
    path = Path(source)
    try:
        if safe_format.is_safe_file(path):
            content = safe_format.read(path, kwargs.get("map_location", "cpu"))
            content["config"] = SavedConfig(content["config"])
            return content
        return torch.load(source, *args, **{"weights_only": False, **kwargs})
    except Exception as error:
        if not path.is_file() or not (safe_format.is_safe_file(path) or is_cut(path)):
            raise
        raise CutCheckpointError(
            f"{path} is cut off or damaged: expected a whole checkpoint, found"
            f" {path.stat().st_size:,} bytes ({error}). Put back a copy, or train again"
        ) from error


def is_cut(path: Path) -> bool:
    """Tell whether a file is empty, or a zip archive, as torch writes, without its end."""
    with open(path, "rb") as file:
        begin = file.read(4)
    return b"PK\x03\x04".startswith(begin) and not zipfile.is_zipfile(path)


def warn_if_foreign(path: Path) -> None:
    """Warn, before it is first read, of a checkpoint that can run code and was not written here."""
    content = path.resolve(), stamp(path)
    if content in _warned_of:
        return
    if not safe_format.is_safe_file(path) and not written_here.is_own(path):
        getLogger().warning(
            f"{path} was not written by you on this machine, and reading it can run code of whoever"
            " made it: go on only if you trust its source."
        )
        _warned_of.add(content)


def share_name(trainer: Any) -> None:
    """Give the checkpoint of every process the name that rank 0 chose."""
    if not trainer.config["single_spec"]:
        names = [trainer.saved_model_file]
        dist.broadcast_object_list(names, src=0)
        trainer.saved_model_file = names[0]


def save_once(original: Callable[..., None], self: Any, *args: Any, **kwargs: Any) -> None:
    """Save as RecBole does; every process returns when the file is whole."""
    if self.config["single_spec"]:
        return original(self, *args, **kwargs)
    path = Path(kwargs.get("saved_model_file", self.saved_model_file))
    errors: list[Exception] = []

    def write() -> None:
        try:
            original(self, *args, **kwargs)
        except Exception as error:  # must not keep the others waiting; who is interrupted just goes
            errors.append(error)

    if dist.get_rank() == 0:
        write()
    written = [stamp(path)]
    dist.broadcast_object_list(written, src=0)
    # Other machines, unless they share the first one's disk.
    if dist.get_rank() != 0 and stamp(path) != written[0]:
        write()
    dist.barrier()
    if errors:
        raise errors[0]


def stamp(path: Path) -> tuple[int, int] | None:
    """Return what tells one content of a file from another, None if there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size
