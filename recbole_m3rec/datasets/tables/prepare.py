"""A purchase log, a table of items and photos to a RecBole dataset."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa

from recbole_m3rec.atomic.inter_file import (
    Filters,
    Interactions,
    NothingLeftError,
    counts,
    filtered,
    write_interactions,
)
from recbole_m3rec.atomic.k_core import k_core, n_identical
from recbole_m3rec.datasets.io.problems import Problems
from recbole_m3rec.datasets.io.raw_lines import reading
from recbole_m3rec.datasets.tables import interactions, text_rows
from recbole_m3rec.datasets.tables import items as item_table
from recbole_m3rec.datasets.tables.images import check_images, images_by_column, mapping_text
from recbole_m3rec.datasets.tables.interactions import read_purchases
from recbole_m3rec.datasets.tables.items import Items, addresses, read_items, write_items
from recbole_m3rec.datasets.tables.read_table import Table
from recbole_m3rec.features.image_sources import images_in_folder
from recbole_m3rec.support.safe_write import new_files

RECBOLES_CORE = 5  # that of properties/overall.yaml

Content = bytes | Callable[[IO[bytes]], object]


@dataclass(frozen=True)
class TableSource:
    """A table and the columns of it that are used, by role."""

    table: Table
    columns: dict[str, str]


@dataclass(frozen=True)
class Shop:
    """What there is of a shop; ``time_format`` None says that the log is in the order of time."""

    log: TableSource
    time_format: str | None
    items: TableSource | None = None
    images: Path | None = None


def prepare_shop(
    shop: Shop,
    folder: Path,
    name: str,
    filters: Filters,
    recipe_file: Path | None = None,
) -> dict[str, Any]:
    """Write the files of a dataset, all or none, and return what ``.stats.json`` says.

    These are ``<name>.inter``, ``<name>.item`` where there is a table of items,
    ``<name>.images.csv`` where a column names the files of images, ``<name>.stats.json`` and the
    recipe file.

    Args:
        folder: where the files go, made if need be.
        filters: which interactions are kept.
        recipe_file: YAML for texts, if the items have any; left as it is where it is there.

    Raises:
        RawFileError: a table is damaged.
        ImageSourceError: images that belong to no item.
        NothingLeftError: no interaction is left.
        CannotWriteError: e.g. the disk is full; files that were there are unchanged.
        FileInUseError: another run writes the same dataset.
    """
    in_log = Problems(text_rows.PROBLEMS | interactions.PROBLEMS)
    in_items = Problems(text_rows.PROBLEMS | item_table.PROBLEMS)
    log, read = _log(shop, in_log, filters)
    item_ids = log.item_ids.take(pa.array(np.unique(log.items))).to_pylist()
    items = None
    if shop.items is not None:
        with reading(shop.items.table.path, "items") as progress:
            table, columns = shop.items.table, shop.items.columns
            items = read_items(table, columns, item_ids, in_items, progress)
    images, mapping, found_images = _images(shop.images, items, item_ids)
    result = {
        "log": _told(shop.log),
        "items_table": _told(shop.items),
        "time_format": shop.time_format or "none, in the order of the rows",
        "filters": asdict(filters),
        **_counts(log, in_order=shop.time_format is None),
        **read,
        **(_item_counts(items, item_ids) if items else {}),
        **found_images,
        "problems_of_the_log": in_log.found(),
        "problems_of_the_items": in_items.found(),
    }
    filled = items.filled() if items else {}
    fields = [item_table.FIELDS[role][0] for role in item_table.TEXT_ROLES if role in filled]
    more: dict[Path, Content] = {}
    if items:
        more[folder / f"{name}.item"] = partial(write_items, items)
    if mapping:
        more[folder / f"{name}.images.csv"] = mapping_text(images, folder)
    if recipe_file is not None and fields and not recipe_file.exists():
        more[recipe_file] = recipe(name, fields)
    return write_dataset(folder / name, log, result, more)


def write_dataset(
    stem: Path, log: Interactions, result: dict[str, Any], more: Mapping[Path, Content]
) -> dict[str, Any]:
    """Write the files of a dataset, all or none: ``.inter``, others, and ``.stats.json``.

    Args:
        stem: folder and name.
        result: what the statistics say.
        more: the other files, each as its content or what writes it.

    Returns:
        ``result``, and the paths ``written``.

    Raises:
        CannotWriteError: e.g. the disk is full; files that were there are unchanged.
        FileInUseError: another run writes the same dataset.
    """
    contents = {
        Path(f"{stem}.inter"): partial(write_interactions, log),
        **more,
        # Comes last: where it is, all is.
        Path(f"{stem}.stats.json"): (json.dumps(result, indent=2) + "\n").encode(),
    }
    with new_files(*contents) as files:
        for file, content in zip(files, contents.values(), strict=True):
            with file.writing():
                if isinstance(content, bytes):
                    file.file.write(content)
                else:
                    content(file.file)
    return result | {"written": [str(path) for path in contents]}


def recipe(name: str, fields: list[str]) -> bytes:
    """Return the YAML by which training makes features of an item's texts."""
    return (
        f"# How dataset/{name}/{name}.text.parquet is made where it is not there.\n"
        "features:\n"
        "  text:\n"
        "    encoder: tfidf-svd\n"
        f"    fields: [{', '.join(fields)}]\n"
    ).encode()


def _log(shop: Shop, problems: Problems, filters: Filters) -> tuple[Interactions, dict[str, int]]:
    path = shop.log.table.path
    with reading(path, "log") as progress:
        log, n_rows = read_purchases(
            shop.log.table, shop.log.columns, shop.time_format, problems, progress
        )
    if not len(log):
        raise NothingLeftError(
            f"{path}: none of its {n_rows:,} rows has user, item and time. Found were:"
            f" {problems.found() or 'no problems'}"
        )
    n_usable = len(log)
    log, dropped = filtered(log, filters, str(path))
    return log, {"rows": n_rows, "rows_usable": n_usable, **dropped}


def _counts(log: Interactions, in_order: bool) -> dict[str, Any]:
    """Count what is there, and what RecBole's filter would leave of it."""
    result = counts(log)
    if in_order:
        del result["first_interaction"], result["last_interaction"]
    core = log.rows(k_core(log.users, log.items, RECBOLES_CORE))
    left = counts(core) if len(core) else {}
    purchases = np.bincount(log.users)
    return result | {
        "longest_history": int(purchases.max()),
        "user_of_the_longest_history": log.user_ids[int(purchases.argmax())].as_py(),
        "of_these_at_the_same_time": n_identical(log.users, log.items, log.times),
        "five_core": {key: left.get(key, 0) for key in ("users", "items", "interactions")},
    }


def _item_counts(items: Items, wanted: list[str]) -> dict[str, Any]:
    return {
        "items_in_the_table": len(items.rows),
        "items_not_in_the_table": len(wanted) - len(items.rows),
        "items_of_the_table_never_bought": items.n_others,
        "items_with": items.filled(),
        "image_addresses": addresses(items),
    }


def _images(
    folder: Path | None, items: Items | None, wanted: list[str]
) -> tuple[dict[str, Path], bool, dict[str, int]]:
    """Return images by item, whether it takes a mapping to know them, and counts."""
    if folder is None:
        return {}, False, {}
    rows = items.rows if items else {}
    names = {item: row["image"] for item, row in rows.items() if row.get("image")}
    if names and items and not addresses(items):
        paths, n_missing = images_by_column(names, folder)
        if paths:
            images, counts = check_images(paths, wanted, folder)
            return images, True, counts | {"image_names_without_file": n_missing}
    images, counts = check_images(images_in_folder(folder), wanted, folder)
    return images, False, counts


def _told(source: TableSource | None) -> dict[str, Any] | None:
    if source is None:
        return None
    return {"name": source.table.path.name, "table": str(source.table), "columns": source.columns}
