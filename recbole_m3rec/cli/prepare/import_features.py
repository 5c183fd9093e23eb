"""Bring vectors made elsewhere into a dataset as feature files, <dataset>.<modality>.parquet.

    recbole-m3rec import --dataset shop --modality image --source photos.npz
    recbole-m3rec import --dataset baby --source raw/baby
    recbole-m3rec import --dataset beauty --modality image \\
        --source img_feat.pt --ids i_id_mapping.csv

The second line takes a folder of image_feat.npy and text_feat.npy (or .pt) with i_id_mapping.csv,
as other toolkits have them. Nothing is unpickled.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from recbole_m3rec.atomic.item_file import dataset_items
from recbole_m3rec.cli.commands import (
    documented_parser,
    folder_name,
    modality_name,
    run_script,
)
from recbole_m3rec.features.feature_file import FeatureTable, read_features, write_features
from recbole_m3rec.features.feature_table import FeatureFileError
from recbole_m3rec.features.from_vectors import (
    find_layout,
    read_places,
    rows_that_are_ids,
    with_ids,
)
from recbole_m3rec.features.vector_files import READERS, read_vectors


def import_features(arguments: Sequence[str]) -> None:
    options = parser().parse_args(arguments)
    folder = options.data_path / options.dataset
    ids = options.ids
    if options.source.is_dir():
        sources, beside = find_layout(options.source)
        if options.modality:
            sources = {name: path for name, path in sources.items() if name == options.modality}
        ids = ids or (None if options.rows_are_ids else beside)
        if not sources:
            raise FeatureFileError(f"{options.source}: holds nothing of {options.modality}")
    elif options.modality:
        sources = {options.modality: options.source}
    else:
        raise FeatureFileError(f"name the --modality that {options.source} is of, such as image")
    if options.rows_are_ids and ids:
        raise FeatureFileError("--rows-are-ids and --ids exclude each other")
    if options.first_row is not None and not (options.rows_are_ids or ids):
        raise FeatureFileError("--first-row says how --ids or --rows-are-ids count: name one")
    items = dataset_items(folder, options.dataset, item_id_field=options.item_id_field)
    for modality, source in sources.items():
        table, notes = imported(options, source, ids, items[1] if items else [])
        output = folder / f"{options.dataset}.{modality}.parquet"
        print(f"{source}: {len(table.item_ids):,} items, {table.values.shape[1]}-d")
        for note in notes:
            print(f"  {note}")
        if items is not None:
            compare(source, table, *items)
        write(output, table, options.overwrite, options.dry_run)


def imported(
    options: argparse.Namespace, source: Path, ids: Path | None, catalogue: list[str]
) -> tuple[FeatureTable, list[str]]:
    vectors = read_vectors(source, options.id_column if ids is None else None)
    first_row, drop = options.first_row, options.drop_unnamed_rows
    if options.rows_are_ids:
        n_rows = len(vectors.values)
        numbered, counted = rows_that_are_ids(source, n_rows, catalogue, first_row)
        table, notes = with_ids(source, vectors, numbered)
        return table, counted + notes
    places = None
    if ids is not None:
        places = read_places(ids, id_column=options.id_column, row_column=options.row_column)
    return with_ids(source, vectors, places, drop_unnamed=drop, first_row=first_row)


def compare(source: Path, table: FeatureTable, path: Path, items: list[str]) -> None:
    """Say how many of the dataset's items have a vector; none is an error."""
    catalogue = set(items)
    n_both = len(catalogue.intersection(table.item_ids))
    if not n_both:
        raise FeatureFileError(
            f"{source}: none of its items is in {path}; it has {list(table.item_ids[:3])}, the"
            f" dataset {items[:3]}. The ids must be written alike"
        )
    share = n_both / len(catalogue)
    print(f"  {n_both:,} of the {len(catalogue):,} items in {path} have a vector ({share:.1%})")
    if n_both < len(table.item_ids):
        print(f"  {len(table.item_ids) - n_both:,} vectors are of other items, and are not used")


def write(output: Path, table: FeatureTable, overwrite: bool, dry_run: bool) -> None:
    if output.is_file():
        existing = read_features(output)
        same = existing.item_ids.tolist() == table.item_ids.tolist()
        if same and np.array_equal(existing.values, table.values):
            print(f"  {output} is up to date")
            return
        if not overwrite:
            raise FeatureFileError(
                f"{output} is there already and holds something else. Add --overwrite to replace it"
            )
    if dry_run:
        print(f"  would write {output}")
        return
    write_features(output, table)
    print(f"  wrote {output}")


def parser() -> argparse.ArgumentParser:
    result = documented_parser(__doc__, "import")
    add = result.add_argument
    add("--dataset", type=folder_name, required=True, help="its name, as for training")
    add("--data-path", type=Path, default=Path("dataset"), help="folder of the datasets' folders")
    add("--item-id-field", default="item_id", help="column of item ids (default item_id)")
    add(
        "--modality",
        type=modality_name,
        help="its name, such as image; of a folder, all that are found",
    )
    add("--source", type=Path, required=True, help=f"folder, or file ({', '.join(READERS)})")
    add("--ids", type=Path, help="which row is of which item: .csv, .tsv, .json, .txt or .npy")
    add("--id-column", help="column of ids in --ids, or else in the source")
    add("--row-column", help="column of row numbers in --ids")
    add("--rows-are-ids", action="store_true", help="row k is of the item whose id is k")
    counted = "the first row's number in --ids, or its id (default: whichever fits)"
    add("--first-row", type=int, choices=(0, 1), help=counted)
    add("--drop-unnamed-rows", action="store_true", help="leave out rows that no id names")
    add("--overwrite", action="store_true", help="replace a feature file that is there")
    add("--dry-run", action="store_true", help="check and show, and write nothing")
    return result


main = partial(run_script, import_features)
