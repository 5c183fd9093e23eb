"""The image encoders of a bundle, by name: pictures of items that are added later."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from recbole_m3rec.features.encoders.batches import EncoderError
from recbole_m3rec.features.encoders.image_models import image_encoder, is_pretrained
from recbole_m3rec.features.from_images import make_image_features
from recbole_m3rec.serving.bundle.text_encoders import texts_of

if TYPE_CHECKING:
    import pandas as pd

    from recbole_m3rec.serving.recommender import Recommender

COLUMN = "image_file"


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
    if not recipe or COLUMN not in items.columns:
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

    files = zip(items["item_id"].astype(str), texts_of(items[COLUMN]), strict=True)
    images = {item: Path(file) for item, file in files if file}
    if not images:
        return None
    encoder = image_encoder(name, precision=recipe["precision"])
    size = int(recipe["batch_size"])
    table, reasons = make_image_features(
        modality, encoder, images, batch_size=size, show_progress=False
    )
    for item, reason in reasons.items():
        raise EncoderError(f"item {item!r}: {images[item]}: {reason}")
    made = pd.DataFrame(table.values, index=table.item_ids)
    return made.reindex(items["item_id"].astype(str)).to_numpy()
