"""Features from the text columns of an ``.item`` file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tqdm import tqdm

from recbole_m3rec.atomic.item_file import ItemFile
from recbole_m3rec.cluster.pieces import THIS_PROCESS, Cluster
from recbole_m3rec.features.encoders import encode_texts
from recbole_m3rec.features.encoders.text_fields import join_fields
from recbole_m3rec.features.feature_table import FeatureTable
from recbole_m3rec.features.recipe_config import Recipe, RecipeError
from recbole_m3rec.support.hashing import sha256_of


def make_text_features(
    modality: str,
    recipe: Recipe,
    item_file: ItemFile,
    *,
    show_progress: bool = True,
    work: Path | None = None,
    device: str = "auto",
    key: str | None = None,
    cluster: Cluster = THIS_PROCESS,
) -> tuple[FeatureTable, int]:
    """Encode the items of an ``.item`` file by a recipe.

    Args:
        modality: named by the progress bar.
        recipe: of a text encoder.
        work: a folder for finished batches, from which a killed run goes on.
        device: ``auto`` or a device's name.
        cluster: where a pretrained model encodes.
        key: what errors of the encoder begin with; None is the recipe's key in the configuration.

    Returns:
        A row for each item that the encoder can say something about, in the order of the ids,
        whatever that of the lines; and the number of items in the file.

    Raises:
        FileNotFoundError: there is no such ``.item`` file.
        AtomicFileError: it cannot be read.
        RecipeError: the encoder cannot follow the recipe.
        OSError: a finished batch cannot be written.
    """
    digest = sha256_of(item_file.path) if item_file.path.is_file() else ""  # before it may change
    tokens, texts = read_item_texts(item_file, recipe)
    has_text = np.array([bool(text) for text in texts], dtype=bool)
    written = list(filter(None, texts))
    bar = tqdm(
        total=len(written),
        desc=f"{modality}: {recipe.encoder.partition(':')[0]}",
        unit="item",
        disable=not show_progress,
    )
    model: dict[str, str] = {}
    try:
        with bar:
            values = encode_texts(
                recipe.encoder,
                written,
                recipe.options,
                work=work,
                device=device,
                progress=bar.update,
                note=model.update,
                cluster=cluster,
            )
    except ValueError as error:
        raise RecipeError(f"{key or f'features.{modality}'}: {error}") from error
    says_something = values.any(axis=1)
    metadata = {
        "encoder": recipe.encoder,
        "fields": list(recipe.fields),
        "keep_html": recipe.keep_html,
        "options": dict(recipe.options),
        "item_file_sha256": digest,
        **model,
    }
    ids = np.array(tokens, dtype=object)[has_text][says_something]
    return FeatureTable(ids, values[says_something], metadata), len(tokens)


def read_item_texts(item_file: ItemFile, recipe: Recipe) -> tuple[list[str], list[str]]:
    """Read the items' tokens, sorted, and a clean text of the recipe's fields for each.

    Raises:
        FileNotFoundError: there is no such ``.item`` file.
        AtomicFileError: it cannot be read.
    """
    ids, columns = item_file.read(recipe.fields)
    order = sorted(range(len(ids)), key=ids.__getitem__)
    in_order = [[column[row] for row in order] for column in columns]
    texts = join_fields(in_order, keep_html=recipe.keep_html)
    return [ids[row] for row in order], texts


def work_folder(path: Path) -> Path:
    """Return the folder where the finished batches of a feature file are kept until it is whole."""
    return path.with_name(f".{path.name}.work")
