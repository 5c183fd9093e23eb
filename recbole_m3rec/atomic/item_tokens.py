"""The item tokens of a prepared dataset, read from its atomic files."""

from __future__ import annotations

from pathlib import Path

from recbole_m3rec.atomic.atomic_file import read_columns
from recbole_m3rec.atomic.item_file import ItemFile


def dataset_items(
    folder: Path, name: str, *, item_id_field: str = "item_id"
) -> tuple[Path, list[str]] | None:
    """Return the items of ``<name>.inter``, or else of ``<name>.item``, and which file it was.

    Returns:
        None where neither file is there.

    Raises:
        AtomicFileError: the file is not in the atomic format, or has no such field.
    """
    inter, item = folder / f"{name}.inter", folder / f"{name}.item"
    if inter.is_file():
        return inter, read_columns(inter, [item_id_field])[0].unique().to_pylist()
    if item.is_file():
        return item, ItemFile(item, item_id_field).read([])[0]
    return None
