"""Show what is in a prepared dataset, as a table and a picture, and whether features fit the items.

    recbole-m3rec describe --dataset clothing
    recbole-m3rec describe --dataset shop --images photos

Reads <data path>/<dataset>/: the .inter file, feature files, and titles of the .item file. "Fit to
histories" is the chance that two items bought one after the other are more alike than two random
ones: near 50 % the features know nothing of what people buy, or belong to other items. The picture
(<dataset>.png, needs matplotlib) shows the nearest neighbours of some items.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from recbole_m3rec.atomic.atomic_file import AtomicFileError
from recbole_m3rec.atomic.inter_file import read_interactions
from recbole_m3rec.atomic.item_file import ItemFile
from recbole_m3rec.cli.commands import documented_parser, folder_name, run_script, short
from recbole_m3rec.datasets.describe.features import (
    example_items,
    fit_to_histories,
    summarize_features,
)
from recbole_m3rec.datasets.describe.figure import N_NEIGHBOURS, Shown, draw_summary
from recbole_m3rec.datasets.describe.log import (
    core_of,
    successive_items,
    summarize,
    summary_rows,
)
from recbole_m3rec.features.align import zeros_hint
from recbole_m3rec.features.feature_file import read_features
from recbole_m3rec.features.image_sources import images_by_mapping, images_in_folder
from recbole_m3rec.features.recipes import files_by_modality
from recbole_m3rec.support.argument_types import positive
from recbole_m3rec.support.command_names import command
from recbole_m3rec.support.extras import NotInstalledError, no_pictures
from recbole_m3rec.support.safe_write import CannotWriteError, is_stream
from recbole_m3rec.support.text_table import text_table

FIRST_COLUMN = 26  # characters of tables
PNG = b"\x89PNG\r\n\x1a\n"  # how such a file begins
FIVE = 5  # the k-core of properties/overall.yaml
TITLE_FIELDS = ("title", "movie_title", "name")


def describe(arguments: Sequence[str]) -> None:
    options = parser().parse_args(arguments)
    name, folder = options.dataset, options.data_path / options.dataset
    picture = options.output or folder / f"{name}.png"
    refuse_to_replace(picture)
    missing = no_pictures()
    if missing and options.output:
        raise NotInstalledError(f"--output {options.output}: {missing}")
    log = read_interactions(
        folder / f"{name}.inter", options.user_id_field, options.item_id_field, options.time_field
    )
    core = core_of(log, FIVE)
    whole, left = summarize(log), summarize(core)
    table = [["", "in the file", "after five-core"], *summary_rows(whole, left)]
    print(text_table(table, narrowest=FIRST_COLUMN))
    if not len(core):
        print("five-core leaves nothing; what follows is of all interactions in the file")
    seen = core if len(core) else log
    used = np.unique(seen.items)
    item_ids = seen.item_ids.take(used).to_pylist()
    popularity = np.bincount(seen.items)[used]
    code = np.zeros(len(seen.item_ids), np.int64)
    code[used] = np.arange(len(used))
    pairs = code[successive_items(seen)]
    modalities = {}
    for modality, paths in sorted(files_by_modality(name, options.features or folder).items()):
        for path in paths:
            summary, vectors = summarize_features(read_features(path), item_ids, popularity)
            fit = fit_to_histories(vectors, pairs) if summary.n_items else None
            rows = [[modality, str(path)], *summary.rows(fit)]
            print(f"\n{text_table(rows, narrowest=FIRST_COLUMN)}")
            if summary.n_zero_rows:
                print(zeros_hint(summary.n_zero_rows, summary.zero_row))
            if not summary.n_items:
                print(f"none of the {len(item_ids):,} items has a row: are ids written alike?")
            else:
                modalities[modality] = Shown(summary, vectors, fit)
    if not modalities:
        print(f"\nno features of these items in {options.features or folder}:")
        print(f"{command('encode text')} and {command('encode images')} make some, and training")
        print("those that it has a recipe for")
    titles = titles_of(options, folder / f"{name}.item", item_ids)
    vectors_of_all = [shown.vectors for shown in modalities.values()]
    examples = chosen_items(options.items, item_ids) or (
        example_items(vectors_of_all, popularity, options.examples) if modalities else []
    )
    show_neighbours(modalities, examples, titles)
    images = {}
    if options.images:
        read = images_in_folder if options.images.is_dir() else images_by_mapping
        files = read(options.images)
        images = {place: files[item] for place, item in enumerate(item_ids) if item in files}
        print(f"\n{options.images}: pictures of {len(images):,} of {len(item_ids):,} items")
    if missing:
        print(f"\nno picture: {missing}")
    else:
        draw_summary(picture, name, whole, left, modalities, examples, titles, images)
        print(f"\npicture: {picture}")


def refuse_to_replace(picture: Path) -> None:
    """Raise where a file that is no picture, such as a dataset's, would be lost."""
    if is_stream(picture) or not picture.is_file():
        return
    with picture.open("rb") as file:
        start = file.read(len(PNG))
    if start not in (b"", PNG):
        raise CannotWriteError(
            f"cannot write {picture}: it is there and no picture (PNG). Name another --output"
        )


def titles_of(options: argparse.Namespace, path: Path, item_ids: Sequence[str]) -> list[str]:
    """Return a title for each item, its id where there is none."""
    if not path.is_file():
        return list(item_ids)
    file = ItemFile(path, options.item_id_field)
    fields = file.types()
    field = options.title_field or next((each for each in TITLE_FIELDS if each in fields), None)
    if field is None:
        return list(item_ids)
    tokens, [titles] = file.read([field])
    by_item = dict(zip(tokens, titles, strict=True))
    return [by_item.get(item) or item for item in item_ids]


def chosen_items(wanted: Sequence[str] | None, item_ids: Sequence[str]) -> list[int]:
    places = {item: place for place, item in enumerate(item_ids)}
    for item in wanted or ():
        if item not in places:
            raise AtomicFileError(f"--items: the dataset has no item {item!r}, after five-core")
    return [places[item] for item in wanted or ()]


def show_neighbours(
    modalities: dict[str, Shown], examples: Sequence[int], titles: Sequence[str]
) -> None:
    for item in examples:
        print(f"\n{titles[item]}")
        for modality, shown in modalities.items():
            if not shown.vectors.present[item]:
                print(f"  {modality}: no {modality}, so that nothing is near")
                continue
            nearest = zip(*shown.vectors.nearest(item, N_NEIGHBOURS), strict=True)
            neighbours = "; ".join(
                f"{short(titles[other])} ({alike:.2f})" for other, alike in nearest
            )
            print(f"  {modality}: {neighbours}")


def parser() -> argparse.ArgumentParser:
    result = documented_parser(__doc__, "describe")
    add = result.add_argument
    add("--dataset", type=folder_name, required=True, help="its name, as for training")
    add("--data-path", type=Path, default=Path("dataset"), help="folder of the datasets' folders")
    add("--features", type=Path, help="folder of the feature files (default that of the dataset)")
    add("--images", type=Path, help="folder of <item id>.jpg, or table of item_id and path")
    add("--items", nargs="+", metavar="ID", help="whose neighbours to show (default popular ones)")
    add("--examples", type=positive, default=5, help="how many items (default 5)")
    add("--output", type=Path, help="of the picture (default <data path>/<dataset>/<dataset>.png)")
    add("--title-field", help="of the .item file (default title, movie_title or name)")
    for field in ("user_id", "item_id"):
        add(f"--{field.replace('_', '-')}-field", default=field, help=f"default {field}")
    add("--time-field", help="default timestamp, where there is one")
    return result


main = partial(run_script, describe)
