"""A session: what the network remembers of one user, kept between items."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from recbole_m3rec.network.m3rec import NORM_EPS, ItemVectors, M3RecNetwork, SharedBlock
from recbole_m3rec.network.mamba import MambaBlock, MambaState
from recbole_m3rec.network.packed import PackedSequences
from recbole_m3rec.serving.scoring.ranker import packed

if TYPE_CHECKING:
    import pandas as pd

    from recbole_m3rec.serving.recommender import Recommender


class SessionError(ValueError):
    """Bytes that are no saved session of this bundle."""


class _Recording(nn.Module):
    """A Mamba block that also notes the state after a history, in the order of calls."""

    def __init__(self, block: MambaBlock, states: list[MambaState]) -> None:
        super().__init__()
        self.block, self._states = block, states

    def forward(self, h: Tensor, cu_seqlens: Tensor, last_only: bool = False) -> Tensor:
        self._states.append(self.block.last_state(h, cu_seqlens))
        out: Tensor = self.block(h, cu_seqlens, last_only)
        return out


class _Layer(NamedTuple):
    """A layer's weights with all modalities side by side; ``M`` counts the ID too."""

    blocks: tuple[SharedBlock, ...]  # one for all modalities, or one each
    w_1: Tensor  # [M, H, 4 H]
    b_1: Tensor  # [M, 1, 4 H]
    w_2: Tensor  # [M, 4 H, H]
    b_2: Tensor  # [M, 1, H]
    norm: tuple[Tensor, Tensor]  # [M, 1, H] each


class Stepper:
    """Encodes one more item on kept states, all modalities side by side.

    A history is read by ``M3RecNetwork.encode`` itself. For a single item its calls would cost more
    than what they compute, so a step takes a modality as a row of one batch.
    """

    def __init__(self, network: M3RecNetwork) -> None:
        self.original = network
        self._states: list[MambaState] = []
        memo: dict[int, Any] = {id(tensor): tensor for tensor in network.parameters()}
        memo |= {id(tensor): tensor for tensor in network.buffers()}
        self.reading = copy.deepcopy(network, memo)
        for module in list(self.reading.modules()):
            for name, child in list(module.named_children()):
                if isinstance(child, MambaBlock):
                    setattr(module, name, _Recording(child, self._states))
        self.input_norm = _stacked_norm([network.input_norms[m] for m in network.modalities])
        self.layers = [_stacked(network, layer) for layer in network.layers]

    @torch.inference_mode()
    def read(self, sequence: dict[str, Tensor]) -> tuple[Tensor, list[MambaState]]:
        """Read a history's vectors by modality, ``[n, H]``.

        Returns:
            The query, and for each layer the states after it with a row per modality.
        """
        length = len(next(iter(sequence.values())))
        rows = PackedSequences(torch.arange(length), torch.tensor([0, length], dtype=torch.int32))
        self._states.clear()
        query = self.reading.encode(rows, ItemVectors(sequence, torch.empty(0)))
        n_layers = len(self.layers)  # a modality goes through all layers before the next one
        by_layer = [self._states[layer::n_layers] for layer in range(n_layers)]
        return query, [side_by_side(states) for states in by_layer]

    @torch.inference_mode()
    def step(
        self, sequence: dict[str, Tensor], states: list[MambaState]
    ) -> tuple[Tensor, list[MambaState]]:
        """Read one item of each history on the states before it.

        Args:
            sequence: the items' vectors by modality, ``[B, H]``.
            states: for each layer, all histories of the first modality, then of the next one.

        Returns:
            Queries ``[B, (M + 1) · H]``, and the states after the items.
        """
        x = torch.stack([sequence[m] for m in self.original.modalities])  # [M, B, H]
        x = _norm(x, self.input_norm)
        after = []
        for layer, state in zip(self.layers, states, strict=True):
            h, new_state = _step(layer.blocks, x, state)
            after.append(new_state)
            inner = F.gelu(torch.baddbmm(layer.b_1, h, layer.w_1))
            x = _norm(torch.baddbmm(layer.b_2, inner, layer.w_2) + h, layer.norm)
        return self.original.fuse(list(x)), after


def _stacked(network: M3RecNetwork, layer: Any) -> _Layer:
    experts = [layer.experts[m] for m in network.modalities]
    own = [layer.own[m] for m in network.content_modalities if m in layer.own]
    return _Layer(
        (*own, layer.shared),
        torch.stack([expert.w_1.weight.detach().T for expert in experts]),
        torch.stack([expert.w_1.bias.detach()[None] for expert in experts]),
        torch.stack([expert.w_2.weight.detach().T for expert in experts]),
        torch.stack([expert.w_2.bias.detach()[None] for expert in experts]),
        _stacked_norm([expert.norm for expert in experts]),
    )


def _stacked_norm(norms: Iterable[Any]) -> tuple[Tensor, Tensor]:
    weights, biases = zip(*((n.weight.detach(), n.bias.detach()) for n in norms), strict=True)
    return torch.stack(weights)[:, None], torch.stack(biases)[:, None]


def _norm(x: Tensor, weight_and_bias: tuple[Tensor, Tensor]) -> Tensor:
    weight, bias = weight_and_bias
    return F.layer_norm(x, x.shape[-1:], eps=NORM_EPS).mul_(weight).add_(bias)


def _step(blocks: Sequence[SharedBlock], x: Tensor, state: MambaState) -> tuple[Tensor, MambaState]:
    """Take one token ``[M, B, H]`` through a layer's block, or each modality's through its own."""
    if len(blocks) == 1:
        [block] = blocks
        h, after = block.mamba.step(x.reshape(-1, x.shape[-1]), state)
        h = h.reshape(x.shape[0], -1, x.shape[-1])
        return block.norm(h + x if block.residual else h), after
    parts = [state_of.chunk(len(blocks)) for state_of in state]
    steps = [
        _step([block], x[m : m + 1], MambaState(*(part[m] for part in parts)))
        for m, block in enumerate(blocks)
    ]
    outputs, states = zip(*steps, strict=True)
    return torch.cat(outputs), side_by_side(states)


def side_by_side(states: Iterable[MambaState]) -> MambaState:
    """Put the states of several modalities into one batch, one after the other."""
    return MambaState(*map(torch.cat, zip(*states, strict=True)))


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
        self._states: list[MambaState] = []
        self._query: Tensor | None = None
        self.unknown_items = 0
        numbers, self.unknown_items = recommender.items.numbers(history)
        if len(numbers):
            self._history = numbers
            self._query, self._states = stepper(recommender).read(self._vectors(numbers))

    def __len__(self) -> int:
        return len(self._history)

    @property
    def history(self) -> list[str]:
        """The items read so far, oldest first."""
        return [str(item) for item in self._shop.items.ids_of(self._history)]

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
        self._history = np.append(self._history, number)

    def recommend(self, k: int = 10, **options: Any) -> pd.DataFrame:
        """Recommend as :meth:`Recommender.recommend` does, with its options."""
        explain = options.pop("explain", False)
        shop, history = self._shop, self._history
        (question,), _ = shop.questions([()], k, False, *_filters(options))
        if options.pop("exclude_seen", True):
            question.exclude = np.concatenate([question.exclude, history])
        if options:
            raise TypeError(f"recommend has no option {next(iter(options))}")
        question.history = history
        ranker = shop.ranker
        if self._query is None:
            answers = ranker.answer([question], explain)
        else:
            added = ranker.network.repetition(packed([history])) if shop.has_repetition else None
            answers = ranker.answer_queries([question], self._query, added, explain)
        frame = shop._frame(np.zeros(1, dtype=int), answers, explain)
        frame.attrs["unknown_items"] = self.unknown_items
        frame.attrs["popular_users"] = [0] if self._query is None else []
        return frame

    def save(self) -> bytes:
        """Return the session as safetensors, some kilobytes, to go on elsewhere."""
        tensors = {"history": torch.from_numpy(self._history)}
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
        session._history = history.numpy()
        session.unknown_items = int(about["unknown_items"])
        if len(session):
            _, like = stepper(recommender).read(session._vectors(session._history[-1:]))
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
