"""Where each modality comes from: a feature file, or a recipe that makes one."""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from recbole_m3rec.atomic.item_file import ItemFile
from recbole_m3rec.features.encoders import RANDOM_CODES, random_codes
from recbole_m3rec.features.feature_file import (
    FORMATS,
    IDS_BESIDE,
    FeatureTable,
    features_digest,
    read_features,
    read_metadata,
    write_features,
)
from recbole_m3rec.features.from_text import make_text_features, work_folder
from recbole_m3rec.features.recipe_config import (
    Recipe,
    RecipeError,
    fault_of_modality,
    parse_recipes,
)
from recbole_m3rec.features.safe_read import check_is_file
from recbole_m3rec.support.hashing import sha256_of
from recbole_m3rec.support.suggestions import did_you_mean

_logger = logging.getLogger(__name__)


class ModalityError(ValueError):
    """The content modalities asked for cannot be met."""


@dataclass(frozen=True)
class ModalitySource:
    """Where the features of a modality come from.

    ``path`` alone is a file to read as it is; ``path`` and ``recipe`` are a file to make where it
    is not there or out of date; ``recipe`` alone is never stored.
    """

    modality: str
    path: Path | None
    recipe: Recipe | None

    def __post_init__(self) -> None:
        if self.path is None and self.recipe is None:
            raise ValueError(f"{self.modality}: a source needs a file or a recipe")

    def __str__(self) -> str:
        return str(self.recipe) if self.recipe is not None else str(self.path)


def resolve_modalities(
    modalities: Any, dataset: str, feature_path: Path, features: Mapping[str, Any] | None
) -> tuple[ModalitySource, ...]:
    """Find the source of each content modality, reading no features yet.

    Random codes win over any file, a file the user brought over any other recipe.

    Args:
        modalities: ``"auto"``, every modality with a file or a recipe; or a list of names, also
            written as ``"[text]"`` or ``"text,image"``; ``[]`` is none.
        dataset: its name; files are called ``<dataset>.<modality>.<format>``.
        feature_path: the folder of the files; need not exist.
        features: recipes by modality; one that is None is left out.

    Returns:
        Sources in alphabetical order for ``"auto"``, in the order listed otherwise.

    Raises:
        ModalityError: nothing found for ``"auto"`` or for a listed modality, a name that is not
            allowed, or two files the user brought for one modality.
        RecipeError: a recipe cannot be followed.
        FeatureFileError: what would be used is no file, or a Parquet file that cannot be read.
        FileNotFoundError: it is a link that leads nowhere.
    """
    recipes = parse_recipes(features)
    files = files_by_modality(dataset, feature_path)
    available = sorted({*recipes, *files})
    listed = _listed_modalities(modalities)
    if listed is None and not available:
        raise ModalityError(
            f"modalities: auto found neither a file {dataset}.<modality>.parquet in {feature_path}"
            " nor a recipe under features:. Add one of them, set feature_path, or train without"
            " content by modalities: []"
        )
    for modality in listed or []:
        if modality not in available:
            raise ModalityError(
                f"modalities: {modality} has neither a file {dataset}.{modality}.<format>"
                f" ({', '.join(FORMATS)}) in {feature_path} nor a recipe under features:. There is "
                f"{', '.join(available) or 'no other modality'}."
                + did_you_mean(modality, available)
            )
    return tuple(
        _source(
            modality,
            files.get(modality, []),
            recipes.get(modality),
            made=feature_path / f"{dataset}.{modality}.parquet",
        )
        for modality in (available if listed is None else listed)
    )


def load_or_build(
    source: ModalitySource,
    item_file: ItemFile,
    *,
    tokens: Collection[str] = (),
    seed: int = 0,
    show_progress: bool = True,
) -> FeatureTable:
    """Read the features of a source, making them first where its recipe says so.

    A file made from another recipe or from another ``.item`` file is made again. All items of the
    ``.item`` file are encoded; those about which it says nothing are left out, hence missing.

    Args:
        source: from ``resolve_modalities``.
        item_file: read only if there is something to make.
        tokens: all item tokens of the dataset, ``"[PAD]"`` among them; for random codes alone.
        seed: for random codes alone.
        show_progress: whether a progress bar is shown while features are made.

    Raises:
        FileNotFoundError: the ``.item`` file or the file of the source is not there.
        ValueError: a file or an option of the recipe is not what it has to be.
        OSError: the file cannot be written.
    """
    recipe, path = source.recipe, source.path
    if recipe is not None and recipe.encoder == RANDOM_CODES:
        if len(tokens) == 0:
            raise ValueError(f"{source.modality}: random codes need the tokens of the dataset")
        try:
            ids, codes = random_codes(tokens, seed=seed, name=source.modality, **recipe.options)
        except ValueError as error:
            raise RecipeError(f"features.{source.modality}: {error}") from error
        return FeatureTable(np.array(ids, object), codes, {"recipe": recipe.as_metadata()})
    assert path is not None  # only random codes have none
    make_if_out_of_date(source, item_file, show_progress)
    return read_features(path)


def make_if_out_of_date(
    source: ModalitySource, item_file: ItemFile, show_progress: bool = True
) -> None:
    """Make the file of a source whose recipe says so; arguments as of :func:`load_or_build`."""
    recipe, path, name = source.recipe, source.path, source.modality
    if recipe is None or path is None:
        return
    reason = _reason_to_make(path, recipe, item_file.path)
    if reason:
        _logger.info("%s: making %s by %s, %s", name, path, recipe, reason)
        work = work_folder(path)
        table, n_items = make_text_features(
            name, recipe, item_file, show_progress=show_progress, work=work
        )
        table.metadata["recipe"] = recipe.as_metadata()
        write_features(path, table)
        shutil.rmtree(work, ignore_errors=True)
        _logger.info(f"{name}: made {path}, {len(table.item_ids):,} of {n_items:,} items")


def digest(source: ModalitySource, item_file: Path | None = None, seed: int | None = None) -> str:
    """Identify what a source yields, without reading features: SHA-256, hex.

    Args:
        source: its file's content counts, or where there is a recipe, that.
        item_file: counts where there is a recipe, if given and there.
        seed: counts for random codes, if given.
    """
    if source.recipe is None:
        assert source.path is not None
        return features_digest(source.path)
    parts: dict[str, Any] = {"modality": source.modality, "recipe": source.recipe.as_metadata()}
    if source.recipe.encoder == RANDOM_CODES:
        parts["seed"] = seed
    elif item_file is not None and item_file.is_file():
        parts["item_file"] = sha256_of(item_file)
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _listed_modalities(modalities: Any) -> list[str] | None:
    """Return the names listed, or None for ``"auto"``."""
    if isinstance(modalities, str):
        modalities = [name.strip(" '\"") for name in modalities.strip(" []").split(",")]
        modalities = [name for name in modalities if name]
        if modalities == ["auto"]:
            return None
    if not isinstance(modalities, list | tuple):
        raise ModalityError(
            f"modalities: expected auto, a list of names, or [] for none, found {modalities!r}"
        )
    for name in modalities:
        if name in ("id", "auto"):
            why = "is always part of the model" if name == "id" else "stands alone, not in a list"
            raise ModalityError(f"modalities: {name} {why}. Leave it out")
        fault = fault_of_modality(name)
        if fault is not None:
            raise ModalityError(f"modalities: {name!r} {fault}")
    if len(set(modalities)) < len(modalities):
        raise ModalityError(f"modalities: each name once, found {', '.join(modalities)}")
    return list(modalities)


def files_by_modality(dataset: str, feature_path: Path) -> dict[str, list[Path]]:
    """Find the feature files of a dataset, by modality."""
    by_modality: dict[str, list[Path]] = {}
    for path in sorted(feature_path.iterdir()) if feature_path.is_dir() else []:
        if path.name.endswith(IDS_BESIDE):
            continue
        modality = path.name.removeprefix(f"{dataset}.").removesuffix(path.suffix)
        is_feature_file = (
            path.name == f"{dataset}.{modality}{path.suffix}" and path.suffix in FORMATS
        )
        fault = fault_of_modality(modality) if is_feature_file else None
        if is_feature_file and fault is None:
            by_modality.setdefault(modality, []).append(path)
        elif fault is not None:
            _tell_once(f"{path} is no feature file: {modality!r} {fault}")
    return by_modality


def _source(modality: str, files: list[Path], recipe: Recipe | None, made: Path) -> ModalitySource:
    if recipe is not None and recipe.encoder == RANDOM_CODES:
        return ModalitySource(modality, None, recipe)
    for path in files:
        check_is_file(path, "feature file")
    users_files = [path for path in files if "recipe" not in read_metadata(path)]
    if len(users_files) > 1:
        raise ModalityError(
            f"modalities: {modality} has several files, "
            f"{', '.join(map(str, users_files))}. Keep one"
        )
    if users_files:
        if recipe is not None:
            _tell_once(f"{modality}: {users_files[0]} wins over the recipe {recipe}")
        return ModalitySource(modality, users_files[0], None)
    return ModalitySource(modality, made, recipe)


@functools.cache  # a comparison resolves the sources of every run
def _tell_once(message: str) -> None:
    _logger.info(message)


def _reason_to_make(path: Path, recipe: Recipe, item_file: Path) -> str:
    """Say why the file has to be made, or ``""`` where it can be used as it is."""
    if not path.is_file():
        return "which is not there yet"
    metadata = read_metadata(path)
    if "recipe" not in metadata:
        return ""  # brought by the user since the modalities were resolved
    if metadata["recipe"] != recipe.as_metadata():
        return "whose recipe has changed"
    if not item_file.is_file():
        _logger.warning("%s: cannot be compared with its source, %s is gone", path, item_file)
        return ""
    return (
        "" if metadata.get("item_file_sha256") == sha256_of(item_file) else f"{item_file} changed"
    )
