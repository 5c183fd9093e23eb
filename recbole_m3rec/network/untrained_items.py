"""Items that no training has seen: their ID is that of the item whose content is most alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_m3rec.ops.sharded_cross_entropy import own_rows

ROWS_AT_ONCE, TRAINED_AT_ONCE = 4096, 65_536
PER_UNIT = 1024


class UntrainedItems(nn.Module):
    """A network of which some items may be held out of training.

    They are no candidates of the softmax in training, where they could only be wrong. The ID vector
    of such an item, in histories and in scores, is that of the trained item whose content is most
    alike, so that it is recommended where that one is. (The mean of several is near to no query.)
    Without content it is zeros, and not noise.
    """

    n_items: int
    untrained_items: Tensor
    trained_ids: Tensor
    most_alike: Tensor

    def hold_out(self, untrained: Tensor) -> None:
        """Name the items, ``[n_items]`` bool. A checkpoint does not carry them."""
        for name, value in {
            "untrained_items": untrained,
            "trained_ids": (~untrained).nonzero().squeeze(1),
            "most_alike": _most_alike(getattr(self, "content", None) or {}, untrained),
        }.items():
            self.register_buffer(name, value, persistent=False)

    def id_vectors(self, embedding: nn.Embedding, items: Tensor | None = None) -> Tensor:
        """Return ID vectors, estimated ones for held-out items.

        Args:
            embedding: of the IDs, ``[n_items, H]``.
            items: whose vectors are wanted, ``[n]``, or None for all in order.
        """
        if getattr(self, "untrained_items", None) is None:
            return embedding.weight if items is None else embedding(items)
        whose, untrained = self.most_alike, self.untrained_items
        if items is not None:
            whose, untrained = whose[items], untrained[items]
        without = untrained & (whose == 0)
        vectors: Tensor = embedding(whose)
        return vectors.masked_fill(without[:, None], 0.0)

    def n_trained(self) -> int:
        """Return how many items are trained, padding included."""
        held_out = getattr(self, "untrained_items", None)
        return self.n_items if held_out is None else len(self.trained_ids)

    def draw_trained(self, n: int, device: torch.device) -> Tensor:
        """Draw trained items, padding included, uniformly and with replacement, ``[n]`` int64."""
        rows = torch.randint(self.n_trained(), (n,), device=device)
        return rows if getattr(self, "untrained_items", None) is None else self.trained_ids[rows]

    def trained_rows(self, table: Tensor) -> Tensor:
        """Return the rows of a table ``[n_items, D]`` whose items are trained."""
        if getattr(self, "untrained_items", None) is None:
            return table
        return table.index_select(0, self.trained_ids)

    def own_items(self, device: torch.device) -> tuple[int, Tensor]:
        """Return how many trained items are before this process's, and these, ``[n]`` int64."""
        rows = own_rows(self.n_trained())
        if getattr(self, "untrained_items", None) is None:
            return rows.start, torch.arange(rows.start, rows.stop, device=device)
        return rows.start, self.trained_ids[rows]

    def rows_among_trained(self, items: Tensor) -> Tensor:
        """Return where items, none of which is held out, stand in :meth:`trained_rows`."""
        if getattr(self, "untrained_items", None) is None:
            return items
        return torch.searchsorted(self.trained_ids, items)


@torch.no_grad()
def _most_alike(content: Any, untrained: Tensor) -> Tensor:
    """Find whose ID vector each item uses.

    Alike is the sum over modalities of the cosine of features, where both items have them.

    Args:
        content: modalities by name, with ``rows`` and ``is_missing``; may be empty.
        untrained: ``[n_items]`` bool.

    Returns:
        ``[n_items]`` int64: an item's own id if it is trained, else the trained item that is most
        alike, or 0, padding, without content.
    """
    most_alike = torch.arange(len(untrained), device=untrained.device).masked_fill(untrained, 0)
    trained = most_alike.nonzero().squeeze(1)
    if not content or not len(trained):
        return most_alike

    def vectors(items: Tensor) -> Tensor:
        scaled = (
            F.normalize(m.rows(items).to(items.device).float(), dim=1).masked_fill(
                m.is_missing[items][:, None], 0
            )
            for m in content.values()
        )
        return torch.cat([*scaled], 1)

    for rows in untrained.nonzero().squeeze(1).split(ROWS_AT_ONCE):
        most_alike[rows] = nearest(vectors(rows), vectors, trained)
    return most_alike


def nearest(own: Tensor, vectors: Callable[[Tensor], Tensor], candidates: Tensor) -> Tensor:
    """Return whose vector has the largest product with each of ``own``, 0 if none is above 0.

    Args:
        own: ``[n, D]``.
        vectors: returns vectors of items ``[m]``, ``[m, D]``.
        candidates: ascending item ids, ``[m]`` int64; of those that are equally near, to a
            thousandth of a unit, the lowest is taken.

    Returns:
        ``[n]`` int64.
    """
    found = torch.zeros(len(own), dtype=torch.int64, device=own.device)
    highest = torch.zeros(len(own), device=own.device)
    for some in candidates.split(TRAINED_AT_ONCE):
        # Rounded, so that the rounding of float32 does not choose among items of one content.
        alike = (own @ vectors(some).T).mul_(PER_UNIT).round_().max(1)
        better = alike.values > highest
        highest = torch.where(better, alike.values, highest)
        found = torch.where(better, some[alike.indices], found)
    return found
