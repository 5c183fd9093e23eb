"""The bundle: a folder that holds a trained model and its items, and is safe to read.

It is made of safetensors, JSON and Parquet, so reading it runs no code, and needs no dataset:

- ``model.json``: settings, protocol, metrics, versions, and the digest of every other file;
- ``model.safetensors``: the network's weights, but those of single items;
- ``vectors.safetensors``: what histories read and what scores use of each item, row 0 padding;
- ``items.parquet``: the items' ids, what to show of them, how often each was used;
- ``histories.parquet`` (optional): the items of every user, oldest first;
- ``index.safetensors`` (optional): cells of a large catalogue, for approximate search;
- ``encoders.safetensors`` (optional): what text encoders learned, for items added later;
- ``features.safetensors`` (optional): the items' features, to which those of later ones compare.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from recbole_m3rec.features.align import ItemFeatures
from recbole_m3rec.network.item_encoder import ContentModality, ItemVectors
from recbole_m3rec.network.m3rec import M3RecConfig, M3RecNetwork
from recbole_m3rec.serving.bundle.files import (
    ABOUT,
    AGAIN,
    ENCODERS,
    FEATURES,
    HISTORIES,
    INDEX,
    ITEMS,
    VECTORS,
    WEIGHTS,
    BundleError,
    MappedFiles,
    check_columns,
    check_files,
    read_table,
    read_tensors,
)

FORMAT_NUMBER = 1
# Weights that hold a row per item, or no tensor; vectors.safetensors stands for them.
PER_ITEM = ("item_embedding.weight", "score_embedding.weight", "content._extra_state")

LARGEST_ABOUT = 16 * 2**20  # bytes of model.json
LARGEST_WIDTH = 2**20


@dataclass
class Bundle:
    """What a bundle holds.

    Attributes:
        about: the content of ``model.json``.
        network: with the weights, in evaluation mode; its own item table has one row.
        vectors: of all items, row 0 padding; float32 or float16.
        items: a row per item but padding: ``item_id``, ``count``, ``title``, ``has_<modality>``, …
        histories: ``user_id``, ``item_ids``; None where there are none.
        index: tensors of the index by name, empty where there is none.
        encoders: tensors of the encoders by name, empty where there are none.
        features: of all items by modality at unit length, row 0 padding, zeros where missing;
            float16. Empty where there are none.
        digest: identifies the bundle.
        mapped: files that have to stay as they are for as long as the bundle is in use.
    """

    about: dict[str, Any]
    network: M3RecNetwork
    vectors: ItemVectors
    items: pa.Table
    histories: pa.Table | None = None
    index: dict[str, Tensor] = field(default_factory=dict)
    encoders: dict[str, Tensor] = field(default_factory=dict)
    features: dict[str, Tensor] = field(default_factory=dict)
    digest: str = ""
    mapped: MappedFiles = field(default_factory=MappedFiles)


def read_bundle(folder: str | Path) -> Bundle:
    """Read a bundle; a changed byte in any file is an error, and nothing read is executed.

    Files of :data:`.files.MAPPED_FROM` bytes and more are memory-mapped: what is not used takes no
    memory, but they must not be written over. The others may.

    Raises:
        BundleError: not a bundle, damaged, or of another format; names the file and what to do.
    """
    folder = Path(folder)
    about, digest = _read_about(folder)
    _check_about(folder / ABOUT, about)
    stamps = check_files(folder, about["files"])
    _check_size(folder / WEIGHTS, about["network"])
    network = build_network(about["network"])
    _load_weights(folder / WEIGHTS, network)
    items = read_table(folder / ITEMS)
    vectors = _read_vectors(folder / VECTORS, network, items.num_rows + 1)
    histories = read_table(folder / HISTORIES) if HISTORIES in about["files"] else None
    index, encoders, features = (
        read_tensors(folder / name) if name in about["files"] else {}
        for name in (INDEX, ENCODERS, FEATURES)
    )
    _check_features(folder / FEATURES, features, network, items.num_rows + 1)
    flags = {name: pa.bool_() for name in items.column_names if name.startswith("has_")}
    columns = {"item_id": pa.string(), "count": pa.int64(), **flags}
    check_columns(items, folder / ITEMS, columns)
    if histories is not None:
        columns = {"user_id": pa.string(), "item_ids": pa.list_(pa.string())}
        check_columns(histories, folder / HISTORIES, columns)
    return Bundle(
        *(about, network, vectors, items, histories, index, encoders, features, digest),
        mapped=MappedFiles(stamps),
    )


def seal(content: Mapping[str, Any]) -> tuple[bytes, str]:
    """Return the bytes of ``model.json``, its own digest among them, and that digest."""
    digest = hashlib.sha256(_as_json(content)).hexdigest()
    return _as_json({**content, "digest": digest}), digest


def _as_json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def _read_about(folder: Path) -> tuple[dict[str, Any], str]:
    path = folder / ABOUT
    if not folder.is_dir():
        raise BundleError(f"{folder}: there is no such folder. Bundles are written by export")
    if not path.is_file() or path.is_symlink():
        raise BundleError(
            f"{folder}: no {ABOUT} in it, so it is no bundle. Name one that export wrote"
        )
    if path.stat().st_size > LARGEST_ABOUT:
        raise BundleError(f"{path}: larger than {LARGEST_ABOUT:,} bytes, so not of this format")
    raw = path.read_bytes()
    try:
        about = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path}: not JSON ({error}). {AGAIN}") from error
    number = about.get("format_number") if isinstance(about, dict) else None
    if isinstance(number, int) and number != FORMAT_NUMBER:
        raise BundleError(
            f"{path}: format {number}, this version of recbole_m3rec reads {FORMAT_NUMBER}. Export "
            f"the bundle with this version, or install that of {about.get('versions')}"
        )
    content = {key: value for key, value in about.items() if key != "digest"} if number else {}
    if not number or seal(content)[0] != raw:
        raise BundleError(
            f"{path}: its content does not fit its digest, so it was changed. {AGAIN}"
        )
    return about, str(about["digest"])


def _check_about(path: Path, about: Mapping[str, Any]) -> None:
    """Check the kinds of what this package reads; its own digest says nothing of a stranger."""
    kinds = {"files": dict, "network": dict, "features": dict, "max_history": int}
    for key, kind in kinds.items():
        if not isinstance(about.get(key), kind):
            raise BundleError(
                f"{path}: {key} is {str(about.get(key))[:40]}, expected {kind.__name__}. {AGAIN}"
            )
    if about["max_history"] < 1:
        raise BundleError(f"{path}: max_history is {about['max_history']}, expected 1 or more")
    for name, known in about["files"].items():
        if not isinstance(known, dict) or not {"bytes", "sha256"} <= known.keys():
            raise BundleError(f"{path}: {name} has no bytes and sha256. {AGAIN}")


def _check_size(path: Path, known: Mapping[str, Any]) -> None:
    """Refuse settings of a network far larger than its weights, before memory is taken for it."""
    try:
        with safe_open(path, framework="pt") as file:
            keys = file.keys()
            present = sum(math.prod(file.get_slice(key).get_shape()) for key in keys)
    except (SafetensorError, OSError, ValueError) as error:
        raise BundleError(f"{path}: not safetensors ({error}). {AGAIN}") from error
    try:
        of = M3RecConfig(**known["settings"])
        widths = sum(int(modality["width"]) for modality in known["modalities"])
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise BundleError(_NOT_BUILT.format(error)) from error
    block = of.expand * (of.hidden_size + of.d_state + of.d_conv)
    experts = of.projector_experts if of.projector == "moe_whitening" else 1
    needed = of.hidden_size * (of.num_layers * block + experts * widths)
    if needed > present:
        raise BundleError(
            f"{path}: {present:,} numbers, its settings need at least {needed:,}. {AGAIN}"
        )


_NOT_BUILT = (
    f"{ABOUT}: no network can be built of its settings ({{}}). Use the version of recbole_m3rec "
    "that wrote the bundle"
)


def build_network(known: Mapping[str, Any]) -> M3RecNetwork:
    """Build the network that ``model.json`` describes, with one item in its table.

    Args:
        known: ``settings``, and for each of ``modalities`` its ``name``, ``width`` and whether
            items miss it, ``any_missing``.

    Raises:
        BundleError: it cannot be built of these settings.
    """
    try:
        features = {
            modality["name"]: ItemFeatures(
                modality["name"],
                torch.zeros(1, min(int(modality["width"]), LARGEST_WIDTH)),
                torch.tensor([not modality["any_missing"]]),
                *(modality["fingerprint"], ""),
            )
            for modality in known["modalities"]
        }
        network = M3RecNetwork(1, features, **known["settings"])
    except (ValueError, TypeError, KeyError, RuntimeError) as error:
        raise BundleError(_NOT_BUILT.format(error)) from error
    network.modality_gradient = "shared"  # nothing learns here, so no weight need be detached
    return network.eval().requires_grad_(False)


def _load_weights(path: Path, network: M3RecNetwork) -> None:
    tensors = read_tensors(path)
    try:
        result = network.load_state_dict(tensors, strict=False)
    except RuntimeError as error:
        raise BundleError(f"{path}: {error}. {AGAIN}") from error
    missing = [key for key in result.missing_keys if key not in PER_ITEM]
    if missing or result.unexpected_keys:
        raise BundleError(
            f"{path}: missing {missing}, not expected {result.unexpected_keys}. Use the version of"
            " recbole_m3rec that wrote the bundle"
        )


def _read_vectors(path: Path, network: M3RecNetwork, n_items: int) -> ItemVectors:
    tensors = read_tensors(path)
    width = network.item_embedding.embedding_dim
    shapes = {f"sequence.{name}": [n_items, width] for name in network.modalities}
    shapes["table"] = [n_items, len(network.modalities) * width]
    found = {name: list(tensor.shape) for name, tensor in tensors.items()}
    if found != shapes or not all(
        t.dtype in (torch.float32, torch.float16) for t in tensors.values()
    ):
        raise BundleError(
            f"{path}: holds {found}, expected {shapes} in float32 or float16. {AGAIN}"
        )
    sequence = {name: tensors[f"sequence.{name}"] for name in network.modalities}
    return ItemVectors(sequence, tensors["table"])


def _check_features(
    path: Path, features: Mapping[str, Tensor], network: M3RecNetwork, n_items: int
) -> None:
    content = cast("dict[str, ContentModality]", dict(network.content.items()))
    shapes = {name: [n_items, of.features.shape[1]] for name, of in content.items()}
    found = {name: list(tensor.shape) for name, tensor in features.items()}
    if features and (found != shapes or any(t.dtype != torch.float16 for t in features.values())):
        raise BundleError(f"{path}: holds {found}, expected {shapes} in float16. {AGAIN}")
