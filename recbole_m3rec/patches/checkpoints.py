"""Patches for RecBole's checkpoints: read whole, on any machine."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from recbole_m3rec.data.saved.digests import DIGEST_KEYS, warn_of_changes
from recbole_m3rec.hooks import overlay, wrap_everywhere
from recbole_m3rec.trainer import checkpoint_file

# Models that read another model's checkpoint, and RecBole's trainer.
READERS = (
    "recbole.trainer.trainer",  # 323, 583
    "recbole.model.context_aware_recommender.kd_dagfm",  # 56
    "recbole.model.general_recommender.convncf",  # 82
    "recbole.model.general_recommender.nais",  # 127
    "recbole.model.general_recommender.neumf",  # 84, 85
    "recbole.model.general_recommender.ract",  # 75, 84
    "recbole.model.sequential_recommender.s3rec",  # 120
)


def load_whole_checkpoints() -> None:
    """Fix trainer/trainer.py:323 and 583 and six models, whose ``torch.load`` reads weights only.

    The safe format, which torch cannot read at all, is read there, too. Only those modules see
    another ``torch.load``; everybody else's, that of feature files above all, stays as strict as
    it is.
    """
    for name in READERS:
        overlay(importlib.import_module(name), "torch", load=checkpoint_file.load)


def load_on_this_machine() -> None:
    """Fix quick_start/quick_start.py:250, ``load_data_and_model``.

    It reads weights only, onto the device that wrote them, and takes over that device and the
    number of processes from the checkpoint's configuration: a checkpoint of a GPU or of several
    processes could not be opened on one CPU. ``torch`` is imported inside the function, hence no
    namespace to overlay; its one read is caught by the file it names, and by nothing else.
    """
    from recbole.quick_start import quick_start

    @wrap_everywhere(quick_start, "load_data_and_model")
    def load(original: Callable[..., Any], model_file: Any) -> Any:
        strict_load = torch.load
        digests: dict[str, Any] = {}

        def load_once(source: Any, *args: Any, **kwargs: Any) -> Any:
            if source is not model_file:
                return strict_load(source, *args, **kwargs)
            torch.load = strict_load
            checkpoint = checkpoint_file.load(source, *args, **{"map_location": "cpu", **kwargs})
            if isinstance(checkpoint["config"], checkpoint_file.SavedConfig):
                checkpoint["config"] = configuration(checkpoint["config"])
            move_to_this_machine(checkpoint["config"])
            digests.update({key: checkpoint["config"][key] for key in DIGEST_KEYS})
            return checkpoint

        if os.path.isfile(model_file):
            checkpoint_file.warn_if_foreign(Path(model_file))
        torch.load = load_once  # type: ignore[assignment]
        try:
            loaded = original(model_file)
        finally:
            torch.load = strict_load
        warn_of_changes(model_file, digests, loaded[0])
        return loaded


def configuration(saved: Any) -> Any:
    """Return RecBole's configuration from what a safe checkpoint says of it."""
    from recbole.config import Config

    config = Config(model=saved["model"], dataset=saved["dataset"], config_dict=saved.settings)
    for key in DIGEST_KEYS:
        config[key] = saved[key]
    return config


def move_to_this_machine(config: Any) -> None:
    """Correct in a checkpoint's configuration what described the machine that wrote it."""
    if torch.device(config["device"]).type == "cuda" and not torch.cuda.is_available():
        config["device"] = torch.device("cpu")
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    if not config["single_spec"] and not distributed:
        config["single_spec"] = True
        config["local_rank"] = 0
        if config["device"].type == "cuda":
            config["device"] = torch.device("cuda")
