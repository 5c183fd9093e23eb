"""The best items exactly, by way of scores in whole numbers of eight bits.

Rounded scores are off by no more than a bound. Where the best of them, scored exactly, beat by more
than that whatever was left out, they are the best; other queries are scored exactly as a whole.
"""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor

from recbole_m3rec.serving.scoring.candidates import Pairs
from recbole_m3rec.serving.scoring.exact import Edits, exact_top

LARGEST = 127
REMOVED = torch.iinfo(torch.int32).min
TINY = torch.finfo(torch.float32).tiny
MOST_ROWS = 64  # of queries; for more, float32 is read from the cache as fast
SLACK = 1.01  # of the bound, for the rounding of float32


@functools.cache
def is_faster() -> bool:
    """Whether this torch multiplies whole numbers, and the processor has instructions for it."""
    has_instructions = getattr(torch.cpu, "_is_vnni_supported", lambda: False)
    return hasattr(torch, "_int_mm") and bool(has_instructions())


class EightBits:
    """An item table rounded to eight bits a number, a quarter of what float32 has to read.

    Args:
        table: ``[n_items, D]``.
    """

    def __init__(self, table: Tensor) -> None:
        self.table = table
        values = table.float()
        unit = (values.abs().amax(0) / LARGEST).clamp_(min=TINY)  # of each column
        scaled = values / unit
        rounded = scaled.round()
        self.turned = rounded.to(torch.int8).t()  # [D, n_items]
        self.unit = unit.numpy()
        self.error = float((scaled - rounded).norm(dim=1).max())
        self.length = float(rounded.norm(dim=1).max())

    def top(self, queries: Tensor, k: int, edits: Edits) -> tuple[Tensor, Tensor]:
        """Return what :func:`recbole_m3rec.serving.scoring.exact.exact_top` does."""
        n = 4 * k + 24  # candidates
        is_special = len(edits.replaced) > 0 or any(a is not None for a in edits.allowed)
        if is_special or len(queries) > MOST_ROWS or n > len(self.table) // 8:
            return exact_top(queries, self.table, k, edits)
        items, scores, is_sure = self._candidates(queries, k, n, edits)
        if not is_sure.all():
            rows = (~is_sure).nonzero().squeeze(1)
            items[rows], scores[rows] = exact_top(queries[rows], self.table, k, edits.of(rows))
        return items, scores

    def _candidates(
        self, queries: Tensor, k: int, n: int, edits: Edits
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return items ``[B, k]`` and scores, and which rows of them are sure to be the best."""
        # By numpy where it can be: a few numbers are less trouble for it than for torch.
        exact = queries.numpy()
        scaled = exact * self.unit
        step = np.abs(scaled).max(1, keepdims=True) / LARGEST
        rounded = np.rint(scaled / np.maximum(step, TINY))
        bound = self.error * np.linalg.norm(scaled, axis=1)
        bound += self.length * np.linalg.norm(scaled - rounded * step, axis=1)
        rough = torch._int_mm(torch.from_numpy(rounded.astype(np.int8)), self.turned)
        rough[edits.removed] = REMOVED
        rough[:, 0] = REMOVED
        highest, places = (found.numpy() for found in rough.topk(n + 1))
        found = np.where(highest == REMOVED, 0, places)[:, :n]
        rows = torch.arange(len(queries))
        added = edits.added and Pairs.of(*edits.added).without(*edits.removed)
        if added is not None:
            found = np.concatenate([found, added.of_rows(rows).numpy()], 1)
        found.sort(axis=1)  # so that of equal scores the lower item is first
        vectors = self.table.numpy()[found].astype(np.float32, copy=False)
        own = np.matmul(vectors, exact[:, :, None])[:, :, 0]
        if added is not None:
            own += added.look_up(rows, torch.from_numpy(found))[1].numpy()
        own[found <= 0] = -np.inf
        own[:, 1:][found[:, 1:] == found[:, :-1]] = -np.inf
        order = np.argsort(-own, axis=1, kind="stable")[:, :k]
        found, own = (np.take_along_axis(each, order, 1) for each in (found, own))
        left_out = highest[:, n] * step[:, 0] + SLACK * bound
        best = torch.from_numpy(found), torch.from_numpy(own)
        return *best, torch.from_numpy(own[:, k - 1] > left_out)
