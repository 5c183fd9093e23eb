"""A learning rate that warms up and decays, for every model of RecBole's trainer.

With ``lr_scheduler: linear`` or ``cosine`` the rate rises from 0 over ``warmup_steps`` steps and
falls to ``FINAL`` of itself over all steps of ``epochs``. It is a function of the step alone, so a
resumed run continues where it was. A warm-up that is most of a short training is a tenth of it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from recbole_m3rec.trainer.trainer_state import carry

FINAL = 0.02
LONGEST_WARMUP, SHORT_WARMUP = 0.6, 0.1  # of all steps


def rate(name: str, step: int, warmup: int, total: int) -> float:
    """Return the share of the learning rate that holds at a step.

    Args:
        name: ``linear`` or ``cosine``.
        step: steps done before, from 0 on; beyond ``total`` the last value holds.
        warmup: steps until the full rate.
        total: steps of the whole training.

    >>> [rate("linear", step, 2, 10) for step in (0, 2, 10)]
    [0.5, 0.804, 0.02]
    """
    progress = min(1.0, step / max(1, total))
    decay = 1 - progress if name == "linear" else (1 + math.cos(math.pi * progress)) / 2
    return min(1.0, (step + 1) / max(1, warmup)) * (FINAL + (1 - FINAL) * decay)


def warmup_of(wanted: int, total: int) -> int:
    """Return the steps of the warm-up, so many as wanted unless a short training is mostly that.

    Its rate would hardly leave 0.
    """
    if wanted <= LONGEST_WARMUP * total:
        return wanted
    short = int(SHORT_WARMUP * total)
    logging.getLogger().info(
        f"warmup_steps: {wanted}, but the training has {total} steps: the learning rate rises over "
        f"{short} of them"
    )
    return short


class Schedule:
    """Sets an optimiser's rate before each of its steps.

    Attributes:
        step: steps done so far, which a resumed run sets.
    """

    def __init__(self, optimizer: Any, base: float, name: str, warmup: int, total: int) -> None:
        self.optimizer, self.base = optimizer, base
        self.name, self.warmup, self.total = name, warmup, total
        self.step = 0

    def state_dict(self) -> dict[str, int]:
        """Return what a checkpoint carries."""
        return {"step": self.step}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Take over what a checkpoint carries."""
        self.step = state["step"]

    def before(self, *_: Any) -> None:
        """Set the rate of the step that follows."""
        share = rate(self.name, self.step, self.warmup, self.total)
        for group in self.optimizer.param_groups:
            group["lr"] = self.base * share
        self.step += 1


@contextmanager
def scheduled(trainer: Any, train_data: Any) -> Iterator[None]:
    """Set the rate before every step of a training, where its configuration names a scheduler."""
    name = trainer.config["lr_scheduler"] or "none"
    if name == "none":
        yield
        return
    steps = len(train_data)
    total = steps * trainer.epochs
    warmup = warmup_of(trainer.config["warmup_steps"] or 0, total)
    schedule = Schedule(trainer.optimizer, trainer.learning_rate, name, warmup, total)
    schedule.step = steps * trainer.start_epoch
    carry(trainer, "lr_schedule", schedule)
    handle = trainer.optimizer.register_step_pre_hook(schedule.before)
    try:
        yield
    finally:
        handle.remove()
