"""Items that no training has seen: their ID is a mean of those whose content is most alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_m3rec.ops.scores.sharded_cross_entropy import own_rows

ROWS_AT_ONCE, TRAINED_AT_ONCE = 1024, 65_536
PER_UNIT = 1024  # likeness is rounded, so that the rounding of float32 does not choose
N_CANDIDATES, N_LENDERS = 64, 5
SHARPNESS = 0.1  # what likeness is divided by before the softmax that weighs lenders


class UntrainedItems(nn.Module):
    """A network of which some items may be held out of training.

    They are no candidates of the softmax in training, where they could only be wrong, and have no
    ID vector then. In evaluation the ID vector of such an item, in histories and in scores, is a
    mean of those of a few trained items: :func:`lenders` says which. Without content it is zeros.
    """

    n_items: int
    content: Any
    untrained_items: Tensor
    trained_ids: Tensor
    untrained_ids: Tensor
    candidates: Tensor
    likeness: Tensor

    @property
    def holds_out(self) -> bool:
        """Whether items were named by :meth:`hold_out`."""
        return "untrained_items" in self._buffers

    def hold_out(self, untrained: Tensor) -> None:
        """Name the items, ``[n_items]`` bool. A checkpoint does not carry them."""
        untrained_ids, trained_ids = untrained.nonzero().squeeze(1), (~untrained).nonzero()
        # Padding, item 0, is among the trained and lends nothing.
        candidates, likeness = self._most_alike(untrained_ids, trained_ids[1:, 0])
        for name, value in {
            "untrained_items": untrained,
            "trained_ids": trained_ids.squeeze(1),
            "untrained_ids": untrained_ids,
            "candidates": candidates,
            "likeness": likeness,
        }.items():
            self.register_buffer(name, value, persistent=False)

    @torch.no_grad()
    def _most_alike(self, untrained: Tensor, trained: Tensor) -> tuple[Tensor, Tensor]:
        """Return trained items that are most alike by features, and how much; see `nearest`.

        Alike is the sum over modalities of the cosine of features, where both items have them.
        """
        contents = (getattr(self, "content", None) or {}).values()

        def features(items: Tensor) -> Tensor:
            rows = (each.rows(items).to(items.device).float() for each in contents)
            missing = (each.is_missing[items][:, None] for each in contents)
            parts = zip(rows, missing, strict=True)
            return torch.cat([F.normalize(row, dim=1).masked_fill(no, 0) for row, no in parts], 1)

        if not contents or not len(trained):
            none = untrained.new_zeros(len(untrained), 1)
            return none, none.float()
        found = [
            nearest(features(rows), features, trained, N_CANDIDATES)
            for rows in untrained.split(ROWS_AT_ONCE)
        ]
        candidates, likeness = (torch.cat(parts) for parts in zip(*found, strict=True))
        return candidates, likeness

    def id_vectors(
        self,
        embeddings: Sequence[nn.Embedding],
        items: Tensor | None = None,
        score: str = "dot",
    ) -> Tensor:
        """Return ID vectors; of held-out items zeros in training, in evaluation estimated ones.

        Args:
            embeddings: of the IDs, ``[n_items, H]``; several are added up.
            items: whose vectors are wanted, ``[n]``, or None for all in order.
            score: ``cosine`` estimates by directions, for lengths are left out of the scores.
        """

        # Not by the embedding itself, which leaves its padding_idx without a gradient: padding is a
        # candidate of the softmax, however items are looked up.
        def rows_of(of: nn.Embedding) -> Tensor:
            if items is None:
                return of.weight
            return F.embedding(items, of.weight, sparse=of.sparse)

        vectors = sum(map(rows_of, embeddings[1:]), rows_of(embeddings[0]))
        if not self.holds_out:
            return vectors
        untrained = self.untrained_items if items is None else self.untrained_items[items]
        vectors = vectors.masked_fill(untrained[:, None], 0.0)
        if self.training:
            return vectors
        rows = untrained.nonzero().squeeze(1)
        for some in rows.split(ROWS_AT_ONCE):
            whose = some if items is None else items[some]
            vectors = vectors.index_copy(0, some, self._lent(embeddings, whose, score))
        return vectors

    def _lent(self, embeddings: Sequence[nn.Embedding], untrained: Tensor, score: str) -> Tensor:
        """Estimate the ID vectors of held-out items ``[n]``, ``[n, H]``."""

        def projected(items: Tensor) -> Tensor:
            parts = [F.normalize(each(items)[1], dim=1) for each in self.content.values()]
            return torch.cat(parts, 1)

        place = torch.searchsorted(self.untrained_ids, untrained)
        candidates = self.candidates[place]
        if not candidates.any():
            weight = embeddings[0].weight
            return weight.new_zeros(len(untrained), weight.shape[1])
        with torch.no_grad():
            own = projected(untrained)
            whose, weights = lenders(candidates, self.likeness[place], own, projected)
        lent = sum((more(whose) for more in embeddings[1:]), embeddings[0](whose))
        if score == "cosine":
            lent = F.normalize(lent, dim=2)
        vectors: Tensor = (weights[:, :, None] * lent).sum(1)
        return vectors

    def n_trained(self) -> int:
        """Return how many items are trained, padding included."""
        return len(self.trained_ids) if self.holds_out else self.n_items

    def draw_trained(self, n: int, device: torch.device) -> Tensor:
        """Draw trained items, padding included, uniformly and with replacement, ``[n]`` int64."""
        rows = torch.randint(self.n_trained(), (n,), device=device)
        return self.trained_ids[rows] if self.holds_out else rows

    def trained_rows(self, table: Tensor) -> Tensor:
        """Return the rows of a table ``[n_items, D]`` whose items are trained."""
        if not self.holds_out:
            return table
        return table.index_select(0, self.trained_ids)

    def own_items(self, device: torch.device) -> tuple[int, Tensor]:
        """Return how many trained items are before this process's, and these, ``[n]`` int64."""
        rows = own_rows(self.n_trained())
        if not self.holds_out:
            return rows.start, torch.arange(rows.start, rows.stop, device=device)
        return rows.start, self.trained_ids[rows]

    def rows_among_trained(self, items: Tensor) -> Tensor:
        """Return where items, none of which is held out, stand in :meth:`trained_rows`."""
        if not self.holds_out:
            return items
        return torch.searchsorted(self.trained_ids, items)


def nearest(
    own: Tensor, vectors: Callable[[Tensor], Tensor], candidates: Tensor, n: int
) -> tuple[Tensor, Tensor]:
    """Return the items whose vectors have the largest products with each of ``own``.

    Args:
        own: ``[m, D]``.
        vectors: returns vectors of items ``[k]``, ``[k, D]``.
        candidates: item ids, at least one, ``[k]`` int64; of those that are equally near, to a
            thousandth of a unit, the lowest come first.
        n: how many; fewer where there are fewer.

    Returns:
        Item ids ``[m, n]`` int64, the nearest first and 0 for those whose product is not above 0,
        and the products, 0 for none.
    """
    of_item = 1 + int(candidates.max())  # more than any id, so that likeness counts first
    keys = candidates.new_empty(len(own), 0)
    for some in candidates.split(TRAINED_AT_ONCE):
        rounded = (own @ vectors(some).T).mul_(PER_UNIT).round_().long()
        keys = torch.cat([keys, rounded * of_item + of_item - 1 - some], 1)
        keys = keys.topk(min(n, keys.shape[1]), 1).values
    rounded = keys.div(of_item, rounding_mode="floor")
    items = (of_item - 1 - keys.remainder(of_item)).masked_fill(rounded <= 0, 0)
    return items, rounded.clamp(min=0) / PER_UNIT


def lenders(
    candidates: Tensor,
    likeness: Tensor,
    own: Tensor,
    projected: Callable[[Tensor], Tensor],
) -> tuple[Tensor, Tensor]:
    """Choose the items whose weighted mean ID vector stands for that of an item without one.

    They are most alike by the mean of two cosines: of the features, and of what the model makes of
    them. Weights are a softmax of it.

    Args:
        candidates: item ids ``[n, C]``, most alike by features first, 0 for none.
        likeness: by features, ``[n, C]``.
        own: projected content of the ``n`` items, a part of unit length a modality, ``[n, D]``.
        projected: returns that of items ``[m]``, ``[m, D]``.

    Returns:
        Item ids ``[n, L]``, and weights, 0 for none.
    """
    unique, rows = torch.unique(candidates, return_inverse=True)
    of_model = torch.bmm(projected(unique)[rows], own[:, :, None]).squeeze(2)
    alike = ((likeness + of_model) / 2).masked_fill(candidates == 0, -torch.inf)
    rounded = (alike * PER_UNIT).round()
    order = rounded.sort(dim=1, descending=True, stable=True).indices[:, :N_LENDERS]
    weights = torch.softmax(alike.gather(1, order) / SHARPNESS, 1).nan_to_num(0.0)
    return candidates.gather(1, order), weights
