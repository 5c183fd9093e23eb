"""Stops a run at NaN in its loss or scores, and says where it arose."""

from __future__ import annotations

import inspect
from typing import Any

import torch


class NotANumberError(ValueError):
    """A loss or a score is NaN: names the model, the epoch and the batch."""


def begin_epoch(trainer: Any, epoch: int) -> None:
    """Note where a trainer is; each checks every batch of an epoch once, in order."""
    trainer._epoch, trainer._batch = epoch, 0
    trainer.eval_collector.place = f"epoch {epoch}"


def refuse_nan_loss(trainer: Any, loss: torch.Tensor) -> None:
    """Count a batch of training, and raise where its loss is NaN."""
    batch = getattr(trainer, "_batch", 0)
    trainer._batch = batch + 1
    if torch.isnan(loss).any():
        raise NotANumberError(
            f"The training loss of {type(trainer.model).__name__} is NaN in epoch "
            f"{getattr(trainer, '_epoch', 'unknown')}, batch {batch} (both counted from 0). "
            "Training stops; the last checkpoint, if any, is from before. Usual causes: too "
            "high a learning_rate, float16 (enable_amp), non-finite input features."
        )


def trainers_with(method: str) -> list[type]:
    """Return RecBole's trainers that have a method of their own of this name."""
    from recbole.trainer import trainer as trainers

    return [
        candidate
        for candidate in vars(trainers).values()
        if inspect.isclass(candidate)
        and issubclass(candidate, trainers.AbstractTrainer)
        and method in vars(candidate)
    ]


def refuse_nan(collector: Any, scores: torch.Tensor) -> None:
    """Raise where any score is NaN; infinite ones are legal (RecBole marks seen items by -inf).

    The largest score is NaN if any is, and costs no second tensor of the scores' size.
    """
    if scores.numel() == 0 or not torch.isnan(scores.amax()):
        refuse_rows_of_nan(collector, scores.new_zeros(len(scores), dtype=torch.bool))
    else:
        refuse_rows_of_nan(collector, torch.isnan(scores).reshape(len(scores), -1).any(dim=1))


def refuse_rows_of_nan(collector: Any, is_nan: torch.Tensor) -> None:
    """Count a batch of evaluation, and raise where any of its rows holds a NaN score.

    Args:
        is_nan: ``[B]`` bool.
    """
    batch = getattr(collector, "batch", 0)
    collector.batch = batch + 1
    rows = is_nan.nonzero().flatten().tolist()
    if not rows:
        return
    model = getattr(collector, "model_name", collector.config["model"])
    place = getattr(collector, "place", None) or "an unknown epoch"
    raise NotANumberError(
        f"{len(rows)} of {len(is_nan)} rows of scores of {model} hold NaN, first row {rows[0]}, in "
        f"evaluation batch {batch} of {place} (counted from 0). No metric is computed from them."
    )
