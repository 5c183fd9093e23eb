"""The best items exactly, by way of scores in whole numbers of eight bits.

Rounded scores are off by no more than a bound. Where the best of them, scored exactly, beat by more
than that whatever was left out, they are the best; other queries are scored exactly as a whole.
"""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor

from recbole_m3rec.ops.cpu import library
from recbole_m3rec.ops.cpu.byte_products import byte_products
from recbole_m3rec.serving.scoring.candidates import Pairs
from recbole_m3rec.serving.scoring.exact import Edits, exact_top

LARGEST = 127
REMOVED = torch.iinfo(torch.int32).min
TINY, EPS = torch.finfo(torch.float32).tiny, torch.finfo(torch.float32).eps
# Queries at once, for more of which float32 is read from the cache as fast: by torch's products,
# and by the compiled kernel's.
MOST_ROWS, MOST_ROWS_OF_KERNEL = 64, 8
SLACK = 1.01  # of the bound, for the rounding of float32
SMALLEST_STEP = 1e-30  # so that what underflows in a scaled query is small beside this rounding


@functools.cache
def torch_is_fast() -> bool:
    """Whether this torch multiplies whole numbers, and the processor has instructions for it."""
    has_instructions = getattr(torch.cpu, "_is_vnni_supported", lambda: False)
    return hasattr(torch, "_int_mm") and bool(has_instructions())


def most_rows() -> int:
    """Return for how many queries at once eight bits are the faster here, 0 for none."""
    if torch_is_fast():
        return MOST_ROWS
    return MOST_ROWS_OF_KERNEL if library.available()[0] else 0


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
        self.bytes = rounded.to(torch.int8)
        self.unit = unit.numpy()
        self.error = float((scaled - rounded).norm(dim=1).max())
        self.length = float(rounded.norm(dim=1).max())
        # So that no product of a row and a query goes beyond 32 bits.
        self.largest_query = min(2**15 - 1, (2**31 - 1) // (LARGEST * table.shape[1]))

    def top(self, queries: Tensor, k: int, edits: Edits) -> tuple[Tensor, Tensor]:
        """Return what :func:`recbole_m3rec.serving.scoring.exact.exact_top` does."""
        n = 4 * k + 24  # candidates
        is_special = len(edits.replaced) > 0 or any(a is not None for a in edits.allowed)
        # For one column torch's products are wrong where there are instructions for them.
        is_special |= self.table.shape[1] == 1
        if is_special or len(queries) > most_rows() or n > len(self.table) // 8:
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
        largest = LARGEST if torch_is_fast() else self.largest_query
        step = np.abs(scaled).max(1, keepdims=True) / largest
        scaled /= np.maximum(step, TINY)
        rounded = np.rint(scaled)
        bound = self.error * np.linalg.norm(scaled, axis=1)  # in steps
        bound += self.length * np.linalg.norm(scaled - rounded, axis=1)
        rough = self._products(torch.from_numpy(rounded.astype(np.int16)))
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
        order = rows[:, None].numpy(), np.argsort(-own, axis=1, kind="stable")[:, :k]
        found, own = found[order], own[order]
        # Where rounding to whole numbers loses nothing, that of float32 is left.
        bound += exact.shape[1] * EPS * self.length * np.linalg.norm(scaled, axis=1)
        left_out = (highest[:, n] + SLACK * bound) * step[:, 0]
        is_sure = (own[:, k - 1] > left_out) & (step[:, 0] > SMALLEST_STEP)
        return torch.from_numpy(found), torch.from_numpy(own), torch.from_numpy(is_sure)

    def _products(self, queries: Tensor) -> Tensor:
        if torch_is_fast():
            return torch._int_mm(queries.to(torch.int8), self.bytes.t())
        return byte_products(queries, self.bytes)
