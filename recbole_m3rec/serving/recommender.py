"""Recommender: a bundle in use, from Python."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from recbole_m3rec.ops.scores.best import best
from recbole_m3rec.serving.arguments import RequestError, at_least_1, weights_of
from recbole_m3rec.serving.bundle.read import Bundle, read_bundle
from recbole_m3rec.serving.catalogue import Catalogue
from recbole_m3rec.serving.explain import Explanation, explain
from recbole_m3rec.serving.histories import Histories, read_histories
from recbole_m3rec.serving.new_items import add_items
from recbole_m3rec.serving.scoring.exact import cosines
from recbole_m3rec.serving.scoring.index import Index
from recbole_m3rec.serving.scoring.ranker import REPETITION, Answers, Question, Ranker
from recbole_m3rec.serving.session import Session
from recbole_m3rec.serving.stepper import Stepper
from recbole_m3rec.support.suggestions import expected_one_of

if TYPE_CHECKING:
    import pandas as pd


class Recommender:
    """Recommends, explains and finds neighbours from a bundle.

    Item ids are texts; a whole number is read as its digits, 50 as "50", in lists, frames and
    new items alike. Any iterable of ids is a list of them, but not a text or a mapping; a set is
    one only where the order is without meaning, as in ``allowed`` and ``blocked``. Anything else
    is an error.

    >>> import tempfile, pyarrow as pa
    >>> from recbole_m3rec import M3RecNetwork
    >>> from recbole_m3rec.serving.bundle.write import write_bundle
    >>> folder = tempfile.mkdtemp()
    >>> items = pa.table({"item_id": ["hat", "shoe", "coat"], "count": [3, 5, 1]})
    >>> about = {"max_history": 50, "features": {}}
    >>> network = M3RecNetwork(4, hidden_size=8)  # --export writes a trained one's bundle
    >>> _ = write_bundle(folder, network, {"hidden_size": 8}, items, about=about)
    >>> shop = Recommender.load(folder)
    >>> sorted(shop.recommend([["hat"]])["item"])
    ['coat', 'shoe']
    >>> shop.recommend([[]], k=1)["item"].tolist()  # what is used most
    ['shoe']

    Attributes:
        items: ids and what is shown of them.
        metrics: what the model reached on validation and test data when it was exported.
        max_history: the newest items of a history that ``recommend`` reads, as in training. Older
            ones are not recommended again, but do not count otherwise. A session reads them all.
        about: the content of ``model.json``.
    """

    def __init__(self, bundle: Bundle, *, index: bool = True) -> None:
        """Use a bundle; ``index=False`` searches exactly where the bundle has an index, too.

        Raises:
            IndexUnavailableError: the bundle has an index and faiss is not installed.
        """
        self.about, self.digest = bundle.about, bundle.digest
        self.bundle = bundle
        self.items = Catalogue(bundle.items)
        counts = torch.from_numpy(self.items.counts)
        found = Index(bundle.index, bundle.vectors.table) if bundle.index and index else None
        self.ranker = Ranker(
            bundle.network, bundle.vectors, counts.float(), int(self.about["max_history"]), found
        )

    @classmethod
    def load(cls, folder: str | Path, *, index: bool = True) -> Recommender:
        """Load a bundle, which may come from a stranger: nothing in it is executed.

        Raises:
            BundleError: not a bundle, damaged, or of another format.
            IndexUnavailableError: it has an index and faiss is not installed.
        """
        return cls(read_bundle(folder), index=index)

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities, content first, then ``id``."""
        return self.ranker.network.modalities

    @property
    def has_repetition(self) -> bool:
        """Whether the model has a term for items of the user's own history."""
        return self.ranker.network.repeats is not None

    @property
    def metrics(self) -> dict[str, Any]:
        """Metrics on validation and test data, by name, as they were when exported."""
        return dict(self.about.get("metrics", {}))

    @property
    def max_history(self) -> int:
        """The newest items of a history that ``recommend`` reads; can be set."""
        return self.ranker.max_history

    @max_history.setter
    def max_history(self, length: int) -> None:
        self.ranker.max_history = at_least_1("max_history", length)

    # Histories

    @cached_property
    def users(self) -> list[str]:
        """Users whose histories the bundle has, in alphabetical order; may be none."""
        return sorted(self._user_rows)

    def history(self, user: str) -> list[str]:
        """Return the items of a user of the bundle, oldest first; [] for one it does not know."""
        row = self._user_rows.get(user)
        if row is None or self.bundle.histories is None:
            return []
        items: list[str] = self.bundle.histories["item_ids"][row].as_py()
        return items

    @cached_property
    def _user_rows(self) -> dict[str, int]:
        histories = self.bundle.histories
        ids = [] if histories is None else histories["user_id"].to_pylist()
        return {user: row for row, user in enumerate(ids)}

    def histories_of(self, given: Histories) -> dict[Any, Sequence[str]]:
        """Read histories as people have them; see :func:`.histories.read_histories`."""
        return read_histories(given, self._user_rows, self.history)

    # Recommendations

    def recommend(
        self,
        histories: Histories,
        k: int = 10,
        *,
        exclude_seen: bool = True,
        allowed: Iterable[str] | None = None,
        blocked: Iterable[str] | None = None,
        weights: Mapping[str, float] | None = None,
        explain: bool = False,
    ) -> pd.DataFrame:
        """Recommend to each history the items that score highest, of equal ones in item order.

        Args:
            histories: see :func:`.histories.read_histories`. Unknown items are skipped; an empty
                history gets the items that are used most, scored by how often they are.
            k: items per history; fewer where fewer are left.
            exclude_seen: leave out items of the history.
            allowed: recommend these items only.
            blocked: never recommend these.
            weights: of modalities, and of ``repetition``, 1 where not named, 10⁶ at most. With all
                of them 0 all items are equal.
            explain: add a column per modality, and ``repetition`` if the model has it: the terms,
                which sum to the score.

        Returns:
            ``user, rank, item, score``, and terms. ``attrs["unknown_items"]`` counts items that
            were skipped, ``attrs["popular_users"]`` lists those who got what is used most.

        Raises:
            RequestError: an argument is out of its range; names it.
        """
        by_user = self.histories_of(histories)
        filters = k, exclude_seen, allowed, blocked, weights
        questions, unknown = self.questions(list(by_user.values()), *filters)
        answers = self.ranker.answer(questions, explain)
        users = np.empty(len(by_user), dtype=object)
        users[:] = list(by_user)
        frame = self._frame(users, answers, explain)
        frame.attrs["unknown_items"] = unknown
        frame.attrs["popular_users"] = list(users[answers.popular])
        return frame

    def questions(
        self, histories: Sequence[Sequence[str]], *filters: Any
    ) -> tuple[list[Question], int]:
        """Ask :meth:`questions_of` of item ids, and count those that are unknown."""
        found, unknown = self.items.numbers_of_all(histories)
        return self.questions_of(found, *filters), unknown

    def questions_of(
        self,
        histories: Sequence[np.ndarray],
        k: int = 10,
        exclude_seen: bool = True,
        allowed: Iterable[str] | None = None,
        blocked: Iterable[str] | None = None,
        weights: Mapping[str, float] | None = None,
    ) -> list[Question]:
        """Ask the same for each history of item numbers."""
        k = at_least_1("k", k)
        weighed = weights_of(weights, self.ranker.names)
        only = None if allowed is None else np.unique(self._numbers(allowed, "allowed"))
        never = np.empty(0, np.int64) if blocked is None else self._numbers(blocked, "blocked")
        return [
            Question(
                each, k, np.concatenate([never, each]) if exclude_seen else never, only, weighed
            )
            for each in histories
        ]

    def _numbers(self, items: Iterable[str], name: str) -> np.ndarray:
        return self.items.numbers(items, name, is_ordered=False)[0]

    def _frame(self, users: np.ndarray, answers: Answers, with_terms: bool) -> pd.DataFrame:
        import pandas as pd

        there = answers.scores > -np.inf
        row, place = np.nonzero(there)
        columns: dict[str, Any] = {
            "user": users[row],
            "rank": place + 1,
            "item": self.items.ids[answers.items[there]],
            "score": answers.scores[there],
        }
        if with_terms and answers.terms is not None:
            for number, name in enumerate(self.ranker.names):
                if name != REPETITION or self.has_repetition:
                    columns[name] = answers.terms[row, place, number]
        return pd.DataFrame(columns, index=pd.RangeIndex(len(row)), copy=False)

    @cached_property
    def _stepper(self) -> Stepper:
        return Stepper(self.ranker.network)

    def __getstate__(self) -> dict[str, Any]:
        # A copy makes a stepper, which holds addresses, of its own.
        return {name: value for name, value in vars(self).items() if name != "_stepper"}

    def session(self, history: Iterable[str] = ()) -> Session:
        """Start a session: a kept state, to which one more item costs the same, however many."""
        return Session(self, history)

    def restore(self, saved: bytes) -> Session:
        """Go on with a session from :meth:`Session.save`.

        Raises:
            SessionError: not a saved session, or one of another bundle.
        """
        return Session.restore(self, saved)

    def explain(self, history: Iterable[str], item: str) -> Explanation:
        """Say why an item has its score: terms by modality, and the items that speak for it.

        Raises:
            UnknownItemError: the item is not in the catalogue.
            RequestError: no item of the history is.
        """
        numbers, _ = self.items.numbers(history)
        if not len(numbers):
            raise RequestError("explain needs a history with at least one item of the catalogue")
        return explain(self, numbers, self.items.number(item))

    def similar(self, item: str, modality: str | None = None, k: int = 10) -> pd.DataFrame:
        """Return the items nearest to an item by the cosine of their vectors for scoring.

        Args:
            item: its id.
            modality: one of :attr:`modalities`, or None for all of them together.
            k: how many; items that lack the modality are no neighbours.

        Returns:
            ``rank, item, score``, the score a cosine. An item that lacks the modality has no
            neighbours, and ``attrs["reason"]`` says so.

        Raises:
            UnknownItemError: the item is not in the catalogue.
            RequestError: no such modality, or k below 1.
        """
        import pandas as pd

        number = self.items.number(item)
        k = at_least_1("k", k)
        table = self.ranker.vectors.table
        if modality is not None:
            if modality not in self.modalities:
                raise RequestError(expected_one_of("modality", modality, self.modalities))
            place = self.modalities.index(modality)
            table = table.view(len(table), len(self.modalities), -1)[:, place]
        alike = cosines(table, table[number])
        alike[[0, number]] = -torch.inf
        values, found = (rows[0] for rows in best(alike[None], k))
        found, values = found[values > -torch.inf], values[values > -torch.inf]
        columns = {"item": self.items.ids[found.numpy()], "score": values.numpy()}
        frame = pd.DataFrame({"rank": np.arange(1, len(found) + 1), **columns})
        if not table[number].any():
            frame.attrs["reason"] = f"item {item!r} has no {modality or 'vector'}"
        return frame

    def add_items(
        self,
        items: pd.DataFrame,
        features: Mapping[str, np.ndarray] | None = None,
        *,
        encoders: Mapping[str, str] | None = None,
    ) -> list[str]:
        """Add items that were never in training; they can be recommended at once.

        Args:
            items: ``item_id``, what is to be shown (``title``, …), the columns that the bundle's
                text recipes read, and ``image_file``, the path of a picture or empty.
            features: feature vectors by modality, a row per item of the frame, from the same
                encoder as in training; rows of NaN are missing. A modality that is not named is
                made from text or pictures where the bundle says how, and is missing otherwise.
            encoders: by modality the bundle's ``module:callable`` for pictures, which is imported
                only if you name it, too: a bundle may come from a stranger.

        Returns:
            The modalities that the new items have.

        Raises:
            NewItemError: an id is there already, features do not fit, or an item has none. Nothing
                is added then.
            EncoderError: an encoder cannot be had or has changed, or a file is no picture; names
                the item.
        """
        return add_items(
            self,
            items,
            {} if features is None else features,
            {} if encoders is None else encoders,
        )
