"""M3Rec as a RecBole model: a small adapter around :class:`M3RecNetwork`."""

from __future__ import annotations

import dataclasses
from contextlib import AbstractContextManager
from logging import INFO, WARNING
from typing import Any

import torch
from recbole.model.abstract_recommender import SequentialRecommender
from torch import Tensor

from recbole_m3rec.data.windows import TARGET_LIST
from recbole_m3rec.model.item_cache import Kept
from recbole_m3rec.network.item_encoder import ItemVectors, feature_maps, item_table_in_file
from recbole_m3rec.network.m3rec import M3RecConfig, M3RecNetwork
from recbole_m3rec.network.packed import pack
from recbole_m3rec.network.settings import ModelConfigError, check_choice
from recbole_m3rec.ops.scores.score_terms import ScoreTerms

LOSSES = ("CE", "BPR")
# Items of histories encoded at once without gradients: activations then stay in a CPU's cache, and
# take little of a GPU's memory.
ENCODED_AT_ONCE = {"cpu": 2**12, "cuda": 2**15}
# Above so many items the exact softmax takes most of a step's time and memory.
MANY_ITEMS = 100_000
SETTINGS = tuple(field.name for field in dataclasses.fields(M3RecConfig))


class PackedRecommender(SequentialRecommender):  # type: ignore[misc]
    """RecBole's four methods around ``self.network``, which reads packed histories.

    A network offers what :class:`M3RecNetwork` does: ``item_vectors``, ``encode``, ``query``,
    ``score_items``, ``cross_entropy``, ``bpr``, ``hold_out`` and ``count_targets``.
    """

    supports_windows = True  # trains on the rows of train_positions: all
    content_modalities = True

    def prepare_training(self, config: Any, dataset: Any) -> None:
        """Read what the loss needs, and hold out the items that no training is to see."""
        self.loss_type = config["loss_type"]
        self.NEG_TARGET_LIST = config["NEG_PREFIX"] + TARGET_LIST
        self._items = Kept(self._item_vectors)
        if self.network.config.softmax_items != "all":
            self.network.count_targets(dataset.inter_feat[self.ITEM_ID])
        self._check_loss_settings()
        self._log_softmax()
        cold_items = getattr(dataset, "cold_items", None)
        if cold_items is not None:
            self.network.hold_out(cold_items)

    def _check_loss_settings(self) -> None:
        settings = self.network.config
        for key, unused in (("softmax_items", "all"), ("shard_softmax", False)):
            value = getattr(settings, key)
            if self.loss_type == "BPR" and value != unused:
                raise ModelConfigError(
                    f"{key}: {value}, but loss_type: BPR has no softmax: leave it out, or set "
                    "loss_type: CE"
                )
        n_candidates = self.n_items if settings.softmax_items == "all" else settings.softmax_items
        if (
            settings.id_updates == "sparse"
            and self.loss_type == "CE"
            and n_candidates >= self.n_items
        ):
            raise ModelConfigError(
                f"id_updates: sparse, but softmax_items: {settings.softmax_items} gives each of the"
                f" {self.n_items:,} items a gradient in every step: set softmax_items: 2048, or"
                " another number below that of the items"
            )

    def _log_softmax(self) -> None:
        if self.loss_type != "CE" or self.network.config.softmax_items != "all":
            return
        message = (
            f"softmax_items: all, an exact softmax over {self.n_items:,} items in every step; above"
            f" {MANY_ITEMS:,} items softmax_items: 2048 is advised"
        )
        self.logger.log(WARNING if self.n_items > MANY_ITEMS else INFO, message)

    def calculate_loss(self, interaction: Any) -> Tensor:
        """Return the mean loss over the batch's targets, of which a row has one or many."""
        packed = pack(interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN])
        if TARGET_LIST in interaction:
            targets, _ = pack(interaction[TARGET_LIST], interaction[self.ITEM_SEQ_LEN])
            scored: Tensor | None = targets.nonzero().squeeze(1)
            targets = targets[scored]
        else:
            scored, targets = None, interaction[self.POS_ITEM_ID]
        if self.loss_type == "CE":
            return self.network.cross_entropy(packed, targets, scored)
        if scored is None:
            negatives = interaction[self.NEG_ITEM_ID]
        else:
            listed = interaction[self.NEG_TARGET_LIST]
            negatives = pack(listed, interaction[self.ITEM_SEQ_LEN]).values[scored]
        return self.network.bpr(packed, targets, negatives, scored)

    def forward(self, item_seq: Tensor, item_seq_len: Tensor) -> Tensor:
        """Return the fused query vectors of right-padded histories, ``[B, (M + 1) · H]``."""
        return self.network.query(item_seq, item_seq_len)

    def predict(self, interaction: Any) -> Tensor:
        """Score the item of each row for its history, ``[B]``."""
        sequences = interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN]
        return self.network.score_items(*sequences, interaction[self.ITEM_ID])

    @torch.no_grad()
    def full_sort_predict(self, interaction: Any) -> Tensor:
        """Score every item for each history, ``[B, n_items]``."""
        with self.cached_items():
            queries = self.queries(interaction)
            scores = queries @ self.item_table().to(queries.device).T
        terms = self.score_terms(interaction)
        return scores if terms is None else terms.add_to_(scores)

    # The parts of full_sort_predict, which evaluation in blocks calls one by one

    def cached_items(self) -> AbstractContextManager[None]:
        """Project the catalogue once for all that is scored inside; no weight may change there."""
        return self._items.kept()

    @torch.no_grad()
    def item_table(self) -> Tensor:
        """Return every item's vector for scoring, ``[n_items, (M + 1) · H]``."""
        return self._items().table

    def _item_vectors(self) -> ItemVectors:
        """Return all items' vectors; of a mapped catalogue the table alone, in a file."""
        if feature_maps(self.network):
            return ItemVectors({}, item_table_in_file(self.network))
        vectors: ItemVectors = self.network.item_vectors()
        return vectors

    @torch.no_grad()
    def queries(self, interaction: Any) -> Tensor:
        """Encode the history of each row, ``[B, (M + 1) · H]``, a part at a time."""
        item_seq, lengths = interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN]
        at_once = ENCODED_AT_ONCE.get(item_seq.device.type, 2**15)
        n_chunks = max(1, -(-int(lengths.sum()) // at_once))
        with self.cached_items():
            mapped = bool(feature_maps(self.network))
            parts = [
                self.network.query(*chunk)  # projects the items of these histories alone
                if mapped
                else self.network.encode(pack(*chunk), self._items())
                for chunk in zip(item_seq.chunk(n_chunks), lengths.chunk(n_chunks), strict=True)
            ]
        return torch.cat(parts)

    @torch.no_grad()
    def score_terms(self, interaction: Any) -> ScoreTerms | None:
        """Return what is added to scores of items of the own history, None for nothing."""
        return self.network.repetition(
            pack(interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN])
        )


class M3Rec(PackedRecommender):
    """M3Rec (Guo et al., ICASSP 2025) in RecBole."""

    def __init__(self, config: Any, dataset: Any) -> None:
        """Build the network from RecBole's configuration and the dataset's item features.

        Raises:
            ModelConfigError: a setting is out of its range.
        """
        super().__init__(config, dataset)
        check_choice("loss_type", config["loss_type"], LOSSES)
        settings = {name: config[name] for name in SETTINGS if config[name] is not None}
        features = dataset.item_features if self.content_modalities else {}
        self.network = M3RecNetwork(self.n_items, features, **settings)
        self.prepare_training(config, dataset)
