"""Turn a MovieLens release into a RecBole dataset, with overviews and posters of your own.

    recbole-m3rec prepare movielens --source ml-1m.zip
    recbole-m3rec prepare movielens --source ml-latest-small --overviews overviews.tsv
    recbole-m3rec prepare movielens --from-recbole --overviews overviews.tsv --posters posters

Reads ml-100k, ml-1m, ml-latest-small and the larger ones of its form, such as ml-25m, folder or zip
file. --from-recbole takes the ml-100k that comes with RecBole. Overviews are a table of movie_id,
title and overview; posters are files <movie id>.jpg, or a table of item_id and path. Writes
<output>/<name>/<name>.inter, .item and .stats.json.
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from recbole_m3rec.cli.commands import dataset_name, documented_parser, run_script, show_files
from recbole_m3rec.cli.prepare.after_tables import other_folder, say_training
from recbole_m3rec.datasets.movielens import (
    FIELDS,
    OVERVIEW,
    SHIPPED,
    find_release,
    prepare_movielens,
)
from recbole_m3rec.support.command_names import command


def movielens(arguments: Sequence[str]) -> None:
    options = parser().parse_args(arguments)
    release = find_release(options.source or recboles_folder())
    name = options.name or release.name
    folder = options.output / name
    print(f"{release.name}: {release.ratings.path}, {release.movies.path}")
    # The recipe of RecBole's own dataset reads RecBole's own file, which has no overviews.
    recipe_file = None if name == SHIPPED else Path("properties/dataset", f"{name}.yaml")
    show_files(folder / name, ["inter", "item", "stats.json"])
    if options.dry_run:
        return
    result = prepare_movielens(
        release,
        folder,
        name,
        overviews=options.overviews,
        posters=options.posters,
        recipe_file=recipe_file,
    )
    show(result)
    for path in result["written"]:
        print(f"wrote {path}")
    if recipe_file and str(recipe_file) not in result["written"]:
        print(f"{recipe_file} was there and is unchanged")
    say_next(options, name)


def recboles_folder() -> Path:
    spec = importlib.util.find_spec("recbole")
    folders = (spec.submodule_search_locations if spec else None) or [""]
    return Path(folders[0], "dataset_example", SHIPPED)


def show(result: Mapping[str, Any]) -> None:
    for key, value in result.items():
        if isinstance(value, int) and (
            value or not key.endswith(("rated", "empty", "other_items"))
        ):
            print(f"{key.replace('_', ' ')}: {value:,}")
    for kind, count in result["problems"].items():
        print(f"problem: {kind.replace('_', ' ')}: {count:,}")


def say_next(options: argparse.Namespace, name: str) -> None:
    fields = [*FIELDS, *([OVERVIEW] if options.overviews else [])]
    data_path = other_folder(options.output)
    print("next, features:")
    print(f"  {command('encode text')} --dataset {name}{data_path} --fields {' '.join(fields)}")
    if options.posters:
        kind = "images" if options.posters.is_dir() else "mapping"
        print(
            f"  {command('encode images')} --dataset {name}{data_path} --{kind} {options.posters}"
        )
    say_training(options.output, name)
    if name == SHIPPED:
        print(
            "--dataset=ml-100k reads the interactions that come with RecBole, which"
            f" are the same, and features from dataset/{name}"
        )


def parser() -> argparse.ArgumentParser:
    result = documented_parser(__doc__, "prepare movielens")
    add = result.add_argument
    source = result.add_mutually_exclusive_group(required=True)
    source.add_argument("--source", type=Path, help="folder or zip file of a release")
    source.add_argument("--from-recbole", action="store_true", help="the ml-100k of RecBole")
    add("--overviews", type=Path, help="table of movie_id, overview and, to check, title")
    add("--posters", type=Path, help="folder of <movie id>.jpg, or table of item_id and path")
    add("--name", type=dataset_name, help="of the dataset (default that of the release)")
    add("--output", type=Path, default=Path("dataset"), help="folder of the datasets' folders")
    add("--dry-run", action="store_true", help="show what would be done, and do nothing")
    return result


main = partial(run_script, movielens)
