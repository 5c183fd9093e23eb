"""Patches for RecBole's checkpoints: read whole, on any machine."""

from __future__ import annotations

import functools
import importlib
import io
import pickle
from collections.abc import Callable
from typing import Any

import torch

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


class _Probe:
    """Something that a weights-only reader refuses."""


@functools.cache
def torch_reads_weights_only() -> bool:
    """Tell whether ``torch.load`` refuses, unless told otherwise, what RecBole saves."""
    buffer = io.BytesIO()
    torch.save(_Probe(), buffer)
    buffer.seek(0)
    try:
        torch.load(buffer)
    except pickle.UnpicklingError:
        return True
    return False


def load_checkpoint(*args: Any, **kwargs: Any) -> Any:
    """Read a checkpoint of RecBole, which holds a pickled ``Config`` beside the weights."""
    return torch.load(*args, **{"weights_only": False, **kwargs})


def read_whole_checkpoints() -> None:
    """Mend trainer/trainer.py:323 and 583 and six models, whose ``torch.load`` reads weights only.

    Only those modules see another ``torch.load``; everybody else's, that of feature files above
    all, stays as strict as it is.
    """
    if not torch_reads_weights_only():
        return
    from recbole_m3rec.hooks import overlay

    for name in READERS:
        overlay(importlib.import_module(name), "torch", load=load_checkpoint)


def load_on_this_machine() -> None:
    """Mend quick_start/quick_start.py:250, ``load_data_and_model``.

    It reads weights only, onto the device that wrote them, and takes over that device and the
    number of processes from the checkpoint's configuration: a checkpoint of a GPU or of several
    processes could not be opened on one CPU. ``torch`` is imported inside the function, hence no
    namespace to overlay; its one read is caught by the file it names, and by nothing else.
    """
    from recbole.quick_start import quick_start

    from recbole_m3rec.hooks import wrap_everywhere

    @wrap_everywhere(quick_start, "load_data_and_model")
    def load(original: Callable[..., Any], model_file: Any) -> Any:
        strict_load = torch.load

        def load_once(source: Any, *args: Any, **kwargs: Any) -> Any:
            if source is not model_file:
                return strict_load(source, *args, **kwargs)
            torch.load = strict_load
            checkpoint = load_checkpoint(source, *args, **{"map_location": "cpu", **kwargs})
            move_to_this_machine(checkpoint["config"])
            return checkpoint

        torch.load = load_once  # type: ignore[assignment]
        try:
            return original(model_file)
        finally:
            torch.load = strict_load


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
