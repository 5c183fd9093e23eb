"""A session: what the network remembers of one user, kept between items."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from recbole_m3rec.network.mamba import MambaState
from recbole_m3rec.serving.scoring.ranker import packed

if TYPE_CHECKING:
    import pandas as pd

    from recbole_m3rec.serving.recommender import Recommender


class SessionError(ValueError):
    """Bytes that are no saved session of this bundle."""


class Session:
    """What the network remembers of one user; one more item costs the same however many there were.

    A session reads the whole history, and so equals ``recommend`` as long as that does, up to
    ``max_history`` items. From there on ``recommend`` forgets the oldest items, as training did,
    and a session does not.
    """

    def __init__(self, recommender: Recommender, history: Iterable[str] = ()) -> None:
        """Read a history; unknown items are skipped and counted in ``unknown_items``."""
        self._shop = recommender
        self._history = np.empty(0, np.int64)
        self._state: MambaState | None = None
        self._query: Tensor | None = None
        numbers, self.unknown_items = recommender.items.numbers(history)
        if len(numbers):
            self._history = numbers
            self._query, self._state = recommender._stepper.read(self._vectors(numbers))

    def __len__(self) -> int:
        return len(self._history)

    @property
    def history(self) -> list[str]:
        """The items read so far, oldest first."""
        return [str(item) for item in self._shop.items.ids[self._history]]

    def add(self, item: str) -> None:
        """Read one more item.

        Raises:
            UnknownItemError: the catalogue does not have it; the session stays as it was.
            RequestError: no item id at all.
        """
        number = self._shop.items.number(item)
        vectors = self._vectors(np.array([number]))
        stepper = self._shop._stepper
        if self._state is None:
            self._query, self._state = stepper.read(vectors)
        else:
            self._query, self._state = stepper.step(vectors, self._state)
        self._history = np.concatenate([self._history, [number]])

    def recommend(
        self,
        k: int = 10,
        *,
        exclude_seen: bool = True,
        allowed: Iterable[str] | None = None,
        blocked: Iterable[str] | None = None,
        weights: Mapping[str, float] | None = None,
        explain: bool = False,
    ) -> pd.DataFrame:
        """Recommend as :meth:`Recommender.recommend` does, with its options."""
        shop, history, ranker = self._shop, self._history, self._shop.ranker
        filters = allowed, blocked, weights
        questions = shop.questions_of([history], k, exclude_seen, *filters)
        if self._query is None:
            answers = ranker.answer(questions, explain)
        else:
            # The term for repetition counts for items of the history alone.
            repeats = shop.has_repetition and not exclude_seen
            added = ranker.network.repetition(packed([history])) if repeats else None
            answers = ranker.answer_queries(questions, self._query, added, explain)
        frame = shop._frame(np.zeros(1, dtype=int), answers, explain)
        frame.attrs["unknown_items"] = self.unknown_items
        frame.attrs["popular_users"] = [0] if self._query is None else []
        return frame

    def save(self) -> bytes:
        """Return the session as safetensors, some kilobytes, to go on elsewhere.

        Items that were added to the bundle are saved by their ids and vectors.
        """
        last = self._shop.bundle.items.num_rows
        added = np.unique(self._history[self._history > last])
        history = self._history.copy()
        history[history > last] = last + 1 + np.searchsorted(added, history[history > last])
        tensors = {"history": torch.from_numpy(history)}
        if len(added):
            tensors |= {f"added.{name}": rows for name, rows in self._vectors(added).items()}
        if self._query is not None and self._state is not None:
            tensors |= {"query": self._query, **self._state._asdict()}
        about = {
            "bundle": self._shop.digest,
            "unknown_items": str(self.unknown_items),
            "added": json.dumps(self._shop.items.ids[added].tolist()),
        }
        plain = {name: tensor.clone().contiguous() for name, tensor in tensors.items()}
        return save(plain, metadata=about)

    @classmethod
    def restore(cls, recommender: Recommender, saved: bytes) -> Session:
        """Go on with what :meth:`save` returned.

        Raises:
            SessionError: not a saved session, one of another bundle, or of items that were added
                there and not here, or here with other features.
        """
        try:
            tensors = load(saved)
            header = json.loads(saved[8 : 8 + int.from_bytes(saved[:8], "little")])
            about = header["__metadata__"]
            history, unknown_items = tensors["history"], int(about["unknown_items"])
            added = [str(item) for item in json.loads(about.get("added", "[]"))]
        except (SafetensorError, ValueError, KeyError, TypeError) as error:
            raise SessionError(f"not a saved session ({error})") from error
        if about.get("bundle") != recommender.digest:
            raise SessionError(
                f"a session of the bundle {str(about.get('bundle'))[:12]}, this one is "
                f"{recommender.digest[:12]}: start a new session from the history"
            )
        session = cls(recommender)
        last = recommender.bundle.items.num_rows
        if (
            history.dtype != torch.int64
            or history.dim() != 1
            or len(history)
            and not 0 < int(history.min()) <= int(history.max()) <= last + len(added)
        ):
            raise SessionError("not a saved session: it has items that the catalogue has not")
        session._history = history.numpy()
        if added:
            here = session._numbers_of_added(added, tensors)
            is_added = session._history > last
            session._history[is_added] = here[session._history[is_added] - last - 1]
        session.unknown_items = unknown_items
        if len(session):
            query, like = recommender._stepper.read(session._vectors(session._history[-1:]))
            wanted = {"query": query, **like._asdict()}
            # Earlier sessions lack what is kept for a low-pass filter; without one it is nothing.
            found = {
                name: tensors.get(name, torch.empty(0) if kept.numel() else kept)
                for name, kept in wanted.items()
            }
            if any(
                found[name].shape != kept.shape or found[name].dtype != kept.dtype
                for name, kept in wanted.items()
            ):
                raise SessionError("not a saved session: its states have other shapes")
            session._query = found.pop("query")
            session._state = MambaState(**found)
        return session

    def _numbers_of_added(self, items: Sequence[str], saved: Mapping[str, Tensor]) -> np.ndarray:
        """Return the numbers that added items have here, which must be the same items."""
        do = "Add the same items with the same features, or start a new session from the history"
        for item in items:
            if item not in self._shop.items:
                raise SessionError(f"its history has the added item {item!r}, not there here. {do}")
        numbers, _ = self._shop.items.numbers(items)
        for name, here in self._vectors(numbers).items():
            there = saved.get(f"added.{name}", torch.empty(0))
            if there.shape != here.shape or there.dtype != here.dtype:
                raise SessionError("not a saved session: its added items have other shapes")
            # Another machine may round otherwise.
            is_other = ~torch.isclose(there, here, rtol=0.01, atol=0.001).all(1)
            if is_other.any():
                item = items[int(is_other.nonzero()[0])]
                raise SessionError(f"the added item {item!r} has other features of {name}. {do}")
        return numbers

    def _vectors(self, numbers: np.ndarray) -> dict[str, Tensor]:
        rows = torch.from_numpy(numbers)
        sequence = self._shop.ranker.vectors.sequence
        return {name: table[rows].float() for name, table in sequence.items()}
