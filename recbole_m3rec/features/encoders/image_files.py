"""Decodes image files of any source into 8-bit RGB images."""

from __future__ import annotations

import functools
import threading
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from recbole_m3rec.features.image_sources import IMAGE_SUFFIXES

if TYPE_CHECKING:
    from PIL.Image import Image

_HTML = (b"<!doctype html", b"<html", b"<head", b"<?xml", b"<body")

# Filters of warnings belong to the process, and files are opened by several threads.
_opening = threading.Lock()


class ImageFileError(ValueError):
    """A file cannot be used as an image; the message is the reason, without the file's name."""


def read_image(path: Path) -> Image:
    """Decode an image file to mode RGB; see ``decode_image``."""
    return decode_image(path)[0]


def decode_image(path: Path) -> tuple[Image, str]:
    """Decode an image file; of an animation the first frame.

    The picture is turned as its EXIF says, transparency lies on white, 16 bits become 8.

    Returns:
        An image of mode RGB, and Pillow's name for the format of the file.

    Raises:
        ImageFileError: empty, cut off, no image, a single line or column of pixels, or more of them
            than Pillow's limit.
        OSError: the file is not there or cannot be read.
    """
    from PIL import Image, ImageOps

    with open(path, "rb") as file:
        head = file.read(512)
        if not head:
            raise ImageFileError("empty file")
        file.seek(0)
        try:
            with _opening, warnings.catch_warnings():
                # Pillow warns above its limit and refuses from twice the limit on: refuse both.
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                image: Image.Image = Image.open(file, formats=_formats())
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
            raise ImageFileError(
                f"more than {Image.MAX_IMAGE_PIXELS:,} pixels, Pillow's limit"
            ) from error
        except Exception as error:  # Pillow's decoders raise anything on damaged headers
            what = f"not an image of a known format ({', '.join(_formats())})"
            if _is_page(head):
                what = "an HTML or XML page, not an image"
            raise ImageFileError(what) from error
        if min(image.size) < 2:
            raise ImageFileError(f"only {image.width} x {image.height} pixels")
        try:
            image.load()
            return _as_rgb(ImageOps.exif_transpose(image)), str(image.format)
        except ImageFileError:
            raise
        except Exception as error:
            reason = str(error).split("\n")[0] or type(error).__name__
            raise ImageFileError(f"damaged or cut off ({reason})") from error


@functools.cache
def _formats() -> list[str]:
    """Return Pillow's names of the formats of images; it would run programs for some others."""
    from PIL import Image

    names = Image.registered_extensions()
    return sorted({names[suffix] for suffix in IMAGE_SUFFIXES if suffix in names})


def may_be_image(path: Path) -> bool:
    """Whether a file is there, is not empty and no HTML page; it is not decoded."""
    try:
        with open(path, "rb") as file:
            head = file.read(512)
    except OSError:
        return False
    return bool(head) and not _is_page(head)


def _is_page(head: bytes) -> bool:
    return head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(_HTML)


def _as_rgb(image: Image) -> Image:
    from PIL import Image

    if image.mode.startswith("I"):
        levels = np.asarray(image)
        if int(levels.min()) < 0 or int(levels.max()) > 65_535:
            raise ImageFileError("pixels of 32 bits")
        # Mode I holds 8 bits only where nothing exceeds them: 16-bit files use their range.
        scale = 1 if image.mode == "I" and int(levels.max()) <= 255 else 257
        shades = (levels // scale).astype(np.uint8)
        shades[levels == image.info.get("transparency", -1)] = 255
        return Image.fromarray(shades).convert("RGB")
    if image.mode == "F":
        raise ImageFileError("floating-point pixels")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        opaque = Image.new("RGBA", image.size, "white")
        opaque.alpha_composite(image.convert("RGBA"))
        return opaque.convert("RGB")
    return image.convert("RGB")
