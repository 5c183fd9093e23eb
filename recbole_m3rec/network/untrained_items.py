"""Items that no training has seen: what their ID says of them is nothing, and not noise."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class UntrainedItems(nn.Module):
    """A network of which some items may be held out of training.

    Their ID vectors are zeros, in histories and in scores, so that content alone speaks for them;
    and they are no candidates of the softmax in training, where they could only be wrong.
    """

    trained_ids: Tensor

    def hold_out(self, untrained: Tensor) -> None:
        """Name the items, ``[n_items]`` bool. A checkpoint does not carry them."""
        self.register_buffer("untrained_items", untrained, persistent=False)
        self.register_buffer("trained_ids", (~untrained).nonzero().squeeze(1), persistent=False)

    def without_untrained(self, id_vectors: Tensor, items: Tensor | None = None) -> Tensor:
        """Return ID vectors with zeros for held-out items.

        Args:
            id_vectors: ``[n, H]``.
            items: whose they are, ``[n]``, or None for all in order.
        """
        untrained = getattr(self, "untrained_items", None)
        if untrained is None:
            return id_vectors
        untrained = untrained if items is None else untrained[items]
        return id_vectors.masked_fill(untrained[:, None], 0.0)

    def trained_rows(self, table: Tensor) -> Tensor:
        """Return the rows of a table ``[n_items, D]`` whose items are trained."""
        if getattr(self, "untrained_items", None) is None:
            return table
        return table.index_select(0, self.trained_ids)

    def rows_among_trained(self, items: Tensor) -> Tensor:
        """Return where items, none of which is held out, stand in :meth:`trained_rows`."""
        if getattr(self, "untrained_items", None) is None:
            return items
        return torch.searchsorted(self.trained_ids, items)
