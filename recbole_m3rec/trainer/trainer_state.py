"""What RecBole's trainers and models keep beside weights and one optimiser."""

from __future__ import annotations

import platform
from collections import OrderedDict
from logging import getLogger
from typing import Any

import torch

from recbole_m3rec.ops.dropout import where_masks_are_drawn

# Counters of some models, such as MultiVAE's annealing, are plain attributes.
PLAIN = (bool, int, float, str)
PARTS = ("train", "valid", "test")


def carry(trainer: Any, name: str, part: Any) -> None:
    """Let checkpoints carry the state of a part of a trainer, and give it its saved state.

    Args:
        name: of the part, such as ``lr_scheduler`` or ``averaged_weights``.
        part: anything with ``state_dict()`` and ``load_state_dict(state)``.
    """
    vars(trainer).setdefault("carried_parts", {})[name] = part
    saved = vars(trainer).get("resumed_from") or {}
    if name in saved.get("parts", {}):
        part.load_state_dict(saved["parts"][name])


def plain_attributes(model: Any) -> dict[str, dict[str, Any]]:
    """Return by module the attributes of a model that are numbers, switches or strings."""
    return {
        name: {
            key: value
            for key, value in vars(module).items()
            if isinstance(value, PLAIN) and key != "training"
        }
        for name, module in model.named_modules()
    }


def other_optimizers(trainer: Any) -> dict[str, Any]:
    """Return by attribute the optimisers of a trainer beside ``optimizer``."""
    return {
        name: value
        for name, value in vars(trainer).items()
        if isinstance(value, torch.optim.Optimizer) and name != "optimizer"
    }


def environment(trainer: Any) -> dict[str, Any]:
    """Return what the bits of a training depend on beside its state.

    Workers that load batches count where they draw for them, each from numbers of its own.
    """
    config = trainer.config
    draw = any(config[f"{part}_neg_sample_args"]["sample_num"] != "none" for part in PARTS)
    return {
        "torch": torch.__version__,
        "machine": platform.machine(),
        "device": str(torch.device(trainer.device).type),
        "threads": torch.get_num_threads(),
        "random masks": where_masks_are_drawn(trainer.device),
        "worker": config["worker"] if draw or config["transform"] else None,
    }


def changes(before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """Return the entries that are new or differ."""
    return {key: value for key, value in now.items() if key not in before or before[key] != value}


def take_up(trainer: Any, saved: dict[str, Any]) -> None:
    """Give a new trainer what a checkpoint of this package carries beside RecBole's entries.

    Random states follow when training begins.
    """
    trainer.start_epoch = saved["epoch"] + 1
    trainer.cur_step = saved["cur_step"]
    trainer.best_valid_score = saved["best_valid_score"]
    result = saved["best_valid_result"]
    trainer.best_valid_result = None if result is None else OrderedDict(result)
    trainer.train_loss_dict = dict(saved["train_loss"])
    for name, optimizer in other_optimizers(trainer).items():
        if name in saved["optimizers"]:
            optimizer.load_state_dict(saved["optimizers"][name])
    modules = dict(trainer.model.named_modules())
    for module, values in saved["model"].items():
        modules[module].__dict__.update(values)
    trainer.resumed_from = saved
    for name, part in vars(trainer).get("carried_parts", {}).items():
        carry(trainer, name, part)
    now = environment(trainer)
    differing = [
        f"{name} ({value}, now {now[name]})"
        for name, value in saved["environment"].items()
        if now.get(name) != value
    ]
    if differing:
        getLogger().warning(
            f"The run goes on elsewhere, {', '.join(differing)}: it may end with other numbers."
        )
