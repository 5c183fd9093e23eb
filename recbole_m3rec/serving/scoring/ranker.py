"""From histories of item numbers to the best items and the terms of their scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from recbole_m3rec.network.item_encoder import ItemVectors
from recbole_m3rec.network.m3rec import M3RecNetwork
from recbole_m3rec.network.packed import PackedSequences
from recbole_m3rec.ops.cpu import library
from recbole_m3rec.ops.scores.score_terms import ScoreTerms
from recbole_m3rec.serving.scoring.eight_bits import EightBits
from recbole_m3rec.serving.scoring.exact import Edits, exact_top
from recbole_m3rec.serving.scoring.index import LARGE, Index

# Tokens encoded at once: activations then stay in a processor's cache.
ENCODED_AT_ONCE = 2**12
REPETITION = "repetition"


@dataclass
class Question:
    """What is asked for one history.

    Attributes:
        history: item numbers, oldest first; may be empty.
        k: how many items.
        exclude: item numbers that are not to be recommended, ``[n]`` int64.
        allowed: the only item numbers that may be, ascending, or None for all.
        weights: of each modality and last of repetition, ``[M + 2]``, or None for 1 each.
    """

    history: np.ndarray
    k: int
    exclude: np.ndarray
    allowed: np.ndarray | None = None
    weights: np.ndarray | None = None


@dataclass
class Answers:
    """The best items of ``B`` questions.

    Attributes:
        items: item numbers, best first, ``[B, k]`` int64.
        scores: ``[B, k]`` float32; -inf where no item is left.
        popular: questions without a history, answered by what is used most, ``[B]`` bool.
        terms: by modality and last by repetition, ``[B, k, M + 2]``; NaN for popular ones.
    """

    items: np.ndarray
    scores: np.ndarray
    popular: np.ndarray
    terms: np.ndarray | None = None


@dataclass
class Ranker:
    """Scores all items for histories; the network's methods alone say how.

    Attributes:
        network: in evaluation mode.
        vectors: of all items, row 0 padding.
        counts: how often each item was used, ``[n_items]`` float32: what empty histories get.
        max_history: the newest items of a history that are read.
        index: for approximate search, or None.
    """

    network: M3RecNetwork
    vectors: ItemVectors
    counts: Tensor
    max_history: int
    index: Index | None = None
    names: tuple[str, ...] = field(init=False)
    _rounded: EightBits | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.names = (*self.network.modalities, REPETITION)

    @torch.inference_mode()
    def encode(self, histories: Sequence[np.ndarray]) -> tuple[Tensor, PackedSequences]:
        """Encode histories, none of them empty.

        Returns:
            Queries ``[B, (M + 1) · H]``, and what of the histories was read, packed.
        """
        read = [history[-self.max_history :] for history in histories]
        lengths = np.array([len(history) for history in read])
        queries = []
        first, tokens = 0, 0
        for number, length in enumerate(lengths):
            if tokens and tokens + length > ENCODED_AT_ONCE:
                queries.append(self._encode(packed(read[first:number])))
                first, tokens = number, 0
            tokens += length
        whole = packed(read)
        queries.append(self._encode(packed(read[first:]) if first else whole))
        return torch.cat(queries), whole

    def _encode(self, histories: PackedSequences) -> Tensor:
        rows, inverse = torch.unique(histories.values, return_inverse=True)
        sequence = {name: table[rows].float() for name, table in self.vectors.sequence.items()}
        some = ItemVectors(sequence, self.vectors.table)
        return self.network.encode(PackedSequences(inverse, histories.cu_seqlens), some)

    @torch.inference_mode()
    def answer(self, questions: Sequence[Question], explain: bool = False) -> Answers:
        """Answer questions together; each gets what it would get alone."""
        if not questions:
            terms = np.empty((0, 1, len(self.names)), np.float32)
            return Answers(np.empty((0, 1), int), terms[..., 0], np.empty(0, bool), terms)
        filled = [n for n, question in enumerate(questions) if len(question.history)]
        width = self.vectors.table.shape[1]
        queries = torch.zeros(len(questions), width)
        added: ScoreTerms | None = None
        if filled:
            encoded, histories = self.encode([questions[n].history for n in filled])
            queries[filled] = encoded
            added = self.network.repetition(histories)
            if added is not None:
                added = added._replace(rows=torch.tensor(filled)[added.rows])
        return self.answer_queries(questions, queries, added, explain)

    @torch.inference_mode()
    def answer_queries(
        self,
        questions: Sequence[Question],
        queries: Tensor,
        added: ScoreTerms | None,
        explain: bool,
    ) -> Answers:
        """Answer questions whose histories are encoded already; see :meth:`answer`."""
        popular = np.array([len(question.history) == 0 for question in questions], dtype=bool)
        queries, added = self._weigh(questions, queries, added)
        k = max((question.k for question in questions), default=1)
        edits = Edits(
            removed=_pairs([question.exclude for question in questions]),
            added=added,
            allowed=_tensors([question.allowed for question in questions]),
            replaced=torch.from_numpy(np.flatnonzero(popular)),
            replacement=self.counts,
        )
        k = min(k, len(self.vectors.table) - 1) or 1
        if self.index is not None:
            items, scores = self.index.top(queries, self.vectors.table, k, edits)
        elif (rounded := self._rounded_table()) is not None:
            items, scores = rounded.top(queries, k, edits)
        else:
            items, scores = exact_top(queries, self.vectors.table, k, edits)
        answers = Answers(items.numpy(), scores.numpy(), popular)
        if explain:
            answers.terms = self.terms(queries, items, added).numpy()
            answers.terms[popular] = np.nan
        return answers

    def _rounded_table(self) -> EightBits | None:
        """Return the item table in eight bits; larger ones are left in the file that they map."""
        table = self.vectors.table
        if len(table) > LARGE or not library.available()[0]:
            return None
        if self._rounded is None or self._rounded.table is not table:
            self._rounded = EightBits(table)
        return self._rounded

    def _weigh(
        self,
        questions: Sequence[Question],
        queries: Tensor,
        added: ScoreTerms | None,
    ) -> tuple[Tensor, ScoreTerms | None]:
        if all(question.weights is None for question in questions):
            return queries, added
        ones = np.ones(len(self.names))
        weights = torch.from_numpy(
            np.stack([ones if q.weights is None else q.weights for q in questions])
        ).to(queries.dtype)
        by_modality = queries.view(len(queries), len(self.names) - 1, -1)
        queries = (by_modality * weights[:, :-1, None]).view_as(queries)
        if added is not None:
            added = added._replace(values=added.values * weights[added.rows, -1])
        return queries, added

    def terms(self, queries: Tensor, items: Tensor, added: ScoreTerms | None) -> Tensor:
        """Split the scores of some items.

        Args:
            queries: ``[B, (M + 1) · H]``.
            items: ``[B, k]``.
            added: the repetition term, or None.

        Returns:
            ``[B, k, M + 2]``: a term by modality, and last repetition; they sum to the scores.
        """
        n, k = items.shape
        table = self.vectors.table[items].float().view(n, k, len(self.names) - 1, -1)
        of_modality = (table * queries.view(n, 1, len(self.names) - 1, -1)).sum(3)
        repeated = queries.new_zeros(n, k)
        if added is not None:
            rows, its_items, values = added
            same = items[rows] == its_items[:, None]  # [S, k]
            repeated.index_add_(0, rows, same * values[:, None].to(repeated.dtype))
        return torch.cat([of_modality, repeated[:, :, None]], dim=2)


def packed(histories: Sequence[np.ndarray]) -> PackedSequences:
    """Lay histories of at least one item side by side."""
    bounds = np.concatenate([[0], np.cumsum([len(history) for history in histories])])
    values = np.concatenate(histories)
    return PackedSequences(
        torch.from_numpy(values.astype(np.int64)), torch.from_numpy(bounds.astype(np.int32))
    )


def _pairs(lists: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
    lengths = [len(items) for items in lists]
    rows = np.repeat(np.arange(len(lists)), lengths)
    items = np.concatenate([np.empty(0, np.int64), *lists]).astype(np.int64)
    return torch.from_numpy(rows), torch.from_numpy(items)


def _tensors(lists: Sequence[np.ndarray | None]) -> list[Tensor | None]:
    return [None if items is None else torch.from_numpy(items) for items in lists]
