"""Items that were never in training: vectors from features, texts or pictures."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from recbole_m3rec.network.item_encoder import ContentModality, ItemVectors
from recbole_m3rec.network.m3rec import ID
from recbole_m3rec.network.untrained_items import N_CANDIDATES, lenders, nearest
from recbole_m3rec.serving.arguments import is_id, shown
from recbole_m3rec.serving.bundle.encoders import (
    encode_images,
    encode_text,
    texts_of,
    ways_to_features,
)
from recbole_m3rec.serving.catalogue import as_shown, columns_shown
from recbole_m3rec.support.suggestions import expected_one_of

if TYPE_CHECKING:
    import pandas as pd

    from recbole_m3rec.serving.recommender import Recommender


class NewItemError(ValueError):
    """Items that cannot be added; says which and why."""


def add_items(
    recommender: Recommender,
    items: pd.DataFrame,
    features: Mapping[str, np.ndarray],
    encoders: Mapping[str, str],
) -> list[str]:
    """Add items to a recommender; see :meth:`Recommender.add_items`."""
    ids = _checked_ids(recommender, items)
    network = recommender.ranker.network
    for what, given in (("features", features), ("encoders", encoders)):
        if not isinstance(given, Mapping):
            raise NewItemError(f"{what} must be a mapping by modality, found {shown(given)}")
        for name in given:
            if name not in network.content_modalities:
                known = network.content_modalities or ["none"]
                raise NewItemError(expected_one_of(f"a modality of {what}", name, known))
    values, present = {}, {}
    for name in network.content_modalities:
        made = features.get(name)
        if made is None:
            made = encode_text(recommender, name, items)
        if made is None:
            made = encode_images(recommender, name, items, encoders)
        values[name], present[name] = _checked(recommender, name, made, len(ids))
    said = np.zeros(len(ids), dtype=bool)
    for there in present.values():
        said |= there.numpy()
    if not said.all():
        silent = [item for item, is_said in zip(ids, said, strict=True) if not is_said]
        raise NewItemError(
            f"{len(silent):,} of {len(ids):,} new items have no feature of any modality, so nothing"
            f" can be said of them: {', '.join(map(repr, silent[:5]))}"
            f"{', …' if len(silent) > 5 else ''}. {ways_to_features(recommender, items[~said])}"
        )
    columns = columns_shown(items.columns)
    to_show = {shown: as_shown(shown, texts_of(items[column])) for shown, column in columns.items()}
    has = {name: there.numpy() for name, there in present.items()}
    _append(recommender, vectors_of_new(recommender, values, present))
    recommender.items.add(ids, to_show, has)
    return [name for name, there in present.items() if bool(there.any())]


def _checked_ids(recommender: Recommender, items: pd.DataFrame) -> list[str]:
    if not hasattr(items, "iloc") or not hasattr(items, "columns"):
        raise NewItemError(
            f"items must be a pandas frame with a column item_id, found {shown(items)}: give "
            "pandas.DataFrame(…)"
        )
    if list(items.columns).count("item_id") != 1 or not items.columns.is_unique:
        raise NewItemError(f"expected a column item_id, each once, found {list(items.columns)}")
    ids: list[str] = []
    seen: set[str] = set()
    for number, item in enumerate(items["item_id"].tolist()):
        if not is_id(item):
            raise NewItemError(
                f"row {number}: item_id must be a text or a whole number, found {shown(item)}"
            )
        ids.append(str(item))
        if ids[-1] in recommender.items or ids[-1] in seen or not ids[-1]:
            raise NewItemError(f"row {number}: item id {ids[-1]!r} is empty or there already")
        seen.add(ids[-1])
    if not ids:
        raise NewItemError("no items to add")
    return ids


def _checked(
    recommender: Recommender, name: str, made: np.ndarray | None, n: int
) -> tuple[Tensor, Tensor]:
    """Return features as the projector reads them, and which items have some."""
    known = recommender.about["features"].get(name, {})
    content = cast(ContentModality, recommender.ranker.network.content[name])
    width = content.features.shape[1]
    if made is None:
        return torch.zeros(n, width), torch.zeros(n, dtype=torch.bool)
    try:
        with np.errstate(over="ignore"):  # infinite then, which is refused
            given = np.array(made, dtype=np.float32)
    except (ValueError, TypeError, RuntimeError) as error:
        raise NewItemError(
            f"features of {name} must be numbers of shape {[n, width]}, found {shown(made)} "
            f"({error}). Texts and pictures are given as columns of the items"
        ) from error
    if given.shape != (n, width):
        raise NewItemError(
            f"features of {name} have shape {list(given.shape)}, expected {[n, width]}: a row per "
            "item, as wide as in training"
        )
    values = torch.from_numpy(given)
    present = ~values.isnan().all(1)
    values[~present] = 0
    is_wrong = ~values.isfinite().all(1)
    if is_wrong.any():
        raise NewItemError(
            f"features of {name}, row {int(is_wrong.nonzero()[0])}: numbers that are not finite in "
            "float32. A row of NaN alone is an item without the modality"
        )
    norm = known.get("norm", "none")
    if norm == "l2":
        values = F.normalize(values, dim=1)
    elif norm in ("standardize", "whiten"):
        whitening = recommender.bundle.encoders.get(f"{name}.whitening")
        if "mean" not in known or (norm == "whiten" and whitening is None):
            raise NewItemError(f"the bundle does not say how features of {name} were standardized")
        values = (values - torch.tensor(known["mean"])) * torch.tensor(known["scale"])
        if whitening is not None:
            values = (values.double() @ whitening).float()
        values[~present] = 0
    return values, present


@torch.inference_mode()
def vectors_of_new(
    recommender: Recommender, values: Mapping[str, Tensor], present: Mapping[str, Tensor]
) -> ItemVectors:
    """Project new items through the network itself.

    Their ID is the mean of used items whose content is most alike, as for items that are held out
    of training (:class:`.UntrainedItems`); without one it is zeros.

    Args:
        values: features by modality as the projector reads them, ``[n, d]``, zeros where missing.
        present: which items have the modality, ``[n]`` bool.
    """
    known, network = recommender.ranker.vectors, recommender.ranker.network
    n, width = len(next(iter(values.values()))), network.item_embedding.embedding_dim
    own: Any = copy.copy(network)
    own._modules = dict(network._modules)
    own.content = copy.copy(network.content)
    own.content._modules = {}
    never_missing = {}
    for name, content in network.content.items():
        changed: Any = copy.copy(content)
        changed._buffers = {"features": values[name], "is_missing": ~present[name]}
        own.content._modules[name] = changed
        never_missing[name] = not content.any_missing

    def vectors(ids: Tensor, scored_ids: Tensor) -> ItemVectors:
        own.item_embedding = torch.nn.Embedding.from_pretrained(ids)
        if network.score_embedding is not None:
            is_offset = network.config.score_ids == "offset"
            more = scored_ids - ids if is_offset else scored_ids
            own.score_embedding = torch.nn.Embedding.from_pretrained(more)
        made = own.item_vectors()
        sequence = dict(made.sequence)
        table = made.table.clone().view(n, len(network.modalities), width)
        for place, name in enumerate(network.content_modalities):
            if never_missing[name]:
                # Training never met an item without it, so the model has no vector for that.
                absent = ~present[name]
                typical = known.sequence[name][1:].float().mean(0)
                sequence[name] = torch.where(absent[:, None], typical, sequence[name])
                table[absent, place] = 0
        return ItemVectors(sequence, table.view(n, -1))

    no_ids = torch.zeros(n, width)
    without_ids = vectors(no_ids, no_ids).table[:, :-width]
    return vectors(*_lent_ids(recommender, values, without_ids))


def _lent_ids(
    recommender: Recommender, values: Mapping[str, Tensor], projected: Tensor
) -> tuple[Tensor, Tensor]:
    """Return new items' ID vectors for histories and for scores, ``[n, H]`` each.

    Where the bundle has no features, projected content stands for them.

    Args:
        values: features by modality.
        projected: the same as the model sees them, ``[n, M · H]``.
    """
    used = torch.from_numpy(np.flatnonzero(recommender.items.counts))
    features, known = recommender.bundle.features, recommender.ranker.vectors
    ids, scored_ids = known.sequence[ID], known.table[:, projected.shape[1] :]
    table = known.table[:, : projected.shape[1]]

    def of_unit_length(parts: Tensor) -> Tensor:
        return F.normalize(parts.float().unflatten(1, (-1, ids.shape[1])), dim=2).flatten(1)

    def of_features(parts: Mapping[str, Tensor]) -> Tensor:
        return torch.cat([F.normalize(parts[name].float(), dim=1) for name in features], 1)

    def of_model(items: Tensor) -> Tensor:
        return of_unit_length(table[items])

    def known_features(items: Tensor) -> Tensor:
        return of_features({name: rows[items] for name, rows in features.items()})

    if not len(used):
        none = torch.zeros(len(projected), ids.shape[1])
        return none, none
    own = of_unit_length(projected)
    alike = (of_features(values), known_features) if features else (own, of_model)
    whose, weights = lenders(*nearest(*alike, used, N_CANDIDATES), own, of_model)
    lent, lent_to_scores = (
        (weights[:, :, None] * of_trained[whose].float()).sum(1) for of_trained in (ids, scored_ids)
    )
    return lent, lent_to_scores


def _append(recommender: Recommender, new: ItemVectors) -> None:
    ranker = recommender.ranker
    dtype = ranker.vectors.table.dtype
    sequence = {name: rows.to(dtype) for name, rows in new.sequence.items()}
    table = new.table.to(dtype)
    if not all(bool(rows.isfinite().all()) for rows in (table, *sequence.values())):
        raise NewItemError("features are so large that the items' vectors are not finite")
    known = ranker.vectors
    vectors = ItemVectors(
        {name: torch.cat([rows, sequence[name]]) for name, rows in known.sequence.items()},
        torch.cat([known.table, table]),
    )
    if ranker.index is not None:
        ranker.index.add(len(ranker.vectors.table), new.table)
    ranker.vectors = vectors
    ranker.counts = torch.cat([ranker.counts, ranker.counts.new_zeros(len(new.table))])
