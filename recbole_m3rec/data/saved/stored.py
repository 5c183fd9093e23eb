"""Datasets on disk in a form without code: NumPy arrays and JSON in one ``.npz`` archive."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from recbole.data.interaction import Interaction
from recbole.utils import FeatureSource, FeatureType

from recbole_m3rec.features.safe_read import decoding, load_npz
from recbole_m3rec.support.safe_write import new_files

TREE = "tree"
ENUMS = {kind.__name__: kind for kind in (FeatureType, FeatureSource)}
# What a dataset gets from today's configuration when it is read.
NOT_STORED = ("config", "logger", "item_features")


class CannotStoreError(ValueError):
    """A dataset holds something that the format has no form for; names it."""


def attributes_of(dataset: Any) -> dict[str, Any]:
    """Return the attributes of a dataset that are stored."""
    return {k: v for k, v in vars(dataset).items() if k not in NOT_STORED}


def write(content: Mapping[str, Any], path: Path) -> None:
    """Write a nest of containers, numbers, strings, arrays, frames and interactions.

    Raises:
        CannotStoreError: something else is in it.
        CannotWriteError: the disk is full or not writable.
    """
    arrays: list[np.ndarray] = []
    tree = json.dumps(_encode(content, "", arrays)).encode()
    named = {str(number): array for number, array in enumerate(arrays)}
    with new_files(path) as [new], new.writing():
        np.savez(new.file, **{TREE: np.frombuffer(tree, np.uint8)}, **named)  # type: ignore[arg-type]


def read(path: Path) -> dict[str, Any]:
    """Read what :func:`write` wrote; nothing in the file is executed.

    Raises:
        FeatureFileError: no whole file of this form.
    """
    with decoding(path, "saved dataset"):
        arrays = load_npz(path)
        content = _decode(json.loads(arrays[TREE].tobytes()), arrays)
        if not isinstance(content, dict):
            raise ValueError("its content is no dictionary")
        return content


def _encode(value: Any, name: str, arrays: list[np.ndarray]) -> Any:
    def keep(array: np.ndarray) -> str:
        arrays.append(array)
        return str(len(arrays) - 1)

    def each(kind: str, parts: Iterable[Any]) -> dict[str, Any]:
        return {kind: [_encode(part, name, arrays) for part in parts]}

    if value is None or isinstance(value, (bool, str, int, float)):
        return value
    if isinstance(value, np.generic):
        return _encode(value.item(), name, arrays)
    if isinstance(value, (FeatureType, FeatureSource)):
        return {"enum": [type(value).__name__, value.value]}
    if isinstance(value, torch.Tensor) and value.layout == torch.strided:
        try:
            return {"tensor": keep(value.numpy())}
        except (TypeError, RuntimeError) as error:  # bfloat16, a gradient, another device
            raise CannotStoreError(f"{name} is a tensor that NumPy cannot hold: {error}") from error
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufU":
        return {"array": keep(value)}
    if isinstance(value, np.ndarray) and value.ndim == 1 and value.dtype == object:
        if len(kinds := {_kind_of_cell(part) for part in value}) == 1 and None not in kinds:
            lengths = np.array([len(part) for part in value])
            return {"lists": [keep(np.concatenate(value)), keep(lengths)]}
        return each("objects", value)
    if isinstance(value, pd.DataFrame):
        columns = {column: value[column].to_numpy() for column in value.columns}
        return {"frame": _encode({"columns": columns, "index": value.index.array}, name, arrays)}
    if isinstance(value, pd.api.extensions.ExtensionArray):
        return _encode(value.to_numpy(), name, arrays)
    if isinstance(value, Interaction):
        return {"interaction": _encode(value.interaction, name, arrays)}
    if isinstance(value, Mapping):
        pairs = value.items()
        return {"dict": [[_encode(k, name, arrays), _encode(v, str(k), arrays)] for k, v in pairs]}
    for kind in (list, tuple, set):
        if isinstance(value, kind):
            return each(kind.__name__, value)
    raise CannotStoreError(f"{name} is a {type(value).__name__}")


def _kind_of_cell(value: Any) -> str | None:
    """Return what cells of a list must share to lie in one array unchanged, None for no cell."""
    if not isinstance(value, np.ndarray) or value.ndim != 1 or value.dtype.kind not in "biufU":
        return None
    return "U" if value.dtype.kind == "U" else value.dtype.str


def _decode(tree: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    if not isinstance(tree, dict):
        return tree
    [(kind, content)] = tree.items()
    if kind == "enum":
        return ENUMS[content[0]](content[1])
    if kind == "tensor":
        return torch.from_numpy(arrays[content])
    if kind == "array":
        return arrays[content]
    if kind == "lists":
        return _objects(np.split(arrays[content[0]], arrays[content[1]].cumsum()[:-1]))
    if kind == "frame":
        frame = _decode(content, arrays)
        return pd.DataFrame(frame["columns"], index=frame["index"])
    if kind == "interaction":
        return Interaction(_decode(content, arrays))
    if kind == "dict":
        return {_decode(k, arrays): _decode(v, arrays) for k, v in content}
    kinds: dict[str, Any] = {"list": list, "tuple": tuple, "set": set, "objects": _objects}
    return kinds[kind]([_decode(part, arrays) for part in content])


def _objects(parts: list[Any]) -> np.ndarray:
    array = np.empty(len(parts), object)
    for row, part in enumerate(parts):  # assigned at once, equal lengths would make a matrix
        array[row] = part
    return array
