"""The highest entries of each row of a matrix of scores."""

from __future__ import annotations

import torch
from torch import Tensor


def best(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return each row's ``k`` highest scores and their columns, of equal ones the lower column.

    Where the row is shorter, it is returned whole, in order.
    """
    # One more than wanted, to see whether a tie was cut.
    values, columns = torch.topk(scores, min(k + 1, scores.shape[1]))
    tied = (values[:, 1:] == values[:, :-1]).any(1).nonzero().squeeze(1)
    if len(tied):
        by_rank = scores[tied].sort(dim=1, descending=True, stable=True)
        values[tied] = by_rank.values[:, : values.shape[1]]
        columns[tied] = by_rank.indices[:, : values.shape[1]]
    return values[:, :k], columns[:, :k]
