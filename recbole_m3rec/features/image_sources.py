"""Which image file belongs to which item: by file name or by a mapping file."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import quote, unquote

_KINDS = "avif bmp gif jfif jpe jpeg jpg png ppm tif tiff webp"
IMAGE_SUFFIXES = frozenset(f".{kind}" for kind in _KINDS.split())

# Most file systems allow 255 bytes, of which suffixes of temporary files need some.
_LONGEST_NAME = 200


class ImageSourceError(ValueError):
    """Images cannot be told to belong to items."""


def file_stem(item_id: str) -> str:
    """Return the name of an item's image file without suffix: the id, percent-encoded.

    No id leaves its folder, hides its file or is lost: ``unquote`` gives it back.

    Raises:
        ImageSourceError: the id is empty or too long for a file name.
    """
    stem = quote(item_id, safe="")
    if stem.startswith("."):
        stem = "%2E" + stem[1:]
    if not stem or len(stem) > _LONGEST_NAME:
        raise ImageSourceError(f"item {item_id[:40]!r}… cannot be the name of a file")
    return stem


def images_in_folder(folder: Path) -> dict[str, Path]:
    """Find the image files ``<item id, percent-encoded>.<suffix>`` of a folder, by item id.

    Files of other kinds and pipes are left alone, folders not entered.

    Raises:
        ImageSourceError: there is no such folder, no image in it, or two of one item.
    """
    if not folder.is_dir():
        raise ImageSourceError(f"{folder}: there is no such folder of images")
    images: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        is_named = path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
        if not is_named or path.is_fifo():  # which would be waited for
            continue
        item_id = unquote(path.stem)
        if item_id in images:
            raise ImageSourceError(
                f"{folder}: {images[item_id].name} and {path.name} are both of item {item_id!r}."
                " Keep one"
            )
        images[item_id] = path
    if not images:
        there = sorted(path.name for path in folder.iterdir())[:3]
        more = ". Folders in it are not entered: `encode images --mapping` takes a table of paths"
        raise ImageSourceError(
            f"{folder}: no image <item id>.jpg (or {', '.join(sorted(IMAGE_SUFFIXES))}), found"
            f" {', '.join(there) or 'nothing'}" + more * any(map(Path.is_dir, folder.iterdir()))
        )
    return images


def near_misses(
    items: Iterable[str], unused: Mapping[str, Path], folder: Path | None
) -> dict[str, str]:
    """Say of items without an image which file may be theirs, where one may.

    Args:
        items: their ids.
        unused: image files of ids that no item has.
        folder: where files of other kinds may be.
    """
    by_number = {item.lstrip("0"): path.name for item, path in unused.items() if item.isdecimal()}
    of_other_kinds = {
        unquote(name): path.name
        for path in (sorted(folder.iterdir()) if folder else ())
        if path.suffix.lower() not in IMAGE_SUFFIXES and path.is_file()
        for name in (path.stem, path.name)
    }
    found = {}
    for item in items:
        if item in of_other_kinds:
            found[item] = f"no image, but a file of an unknown kind ({of_other_kinds[item]})"
        elif item.isdecimal() and item.lstrip("0") in by_number:
            number = by_number[item.lstrip("0")]
            found[item] = f"no image, but one whose id has other zeros in front ({number})"
    return found


def images_by_mapping(mapping: Path) -> dict[str, Path]:
    """Read a table of ``item_id`` and ``path``, separated by commas or tabs, with a header.

    Paths are relative to the table's folder; that a file is not there is found when it is read.

    Raises:
        ImageSourceError: no such table, no such columns, an empty value, or two lines of one item.
    """
    if not mapping.is_file():
        raise ImageSourceError(f"{mapping}: there is no such mapping file")
    try:
        images = _read_mapping(mapping)
    except (UnicodeDecodeError, csv.Error) as error:
        raise ImageSourceError(
            f"{mapping}: cannot be read ({error}). Expected a table in UTF-8, separated by commas"
            " or tabs"
        ) from error
    if not images:
        raise ImageSourceError(f"{mapping}: holds no item")
    return images


def _read_mapping(mapping: Path) -> dict[str, Path]:
    images: dict[str, Path] = {}
    with open(mapping, encoding="utf-8-sig", newline="") as file:
        separator = "\t" if "\t" in file.readline() else ","
        file.seek(0)
        rows = csv.reader(file, delimiter=separator)
        names = [name.strip().partition(":")[0] for name in next(rows, [])]
        if "item_id" not in names or "path" not in names:
            raise ImageSourceError(
                f"{mapping}, line 1: expected the columns item_id and path, found {names}"
            )
        for row in rows:
            if not row:
                continue
            where = f"{mapping}, line {rows.line_num}"
            values = dict(zip(names, row, strict=False))
            item_id, path = values.get("item_id"), values.get("path")
            if not item_id or not path:
                raise ImageSourceError(f"{where}: expected an item id and a path, found {row}")
            if item_id in images:
                raise ImageSourceError(f"{where}: item {item_id!r} stands on a line before, too")
            if "://" in path:
                raise ImageSourceError(
                    f"{where}: {path} is an address, expected the path of a file. Addresses in a"
                    " column of the items are fetched by prepare images"
                )
            images[item_id] = mapping.parent / path
    return images


def images_of(images: dict[str, Path], items: Iterable[str], source: str) -> dict[str, Path]:
    """Return the images that belong to given items.

    Raises:
        ImageSourceError: none does.
    """
    items = list(items)
    present = {item: images[item] for item in items if item in images}
    if not present:
        raise ImageSourceError(
            f"{source}: none of its {len(images):,} images belongs to one of the {len(items):,}"
            f" items; images are of {list(images)[:3]}, items are {items[:3]}"
        )
    return present
