"""Softmax cross-entropy against a sample of the items, for catalogues that are too large for all.

The candidates of a batch are its targets and ``softmax_items`` items drawn uniformly, each once. An
item is among them with probability ``pi``, which is known; its logit is lowered by ``log pi`` (the
logQ correction: Bengio & Senécal 2008; Yi et al., RecSys 2019), but for a row's own target, which
is always there. So the sum over the candidates estimates the sum over all items without bias, and
is equal to it where every item is a candidate. An item drawn that is a row's target counts once.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from recbole_m3rec.network.settings import ModelConfigError
from recbole_m3rec.network.untrained_items import UntrainedItems
from recbole_m3rec.ops.scores.linear_cross_entropy import linear_cross_entropy
from recbole_m3rec.ops.scores.score_terms import ScoreTerms


class Candidates(NamedTuple):
    """The items of one batch's softmax.

    Attributes:
        items: ids, ascending, ``[K]`` int64.
        log_pi: log of the probability with which each is a candidate, ``[K]`` float64.
    """

    items: Tensor
    log_pi: Tensor


class SampledSoftmax(UntrainedItems):
    """A network whose loss may take a sample of the items for all."""

    def count_targets(self, targets: Tensor) -> None:
        """Tell how often each item is a target, from those of the training data, ``[n]`` int64.

        A checkpoint does not carry the counts.
        """
        counts = torch.bincount(targets, minlength=self.n_items)
        self.register_buffer("target_counts", counts, persistent=False)

    def draw_candidates(self, targets: Tensor, n_drawn: int) -> Candidates:
        """Draw the candidates of a batch with torch's global generator.

        Args:
            targets: of the batch, ``[Q]`` int64.
            n_drawn: items that are drawn beside them.
        """
        counts = getattr(self, "target_counts", None)
        if counts is None:
            raise ModelConfigError(
                f"softmax_items: {n_drawn} needs to know how often each item is a target: call "
                "count_targets first"
            )
        drawn = self.draw_trained(n_drawn, targets.device)
        return make_candidates(drawn, self.n_trained(), targets, counts)


def make_candidates(
    drawn: Tensor, n_trained: int, targets: Tensor, target_counts: Tensor
) -> Candidates:
    """Make the candidates of a batch, and tell how likely each was to be one.

    Args:
        drawn: items drawn uniformly and with replacement, ``[n]`` int64.
        n_trained: of how many.
        targets: of the batch, ``[Q]`` int64; all of them are candidates.
        target_counts: how often each item is a target in the training data, ``[n_items]``.
    """
    items = torch.unique(torch.cat([targets, drawn]))
    share = target_counts[items].double() / target_counts.sum()
    log_absent = len(drawn) * math.log1p(-1 / n_trained) + len(targets) * torch.log1p(-share)
    return Candidates(items, torch.log(-torch.expm1(log_absent)))


def sampled_cross_entropy(
    query: Tensor,
    table: Tensor,
    candidates: Candidates,
    targets: Tensor,
    terms: ScoreTerms | None = None,
) -> Tensor:
    """Mean cross-entropy of the candidates' softmax against one target a row.

    Args:
        query: ``[Q, width]``.
        table: vectors of the candidates, ``[K, width]``.
        candidates: from :func:`make_candidates`.
        targets: item ids, ``[Q]`` int64, each among the candidates.
        terms: added to single scores; ``items`` are ids, and those of no candidate do not count.
    """
    rows = torch.arange(len(targets), device=targets.device)
    places = torch.searchsorted(candidates.items, targets)
    correction = candidates.log_pi.to(torch.float32)
    # A row's own target is always there: what it is corrected by is given back.
    back = ScoreTerms(rows, places, correction[places])
    if terms is not None:
        places_of_terms = torch.searchsorted(candidates.items, terms.items)
        places_of_terms = places_of_terms.clamp(max=len(candidates.items) - 1)
        here = candidates.items[places_of_terms] == terms.items
        rows, order = torch.cat([back.rows, terms.rows[here]]).sort(stable=True)
        items = torch.cat([back.items, places_of_terms[here]])[order]
        back = ScoreTerms(rows, items, torch.cat([back.values, terms.values[here]])[order])
    return linear_cross_entropy(query, table, places, back, -correction)
