"""Checkpoints that cannot run code: tensors in safetensors, everything else as JSON in its header.

Any nesting of dicts, lists, tuples, numbers, strings, tensors and arrays is kept; nothing else is.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

KEY = "recbole_m3rec"
VERSION = 1


class CannotStoreError(ValueError):
    """A checkpoint holds something that the safe format has no form for; names it."""


def is_safe_file(path: Path) -> bool:
    """Tell whether a file begins as a safetensors file does: the header's length, then JSON."""
    with open(path, "rb") as file:
        return file.read(9)[8:] == b"{"


def write(content: Mapping[str, Any], path: Path) -> None:
    """Write a nested dictionary to a file.

    Raises:
        CannotStoreError: a value that is none of the kinds named above.
        OSError: the file cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    tensors: dict[str, torch.Tensor] = {}
    tree = _encode(content, "", tensors)
    digest = _digest(tree, tensors)
    header = {KEY: json.dumps({"version": VERSION, "content": tree, "sha256": digest})}
    try:
        save_file(tensors, path, metadata=header)
    except SafetensorError as error:
        raise OSError(str(error)) from error


def read(path: Path, device: Any = "cpu") -> dict[str, Any]:
    """Read what :func:`write` wrote; nothing in the file is executed.

    Raises:
        ValueError: no whole file of this format and version, or not what was written.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            header = json.loads((file.metadata() or {}).get(KEY, "null"))
            if not isinstance(header, dict) or header.get("version") != VERSION:
                raise ValueError("not written by this package, or by a newer one")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if header.get("sha256", digest := _digest(header["content"], tensors)) != digest:
                raise ValueError(
                    f"SHA-256 {header['sha256'][:12]}… was written, {digest[:12]}… is read: its "
                    "content was damaged since. Put back a copy"
                )
            content = _decode(header["content"], lambda name: tensors[name].to(device or "cpu"))
    except (SafetensorError, KeyError, RecursionError, TypeError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error
    if not isinstance(content, dict):
        raise ValueError("its content is no dictionary")
    return content


def _digest(tree: Any, tensors: Mapping[str, torch.Tensor]) -> str:
    digest = hashlib.sha256(json.dumps(tree).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _encode(value: Any, name: str, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, str, int, float)):
        return value
    if isinstance(value, torch.Tensor) and value.layout == torch.strided:
        own = value.detach().cpu().clone().contiguous()  # safetensors shares no memory
        return {"tensor": _keep(own, name, tensors)}
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        if value.dtype.kind == "u" and value.dtype.itemsize > 1:
            numbers = torch.from_numpy(value.astype(np.int64))
        else:
            numbers = torch.from_numpy(np.ascontiguousarray(value))
        return {"array": _keep(numbers.clone(), name, tensors), "dtype": value.dtype.str}
    if isinstance(value, (list, tuple)):
        parts = [_encode(part, f"{name}/{i}", tensors) for i, part in enumerate(value)]
        return parts if isinstance(value, list) else {"tuple": parts}
    if isinstance(value, Mapping):
        kind = "ordered" if isinstance(value, OrderedDict) else "dict"
        return {
            kind: [
                [_encode(key, name, tensors), _encode(part, f"{name}/{key}", tensors)]
                for key, part in value.items()
            ]
        }
    raise CannotStoreError(
        f"checkpoint_format: safe has no form for {name.lstrip('/')}, a {type(value).__name__}: "
        "set checkpoint_format: recbole"
    )


def _keep(tensor: torch.Tensor, name: str, tensors: dict[str, torch.Tensor]) -> str:
    """Add a tensor; returns its name, which is another where keys such as 1 and "1" share one."""
    while name in tensors:
        name += "'"
    tensors[name] = tensor
    return name


def _decode(tree: Any, tensor: Any) -> Any:
    if isinstance(tree, list):
        return [_decode(part, tensor) for part in tree]
    if not isinstance(tree, dict):
        return tree
    if "tensor" in tree:
        return tensor(tree["tensor"])
    if "array" in tree:
        return tensor(tree["array"]).cpu().numpy().astype(np.dtype(tree["dtype"]))
    if "tuple" in tree:
        return tuple(_decode(part, tensor) for part in tree["tuple"])
    kind = OrderedDict if "ordered" in tree else dict
    pairs = tree["ordered"] if "ordered" in tree else tree["dict"]
    return kind((_decode(key, tensor), _decode(part, tensor)) for key, part in pairs)
