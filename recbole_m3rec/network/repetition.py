"""A learned score for items of the user's own history, by how long ago they were used.

Whether people come back to what they had differs from shop to shop: nobody buys a second copy of a
book, everybody buys milk again. The score of an item gets one learned number for each time that the
item is in the history (the idea of RepeatNet, Ren et al., AAAI 2019, as one sum):

    repetition(u, v) = sum over k with item_{t-k} = v of b[floor(log2 k)]        k = 1 is the latest

Where nothing is used twice every b falls until history items are out of the ranking; where people
come back it rises, more for what was used lately or often.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_m3rec.network.packed import PackedSequences
from recbole_m3rec.ops.scores.score_terms import ScoreTerms

N_LAGS = (
    16  # classes of "how long ago": 1, 2-3, 4-7, ...; the last one holds all that is longer ago
)
# The learned numbers are this many times the parameters, so that an optimiser whose steps fit the
# other weights (Adam's are about the learning rate) moves a score by several units in an epoch.
SCALE = 30.0


class Repetition(nn.Module):
    """The learned numbers ``b``, all 0 at first."""

    def __init__(self) -> None:
        super().__init__()
        self.by_lag = nn.Parameter(torch.zeros(N_LAGS))

    def forward(self, histories: PackedSequences, scored: Tensor | None = None) -> ScoreTerms:
        """Return the terms of every query's own history.

        Args:
            histories: item ids, packed.
            scored: tokens whose queries are scored, ascending, ``[n_queries]``, or None for every
                last one. A query's history ends with its token.
        """
        starts = histories.cu_seqlens[:-1].long()
        if scored is None:
            scored, first = histories.last, starts
        else:
            of_token = torch.searchsorted(histories.last, scored)
            first = starts.index_select(0, of_token)
        lengths = scored - first + 1
        rows = torch.repeat_interleave(torch.arange(len(scored), device=scored.device), lengths)
        ends = lengths.cumsum(0)
        place = torch.arange(len(rows), device=scored.device)
        lag = ends.index_select(0, rows) - place  # 1 for the latest
        tokens = (scored + 1).index_select(0, rows) - lag
        values = _take(SCALE * self.by_lag, _lag_classes(lag))
        return ScoreTerms(rows, histories.values.index_select(0, tokens), values)


def _lag_classes(lag: Tensor) -> Tensor:
    """Return ``floor(log2 lag)``, at most the last class: a logarithm for each lag that occurs."""
    longest = int(lag.max()) if len(lag) else 0
    lags = torch.arange(1, longest + 1, device=lag.device)
    return torch.log2(lags.double()).long().clamp(max=N_LAGS - 1).index_select(0, lag - 1)


def _take(numbers: Tensor, places: Tensor) -> Tensor:
    """Return ``numbers[places]``, whose gradient is added up in the order of the places.

    Plain indexing would add it up in the order in which threads come. On a GPU so would
    ``index_select``; on a CPU ``embedding`` takes seven times as long.
    """
    if numbers.device.type == "cpu":
        return numbers.index_select(0, places)
    return F.embedding(places, numbers[:, None]).squeeze(1)
