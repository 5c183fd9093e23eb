"""The encoders of a bundle: texts by what training learned, pictures by the encoder's name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from recbole_m3rec.features.encoders import encode_texts
from recbole_m3rec.features.encoders.batches import EncoderError
from recbole_m3rec.features.encoders.image_models import image_encoder, is_pretrained
from recbole_m3rec.features.encoders.text_fields import join_fields
from recbole_m3rec.features.encoders.tfidf_svd import FittedTfidfSvd
from recbole_m3rec.features.from_images import make_image_features
from recbole_m3rec.features.image_sources import ImageSourceError

if TYPE_CHECKING:
    import pandas as pd

    from recbole_m3rec.serving.recommender import Recommender

TFIDF = "tfidf-svd"
PICTURES = "image_file"  # the column of pictures' paths


def as_tensors(modality: str, fitted: FittedTfidfSvd) -> dict[str, Tensor]:
    """Return what a fitted encoder knows as tensors; terms as UTF-8, a line each."""
    terms = np.frombuffer("\n".join(fitted.terms).encode(), dtype=np.uint8).copy()
    return {
        f"{modality}.terms": torch.from_numpy(terms),
        f"{modality}.idf": torch.from_numpy(fitted.idf),
        f"{modality}.directions": torch.from_numpy(np.ascontiguousarray(fitted.directions)),
    }


def from_tensors(
    modality: str, tensors: Mapping[str, Tensor], options: Mapping[str, Any]
) -> FittedTfidfSvd:
    """Return the fitted encoder of :func:`as_tensors`."""
    terms = tensors[f"{modality}.terms"].numpy().tobytes().decode().split("\n")
    return FittedTfidfSvd(
        tuple(terms),
        tensors[f"{modality}.idf"].numpy(),
        tensors[f"{modality}.directions"].numpy(),
        int(options["max_ngram"]),
        bool(options["unit_rows"]),
    )


def encode_text(recommender: Recommender, modality: str, items: pd.DataFrame) -> np.ndarray | None:
    """Make features of a modality from the columns that its recipe reads.

    Returns:
        ``[n, d]`` float32, NaN where nothing can be said; None where the bundle has no recipe of
        the modality, or the frame none of its columns.
    """
    recipe = recommender.about["features"].get(modality, {}).get("recipe")
    if not recipe:
        return None
    fields = [field for field in recipe["fields"] if field in items.columns]
    if not fields:
        return None
    columns = [texts_of(items[field]) for field in fields]
    texts = join_fields(columns, keep_html=bool(recipe.get("keep_html", False)))
    encoders = recommender.bundle.encoders
    if recipe["encoder"] == TFIDF:
        if f"{modality}.terms" not in encoders:
            return None
        values = from_tensors(modality, encoders, recipe["options"]).encode(texts)
    else:
        values = encode_texts(recipe["encoder"], texts, recipe["options"])
    values = np.array(values, dtype=np.float32)
    values[~values.any(axis=1)] = np.nan
    return values


def ways_to_features(recommender: Recommender, items: pd.DataFrame) -> str:
    """Say how each modality of items without any is made, and which columns there are for it."""
    ways = []
    for name in recommender.ranker.network.content_modalities:
        known = recommender.about["features"].get(name, {})
        recipe = known.get("recipe")
        by_hand = f"{name} is given by features={{{name!r}: …}}, as the bundle has no encoder"
        if known.get("images"):
            ways.append(f"{name} is made from the picture files in the column {PICTURES}")
        elif not recipe:
            ways.append(by_hand)
        else:
            columns = f"of the columns {', '.join(recipe['fields'])}"
            is_lost = (
                recipe["encoder"] == TFIDF and f"{name}.terms" not in recommender.bundle.encoders
            )
            said = (
                any(texts_of(items[each])) for each in recipe["fields"] if each in items.columns
            )
            unknown = ", none of whose words was in training" if any(said) else ""
            ways.append(f"{by_hand} {columns}" if is_lost else f"{name} is made {columns}{unknown}")
    there = ", ".join(map(str, items.columns))
    return f"{'; '.join(ways) or 'The model has no content modality'}. The columns are {there}"


def encode_images(
    recommender: Recommender, modality: str, items: pd.DataFrame, named: Mapping[str, str]
) -> np.ndarray | None:
    """Make features of a modality from the picture files in the column ``image_file``.

    Args:
        recommender: whose bundle says which encoder.
        items: ``item_id``, and ``image_file``, empty for an item without a picture.
        named: the caller's own encoders by modality. A bundle may come from a stranger, so a
            ``module:callable`` is not imported unless the caller names it, too.

    Returns:
        ``[n, d]`` float32, NaN where there is no picture; None where the bundle has no encoder of
        pictures for the modality, or the frame no picture.

    Raises:
        EncoderError: the encoder is not there, is another than the caller named or was not named,
            or a file is no picture.
    """
    recipe = recommender.about["features"].get(modality, {}).get("images")
    if not recipe or PICTURES not in items.columns:
        return None
    name = str(recipe["encoder"])
    own = named.get(modality, name if is_pretrained(name) else None)
    if own != name:
        raise EncoderError(
            f"pictures of {modality} were encoded by {name}, "
            + (f"found {own}. Name that one" if own else "which is code that the bundle only names")
            + f". If you trust it, give encoders={{{modality!r}: {name!r}}}"
        )
    import pandas as pd

    files = zip(items["item_id"].astype(str), texts_of(items[PICTURES]), strict=True)
    images = {item: Path(file) for item, file in files if file}
    if not images:
        return None
    encoder = image_encoder(name, precision=recipe["precision"])
    then = recipe.get("encoder_parts", {})
    for part in ("source", "weights"):  # settings are told otherwise by other library versions
        if part in then and then[part] != encoder.parts.get(part):
            raise EncoderError(
                f"pictures of {modality}: the {part} of {name} is not that of training's features."
                " Use that one, or encode, train and export again"
            )
    size = int(recipe["batch_size"])
    try:
        table, reasons = make_image_features(
            modality, encoder, images, batch_size=size, show_progress=False
        )
    except ImageSourceError as error:
        raise EncoderError(f"{modality}: {error}") from error
    for item, reason in reasons.items():
        raise EncoderError(f"item {item!r}: {images[item]}: {reason}")
    made = pd.DataFrame(table.values, index=table.item_ids)
    return made.reindex(items["item_id"].astype(str)).to_numpy()


def texts_of(column: pd.Series) -> list[str]:
    """Return what a column of a frame holds as texts, empty ones where a value is missing."""
    values = zip(column.tolist(), column.isna(), strict=True)
    return ["" if is_missing else str(value) for value, is_missing in values]
