"""Write a bundle, whole or not at all."""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor
from torch.linalg import vector_norm

from recbole_m3rec import __version__
from recbole_m3rec.network.item_encoder import ContentModality
from recbole_m3rec.network.m3rec import M3RecNetwork
from recbole_m3rec.serving.bundle.files import (
    ABOUT,
    ENCODERS,
    FEATURES,
    HISTORIES,
    INDEX,
    ITEMS,
    VECTORS,
    WEIGHTS,
    BundleError,
)
from recbole_m3rec.serving.bundle.read import FORMAT_NUMBER, PER_ITEM, seal
from recbole_m3rec.support.hashing import sha256_of
from recbole_m3rec.support.safe_write import CannotWriteError, NewFile

FORMAT = "recbole_m3rec bundle"
PRECISIONS = {"float32": torch.float32, "float16": torch.float16}
# The part of a vector's largest number by which float16 may change it; rounding takes .0005.
LOST = 0.01
LIBRARIES = ("torch", "safetensors", "pyarrow", "numpy")


def write_bundle(
    folder: Path,
    network: M3RecNetwork,
    settings: Mapping[str, Any],
    items: pa.Table,
    *,
    about: Mapping[str, Any],
    precision: str = "float32",
    histories: pa.Table | None = None,
    index: Mapping[str, Tensor] | None = None,
    encoders: Mapping[str, Tensor] | None = None,
) -> str:
    """Write a bundle under a temporary name, then let it take its place.

    What a killed export left beside the place is removed.

    Args:
        folder: where; a bundle that is there is replaced, anything else is not.
        network: trained, with its features.
        settings: what the network was built with, as JSON can hold it.
        items: a row per item but padding, in the order of the network's item numbers: ``item_id``
            (string), ``count`` (int64) and what is to be shown.
        about: more for ``model.json``: ``max_history``, protocol, metrics, recipes.
        precision: of the item vectors, ``float32`` or ``float16``.
        histories: ``user_id`` (string), ``item_ids`` (list of string), oldest first.
        index: tensors of the approximate index.
        encoders: tensors of the text encoders.

    Returns:
        The bundle's digest.

    Raises:
        BundleError: something else is at ``folder``, two items have one id, or ``precision`` cannot
            hold an item's vector.
        CannotWriteError: it cannot be written, e.g. for a full disk; nothing is left.
        FileInUseError: another run writes it.
    """
    folder = Path(os.path.abspath(folder))
    check_target(folder)
    if len(set(items["item_id"].to_pylist())) != items.num_rows:
        raise BundleError(f"{folder}: items must have ids of their own, found some twice")
    temporary = folder.with_name(f".{folder.name}.new")
    lock = NewFile(folder.with_name(f"{folder.name}.lock"), named=folder)
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        network = network.eval()
        save_file(_weights(network), temporary / WEIGHTS)
        vectors = _vectors(network, PRECISIONS[precision], items["item_id"])
        save_file(vectors, temporary / VECTORS)
        pq.write_table(items, temporary / ITEMS)
        if histories is not None:
            pq.write_table(histories, temporary / HISTORIES)
        features = _features(network)
        for name, tensors in ((INDEX, index), (ENCODERS, encoders), (FEATURES, features)):
            if tensors:
                save_file(dict(tensors), temporary / name)
        content = {
            **about,
            "format": FORMAT,
            "format_number": FORMAT_NUMBER,
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "versions": {
                "python": platform.python_version(),
                "recbole_m3rec": __version__,
                **{name: version(name) for name in LIBRARIES},
            },
            "precision": precision,
            "network": describe_network(network, settings),
            "files": {
                path.name: {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
                for path in sorted(temporary.iterdir())
            },
        }
        sealed, digest = seal(content)
        (temporary / ABOUT).write_bytes(sealed)
        for path in temporary.iterdir():
            path.chmod(0o644)  # safetensors writes for its user alone
            with open(path, "rb+") as file:
                os.fsync(file.fileno())
        _put_in_place(temporary, folder)
    except (OSError, SafetensorError) as error:
        raise CannotWriteError(
            f"cannot write {folder}: {getattr(error, 'strerror', None) or error}; nothing was left "
            "there that was not there before. Make room, or name a folder that can be written"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        lock.give_up()
    return digest


def check_target(folder: Path) -> None:
    """Refuse to replace anything but a bundle or an empty folder.

    Raises:
        BundleError: something else is there.
    """
    if not os.path.lexists(folder):
        return
    if folder.is_symlink() or not folder.is_dir():
        raise BundleError(f"{folder}: there is a file or a link of this name. Name another folder")
    own = _files_of_bundle(folder)
    others = sorted(path.name for path in folder.iterdir() if path.name not in own)
    if others:
        raise BundleError(
            f"{folder}: there is a folder with other things in it than a bundle, such as"
            f" {others[0]}. Name another, or empty it"
        )


def _files_of_bundle(folder: Path) -> set[str]:
    """Return the names of the files of the bundle in a folder; none if there is no bundle."""
    try:
        about = json.loads((folder / ABOUT).read_bytes())
        return {ABOUT, *about["files"]} if about["format"] == FORMAT else set()
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return set()


def describe_network(network: M3RecNetwork, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what :func:`recbole_m3rec.serving.bundle.read.build_network` needs."""
    return {
        "settings": dict(settings),
        "modalities": [
            {
                "name": name,
                "width": int(content.features.shape[1]),
                "any_missing": content.any_missing,
                "fingerprint": content.fingerprint,
            }
            for name, content in cast(
                "dict[str, ContentModality]", dict(network.content.items())
            ).items()
        ],
    }


def _weights(network: M3RecNetwork) -> dict[str, Tensor]:
    """Return all weights but those of single items; shared ones are written once each."""
    return {
        name: tensor.detach().cpu().contiguous().clone()
        for name, tensor in network.state_dict().items()
        if name not in PER_ITEM
    }


def _features(network: M3RecNetwork) -> dict[str, Tensor]:
    """Return the items' features at unit length, none where they are too many for the memory."""
    content = cast("dict[str, ContentModality]", dict(network.content.items()))
    if any(modality.map is not None for modality in content.values()):
        return {}
    return {
        name: F.normalize(rows.masked_fill(modality.is_missing[:, None], 0), dim=1).cpu().half()
        for name, modality in content.items()
        for rows in [modality.features.float()]
    }


@torch.no_grad()
def _vectors(network: M3RecNetwork, dtype: torch.dtype, ids: pa.ChunkedArray) -> dict[str, Tensor]:
    vectors = network.item_vectors()
    named = {f"sequence.{name}": vectors.sequence[name] for name in network.modalities}
    named["table"] = vectors.table
    kept = {}
    for name, tensor in named.items():
        exact = tensor.detach().cpu()
        kept[name] = exact.to(dtype).contiguous().clone()
        if dtype == exact.dtype:
            continue
        lost, largest = (vector_norm(x, torch.inf, dim=1)[1:] for x in (kept[name] - exact, exact))
        wrong = (~(lost <= LOST * largest)).nonzero()  # NaN is
        if len(wrong):
            item = int(wrong[0])
            raise BundleError(
                f"item {ids[item]}: float16 cannot hold its vector {name}, whose largest number is "
                f"{largest[item]:.3g}. Export with --precision float32"
            )
    return kept


def _put_in_place(temporary: Path, folder: Path) -> None:
    old = folder.with_name(f".{folder.name}.old")
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)
        os.rename(folder, old)
    try:
        os.rename(temporary, folder)
    except OSError:
        if old.exists():
            os.rename(old, folder)
        raise
    shutil.rmtree(old, ignore_errors=True)
