"""Turn a category of Amazon's review data into a RecBole dataset.

    recbole-m3rec prepare amazon --release 2014 --category clothing --download
    recbole-m3rec prepare amazon --release 2023 --category Video_Games --from 2018-01-01 --duplicates last

Writes <output>/<name>/<name>.inter, .item and .stats.json.
"""  # noqa: E501

from __future__ import annotations

import argparse
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any

from recbole_m3rec.atomic.inter_file import DUPLICATES, Filters
from recbole_m3rec.cli.commands import (
    add_cluster,
    dataset_name,
    documented_parser,
    run_script,
    show_files,
)
from recbole_m3rec.cli.prepare.after_tables import dataset_settings, other_folder, say_training
from recbole_m3rec.cluster.connect import connected
from recbole_m3rec.datasets.amazon.item_fields import ITEM_COLUMNS
from recbole_m3rec.datasets.amazon.prepare import prepare
from recbole_m3rec.datasets.amazon.raw_files import (
    RawFile,
    as_source,
    fetch_missing,
    raw_files,
    require,
)
from recbole_m3rec.datasets.amazon.releases import (
    RELEASES,
    SHORT_NAMES,
    find_category,
    find_release,
    short_name,
)
from recbole_m3rec.datasets.tables.items import TEXT_ROLES
from recbole_m3rec.support.argument_types import positive
from recbole_m3rec.support.command_names import command


class DayError(ValueError):
    """The days asked for are none."""


COLUMNS = ("rating", *ITEM_COLUMNS)
_DAY = timedelta(days=1)
_MILLISECOND = timedelta(milliseconds=1)


def amazon(arguments: Sequence[str]) -> None:
    options = parser().parse_args(arguments)
    release = find_release(options.release)
    category = find_category(release, options.category)
    name = options.name or short_name(release, category)
    folder = options.output / name
    columns = tuple(options.columns)
    files = raw_files(
        release,
        category,
        options.raw_dir or Path("raw", f"amazon-{release.year}"),
        ratings=options.ratings,
        items=columns != ("rating",) and bool(columns),
        base_url=options.base_url,
    )
    if None not in (options.since, options.until) and options.since > options.until:
        raise DayError("--from names a later day than --to. Exchange them")
    filters = Filters(options.since, options.until, options.duplicates, options.k_core)
    if options.dry_run:
        show_plan(f"{release.year} {category}", files, filters, columns)
    show_files(folder / name, ["inter", *["item"] * (len(files) > 1), "stats.json"])
    if options.download and not options.dry_run:
        fetch_missing(files, options.allow_private)
    if not options.download:
        require(files)
    if not options.dry_run:
        source = as_source(release, category, files)
        with connected(options.cluster) as cluster:
            show(prepare(source, folder, name, filters, columns, cluster=cluster))
        print(f"{folder / name}.inter and beside it what belongs to it")
        say_next(options.output, name, has_texts=bool({*columns} & {*TEXT_ROLES}))


def say_next(output: Path, name: str, has_texts: bool) -> None:
    """Print the commands up to a training; without a recipe it takes features made before."""
    has_features = bool(dataset_settings(name).get("features"))
    if has_texts and not has_features:
        print(
            f"next, features of the texts:\n  {command('encode text')} --dataset {name}"
            f"{other_folder(output)}"
        )
    say_training(output, name, "" if has_texts else ' --modalities="[]"')


def parser() -> argparse.ArgumentParser:
    names = "\n".join(
        f"  {year}: " + ", ".join(SHORT_NAMES[category] for category in release.categories)
        for year, release in RELEASES.items()
    )
    result = documented_parser(__doc__, "prepare amazon", f"\nShort names of categories:\n{names}")
    add = result.add_argument
    add("--release", default="2014", help=f"{', '.join(RELEASES)} (default 2014)")
    add("--category", required=True, help="full or short name, e.g. Clothing_Shoes_and_Jewelry")
    add("--name", type=dataset_name, help="of the dataset (default the short name)")
    add("--raw-dir", type=Path, help="folder of the raw files (default raw/amazon-<release>)")
    add("--output", type=Path, default=Path("dataset"), help="folder of the datasets' folders")
    add("--ratings", action="store_true", help="take the ratings before the five-core")
    add(
        "--k-core",
        type=positive,
        default=5,
        help="drop users and items with fewer interactions, repeatedly (default 5; 1 keeps all)",
    )
    add(
        "--duplicates",
        choices=DUPLICATES,
        default="keep",
        help="which of several reviews of an item by one user are kept, in time (default all)",
    )
    add("--from", dest="since", type=start_of_day, metavar="DAY", help="first day, 2014-07-23, UTC")
    add("--to", dest="until", type=end_of_day, metavar="DAY", help="last day, included, UTC")
    add(
        "--columns",
        type=column_names,
        default=COLUMNS,
        help=f"besides ids and time, with commas (default {','.join(COLUMNS)})",
    )
    add("--download", action="store_true", help="fetch the raw files that are missing")
    add("--base-url", help="another address than the publisher's, with the same folders below it")
    add("--allow-private", action="store_true", help="fetch from this machine or network, too")
    add("--dry-run", action="store_true", help="show what would be done, and do nothing")
    add_cluster(result)
    return result


def start_of_day(text: str) -> int:
    try:
        day = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=timezone.utc)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"expected a day like 2014-07-23, found {text!r}"
        ) from error
    return (day - datetime(1970, 1, 1, tzinfo=timezone.utc)) // _MILLISECOND


def end_of_day(text: str) -> int:
    return start_of_day(text) + _DAY // _MILLISECOND - 1


def column_names(text: str) -> tuple[str, ...]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in COLUMNS]
    if unknown:
        raise argparse.ArgumentTypeError(
            f"there is no column {', '.join(unknown)}; there are {', '.join(COLUMNS)}"
        )
    return tuple(name for name in COLUMNS if name in names)


def show_plan(what: str, files: list[RawFile], filters: Filters, columns: Sequence[str]) -> None:
    print(f"category: {what}")
    for file in files:
        state = f"{file.path.stat().st_size:,} bytes" if not file.missing else f"from {file.url}"
        print(f"read: {file.path}, {state}")
    print(f"keep: {filters}")
    print(f"columns: {', '.join(columns) or 'none besides ids and time'}")


def show(result: dict[str, Any]) -> None:
    for key, value in result.items():
        if key in ("users", "items", "interactions") or (value and key.startswith(("drop", "rep"))):
            print(f"{key.replace('_', ' ')}: {value:,}")
    for key in ("items_with_metadata", "items_without_metadata"):
        if key in result:
            print(f"{key.replace('_', ' ')}: {result[key]:,}")
    for kind, count in result["problems"].items():
        print(f"problem: {kind.replace('_', ' ')}: {count:,}")


main = partial(run_script, amazon)
