"""Evaluation as one pipeline, from RecBole's trainer to its metrics.

RecBole's ``Trainer.evaluate``, loaders and metrics stay in charge. What this package adds stands
here once, in the order in which it happens:

    evaluate   the place of the scores is noted for messages, the item table is computed once, and
               the evaluator learns which targets were held out of training
    score      targets in a masked history leave the batch; a model that offers products is asked
               for them in place of a matrix of scores
    collect    NaN is refused; ranks are taken from the products, or by RecBole from its matrix;
               targets that left count as ranked last
    measure    metrics of all targets, and of warm and cold ones beside them
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from recbole_m3rec.evaluator.block_evaluation import (
    Products,
    cached_items,
    collect_ranks,
    collects_ranks,
    offers_products,
    products_of,
)
from recbole_m3rec.evaluator.cold_items import cold_targets, warm_and_cold
from recbole_m3rec.evaluator.mask_seen import count_as_last
from recbole_m3rec.evaluator.nan_checks import refuse_nan, trainers_with
from recbole_m3rec.hooks import wrap


def install() -> None:
    """Put the four steps under RecBole's trainers, collector and evaluator."""
    from recbole.evaluator import Evaluator
    from recbole.evaluator.collector import Collector
    from recbole.trainer import Trainer

    for trainer in trainers_with("evaluate"):
        wrap(trainer, "evaluate")(evaluate)
    wrap(Trainer, "_full_sort_batch_eval")(score)
    wrap(Collector, "eval_batch_collect")(collect)
    wrap(Collector, "eval_collect")(collect_all)
    wrap(Evaluator, "evaluate")(measure)


def evaluate(
    original: Callable[..., Any], self: Any, eval_data: Any, *args: Any, **kwargs: Any
) -> Any:
    """Around ``evaluate`` of a trainer."""
    call = inspect.signature(original).bind(self, eval_data, *args, **kwargs)
    call.apply_defaults()
    collector = self.eval_collector
    collector.model_name = type(self.model).__name__
    collector.batch = 0
    before = getattr(collector, "place", None)
    if call.arguments.get("load_best_model"):
        file = call.arguments.get("model_file") or self.saved_model_file
        collector.place = f"checkpoint {file}"
        best = vars(self).get("best_in_memory")  # no disk had room for it
        if best is not None and not call.arguments.get("model_file"):
            self.model.load_state_dict(best["state_dict"])
            self.model.load_other_parameter(best["other_parameter"])
            call.arguments["load_best_model"] = False
    self.evaluator.is_cold = cold_targets(eval_data)
    try:
        if not offers_products(self.model):
            return original(*call.args, **call.kwargs)
        # The checkpoint is read inside, before anything is projected.
        with cached_items(self.model), torch.autocast(self.device.type, enabled=False):
            return original(*call.args, **call.kwargs)
    finally:
        collector.place = before
        self.evaluator.is_cold = None


def score(original: Callable[..., Any], self: Any, batch: Any) -> Any:
    """Around ``Trainer._full_sort_batch_eval``."""
    interaction, history, positive_u, positive_i = batch
    self.eval_collector.out_of_reach = None
    if history is not None:
        n_items, (rows, items) = self.tot_item_num, history
        out = torch.isin(positive_u * n_items + positive_i, rows * n_items + items)
        counts = torch.bincount(positive_u[out], minlength=len(interaction))
        self.eval_collector.out_of_reach = counts
        positive_u, positive_i = positive_u[~out], positive_i[~out]
    if not offers_products(self.model) or not collects_ranks(
        self.eval_collector, self.tot_item_num
    ):
        return original(self, (interaction, history, positive_u, positive_i))
    interaction = interaction.to(self.device)
    products = products_of(self.model, interaction, history, self.tot_item_num)
    return interaction, products, positive_u, positive_i


def collect(
    original: Callable[..., None],
    self: Any,
    scores: Any,
    interaction: Any,
    positive_u: Tensor,
    positive_i: Tensor,
) -> None:
    """Around ``Collector.eval_batch_collect``."""
    if isinstance(scores, Products):
        collect_ranks(self, scores, positive_u, positive_i)
    else:
        refuse_nan(self, scores)
        original(self, scores, interaction, positive_u, positive_i)
    counts = getattr(self, "out_of_reach", None)
    if counts is not None and counts.any():
        count_as_last(self, counts)
    self.out_of_reach = None


def collect_all(
    original: Callable[..., None], self: Any, eval_pred: Tensor, *args: Any, **kwargs: Any
) -> None:
    """Around ``Collector.eval_collect``, for trainers that score all rows at once."""
    refuse_nan(self, eval_pred)
    original(self, eval_pred, *args, **kwargs)


def measure(original: Callable[..., Any], self: Any, collected: Any) -> Any:
    """Around ``Evaluator.evaluate``."""
    is_cold = getattr(self, "is_cold", None)
    if is_cold is None:
        return original(self, collected)
    # All targets last: who listens to the evaluator keeps what it was given last.
    parts = warm_and_cold(lambda part: original(self, part), collected, is_cold)
    result = original(self, collected)
    result.update(parts)
    return result
