"""The item tokens of a prepared dataset, read from its atomic files."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv

from recbole_m3rec.atomic.item_file import ItemFileError, read_item_fields


def dataset_items(
    folder: Path, name: str, *, item_id_field: str = "item_id"
) -> tuple[Path, list[str]] | None:
    """Return the items of ``<name>.inter``, or else of ``<name>.item``, and which file it was.

    Returns:
        None where neither file is there.

    Raises:
        ItemFileError: the file is not in the atomic format, or has no such field.
    """
    inter, item = folder / f"{name}.inter", folder / f"{name}.item"
    if inter.is_file():
        return inter, _items_of_log(inter, item_id_field)
    if item.is_file():
        return item, read_item_fields(item, [], item_id_field=item_id_field)[0]
    return None


def _items_of_log(path: Path, item_id_field: str) -> list[str]:
    with open(path, encoding="utf-8") as file:
        header = file.readline().rstrip("\r\n").split("\t")
    found = [head for head in header if head.partition(":")[0] == item_id_field]
    if not found:
        raise ItemFileError(f"{path}, line 1: no field {item_id_field!r}; the file has {header}")
    try:
        table = pa_csv.read_csv(
            path,
            parse_options=pa_csv.ParseOptions(delimiter="\t"),
            convert_options=pa_csv.ConvertOptions(
                include_columns=found, column_types={found[0]: pa.string()}
            ),
        )
    except pa.ArrowInvalid as error:
        raise ItemFileError(f"{path}: cannot be read ({error})") from error
    items: list[str] = table[found[0]].unique().to_pylist()
    return items
