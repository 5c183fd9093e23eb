"""Which items have an image file."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Collection, Mapping
from pathlib import Path

from recbole_m3rec.features.image_sources import images_of


def images_by_column(names: Mapping[str, str], folder: Path) -> tuple[dict[str, Path], int]:
    """Find the image files that a column names, by item id.

    Args:
        names: by item id, a path in the folder, or one of which only the last part lies there.
        folder: of the images; nothing outside is taken.

    Returns:
        The files there are, and how many names have none.
    """
    root = folder.resolve()
    images: dict[str, Path] = {}
    for item, name in names.items():
        for candidate in (folder / name, folder / name.replace("\\", "/").rpartition("/")[2]):
            try:
                inside = candidate.resolve().is_relative_to(root) and candidate.is_file()
            except (OSError, ValueError):  # no name for a file
                inside = False
            if inside:
                images[item] = candidate
                break
    return images, len(names) - len(images)


def check_images(
    images: Mapping[str, Path], wanted: Collection[str], source: Path
) -> tuple[dict[str, Path], dict[str, int]]:
    """Find the images of the wanted items, and count what does not fit.

    Files are not decoded: ``encode_images.py`` does, and says which it cannot.

    Returns:
        The images of wanted items whose files hold something, and counts.

    Raises:
        ImageSourceError: no image is of a wanted item.
    """
    of_items = images_of(dict(images), wanted, str(source))
    usable = {item: path for item, path in of_items.items() if _size(path)}
    present = {
        "images": len(images),
        "images_of_other_items": len(images) - len(of_items),
        "images_missing_or_empty": len(of_items) - len(usable),
        "items_with_image": len(usable),
        "items_without_image": len(wanted) - len(usable),
    }
    return usable, present


def mapping_text(images: Mapping[str, Path], beside: Path) -> bytes:
    """Return the table of item ids and paths, relative to a folder, that the encoder reads."""
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["item_id", "path"])
    root = beside.resolve()
    for item, path in images.items():
        table.writerow([item, Path(os.path.relpath(path.resolve(), root)).as_posix()])
    return text.getvalue().encode()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
