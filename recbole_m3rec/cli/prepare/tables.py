"""Turn a purchase log of your own, with a table of items and photos, into a RecBole dataset.

    recbole-m3rec prepare tables --name shop --log purchases.csv
    recbole-m3rec prepare tables --name shop --log purchases.csv --items products.csv \\
        --images photos --yes
    recbole-m3rec prepare tables --name shop --log log.parquet --user buyer --time - --yes

Tables are CSV (any separator, gzipped or not), JSON lines or Parquet. What each column is taken
for is shown and asked for before anything is written. Photos are files <item id>.jpg (.png, ...),
or files that a column of the items names. Writes <output>/<name>/<name>.inter, .item and
.stats.json, and properties/dataset/<name>.yaml, a recipe for features of the texts.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import pandas as pd

from recbole_m3rec.atomic.atomic_file import AtomicFileError, text_encoding
from recbole_m3rec.atomic.inter_file import DUPLICATES, Filters
from recbole_m3rec.cli.commands import (
    confirm,
    dataset_name,
    documented_parser,
    run_script,
    short,
    show_files,
)
from recbole_m3rec.cli.prepare.after_tables import say_next, show
from recbole_m3rec.datasets.tables.column_roles import (
    ITEM_ROLES,
    LOG_ROLES,
    ColumnError,
    guess_columns,
)
from recbole_m3rec.datasets.tables.items import TEXT_ROLES
from recbole_m3rec.datasets.tables.prepare import Shop, TableSource, prepare_shop
from recbole_m3rec.datasets.tables.read_table import Table, open_table, sample
from recbole_m3rec.datasets.tables.time_formats import (
    EPOCH,
    ISO,
    describe_format,
    guess_time_formats,
)
from recbole_m3rec.support.argument_types import positive

ITEM_OPTIONS = {"item": "item_column", "categories": "category"}


def generic(arguments: Sequence[str]) -> None:
    options = parser().parse_args(arguments)
    log = open_table(
        options.log,
        separator=options.separator,
        encoding=options.encoding,
        header=not options.no_header,
    )
    columns_by_role = {role: getattr(options, role) for role in LOG_ROLES}
    columns = columns_of(log, LOG_ROLES, columns_by_role, {"user": "--user", "item": "--item"})
    examples = sample(log)
    print(f"purchases: {options.log}, {log}")
    time_format = None
    if "time" in columns:
        time_format = format_of(options, columns["time"], examples[columns["time"]])
    elif options.time != "-":
        raise ColumnError(
            f"{options.log}: which column is the time? There are {', '.join(log.names)}. Name it by"
            " --time, or say --time - if the rows stand in the order of time"
        )
    show_columns(log, columns, examples)
    time = describe_format(time_format, examples[columns["time"]]) if time_format else ""
    print(f"  times are {time}" if time else "  no time: the rows are taken to be in its order")
    items = item_source(options)
    if options.images:
        print(f"images: {options.images}")
    folder = options.output / options.name
    recipe_file = Path("properties/dataset", f"{options.name}.yaml")
    named = items is not None and options.images and "image" in items.columns
    mapping = folder / f"{options.name}.images.csv"
    has_texts = items is not None and bool(items.columns.keys() & set(TEXT_ROLES))
    makes_recipe = has_texts and not recipe_file.exists()
    perhaps = [*[mapping] * bool(named), *[recipe_file] * makes_recipe]
    kinds = ["inter", *["item"] * bool(items), "stats.json"]
    show_files(folder / options.name, kinds, perhaps)
    if options.dry_run:
        return
    confirm(options.yes)
    shop = Shop(TableSource(log, columns), time_format, items, options.images)
    filters = Filters(duplicates=options.duplicates, k_core=options.k_core)
    result = prepare_shop(shop, folder, options.name, filters, recipe_file)
    show(result)
    say_next(result, options.output, options.name, options.images, recipe_file)


def item_source(options: argparse.Namespace) -> TableSource | None:
    if not options.items:
        for name in (ITEM_OPTIONS.get(role, role) for role in ITEM_ROLES):
            if getattr(options, name) not in (None, "-"):
                raise ColumnError(
                    f"--{name.replace('_', '-')} names a column of the items, which need --items"
                )
        return None
    table = open_table(options.items, separator=options.separator, encoding=options.encoding)
    options_by_role = {role: getattr(options, ITEM_OPTIONS.get(role, role)) for role in ITEM_ROLES}
    columns = columns_of(table, ITEM_ROLES, options_by_role, {"item": "--item-column"})
    print(f"items: {options.items}, {table}")
    show_columns(table, columns, sample(table))
    return TableSource(table, columns)


def columns_of(
    table: Table,
    roles: Mapping[str, str],
    given: Mapping[str, str | None],
    needed: Mapping[str, str],
) -> dict[str, str]:
    try:
        columns = guess_columns(table.names, roles, given)
    except ColumnError as error:
        raise ColumnError(f"{table.path}: {error}") from error
    for role, option in needed.items():
        if role not in columns:
            raise ColumnError(
                f"{table.path}: which column is the {role}? There are"
                f" {', '.join(map(short, table.names))}."
                f" Name it by {option}; a file without names of columns needs --no-header"
            )
    return columns


def separator(text: str) -> str:
    """Return an argument that is one character; a shell hands ``\\t`` over as two."""
    text = {"\\t": "\t"}.get(text, text)
    if len(text) != 1 or text in '"\r\n':
        raise argparse.ArgumentTypeError(
            f"{text!r} separates no values: expected one character, such as ',' ';' '|' or '\\t'"
        )
    return text


def encoding(text: str) -> str:
    """Return an argument that is an encoding of text."""
    try:
        return text_encoding(text)
    except AtomicFileError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def time_format(text: str) -> str:
    """Return an argument that is ``epoch``, ``iso`` or a format of ``strptime``."""
    reason = "without % there is no time in it"
    if text in (EPOCH, ISO):
        return text
    try:
        pd.to_datetime([""], format=text, errors="coerce")
        if "%" in text:
            return text
    except (ValueError, re.error) as error:
        reason = str(error)
    raise argparse.ArgumentTypeError(
        f"{text!r} is no format of times ({reason}). Expected epoch, iso, or one as in"
        " '%d.%m.%Y %H:%M'"
    )


def format_of(options: argparse.Namespace, column: str, values: Sequence[str]) -> str:
    formats = [options.time_format] if options.time_format else guess_time_formats(values)
    if len(formats) == 1:
        return formats[0]
    samples = [value for value in values if value][:3]
    if not formats:
        raise ColumnError(
            f"{options.log}: how are the times in {column!r} written? They look like {samples}. Say"
            " so by --time-format, as in --time-format '%d.%m.%Y %H:%M', or name another --time."
            " --time - takes the rows to be in the order of time, where times count from no date"
        )
    raise ColumnError(
        f"{options.log}: the times in {column!r}, such as {samples}, can be read as"
        f" {' and as '.join(formats)}. Say which by --time-format"
    )


def show_columns(
    table: Table, columns: Mapping[str, str], examples: Mapping[str, list[str]]
) -> None:
    for role, column in columns.items():
        samples = list(dict.fromkeys(filter(None, examples[column])))[:3]
        shown = ", ".join(repr(short(value)) for value in samples)
        print(f"  {role:<11} <- {column}: {shown or 'nothing in the first rows'}")
    unused = [name for name in table.names if name not in columns.values()]
    if unused:
        print(f"  not used: {', '.join(unused)}")


def parser() -> argparse.ArgumentParser:
    result = documented_parser(__doc__, "prepare tables")
    add = result.add_argument
    add("--name", type=dataset_name, required=True, help="of the dataset")
    add("--log", type=Path, required=True, help="table of purchases, one a row")
    add("--items", type=Path, help="table of items, one a row; may be the log itself")
    add("--images", type=Path, help="folder of the items' photos")
    add("--output", type=Path, default=Path("dataset"), help="folder of the datasets' folders")
    add("--yes", action="store_true", help="the columns are right, do not ask")
    add("--dry-run", action="store_true", help="show what the columns are taken for, and stop")
    log = result.add_argument_group("columns of the log, - for none").add_argument
    log("--user", metavar="COLUMN", help="who bought")
    log("--item", metavar="COLUMN", help="what was bought")
    log("--time", metavar="COLUMN", help="when; - if the rows stand in the order of time")
    log("--rating", metavar="COLUMN", help="how good")
    shown = "epoch, iso, or as in %%d.%%m.%%Y %%H:%%M"
    log("--time-format", type=time_format, metavar="FORMAT", help=shown)
    items = result.add_argument_group("columns of the items, - for none").add_argument
    items("--item-column", metavar="COLUMN", help="the item's id, as in the log")
    for name, what in (
        ("title", "name of the item"),
        ("brand", "brand or maker"),
        ("category", "category or categories"),
        ("price", "number, with or without currency"),
        ("description", "text"),
        ("image", "web address of a photo, or its file in --images"),
    ):
        items(f"--{name}", metavar="COLUMN", help=what)
    add("--separator", type=separator, help="between values of both tables (default: guessed)")
    guessed = "of both tables (default: guessed, UTF-8 or Windows-1252)"
    add("--encoding", type=encoding, help=guessed)
    add("--no-header", action="store_true", help="the log has no names; columns are 1, 2, ...")
    add(
        "--duplicates",
        choices=DUPLICATES,
        default="keep",
        help="which of several purchases of an item by one user are kept, in time (default all)",
    )
    add(
        "--k-core",
        type=positive,
        default=1,
        help="drop users and items with fewer purchases, repeatedly (default none: training"
        " filters at five, see properties/overall.yaml)",
    )
    return result


main = partial(run_script, generic)
