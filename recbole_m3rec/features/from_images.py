"""Features from image files."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from recbole_m3rec.cluster.pieces import THIS_PROCESS, Cluster, check_size
from recbole_m3rec.features.encoders.batches import EncoderError, encode_batches
from recbole_m3rec.features.encoders.image_files import ImageFileError, read_image
from recbole_m3rec.features.encoders.image_models import ImageEncoder
from recbole_m3rec.features.encoders.on_cluster import Encoder, encode_on
from recbole_m3rec.features.feature_table import FeatureTable
from recbole_m3rec.features.image_sources import ImageSourceError
from recbole_m3rec.support.hashing import sha256_of

MISSING = ("leave", "mean")
NO_IMAGE = "no image"

_BATCHES_AHEAD = 2


def make_image_features(
    modality: str,
    encoder: ImageEncoder,
    images: Mapping[str, Path],
    *,
    items: Collection[str] = (),
    missing: str = "leave",
    batch_size: int = 32,
    show_progress: bool = True,
    work: Path | None = None,
    digest: str = "",
    cluster: Cluster = THIS_PROCESS,
) -> tuple[FeatureTable, dict[str, str]]:
    """Decode and encode the images of items.

    Args:
        modality: named by the progress bar.
        encoder: from ``image_encoder``.
        images: file by item id.
        items: ids of all items, those without an image among them.
        missing: ``leave`` makes no row for an item without a usable image, ``mean`` the mean of the
            others' rows.
        batch_size: images at once.
        work: a folder for finished batches, from which a killed run goes on.
        digest: of the images where there is such a folder, if it is known already.
        cluster: where images are decoded and encoded.

    Returns:
        The features, rows in the order of the ids; and by item id why an item has no usable image.

    Raises:
        EncoderError: the encoder gives something else than a row of numbers for each image.
        ImageSourceError: none of the images can be used.
        OSError: a finished batch cannot be written.
    """
    ids = sorted(images)
    batches = [ids[start : start + batch_size] for start in range(0, len(ids), batch_size)]
    width = _width(encoder)

    def encode(left: Iterable[Sequence[str]]) -> Iterator[np.ndarray]:
        if cluster.is_remote:
            yield from _encoded_on(cluster, encoder, images, left)
            return
        for inputs in _prepared(encoder, images, left):
            yield _rows_of_usable(encoder, inputs, width)

    digest = digest or (images_digest(images) if work else "")
    key = {**encoder.key, "files": digest, "batch_size": batch_size}
    with tqdm(total=len(ids), desc=modality, unit="image", disable=not show_progress) as bar:
        values = encode_batches(batches, encode, key=key, work=work, progress=bar.update)
    finite = np.isfinite(values).all(axis=1)
    reasons = {
        item: _reason(encoder, images[item])
        for item, is_finite in zip(ids, finite, strict=True)
        if not is_finite
    }
    if not finite.any():
        first = next(iter(reasons), None)
        raise ImageSourceError(
            f"none of the {len(ids):,} images can be used"
            + (f", item {first!r}: {images[first]}: {reasons[first]}" if first else "")
        )
    reasons |= {item: NO_IMAGE for item in items if item not in images}
    tokens, rows = np.array(ids, dtype=object)[finite], values[finite]
    if missing == "mean" and reasons:
        mean = rows.mean(axis=0, dtype=np.float64).astype(np.float32)
        rows = np.concatenate([rows, np.tile(mean, (len(reasons), 1))])
        tokens = np.concatenate([tokens, np.array(list(reasons), dtype=object)])
        order = np.argsort(tokens.astype(str), kind="stable")
        tokens, rows = tokens[order], rows[order]
    return FeatureTable(tokens, rows, {}), dict(sorted(reasons.items()))


def images_digest(images: Mapping[str, Path]) -> str:
    """Identify images by the items' ids and their files' contents, wherever these lie."""
    digest = hashlib.sha256()
    for item in sorted(images):
        try:
            stamp = sha256_of(images[item])
        except OSError:
            stamp = "-"
        digest.update(f"{item}\0{stamp}\n".encode(errors="surrogatepass"))
    return digest.hexdigest()


def _prepared(
    encoder: ImageEncoder, images: Mapping[str, Path], left: Iterable[Sequence[str]]
) -> Iterator[list[Any]]:
    """Yield the model's inputs batch by batch, None for an unusable image; threads read ahead."""
    waiting: deque[list[Future[Any]]] = deque()
    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))

    try:
        for batch in left:
            waiting.append([pool.submit(_input, encoder, images[item]) for item in batch])
            if len(waiting) > _BATCHES_AHEAD:
                yield [future.result() for future in waiting.popleft()]
        while waiting:
            yield [future.result() for future in waiting.popleft()]
    finally:
        pool.shutdown(cancel_futures=True)


def _input(encoder: ImageEncoder, path: Path) -> Any:
    try:
        return encoder.prepare(read_image(path))
    except (ImageFileError, OSError, ValueError):
        return None  # _reason finds out why


def _rows_of_usable(encoder: ImageEncoder, inputs: list[Any], width: int) -> np.ndarray:
    """Encode a batch, NaN where an image is unusable."""
    usable = [place for place, image in enumerate(inputs) if image is not None]
    rows = np.full((len(inputs), width), np.nan, dtype=np.float32)
    if usable:
        made = _rows(encoder, [inputs[place] for place in usable])
        if made.shape[1] != width:
            raise EncoderError(
                f"the encoder gave rows of {made.shape[1]} numbers for {len(usable)} images, but of"
                f" {width} for a white one of 64 x 64. Rows must be of one length"
            )
        rows[usable] = made
    return rows


def _load(name: str, load: partial[ImageEncoder]) -> Encoder:
    """Load an encoder of files on a worker of a cluster."""
    encoder = load()
    width = _width(encoder)

    def encode(files: Sequence[tuple[Path, int] | None]) -> np.ndarray:
        for path, size in filter(None, files):  # what the other machine can read
            check_size(path, size)
            path.open("rb").close()
        inputs = [each and _input(encoder, each[0]) for each in files]
        return _rows_of_usable(encoder, inputs, width)

    return Encoder(encoder.key, encode)


def _encoded_on(
    cluster: Cluster,
    encoder: ImageEncoder,
    images: Mapping[str, Path],
    left: Iterable[Sequence[str]],
) -> Iterator[np.ndarray]:
    if encoder.load is None:
        raise EncoderError("an encoder of this process alone cannot run on a cluster; give a name")
    files = ([_readable(images[item]) for item in batch] for batch in left)
    load = partial(_load, encoder.load.args[0], encoder.load)
    return encode_on(cluster, load, encoder.key, files)


def _readable(path: Path) -> tuple[Path, int] | None:
    """Return a file's full path and size, None where this process cannot read it."""
    is_readable = path.is_file() and os.access(path, os.R_OK)
    return (path.resolve(), path.stat().st_size) if is_readable else None


def _rows(encoder: ImageEncoder, inputs: list[Any]) -> np.ndarray:
    rows = np.asarray(encoder.encode(inputs))
    if rows.ndim != 2 or len(rows) != len(inputs):
        raise EncoderError(
            f"the encoder gave numbers of shape {list(rows.shape)} for {len(inputs)} images,"
            f" expected [{len(inputs)}, dimensions]"
        )
    return rows


def _width(encoder: ImageEncoder) -> int:
    """Return the length of the encoder's rows, of which a batch of bad images tells nothing."""
    from PIL import Image

    return _rows(encoder, [encoder.prepare(Image.new("RGB", (64, 64), "white"))]).shape[1]


def _reason(encoder: ImageEncoder, path: Path) -> str:
    """Say why an image could not be used."""
    try:
        encoder.prepare(read_image(path))
    except FileNotFoundError:
        return "there is no such file"
    except OSError as error:
        return f"the file cannot be read ({error.strerror})"
    except ValueError as error:
        return str(error).split("\n")[0]
    return "the encoder gave numbers that are not finite"
