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
import torch.nn.functional as F
from torch import Tensor

from recbole_m3rec.ops.score_terms import ScoreTerms


class Candidates(NamedTuple):
    """The items of one batch's softmax.

    Attributes:
        items: ids, ascending, ``[K]`` int64.
        log_pi: log of the probability with which each is a candidate, ``[K]`` float64.
    """

    items: Tensor
    log_pi: Tensor


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
    logits = query @ table.T
    rows = torch.arange(len(targets), device=targets.device)
    places = torch.searchsorted(candidates.items, targets)
    correction = candidates.log_pi.to(logits).expand_as(logits).clone()
    correction[rows, places] = 0.0  # a row's own target is always there
    logits = logits - correction
    if terms is not None:
        places_of_terms = torch.searchsorted(candidates.items, terms.items)
        places_of_terms = places_of_terms.clamp(max=len(candidates.items) - 1)
        here = candidates.items[places_of_terms] == terms.items
        at = terms.rows[here], places_of_terms[here]
        logits = logits.index_put(at, terms.values[here].to(logits), accumulate=True)
    return F.cross_entropy(logits, places)
