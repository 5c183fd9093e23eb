"""A learning rate that warms up and decays, for every model of RecBole's trainer.

With ``lr_scheduler: linear`` or ``cosine`` the rate rises from 0 over ``warmup_steps`` steps and
falls to ``FINAL`` of itself over all steps of ``epochs``. It is a function of the step alone, so a
resumed run continues where it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from recbole_m3rec.config.yaml_files import ConfigurationError
from recbole_m3rec.support.suggestions import expected_one_of
from recbole_m3rec.trainer.trainer_state import carry

SCHEDULERS = ("none", "linear", "cosine")
FINAL = 0.02


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


def check(config: Any) -> None:
    """Raise for settings of the schedule that have no meaning.

    Raises:
        ConfigurationError: a name that is none, or a negative number of steps.
    """
    name, warmup = config["lr_scheduler"], config["warmup_steps"]
    if name is not None and name not in SCHEDULERS:
        raise ConfigurationError(expected_one_of("lr_scheduler", name, SCHEDULERS))
    if warmup is not None and (not isinstance(warmup, int) or warmup < 0):
        raise ConfigurationError(f"warmup_steps: {warmup!r}, expected a whole number from 0 on.")


def install() -> None:
    """Put the schedule under ``Trainer.fit``."""
    from recbole.trainer import Trainer

    from recbole_m3rec.hooks import wrap

    @wrap(Trainer, "fit")
    def fit(original: Callable[..., Any], self: Any, train_data: Any, *args: Any, **kw: Any) -> Any:
        check(self.config)
        name = self.config["lr_scheduler"] or "none"
        if name == "none":
            return original(self, train_data, *args, **kw)
        steps = len(train_data)
        warmup = self.config["warmup_steps"] or 0
        schedule = Schedule(self.optimizer, self.learning_rate, name, warmup, steps * self.epochs)
        schedule.step = steps * self.start_epoch
        self.lr_schedule = schedule
        carry(self, "lr_schedule", schedule)
        handle = self.optimizer.register_step_pre_hook(schedule.before)
        try:
            return original(self, train_data, *args, **kw)
        finally:
            handle.remove()
