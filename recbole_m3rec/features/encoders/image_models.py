"""Image encoders: pretrained models by name, or a callable of yours."""

from __future__ import annotations

import hashlib
import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from recbole_m3rec.features.encoders.batches import EncoderError
from recbole_m3rec.features.encoders.pretrained import (
    chosen_device,
    chosen_dtype,
    config_text,
    library,
    loading,
    name_or_folder,
    require_weights,
    weights_digest,
)

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGE_ENCODER_NAMES = (
    "transformers:<name or folder>",
    "open_clip:<model>[,<weights>]",
    "timm:<model>",
    "<module>:<callable>",
)


@dataclass(frozen=True)
class ImageEncoder:
    """An image encoder in two steps, so that decoded pictures need not be held.

    ``prepare`` turns one RGB image into the model's input and may run in several threads;
    ``encode`` turns a list of inputs into ``[n, d]`` float numbers; ``key`` is what tells it from
    any other, as JSON can hold it; ``load`` gets the same one in another process, None where none
    can.
    """

    prepare: Callable[[Image], Any]
    encode: Callable[[list[Any]], np.ndarray]
    key: Mapping[str, Any]
    load: partial[ImageEncoder] | None = None

    @property
    def parts(self) -> dict[str, str]:
        """What tells it from any other of its name, on whatever device: SHA-256 by part."""
        return {
            part: hashlib.sha256(str(told).encode()).hexdigest()
            for part, told in self.key.items()
            if part not in ("encoder", "computed")
        }


def image_encoder(name: str, *, device: str = "auto", precision: str = "auto") -> ImageEncoder:
    """Load the image encoder of a name.

    A name that is of none of the known libraries is imported and called: take names from a person
    only, never from a file.

    Args:
        name: one of ``IMAGE_ENCODER_NAMES``. A callable gets a list of RGB images of Pillow and
            returns ``[n, d]`` numbers, as an array or a tensor.
        device: ``auto`` or a device's name; a callable chooses its own.
        precision: ``auto`` (float16 on CUDA, else float32) or a type's name; likewise.

    Raises:
        EncoderError: no such name, a library is not installed, or the model cannot be loaded.
    """
    family, _, model = name.partition(":")
    if not family or not model:
        raise EncoderError(
            f"there is no image encoder {name!r}, there are {', '.join(IMAGE_ENCODER_NAMES)}"
        )
    if family in _FAMILIES:
        place = chosen_device(device)
        found = _FAMILIES[family](model, place, chosen_dtype(precision, place))
    else:
        found = _callable(name, family, model)
    return replace(found, load=partial(image_encoder, name, device=device, precision=precision))


def is_pretrained(name: str) -> bool:
    """Whether a name is of a model of a known library; any other would be imported and called."""
    return name.partition(":")[0] in _FAMILIES


def _transformers(model: str, place: torch.device, dtype: torch.dtype) -> ImageEncoder:
    """The image embedding of CLIP and its like, of others the pooled last hidden states."""
    encoder = f"transformers:{model}"
    transformers = library("transformers", encoder)
    # Pillow's processing: the other kind needs torchvision, and resizes otherwise.
    newer = int(transformers.__version__.split(".")[0]) >= 5
    by_pillow = {"backend": "pil"} if newer else {"use_fast": False}
    with loading(encoder):
        where = name_or_folder(model)
        processor = transformers.AutoImageProcessor.from_pretrained(where, **by_pillow)
        network, info = transformers.AutoModel.from_pretrained(where, output_loading_info=True)
        require_weights(encoder, info)
    key = {
        "encoder": "transformers",
        "weights": weights_digest(network),
        "config": config_text(network.config),
        "processor": processor.to_json_string(),
        "computed": f"{place.type} {dtype}",
    }
    network.to(place, dtype).eval()

    def prepare(image: Image) -> Tensor:
        pixels: Tensor = processor(images=image, return_tensors="pt")["pixel_values"][0]
        return pixels

    @torch.inference_mode()
    def encode(inputs: list[Tensor]) -> np.ndarray:
        pixels = torch.stack(inputs).to(place, dtype)
        if hasattr(network, "get_image_features"):
            made = network.get_image_features(pixel_values=pixels)
            made = getattr(made, "pooler_output", made)  # a tensor before transformers 5
        else:
            made = _pooled(encoder, network(pixel_values=pixels).last_hidden_state)
        rows: np.ndarray = made.float().cpu().numpy()
        return rows

    return ImageEncoder(prepare, encode, key)


def _pooled(encoder: str, states: Tensor) -> Tensor:
    """The first token of ``[n, t, d]``, the mean over the picture of ``[n, d, h, w]``."""
    if states.dim() == 4:
        return states.float().mean(dim=(2, 3))
    if states.dim() == 3:
        return states[:, 0]
    raise EncoderError(f"{encoder}: hidden states of shape {list(states.shape)} cannot be pooled")


def _open_clip(model: str, place: torch.device, dtype: torch.dtype) -> ImageEncoder:
    """The image embedding of open_clip's model, ``<model>,<weights>`` as open_clip lists them."""
    encoder = f"open_clip:{model}"
    architecture, _, weights = model.partition(",")
    if not weights and ":" not in architecture:  # hf-hub:… and local-dir:… bring their weights
        raise EncoderError(
            f"{encoder}: name the weights too, e.g. open_clip:ViT-B-32,laion2b_s34b_b79k"
        )
    open_clip = library("open_clip", encoder)
    with loading(encoder):
        network, _, transform = open_clip.create_model_and_transforms(
            architecture, pretrained=weights or None, device="cpu"
        )
    return _of_pixels("open_clip", network, network.encode_image, transform, place, dtype)


def _timm(model: str, place: torch.device, dtype: torch.dtype) -> ImageEncoder:
    """What timm's model has before its classifier."""
    encoder = f"timm:{model}"
    timm = library("timm", encoder)
    with loading(encoder):
        network = timm.create_model(model, pretrained=True, num_classes=0)
        settings = timm.data.resolve_model_data_config(network)
        transform = timm.data.create_transform(**settings, is_training=False)
    return _of_pixels("timm", network, network, transform, place, dtype)


def _of_pixels(
    family: str,
    network: torch.nn.Module,
    forward: Callable[[Tensor], Tensor],
    transform: Callable[[Image], Tensor],
    place: torch.device,
    dtype: torch.dtype,
) -> ImageEncoder:
    key = {
        "encoder": family,
        "model": repr(network),
        "weights": weights_digest(network),
        "transform": repr(transform),
        "computed": f"{place.type} {dtype}",
    }
    network.to(place, dtype).eval()

    @torch.inference_mode()
    def encode(inputs: list[Tensor]) -> np.ndarray:
        rows: np.ndarray = forward(torch.stack(inputs).to(place, dtype)).float().cpu().numpy()
        return rows

    return ImageEncoder(transform, encode, key)


def _callable(name: str, module_name: str, attribute: str) -> ImageEncoder:
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise EncoderError(
            f"there is no image encoder {name!r}: {module_name} is no module that can be imported"
            f" from here, and none of {', '.join(IMAGE_ENCODER_NAMES[:-1])}"
        ) from error
    function = getattr(module, attribute, None)
    if not callable(function):
        raise EncoderError(f"{name}: the module {module_name} has no callable {attribute!r}")
    if getattr(module, "__file__", None) is None:
        raise EncoderError(f"{name}: {module_name} is part of Python; name a module of your own")
    source = inspect.getsourcefile(module)
    content = Path(source).read_bytes() if source else b""

    def encode(images: list[Image]) -> np.ndarray:
        made = function(images)
        if isinstance(made, Tensor):
            made = made.detach().float().cpu().numpy()
        try:
            return np.asarray(made, dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise EncoderError(
                f"{name}: gave a {type(made).__name__} for {len(images)} images, expected numbers"
                f" [{len(images)}, dimensions]"
            ) from error

    key = {"encoder": name, "source": hashlib.sha256(content).hexdigest()}
    return ImageEncoder(lambda image: image, encode, key)


_FAMILIES: Mapping[str, Callable[[str, torch.device, torch.dtype], ImageEncoder]] = {
    "open_clip": _open_clip,
    "timm": _timm,
    "transformers": _transformers,
}
