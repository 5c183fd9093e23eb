"""A session: what the network remembers of one user, kept between items."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from recbole_m3rec.network.m3rec import ItemVectors, M3RecNetwork
from recbole_m3rec.network.mamba import MambaBlock, MambaState
from recbole_m3rec.network.packed import PackedSequences
from recbole_m3rec.serving.scoring.ranker import packed

if TYPE_CHECKING:
    import pandas as pd

    from recbole_m3rec.serving.recommender import Recommender


class SessionError(ValueError):
    """Bytes that are no saved session of this bundle."""


class _Stepping(nn.Module):
    """A Mamba block that reads states from a tape, and writes them back."""

    def __init__(self, block: MambaBlock, tape: Tape) -> None:
        super().__init__()
        self.block = block
        self._tape = [tape]  # in a list, so that nn.Module does not look into it

    def forward(self, h: Tensor, cu_seqlens: Tensor, last_only: bool = False) -> Tensor:
        tape = self._tape[0]
        if tape.writes:
            tape.states.append(self.block.last_state(h, cu_seqlens))
            out: Tensor = self.block(h, cu_seqlens, last_only)
            return out
        out, tape.states[tape.place] = self.block.step(h, tape.states[tape.place])
        tape.place += 1
        return out


class Tape:
    """The states of all blocks in the order in which ``M3RecNetwork.encode`` calls them."""

    def __init__(self) -> None:
        self.states: list[MambaState] = []
        self.writes = False
        self.place = 0


class Stepper:
    """Encodes one more item on kept states, through ``M3RecNetwork.encode`` itself.

    In a copy of the network that shares its weights, each Mamba block takes a step from a tape
    instead of reading a history; the rest, and how queries come about, stays the network's.
    """

    def __init__(self, network: M3RecNetwork) -> None:
        self.tape = Tape()
        memo: dict[int, Any] = {id(tensor): tensor for tensor in network.parameters()}
        memo |= {id(tensor): tensor for tensor in network.buffers()}
        self.network = copy.deepcopy(network, memo)
        for module in list(self.network.modules()):
            for name, child in list(module.named_children()):
                if isinstance(child, MambaBlock):
                    setattr(module, name, _Stepping(child, self.tape))
        self.one = torch.tensor([0, 1], dtype=torch.int32)
        self.first = torch.tensor([0])

    @torch.inference_mode()
    def read(self, sequence: dict[str, Tensor]) -> tuple[Tensor, list[MambaState]]:
        """Read a history's vectors by modality, ``[n, H]``; the query and the states after it."""
        length = len(next(iter(sequence.values())))
        rows = PackedSequences(torch.arange(length), torch.tensor([0, length], dtype=torch.int32))
        self.tape.states, self.tape.writes = [], True
        query = self.network.encode(rows, ItemVectors(sequence, torch.empty(0)))
        return query, self.tape.states

    @torch.inference_mode()
    def step(
        self, sequence: dict[str, Tensor], states: list[MambaState]
    ) -> tuple[Tensor, list[MambaState]]:
        """Read one item's vectors by modality, ``[1, H]``, on the states before it."""
        tape = self.tape
        tape.states, tape.writes, tape.place = list(states), False, 0
        rows = PackedSequences(self.first, self.one)
        query = self.network.encode(rows, ItemVectors(sequence, torch.empty(0)))
        return query, tape.states


class Session:
    """What the network remembers of one user; one more item costs the same however many there were.

    A session reads the whole history, and so equals ``recommend`` as long as that does, up to
    ``max_history`` items. From there on ``recommend`` forgets the oldest items, as training did,
    and a session does not.
    """

    def __init__(self, recommender: Recommender, history: Iterable[str] = ()) -> None:
        """Read a history; unknown items are skipped and counted in ``unknown_items``."""
        self._shop = recommender
        self._history: list[int] = []
        self._states: list[MambaState] = []
        self._query: Tensor | None = None
        self.unknown_items = 0
        numbers, self.unknown_items = recommender.items.numbers(history)
        if len(numbers):
            self._history = numbers.tolist()
            self._query, self._states = stepper(recommender).read(self._vectors(numbers))

    def __len__(self) -> int:
        return len(self._history)

    @property
    def history(self) -> list[str]:
        """The items read so far, oldest first."""
        return [str(item) for item in self._shop.items.ids_of(np.array(self._history, int))]

    def add(self, item: str) -> None:
        """Read one more item.

        Raises:
            UnknownItemError: the catalogue does not have it; the session stays as it was.
        """
        number = self._shop.items.number(item)
        vectors = self._vectors(np.array([number]))
        step = stepper(self._shop)
        if self._query is None:
            self._query, self._states = step.read(vectors)
        else:
            self._query, self._states = step.step(vectors, self._states)
        self._history.append(number)

    def recommend(self, k: int = 10, **options: Any) -> pd.DataFrame:
        """Recommend as :meth:`Recommender.recommend` does, with its options."""
        explain = options.pop("explain", False)
        shop, history = self._shop, np.array(self._history, dtype=np.int64)
        (question,), _ = shop.questions([()], k, False, *_filters(options))
        if options.pop("exclude_seen", True):
            question.exclude = np.concatenate([question.exclude, np.unique(history)])
        if options:
            raise TypeError(f"recommend has no option {next(iter(options))}")
        question.history = history
        ranker = shop.ranker
        if self._query is None:
            answers = ranker.answer([question], explain)
        else:
            added = ranker.network.repetition(packed([history]))
            answers = ranker.answer_queries([question], self._query, added, explain)
        frame = shop._frame(np.zeros(1, dtype=int), answers, explain)
        frame.attrs["unknown_items"] = self.unknown_items
        frame.attrs["popular_users"] = [0] if self._query is None else []
        return frame

    def save(self) -> bytes:
        """Return the session as safetensors, some kilobytes, to go on elsewhere."""
        tensors = {"history": torch.tensor(self._history, dtype=torch.int64)}
        if self._query is not None:
            tensors["query"] = self._query
            for number, state in enumerate(self._states):
                tensors |= {f"window.{number}": state.window, f"ssm.{number}": state.ssm}
        about = {"bundle": self._shop.digest, "unknown_items": str(self.unknown_items)}
        plain = {name: tensor.clone().contiguous() for name, tensor in tensors.items()}
        return save(plain, metadata=about)

    @classmethod
    def restore(cls, recommender: Recommender, saved: bytes) -> Session:
        """Go on with what :meth:`save` returned.

        Raises:
            SessionError: not a saved session, or one of another bundle.
        """
        try:
            tensors = load(saved)
            header = json.loads(saved[8 : 8 + int.from_bytes(saved[:8], "little")])
            about = header["__metadata__"]
            history = tensors["history"]
        except (SafetensorError, ValueError, KeyError, TypeError) as error:
            raise SessionError(f"not a saved session ({error})") from error
        if about.get("bundle") != recommender.digest:
            raise SessionError(
                f"a session of the bundle {str(about.get('bundle'))[:12]}, this one is "
                f"{recommender.digest[:12]}: start a new session from the history"
            )
        session = cls(recommender)
        n_items = len(recommender.ranker.vectors.table)
        if (
            history.dtype != torch.int64
            or len(history)
            and not 0 < int(history.min()) <= int(history.max()) < n_items
        ):
            raise SessionError("not a saved session: it has items that the catalogue has not")
        session._history = history.tolist()
        session.unknown_items = int(about["unknown_items"])
        if session._history:
            _, like = stepper(recommender).read(session._vectors(np.array([session._history[-1]])))
            session._query = tensors["query"]
            session._states = [
                MambaState(tensors[f"window.{n}"], tensors[f"ssm.{n}"]) for n in range(len(like))
            ]
            for state, other in zip(session._states, like, strict=True):
                if state.window.shape != other.window.shape or state.ssm.shape != other.ssm.shape:
                    raise SessionError("not a saved session: its states have other shapes")
        return session

    def _vectors(self, numbers: np.ndarray) -> dict[str, Tensor]:
        rows = torch.from_numpy(numbers)
        sequence = self._shop.ranker.vectors.sequence
        return {name: table[rows].float() for name, table in sequence.items()}


def stepper(recommender: Recommender) -> Stepper:
    """Return the recommender's one stepper, made when it is first needed."""
    found: Stepper | None = recommender.__dict__.get("_stepper")
    if found is None:
        found = Stepper(recommender.ranker.network)
        recommender.__dict__["_stepper"] = found
    return found


def _filters(options: dict[str, Any]) -> tuple[Any, Any, Any]:
    return options.pop("allowed", None), options.pop("blocked", None), options.pop("weights", None)
