"""Library, device, precision and identity of encoders with pretrained weights."""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from recbole_m3rec.features.encoders.batches import EncoderError

PRECISIONS = ("auto", "float32", "float16", "bfloat16")


def library(name: str, encoder: str) -> ModuleType:
    """Import an optional library, or say how to get it.

    Raises:
        EncoderError: it is not installed, or does not load.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and error.name == name:
            extra = {"open_clip": "open_clip_torch", "timm": "timm"}.get(
                name, "'recbole_m3rec[encoders]'"
            )
            raise EncoderError(
                f"{encoder} needs the library {name}, which is not installed: pip install {extra}"
            ) from error
        raise EncoderError(f"{encoder}: the library {name} does not load ({error})") from error


def chosen_device(device: str) -> torch.device:
    """Return the device of a name; ``"auto"`` is CUDA, else Apple's GPU, else the CPU.

    Raises:
        EncoderError: there is no such device here.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        found = torch.device(device)
        torch.empty(1, device=found)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).split("\n")[0]
        raise EncoderError(f"device {device!r} cannot be used here ({reason})") from error
    return found


def chosen_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Return the type to compute in; ``"auto"`` is float16 on CUDA, else float32.

    Raises:
        EncoderError: no such precision.
    """
    if precision not in PRECISIONS:
        raise EncoderError(f"precision must be {', '.join(PRECISIONS)}, found {precision!r}")
    if precision == "auto":
        precision = "float16" if device.type == "cuda" else "float32"
    dtype: torch.dtype = getattr(torch, precision)
    return dtype


@contextmanager
def loading(encoder: str) -> Iterator[None]:
    """Turn what a library raises on a name or folder it cannot load into one error.

    Weights that a checkpoint lacks are drawn from a fixed seed meanwhile, so that the unused ones
    (BERT's pooler) do not make one run differ from the next.
    """
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            yield
    except EncoderError:
        raise
    except Exception as error:
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise EncoderError(
            f"{encoder}: the model cannot be loaded ({reason}). Give the name of a model of this"
            " kind on the Hugging Face hub, or a folder that holds one"
        ) from error


def name_or_folder(model: str) -> str:
    """Return a folder's path where there is one of this name, ``~`` understood, else the name."""
    folder = Path(model).expanduser()
    return str(folder) if folder.is_dir() else model


def require_weights(encoder: str, info: dict[str, Any]) -> None:
    """Refuse a model of which a part that is used was not in the checkpoint, hence is random.

    Args:
        encoder: named in the error.
        info: the loading info of ``from_pretrained``.
    """
    missing = sorted(name for name in info["missing_keys"] if "pooler" not in name)
    if missing:
        raise EncoderError(
            f"{encoder}: the checkpoint has no weights for {len(missing)} parts of the model"
            f" ({', '.join(missing[:3])}, …), which would be random. It is no model of this kind"
        )


def config_text(config: Any) -> str:
    """Return what a transformers configuration says of a model, apart from where it lies."""
    told = config.to_dict()
    for name in ("_name_or_path", "transformers_version"):
        told.pop(name, None)
    return json.dumps(told, sort_keys=True, default=str)


def weights_digest(model: nn.Module) -> str:
    """Identify a model by its weights: SHA-256, hex."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
