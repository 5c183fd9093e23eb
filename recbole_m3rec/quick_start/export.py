"""From a checkpoint of RecBole to a bundle that needs neither RecBole nor the data."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from recbole_m3rec.atomic.item_file import ItemFile
from recbole_m3rec.baselines.item_columns import item_file
from recbole_m3rec.config.keys import PROTOCOL
from recbole_m3rec.data.dataset import modality_sources
from recbole_m3rec.features.align import half_whitening
from recbole_m3rec.features.encoders.tfidf_svd import fit_tfidf_svd
from recbole_m3rec.features.feature_file import read_features, read_metadata
from recbole_m3rec.features.from_text import read_item_texts
from recbole_m3rec.features.recipe_config import Recipe, RecipeError, parse_recipe
from recbole_m3rec.features.recipes import ModalitySource
from recbole_m3rec.model.m3rec import SETTINGS, M3Rec
from recbole_m3rec.quick_start.checkpoints import Checkpoint, load_run, metrics
from recbole_m3rec.quick_start.recommend import Histories
from recbole_m3rec.serving.bundle.encoders import TFIDF, as_tensors
from recbole_m3rec.serving.bundle.write import check_target, write_bundle
from recbole_m3rec.serving.catalogue import as_shown, columns_shown
from recbole_m3rec.serving.scoring.index import LARGE, build_index
from recbole_m3rec.support.hashing import sha256_of

ABOUT = (*PROTOCOL, "loss_type", "train_positions", "metrics", "topk", "seed", "feature_norm")
_logger = logging.getLogger(__name__)


class ExportError(ValueError):
    """A checkpoint that no bundle can be made of."""


def export_checkpoint(
    run: Checkpoint, folder: Path, *, precision: str = "float32", with_histories: bool = False
) -> str:
    """Write the bundle of a checkpoint, with its metrics computed anew.

    Args:
        run: of M3Rec or Mamba4Rec.
        folder: where; a bundle that is there is replaced.
        precision: of the item vectors, ``float32`` or ``float16``.
        with_histories: whether users' histories go along.

    Returns:
        The bundle's digest.

    Raises:
        ExportError: a checkpoint of another model, or of ready-made splits.
        BundleError: something else than a bundle is at ``folder``.
        CannotWriteError: it cannot be written; nothing is left there.
    """
    check_target(folder)
    config, model, dataset, loaders, interactions = load_run(run)
    if not isinstance(model, M3Rec):
        raise ExportError(
            f"{run.path} is of {run.model}; bundles are made of M3Rec and Mamba4Rec. --topk writes "
            "recommendations of any model"
        )
    if config["benchmark_filename"]:
        raise ExportError(
            "the dataset is given as ready-made splits (benchmark_filename), from which no "
            "histories can be read"
        )
    results = metrics(config, model, loaders, show_progress=False)
    network = model.network.cpu().eval()
    histories = Histories(interactions, dataset)
    features, encoders = _features(config, dataset)
    settings = {name: config[name] for name in SETTINGS if config[name] is not None}
    about: dict[str, Any] = {
        "model": run.model,
        "dataset": run.dataset,
        "epoch": run.epoch,
        "max_history": int(config["MAX_ITEM_LIST_LENGTH"]),
        "protocol": {key: config[key] for key in ABOUT if config[key] is not None},
        "metrics": {
            name: {key: float(value) for key, value in result.items()}
            for name, result in results.items()
        },
        "features": features,
    }
    index: Mapping[str, Tensor] = {}
    if dataset.item_num > LARGE:
        index, about["index"] = _index(model, histories, config)
    return write_bundle(
        folder,
        network,
        {**settings, "scan_backend": "auto"},
        _items(config, dataset, histories, network),
        about=about,
        precision=precision,
        histories=_history_table(dataset, histories) if with_histories else None,
        index=index,
        encoders=encoders,
    )


def _items(config: Any, dataset: Any, histories: Histories, network: Any) -> pa.Table:
    """Return a row per item in the order of internal ids, padding left out."""
    tokens = [str(token) for token in dataset.field2id_token[dataset.iid_field][1:]]
    used = histories.rows[dataset.iid_field].to_numpy()
    counts = np.bincount(used, minlength=len(tokens) + 1)
    if (held_out := getattr(dataset, "cold_items", None)) is not None:
        counts[held_out.numpy()] = 0  # the model has not seen them used
    columns: dict[str, Any] = {
        "item_id": pa.array(tokens, pa.string()),
        "count": counts[1:].astype(np.int64),
        **_shown(config, tokens),
    }
    for name, content in network.content.items():
        columns[f"has_{name}"] = ~content.is_missing[1:].cpu().numpy()
    return pa.table(columns)


def _shown(config: Any, tokens: list[str]) -> dict[str, pa.Array]:
    """Return the columns of the ``.item`` file that people are shown."""
    file = item_file(config)
    if not file.path.is_file():
        return {}
    chosen = columns_shown(file.types())
    if not chosen:
        return {}
    ids, columns = file.read(list(chosen.values()))
    row_of = {item: row for row, item in enumerate(ids)}
    rows = [row_of.get(token) for token in tokens]
    read = [as_shown(shown, column) for shown, column in zip(chosen, columns, strict=True)]
    return {
        shown: pa.array([None if row is None else texts[row] for row in rows], pa.string())
        for shown, texts in zip(chosen, read, strict=True)
    }


def _history_table(dataset: Any, histories: Histories) -> pa.Table:
    users = dataset.id2token(dataset.uid_field, histories.users)
    items = dataset.id2token(dataset.iid_field, histories.rows[dataset.iid_field].to_numpy())
    offsets = np.concatenate([[0], np.cumsum(histories.counts)])
    lists = pa.ListArray.from_arrays(
        pa.array(offsets, pa.int32()), pa.array([str(item) for item in items], pa.string())
    )
    return pa.table({"user_id": pa.array([str(u) for u in users], pa.string()), "item_ids": lists})


def _features(config: Any, dataset: Any) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return how features are made, by modality, and what text encoders learned."""
    about: dict[str, Any] = {}
    encoders: dict[str, Tensor] = {}
    norm = config["feature_norm"] or "none"
    for source in modality_sources(config):
        name = source.modality
        about[name] = {"norm": norm}
        if source.path is None or config["feature_rows"] not in (None, "own"):
            continue  # random or shuffled features say nothing about further items
        metadata = read_metadata(source.path) if source.recipe is None else {}
        if not metadata.keys().isdisjoint(("images_sha256", "image_contents_sha256")):
            about[name]["images"] = {
                key: metadata[key]
                for key in ("encoder", "precision", "batch_size", "encoder_parts")
                if key in metadata
            }
        recipe = source.recipe or _recipe_of(name, metadata)
        if norm in ("standardize", "whiten"):
            rows = _rows_of_dataset(dataset, source)
            mean, scale = _standard(rows)
            about[name] |= {"mean": mean.tolist(), "scale": scale.tolist()}
        if norm == "whiten":
            standard = ((rows - mean) * scale).astype(np.float32)
            encoders[f"{name}.whitening"] = torch.from_numpy(half_whitening([standard]))
        if recipe is not None and recipe.encoder == TFIDF:
            encoders |= _fitted(config, source, recipe)
        if recipe is not None:
            about[name]["recipe"] = recipe.as_metadata()
    return about, encoders


def _recipe_of(modality: str, metadata: Mapping[str, Any]) -> Recipe | None:
    """Return how a feature file says that it was made from text, by ``encode text`` or training."""
    told = metadata.get("recipe", metadata)
    if not isinstance(told, Mapping) or not isinstance(told.get("options"), Mapping):
        return None
    given = {key: told[key] for key in ("encoder", "fields", "keep_html") if key in told}
    try:
        return parse_recipe(modality, {**told["options"], **given})
    except RecipeError as error:
        _logger.warning("items cannot be added from text, as its file tells no recipe: %s", error)
        return None


def _rows_of_dataset(dataset: Any, source: ModalitySource) -> np.ndarray:
    table = read_features(Path(str(source.path)))
    tokens = set(dataset.field2id_token[dataset.iid_field][1:])
    rows: np.ndarray = table.values[[item in tokens for item in table.item_ids]].astype(np.float64)
    return rows


def _standard(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean of each column and what its distance from it is multiplied by."""
    deviation = rows.std(axis=0)
    scale = np.divide(1, deviation, out=np.zeros_like(deviation), where=deviation > 0)
    return rows.mean(axis=0), scale


def _fitted(config: Any, source: ModalitySource, recipe: Recipe) -> dict[str, Tensor]:
    """Fit the text encoder again, and keep it if it makes the features that the model knows."""
    if source.path is None or (file := _item_file_of(config, source.path)) is None:
        return {}
    tokens, texts = read_item_texts(file, recipe)
    filled = [(token, text) for token, text in zip(tokens, texts, strict=True) if text]
    fitted, values = fit_tfidf_svd([text for _, text in filled], **recipe.options)
    is_present = values.any(axis=1)
    table = read_features(source.path)
    ids = np.array([token for token, _ in filled], dtype=object)[is_present]
    if not np.array_equal(ids, table.item_ids) or not np.allclose(values[is_present], table.values):
        _logger.warning(
            "%s: the .item file has changed since %s was made, so items cannot be added from text",
            source.modality,
            source.path,
        )
        return {}
    return as_tensors(source.modality, fitted)


def _item_file_of(config: Any, features: Path) -> ItemFile | None:
    """Return the ``.item`` file of features: the dataset's or, if they are of that, one beside."""
    own = item_file(config)
    beside = replace(own, path=features.with_name(own.path.name))
    there = [file for file in (own, beside) if file.path.is_file()]
    noted = read_metadata(features).get("item_file_sha256")
    same = (file for file in there if sha256_of(file.path) == noted)
    return next(same, there[0] if there else None)


@torch.no_grad()
def _index(model: M3Rec, histories: Histories, config: Any) -> tuple[Any, dict[str, Any]]:
    from recbole_m3rec.network.packed import pack

    some = slice(0, 256)
    rows, lengths = histories.latest(some, config["MAX_ITEM_LIST_LENGTH"])
    items = histories.rows[histories.item_field].to_numpy()
    padded = torch.from_numpy(np.where(rows >= 0, items[rows], 0)).long()
    vectors = model.network.item_vectors()
    packed = pack(padded, torch.from_numpy(lengths).long())
    return build_index(vectors.table, model.network.encode(packed, vectors))
