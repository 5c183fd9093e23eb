"""The M3Rec network, in plain PyTorch, on one page.

M3Rec is Guo et al., ICASSP 2025; Mamba is Gu & Dao, https://arxiv.org/abs/2312.00752.

Shape letters::

    B  histories            T  tokens: all items of a batch's histories, side by side, no padding
    N  items, padding (0)   M  content modalities (image, text, ...); the ID makes M + 1
    H  hidden size          Q  queries: the scored tokens

For each modality m, with frozen features F_m and the ID's embedding E::

    T_m = P_m(F_m),  T_id = E                        item vectors                   [N, H]
    x_m = LayerNorm_m(Dropout(T_m[items]))           a history in modality m        [T, H]
    h   = LayerNorm(Dropout(Mamba(x_m)) + x_m)       the same block for every m     [T, H]
    x_m = Expert_m(h)                                an expert of its own           [T, H]

The last two lines are a layer; a network of one layer leaves ``+ x_m`` out, as the authors' does.
With ``low_pass`` a running mean of x_m is added to Mamba(x_m). With x_m read at the scored tokens,
and a learned weight w_m per content modality (the paper's alpha and beta; w_id = 1)::

    dot       score(u, v) = sum over m of  w_m^2 <x_m, T_m[v]>
    cosine    score(u, v) = sum over m of  w_m cos(x_m, T_m[v]) / temperature

The ``T_id`` of a score is that of the histories, or by ``score_ids`` another one. Either score is
one product of a query ``[Q, (M + 1) H]`` and an item table ``[N, (M + 1) H]``. With ``repetition``
items of the user's own history get a learned term (:mod:`recbole_m3rec.network.repetition`).
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from recbole_m3rec.features.align import ItemFeatures
from recbole_m3rec.network.id_init import start_from_content
from recbole_m3rec.network.item_encoder import ContentModalities, ItemVectors
from recbole_m3rec.network.mamba import MambaBlock
from recbole_m3rec.network.packed import PackedSequences, check_targets, pack, repeated
from recbole_m3rec.network.projectors import INIT_STD, PROJECTORS, init_linear
from recbole_m3rec.network.repetition import Repetition
from recbole_m3rec.network.sampled_softmax import SampledSoftmax, sampled_cross_entropy
from recbole_m3rec.network.settings import check_choice, check_number, check_size
from recbole_m3rec.ops.dropout import Dropout
from recbole_m3rec.ops.matmul import Linear
from recbole_m3rec.ops.scores.linear_cross_entropy import linear_cross_entropy
from recbole_m3rec.ops.scores.score_terms import ScoreTerms
from recbole_m3rec.ops.scores.sharded_cross_entropy import is_shared, sharded_cross_entropy
from recbole_m3rec.ops.scores.unit_blocks import unit_blocks
from recbole_m3rec.ops.selective_scan import check_backend

ID = "id"
NORM_EPS = 1e-12
GRADIENT_RULES = ("frozen", "detached", "shared")
MAMBA_INITS = ("mamba", "normal")
ID_INITS = ("normal", "content")
ID_UPDATES = ("dense", "sparse")
SCORES = ("dot", "cosine")
SCORE_IDS = ("same", "offset", "own")

# Below this share of the catalogue it pays to project the items of a batch instead of all.
FEW_ITEMS = 0.25


@dataclasses.dataclass(frozen=True)
class M3RecConfig:
    """The settings of :class:`M3RecNetwork`; the defaults are the paper's.

    Attributes:
        hidden_size: width ``H`` of an item vector.
        num_layers: shared Mamba blocks, each followed by one expert per modality.
        d_state: state size of the selective scan.
        d_conv: width of the causal convolution, in items.
        expand: inner width of Mamba in multiples of ``H``.
        dropout_prob: share of activations dropped in training.
        modality_gradient: what content histories teach the shared block: ``frozen`` (nothing, but
            the gradient flows through), ``detached`` (no gradient at all) or ``shared``.
        mamba_init: ``mamba`` or ``normal``.
        id_init: ``normal`` (noise), or ``content``: ID vectors start as the principal components of
            the items' features; without content modalities they are noise in any case.
        score_ids: by which ID vectors items are scored: ``same`` (those that histories read),
            ``offset`` (these and a learned offset each, 0 at first) or ``own`` (copies at first).
        projector: one of :data:`recbole_m3rec.network.projectors.PROJECTORS`.
        projector_experts: of ``moe_whitening``.
        score: ``dot`` or ``cosine``.
        temperature: what cosines are divided by; without effect on ``dot``.
        low_pass: latest vectors whose mean is added to what Mamba returns, 0 for none
            (:mod:`recbole_m3rec.network.low_pass`).
        repetition: whether items of the user's own history get a learned term.
        softmax_items: ``all``, or how many items a step's softmax draws at random beside the
            batch's own targets (:mod:`recbole_m3rec.network.sampled_softmax`).
        shard_softmax: whether several processes share the items of an exact softmax.
        id_updates: ``dense``, or ``sparse``: gradients by a step's own ID vectors alone.
        share_mamba: False gives each content modality Mamba blocks of its own, which learn from it
            whatever ``modality_gradient`` says (for ablations).
        share_experts: one expert a layer for all modalities (for ablations).
        scan_backend: one of :data:`recbole_m3rec.ops.selective_scan.BACKENDS`.

    Raises:
        ModelConfigError: a setting is out of its range; it is named with what was found.

    >>> M3RecConfig(hidden_size=128).score
    'dot'
    """

    hidden_size: int = 64
    num_layers: int = 2
    d_state: int = 32
    d_conv: int = 4
    expand: int = 2
    low_pass: int = 0
    dropout_prob: float = 0.5
    modality_gradient: str = "frozen"
    mamba_init: str = "mamba"
    id_init: str = "normal"
    score_ids: str = "same"
    projector: str = "mlp"
    projector_experts: int = 8
    score: str = "dot"
    temperature: float = 0.2
    repetition: bool = False
    softmax_items: int | str = "all"
    shard_softmax: bool = False
    id_updates: str = "dense"
    share_mamba: bool = True
    share_experts: bool = False
    scan_backend: str = "auto"

    def __post_init__(self) -> None:
        for name in ("hidden_size", "num_layers", "d_state", "d_conv", "expand"):
            check_size(name, getattr(self, name))
        check_size("projector_experts", self.projector_experts)
        if self.low_pass != 0:
            check_size("low_pass", self.low_pass)
        check_number("dropout_prob", self.dropout_prob, lambda p: 0 <= p < 1, "in [0, 1)")
        check_number("temperature", self.temperature, lambda t: 0 < t < float("inf"), "above 0")
        if self.softmax_items != "all":
            check_size("softmax_items", self.softmax_items)
        check_choice("modality_gradient", self.modality_gradient, GRADIENT_RULES)
        check_choice("mamba_init", self.mamba_init, MAMBA_INITS)
        check_choice("id_init", self.id_init, ID_INITS)
        check_choice("id_updates", self.id_updates, ID_UPDATES)
        check_choice("projector", self.projector, PROJECTORS)
        check_choice("score", self.score, SCORES)
        check_choice("score_ids", self.score_ids, SCORE_IDS)
        for name in ("repetition", "shard_softmax", "share_mamba", "share_experts"):
            check_choice(name, getattr(self, name), (True, False))
        check_backend(self.scan_backend)


class SharedBlock(nn.Module):
    """The Mamba block and norm that all modalities share: ``LayerNorm(Dropout(Mamba(x)) + x)``."""

    def __init__(self, hidden_size: int, dropout_prob: float, residual: bool, **mamba: Any) -> None:
        super().__init__()
        self.mamba = MambaBlock(hidden_size, **mamba)
        self.norm = nn.LayerNorm(hidden_size, eps=NORM_EPS)
        self.dropout = Dropout(dropout_prob)
        self.residual = residual

    def forward(self, x: Tensor, cu_seqlens: Tensor, last_only: bool) -> Tensor:
        h: Tensor = self.dropout(self.mamba(x, cu_seqlens, last_only))  # [T, H] or [B, H]
        if self.residual:
            h = h + (x[cu_seqlens[1:].long() - 1] if last_only else x)
        h = self.norm(h)
        return h


class Expert(nn.Module):
    """A modality's own feed-forward network: ``LayerNorm(Dropout(W2 Dropout(GELU(W1 h))) + h)``."""

    def __init__(self, hidden_size: int, dropout_prob: float) -> None:
        super().__init__()
        self.w_1 = init_linear(Linear(hidden_size, 4 * hidden_size))
        self.w_2 = init_linear(Linear(4 * hidden_size, hidden_size))
        self.norm = nn.LayerNorm(hidden_size, eps=NORM_EPS)
        self.dropout = Dropout(dropout_prob)

    def forward(self, h: Tensor) -> Tensor:
        inner = self.dropout(F.gelu(self.w_1(h)))  # [T, 4 H]
        out: Tensor = self.norm(self.dropout(self.w_2(inner)) + h)
        return out


class M3RecLayer(nn.Module):
    """One shared block and one expert per modality; or, for ablations, the sharing turned about.

    ``own`` holds the blocks of content modalities that do not share the ID's, which is the last of
    ``modalities``.
    """

    def __init__(
        self,
        modalities: Sequence[str],
        make_block: Callable[[], SharedBlock],
        make_expert: Callable[[], Expert],
        share_mamba: bool = True,
        share_experts: bool = False,
    ) -> None:
        super().__init__()
        *content, _ = modalities
        self.shared = make_block()
        self.own = nn.ModuleDict({} if share_mamba else {name: make_block() for name in content})
        n_experts = 1 if share_experts else len(modalities)
        experts = [make_expert() for _ in range(n_experts)]
        self.experts = nn.ModuleDict(
            {name: experts[i % n_experts] for i, name in enumerate(modalities)}
        )

    def forward(
        self,
        x: Tensor,
        cu_seqlens: Tensor,
        modalities: Sequence[str],
        gradient: str,
        last_only: bool,
    ) -> Tensor:
        """Run histories through the layer, those of several modalities one after the other.

        Args:
            x: ``[n T, H]`` of ``n`` modalities.
            cu_seqlens: ``[n B + 1]`` int32.
            modalities: whose experts follow the block; one alone where it has a block of its own.
            gradient: the gradient rule for these modalities, ``shared`` for those that teach; a
                block of its own learns from its modality in any case.
            last_only: compute what only the last tokens need at those alone.

        Returns:
            ``[n T, H]``, or ``[n B, H]`` with ``last_only``.
        """
        if modalities[0] in self.own:
            h = self.own[modalities[0]](x, cu_seqlens, last_only)
        elif gradient == "shared":
            h = self.shared(x, cu_seqlens, last_only)
        elif gradient == "frozen":
            # The block's weights learn nothing here, but the projector before it still does: the
            # gradient passes through detached weights to x.
            weights = {name: weight.detach() for name, weight in self.shared.named_parameters()}
            h = functional_call(self.shared, weights, (x, cu_seqlens, last_only))
        else:
            # The released program's rule: what comes before the block learns from scores alone.
            with torch.no_grad():
                h = self.shared(x, cu_seqlens, last_only)
        parts = zip(modalities, h.chunk(len(modalities)), strict=True)
        return _one_after_other([self.experts[name](part) for name, part in parts])


def _one_after_other(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


class M3RecNetwork(SampledSoftmax):
    """Score every item as a user's next, from ID, image, text, … histories.

    Example:
        Two histories over a catalogue of 9 items (id 0 is padding), with pictures as 4 numbers:

        >>> import torch
        >>> from recbole_m3rec import ItemFeatures, M3RecNetwork, pack
        >>> values, present = torch.randn(10, 4), torch.ones(10, dtype=torch.bool)
        >>> image = ItemFeatures("image", values, present, "", "random numbers")
        >>> network = M3RecNetwork(10, {"image": image}, hidden_size=16)
        >>> item_seq, item_seq_len = torch.tensor([[3, 1, 4], [5, 0, 0]]), torch.tensor([3, 1])
        >>> loss = network.cross_entropy(pack(item_seq, item_seq_len), torch.tensor([1, 9]))
        >>> loss.backward()
        >>> with torch.no_grad():
        ...     query = network.eval().query(item_seq, item_seq_len)  # [B, (M + 1) · H]
        ...     scores = query @ network.item_table().T  # [B, n_items]
        >>> query.shape, scores.shape
        (torch.Size([2, 32]), torch.Size([2, 10]))
    """

    def __init__(
        self, n_items: int, features: Mapping[str, ItemFeatures] | None = None, **settings: Any
    ) -> None:
        """Create the network.

        Args:
            n_items: items, padding (id 0) included.
            features: content modalities by name, in the order of fusion; ``[n_items, d]`` each.
            **settings: those of :class:`M3RecConfig`.

        Raises:
            ModelConfigError: a setting is out of its range, or features do not fit ``n_items``.
        """
        super().__init__()
        self.config = config = M3RecConfig(**settings)
        features = features or {}
        self.content_modalities = tuple(features)
        self.modalities = (*self.content_modalities, ID)
        self.n_items = n_items
        self.modality_gradient = config.modality_gradient if config.share_mamba else "shared"

        hidden_size = config.hidden_size
        is_sparse = config.id_updates == "sparse"
        self.item_embedding = nn.Embedding(n_items, hidden_size, sparse=is_sparse)
        nn.init.normal_(self.item_embedding.weight, 0.0, INIT_STD)
        if config.id_init == "content" and features:
            start_from_content(self.item_embedding.weight, features, INIT_STD)
        self.score_embedding = None
        if config.score_ids != "same":
            self.score_embedding = copy.deepcopy(self.item_embedding)
            if config.score_ids == "offset":
                nn.init.zeros_(self.score_embedding.weight)
        self.content = ContentModalities(
            features, n_items, hidden_size, config.projector, config.projector_experts
        )
        self.input_norms = nn.ModuleDict(
            {m: nn.LayerNorm(hidden_size, eps=NORM_EPS) for m in self.modalities}
        )
        self.dropout = Dropout(config.dropout_prob)
        make_block = partial(
            SharedBlock,
            *(hidden_size, config.dropout_prob),
            residual=config.num_layers > 1,
            d_state=config.d_state,
            d_conv=config.d_conv,
            expand=config.expand,
            low_pass=config.low_pass,
            init=config.mamba_init,
            scan_backend=config.scan_backend,
        )
        make_expert = partial(Expert, hidden_size, config.dropout_prob)
        sharing = config.share_mamba, config.share_experts
        self.layers = nn.ModuleList(
            M3RecLayer(self.modalities, make_block, make_expert, *sharing)
            for _ in range(config.num_layers)
        )
        self.repeats = Repetition() if config.repetition else None

    def forward(self, item_seq: Tensor, item_seq_len: Tensor) -> Tensor:
        """Score every item for each history.

        Args:
            item_seq: item ids, ``[B, L]`` int64, padded on the right with 0.
            item_seq_len: true lengths, ``[B]`` int64, each in ``1..L``.

        Returns:
            ``[B, N]``.
        """
        histories = pack(item_seq, item_seq_len)
        vectors = self.item_vectors()
        scores = self.encode(histories, vectors) @ vectors.table.T  # [B, N]
        terms = self.repetition(histories)
        return scores if terms is None else terms.add_to_(scores)

    def item_vectors(self, items: Tensor | None = None) -> ItemVectors:
        """Embed and project items, each once.

        Args:
            items: ids ``[n]``, or None for all in order.
        """
        embedded = scored_ids = self.id_vectors([self.item_embedding], items)
        if self.score_embedding is not None:
            tables = [self.score_embedding]
            if self.config.score_ids == "offset":
                tables.append(self.item_embedding)
            scored_ids = self.id_vectors(tables, items, self.config.score)
        sequence, blocks = {ID: embedded}, []
        for name, content in self.content.items():
            sequence[name], scored = content(items)  # [n, H] each
            blocks.append(scored)
        if self.config.score == "cosine":
            weights = torch.cat([*self._weights(), embedded.new_ones(1)])
            table = unit_blocks([*blocks, scored_ids], weights / self.config.temperature)
        else:
            weighted = (w * x for w, x in zip(self._weights(), blocks, strict=True))
            table = torch.cat([*weighted, scored_ids], dim=1)
        return ItemVectors(sequence, table)

    def _weights(self) -> list[Tensor]:
        """Return the fusion weight of each content modality, ``[1]``."""
        return [cast(Tensor, content.weight) for content in self.content.values()]

    def encode(
        self, rows: PackedSequences, vectors: ItemVectors, scored: Tensor | None = None
    ) -> Tensor:
        """Encode packed histories into fused query vectors.

        Args:
            rows: row numbers of ``vectors``, ``[T]``, and ``cu_seqlens``.
            vectors: from :meth:`item_vectors`.
            scored: tokens whose query is wanted, ``[Q]``, or None for every last one.

        Returns:
            ``[Q, (M + 1) · H]``: content modalities in order, then id.
        """
        blocks: dict[str, Tensor] = {}
        for names, rule in self._runs():
            x = _one_after_other([self._read(name, rows, vectors, rule) for name in names])
            bounds = repeated(rows.cu_seqlens, len(names))
            for depth, layer in enumerate(self.layers):
                is_last = depth == self.config.num_layers - 1
                x = layer(x, bounds, names, rule, last_only=is_last and scored is None)
            blocks |= zip(names, x.chunk(len(names)), strict=True)
        if scored is not None:
            blocks = {m: x.index_select(0, scored) for m, x in blocks.items()}
        return self.fuse([blocks[m] for m in self.modalities])

    def _runs(self) -> list[tuple[tuple[str, ...], str]]:
        """Return which modalities run through the blocks at once, and their gradient rule."""
        if self.modality_gradient == "shared" and self.config.share_mamba:
            return [(self.modalities, "shared")]  # larger products, fewer of them
        content = [((name,), self.modality_gradient) for name in self.content_modalities]
        return [*content, ((ID,), "shared")]

    def _read(self, name: str, rows: PackedSequences, vectors: ItemVectors, rule: str) -> Tensor:
        """Return the histories of a modality, ``[T, H]``."""
        table = vectors.sequence[name]
        x = F.embedding(rows.values, table.detach() if rule == "detached" else table)
        out: Tensor = self.input_norms[name](self.dropout(x))
        return out

    def fuse(self, blocks: Sequence[Tensor]) -> Tensor:
        """Make queries of the scored tokens' vectors, ``[Q, H]`` by modality in order.

        Returns:
            ``[Q, (M + 1) · H]``.
        """
        if self.config.score == "cosine":
            # A cosine has one weight a modality, which the item table carries.
            return torch.cat([F.normalize(x, dim=1) for x in blocks], dim=1)
        *content, of_id = blocks
        weighted = (w * x for w, x in zip(self._weights(), content, strict=True))
        return torch.cat([*weighted, of_id], dim=1)

    def repetition(
        self, histories: PackedSequences, scored: Tensor | None = None
    ) -> ScoreTerms | None:
        """Return what is added to the scores of items of the own history, None without the term.

        Args:
            histories: packed item ids.
            scored: as in :meth:`encode`, ascending.
        """
        return None if self.repeats is None else self.repeats(histories, scored)

    def query(self, item_seq: Tensor, item_seq_len: Tensor) -> Tensor:
        """Encode right-padded histories ``[B, L]`` of lengths ``[B]`` into ``[B, (M + 1) · H]``."""
        packed = pack(item_seq, item_seq_len)
        rows, vectors = self._vectors_of(packed.values)
        return self.encode(PackedSequences(rows[0], packed.cu_seqlens), vectors)

    def item_table(self) -> Tensor:
        """Return every item's vector for scoring, ``[N, (M + 1) · H]``."""
        return self.item_vectors().table

    def _vectors_of(self, *items: Tensor) -> tuple[list[Tensor], ItemVectors]:
        """Project a batch's items, or all where that is hardly more; say which row is whose."""
        unique, rows = torch.unique(torch.cat([i.flatten() for i in items]), return_inverse=True)
        are_many = unique.numel() > FEW_ITEMS * self.n_items
        if are_many and self.config.id_updates == "dense" and not self.config.shard_softmax:
            return list(items), self.item_vectors()
        parts = rows.split([i.numel() for i in items])
        return [part.view(i.shape) for part, i in zip(parts, items, strict=True)], (
            self.item_vectors(unique)
        )

    def score_items(self, item_seq: Tensor, item_seq_len: Tensor, items: Tensor) -> Tensor:
        """Score one item ``[B]`` for each right-padded history; ``[B]``."""
        packed = pack(item_seq, item_seq_len)
        (values, candidates), vectors = self._vectors_of(packed.values, items)
        query = self.encode(PackedSequences(values, packed.cu_seqlens), vectors)
        scores = (query * F.embedding(candidates, vectors.table)).sum(1)
        terms = self.repetition(packed)
        return scores if terms is None else scores + terms.of(items)

    def cross_entropy(
        self, packed: PackedSequences, targets: Tensor, scored: Tensor | None = None
    ) -> Tensor:
        """Mean softmax cross-entropy over all trained items, padding included, or a sample of them.

        Args:
            packed: histories of item ids.
            targets: the next item of every query, ``[Q]`` int64.
            scored: tokens the queries are read at, ascending, or None for every last one.
        """
        check_targets(packed, scored, targets)
        n_drawn, terms = self.config.softmax_items, self.repetition(packed, scored)
        if isinstance(n_drawn, int) and n_drawn < self.n_items:
            candidates = self.draw_candidates(targets, n_drawn)
            (values, rows), vectors = self._vectors_of(packed.values, candidates.items)
            query = self.encode(PackedSequences(values, packed.cu_seqlens), vectors, scored)
            table = F.embedding(rows, vectors.table)
            return sampled_cross_entropy(query, table, candidates, targets, terms)
        targets = self.rows_among_trained(targets)
        if terms is not None:
            terms = terms._replace(items=self.rows_among_trained(terms.items))
        if self.config.shard_softmax and is_shared():
            first, items = self.own_items(targets.device)
            (values, rows), vectors = self._vectors_of(packed.values, items)
            query = self.encode(PackedSequences(values, packed.cu_seqlens), vectors, scored)
            table = F.embedding(rows, vectors.table)
            return sharded_cross_entropy(query, table, first, targets, terms)
        vectors = self.item_vectors()
        query, table = self.encode(packed, vectors, scored), self.trained_rows(vectors.table)
        return linear_cross_entropy(query, table, targets, terms)

    def bpr(
        self,
        packed: PackedSequences,
        targets: Tensor,
        negatives: Tensor,
        scored: Tensor | None = None,
    ) -> Tensor:
        """Mean Bayesian personalised ranking loss of targets against one negative each.

        Args:
            packed, targets, scored: as in :meth:`cross_entropy`.
            negatives: ``[Q]`` int64.
        """
        check_targets(packed, scored, targets, negatives)
        (values, positive, negative), vectors = self._vectors_of(packed.values, targets, negatives)
        query = self.encode(PackedSequences(values, packed.cu_seqlens), vectors, scored)
        own, other = (F.embedding(rows, vectors.table) for rows in (positive, negative))
        difference = (query * (own - other)).sum(1)
        terms = self.repetition(packed, scored)
        if terms is not None:
            difference = difference + terms.of(targets) - terms.of(negatives)
        return -F.logsigmoid(difference).mean()
