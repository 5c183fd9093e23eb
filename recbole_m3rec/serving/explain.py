"""Why an item has its score: terms by modality, and the items of the history behind each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from recbole_m3rec.serving.scoring.ranker import REPETITION

if TYPE_CHECKING:
    from recbole_m3rec.serving.recommender import Recommender


@dataclass(frozen=True)
class Explanation:
    """Why an item has its score for a history.

    Attributes:
        item: its id.
        score: the sum of the terms.
        terms: by modality, and ``repetition`` if the model has it.
        because: by modality, the items of the history with what the term loses without each (by
            which it gains, if negative), the largest first.
    """

    item: str
    score: float
    terms: dict[str, float]
    because: dict[str, list[tuple[str, float]]]

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        because = {
            name: [{"item": item, "effect": effect} for item, effect in items]
            for name, items in self.because.items()
        }
        return {"item": self.item, "score": self.score, "terms": self.terms, "because": because}


@torch.inference_mode()
def explain(recommender: Recommender, history: np.ndarray, item: int) -> Explanation:
    """Explain a score by leaving one item of the history out at a time.

    This is exact where a gradient is only local, needs no baseline to integrate from, and means
    what it says: "without this item, the score would be so much lower". It costs as many encodings
    as there are items, all in one batch. An item that is there several times is left out whole.

    Args:
        history: item numbers, oldest first, at least one.
        item: number of the item whose score is explained.
    """
    ranker = recommender.ranker
    history = history[-ranker.max_history :]
    left_out, first = np.unique(history, return_index=True)
    left_out = left_out[np.argsort(first)]
    variants = [history] + [history[history != other] for other in left_out]
    filled = [number for number, variant in enumerate(variants) if len(variant)]
    queries, histories = ranker.encode([variants[number] for number in filled])
    items = torch.full((len(filled), 1), item)
    found = (
        ranker.terms(queries, items, ranker.network.repetition(histories))[:, 0].double().numpy()
    )
    terms = np.zeros((len(variants), found.shape[1]))  # without a history, nothing speaks for it
    terms[filled] = found
    effects = terms[0] - terms[1:]
    names = [name for name in ranker.names if name != REPETITION or recommender.has_repetition]
    by_name = {name: ranker.names.index(name) for name in names}
    ids = recommender.items.ids[left_out]
    because = {}
    for name, column in by_name.items():
        order = np.argsort(-effects[:, column], kind="stable")
        because[name] = [(str(ids[n]), float(effects[n, column])) for n in order]
    return Explanation(
        str(recommender.items.ids[item]),
        float(terms[0].sum()),
        {name: float(terms[0, column]) for name, column in by_name.items()},
        because,
    )
