"""Softmax over a sample of the items, for catalogues too large for all of them.

The candidates of a step are the *own* items of its batch (histories and targets, which are
projected anyway) and ``n`` of the others, drawn uniformly without replacement. An own item is a
candidate with certainty, another with probability ``q = n / n_others``. With ``log q`` taken from
the logits (the logQ correction of Bengio & Senécal, IEEE Trans. Neural Netw. 2008), the sum of
exponentials is an unbiased estimate of that over all items::

    E[ sum over own of exp(s) + sum over drawn of exp(s - log q) ] = sum over all of exp(s)

A drawn item is never a target, so there are no accidental hits. All items of a history are
candidates, so learned repetition reaches all that it changes. With as many drawn as there are
others, the loss is the exact one.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from recbole_m3rec.network.packed import PackedSequences
from recbole_m3rec.ops.linear_cross_entropy import linear_cross_entropy

ALL = "all"


def sampled_cross_entropy(
    network: Any, packed: PackedSequences, targets: Tensor, scored: Tensor | None
) -> Tensor:
    """Mean softmax cross-entropy over the batch's own items and ``softmax_items`` others.

    Args:
        network: an :class:`~recbole_m3rec.network.m3rec.M3RecNetwork` or what offers the same.
        packed, targets, scored: as in its ``cross_entropy``.
    """
    candidates = draw_candidates(
        torch.cat([packed.values, targets]),
        network.config.softmax_items,
        network.n_items,
        getattr(network, "trained_ids", None),
    )
    vectors = network.item_vectors(candidates.items)
    rows = PackedSequences(candidates.rows_of(packed.values), packed.cu_seqlens)
    query, terms = network.encode(rows, vectors, scored), network.repetition(packed, scored)
    if terms is not None:
        terms = terms._replace(items=candidates.rows_of(terms.items))
    targets = candidates.rows_of(targets)
    return linear_cross_entropy(query, vectors.table, targets, terms, candidates.log_weights)


class Candidates(NamedTuple):
    """The items of one step.

    Attributes:
        items: ids, the own ones first, ``[C]`` int64.
        own: the own ones, ascending, ``[U]`` int64.
        log_weights: what is added to each candidate's logits, ``[C]`` float32: 0 for own items,
            ``-log q`` for drawn ones, -inf for those that training is not to see.
    """

    items: Tensor
    own: Tensor
    log_weights: Tensor

    def rows_of(self, own_items: Tensor) -> Tensor:
        """Return where own items stand among the candidates, whatever their shape."""
        return torch.searchsorted(self.own, own_items)


def draw_candidates(
    batch_items: Tensor, n: int, n_items: int, trained: Tensor | None = None
) -> Candidates:
    """Choose the candidates of a step.

    Args:
        batch_items: ids in histories and targets, ``[T]`` int64.
        n: other items to draw, >= 1; all of them where there are no more.
        n_items: items, padding (id 0) included.
        trained: items that training is to see, ascending ids, None for all.
    """
    own = torch.unique(batch_items)
    log_weights = torch.zeros(len(own), device=own.device)
    if trained is None:
        n_others = n_items - len(own)
        drawn = draw_others(own, n_items, n)
    else:
        places = torch.searchsorted(trained, own)
        is_trained = trained[places.clamp(max=len(trained) - 1)] == own
        log_weights.masked_fill_(~is_trained, -torch.inf)
        n_others = len(trained) - int(is_trained.sum())
        drawn = trained[draw_others(places[is_trained], len(trained), n)]
    log_q = math.log(len(drawn) / n_others) if n_others else 0.0
    log_weights = torch.cat([log_weights, log_weights.new_full((len(drawn),), -log_q)])
    return Candidates(torch.cat([own, drawn]), own, log_weights)


def draw_others(own: Tensor, n_items: int, n: int) -> Tensor:
    """Draw ``n`` of the items ``0..n_items - 1`` that are not own, without replacement.

    Args:
        own: ascending and distinct, ``[U]`` int64.

    Returns:
        Distinct ids, ``[min(n, n_items - U)]`` int64. Every set is equally likely.

    >>> draw_others(torch.tensor([1, 3]), n_items=5, n=9).tolist()
    [0, 2, 4]
    """
    n_others = n_items - len(own)
    if n >= n_others:
        ranks = torch.arange(n_others, device=own.device)
    else:
        # NumPy draws few of many without a permutation of all. Its seed comes from PyTorch's
        # state, which checkpoints carry.
        seed = int(torch.randint(2**63 - 1, ()))
        chosen = np.random.default_rng(seed).choice(n_others, n, replace=False, shuffle=False)
        ranks = torch.from_numpy(chosen).to(own.device)
    others_before = own - torch.arange(len(own), device=own.device)
    return ranks + torch.searchsorted(others_before, ranks, right=True)
