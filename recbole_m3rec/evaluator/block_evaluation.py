"""Full ranking without RecBole's matrix of users by items, for models that offer their products.

A model offers them by three attributes beside RecBole's own (see :class:`ScoresAreProducts`).
RecBole's ``Trainer.evaluate``, loaders and metrics stay in charge; only its matrix of a batch's
scores is replaced by queries and an item table, from which ranks and top items are collected in
blocks. Given the same scores without ties, metrics are equal to RecBole's to the last bit. Of equal
scores the lower item id comes first, where RecBole leaves the order to chance.
"""

from __future__ import annotations

import contextlib
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from recbole_m3rec.evaluator.nan_checks import refuse_rows_of_nan
from recbole_m3rec.evaluator.ranking import Ranking, rank_targets
from recbole_m3rec.ops.scores.score_terms import ScoreTerms

# What can be collected in blocks, by the names of RecBole's metrics for it. Counts of the training
# data ("data.count_items", ...) are no matter of scores.
RANKED = {"rec.topk", "rec.items", "rec.meanrank"}
SCORED = {"rec.score", "data.label"}


@runtime_checkable
class ScoresAreProducts(Protocol):
    """What a model offers whose ``full_sort_predict`` is ``queries(...) @ item_table().T``.

    One that adds something to single scores offers ``score_terms(interaction)`` too.
    """

    def cached_items(self) -> contextlib.AbstractContextManager[None]:
        """Compute what depends on items alone once for everything inside."""

    def queries(self, interaction: Any) -> Tensor:
        """Return the query vector of each row of RecBole's ``Interaction``, ``[B, D]``."""

    def item_table(self) -> Tensor:
        """Return the vector of every item, ``[n_items, D]``, padding (id 0) included."""


class Products(NamedTuple):
    """A batch's scores, not multiplied out.

    Attributes:
        queries: ``[B, D]``.
        table: ``[n_items, D]``.
        terms: added to the scores of single items, None for nothing.
        seen: rows in the batch, ascending, and for each an item that is no candidate, two ``[S]``
            int64; None where every item is one.
    """

    queries: Tensor
    table: Tensor
    terms: ScoreTerms | None = None
    seen: tuple[Tensor, Tensor] | None = None


def products_of(
    model: Any, interaction: Any, history: tuple[Tensor, Tensor] | None, n_items: int
) -> Products:
    """Ask a model for the products of a batch.

    Args:
        model: one that offers them.
        interaction: RecBole's, on the model's device.
        history: as ``seen`` of :class:`Products`, on any device.
        n_items: padding included.

    Raises:
        ValueError: the item table has another number of rows.
    """
    queries = model.queries(interaction)
    terms = getattr(model, "score_terms", lambda _: None)(interaction)
    seen = None
    if history is not None:
        seen = history[0].to(queries.device), history[1].to(queries.device)
    products = Products(queries, model.item_table(), terms, seen)
    if len(products.table) != n_items:
        raise ValueError(
            f"item_table() of {type(model).__name__} has {len(products.table)} rows, expected one "
            f"for each of {n_items} items, padding included"
        )
    return products


def cached_items(model: Any) -> contextlib.AbstractContextManager[None]:
    """Let a model that offers it keep its item table inside the context; others stay as they are.

    No weight may change inside, but for a checkpoint that is read before the first score.
    """
    return model.cached_items() if offers_products(model) else contextlib.nullcontext()


def offers_products(model: Any) -> bool:
    """Tell whether a model's scores are the products that it offers.

    They are not where ``full_sort_predict`` was overridden by a class, or on an object, that did
    not override what it is made of.
    """
    if not isinstance(model, ScoresAreProducts) or "full_sort_predict" in vars(model):
        return False
    classes = type(model).__mro__

    def depth(name: str) -> int:
        return next(i for i, c in enumerate(classes) if name in vars(c))

    return depth("full_sort_predict") >= min(depth("queries"), depth("item_table"))


def collects_ranks(collector: Any, n_items: int) -> bool:
    """Tell whether the metrics ask for nothing but ranks and top items.

    Lists longer than the catalogue are left to RecBole, which refuses them.
    """
    needs = {need for need in vars(collector.register) if need.startswith("rec.")}
    scored = needs - RANKED or any(collector.register.need(name) for name in SCORED)
    return not scored and max(collector.topk) <= n_items


def collect_ranks(collector: Any, scores: Products, positive_u: Tensor, positive_i: Tensor) -> None:
    """Add a batch to RecBole's collector, as its own ``eval_batch_collect`` does.

    Args:
        positive_u: row in the batch of each positive, ``[P]`` int64.
        positive_i: its item id, ``[P]`` int64.

    Raises:
        NotANumberError: a score is NaN.
    """
    need, n_items = collector.register.need, len(scores.table)
    # Each pair once, in the order of rows, as in RecBole's matrix of positives.
    pairs = torch.unique(positive_u * n_items + positive_i).to(scores.queries.device)
    users = pairs // n_items
    ranking = rank_targets(
        scores.queries,
        scores.table,
        users,
        pairs % n_items,
        n_top=max(collector.topk) if need("rec.items") else 0,
        count_listed=need("rec.meanrank"),
        terms=scores.terms,
        seen=scores.seen,
    )
    refuse_rows_of_nan(collector, ranking.is_nan)
    add = collector.data_struct.update_tensor
    if need("rec.items"):
        add("rec.items", ranking.top)
    if need("rec.topk"):
        add("rec.topk", hits(ranking, users, max(collector.topk)))
    if need("rec.meanrank"):
        add("rec.meanrank", mean_ranks(ranking, users))


def hits(ranking: Ranking, users: Tensor, k: int) -> Tensor:
    """Return 1 where a user's list has a positive, and the number of positives, ``[B, k + 1]``."""
    result = torch.zeros(len(ranking.is_nan), k + 1, dtype=torch.int, device=users.device)
    is_hit = ranking.before < k
    result[users[is_hit], ranking.before[is_hit]] = 1
    result[:, k] = torch.bincount(users, minlength=len(result))
    return result


def mean_ranks(ranking: Ranking, users: Tensor) -> Tensor:
    """Return per user the sum of the positives' ranks, the listed items and the positives.

    Equal scores share the mean of their ranks, which count from 1; ``[B, 3]`` float32.
    """
    rank = ranking.higher + 0.5 * (ranking.equal + 1)
    n_users = len(ranking.is_nan)
    total = torch.zeros(n_users, dtype=rank.dtype, device=users.device).index_add_(0, users, rank)
    n_positives = torch.bincount(users, minlength=n_users)
    return torch.stack([total, ranking.listed, n_positives], dim=1).float()
