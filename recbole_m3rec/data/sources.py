"""The files of a dataset, fetched where a configuration says from where."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recbole_m3rec.atomic.inter_file import Filters
from recbole_m3rec.config.data_checks import UnknownNameError, is_absent
from recbole_m3rec.config.yaml_files import ConfigurationError
from recbole_m3rec.datasets.amazon.item_fields import ITEM_COLUMNS
from recbole_m3rec.datasets.amazon.prepare import prepare
from recbole_m3rec.datasets.amazon.raw_files import as_source, fetch_missing, raw_files
from recbole_m3rec.datasets.amazon.releases import find_category, find_release
from recbole_m3rec.datasets.io.download import DownloadError
from recbole_m3rec.support.command_names import command
from recbole_m3rec.support.suggestions import did_you_mean

# What `source:` may hold, the kind of value each has, and what it is.
SOURCE_KEYS: dict[str, tuple[tuple[type, ...], str]] = {
    "amazon": ((str,), "a category of Amazon's review data"),
    "release": ((int, str), "its year"),
    "base_url": ((str,), "another address than the publisher's, with the same folders below it"),
    "allow_private": ((bool,), "whether to fetch from this machine or network, too"),
}

_logger = logging.getLogger(__name__)


def fetch_if_absent(config: Any) -> None:
    """Fetch and prepare a dataset that has a ``source`` and no files, as the command does.

    Raises:
        ConfigurationError: ``source`` is invalid.
        UnknownNameError: the dataset is absent, and fetching it failed or is refused.
        CategoryError: the release has no such category.
        RefusedAddressError, RawFileError, CannotWriteError: as in fetching and preparing.
    """
    if not config["source"] or not is_absent(config):
        return
    source = checked(config["source"], config["dataset"])
    name, folder = config["dataset"], Path(config["data_path"])
    inter = folder / f"{name}.inter"
    release = find_release(str(source["release"]))
    category = find_category(release, source["amazon"])
    raw = Path("raw", f"amazon-{release.year}")
    files = raw_files(release, category, raw, base_url=source.get("base_url"))
    missing = [file for file in files if file.missing]
    by_hand = command(
        f"prepare amazon --release {release.year} --category {category} --name {name} --download"
    )
    if missing and not config["download"]:
        raise UnknownNameError(
            f"There is no dataset `{name}`: {inter} does not exist, and --no-download (download: "
            f"{config['download']}) refuses to fetch it from {missing[0].url}. Leave it out, or "
            f"prepare the dataset once: `{by_hand}`."
        )
    _logger.info(f"{inter} does not exist; preparing it from Amazon {release.year}, {category}")
    for file in missing:
        _logger.info(f"fetching {file.url} to {file.path} (--no-download refuses)")
    try:
        fetch_missing(files, bool(source.get("allow_private")))
    except DownloadError as error:
        raise UnknownNameError(
            f"There is no dataset `{name}`: {inter} does not exist, and fetching it failed: "
            f"{error}. The same command tries again; `{by_hand}` prepares the dataset once."
        ) from error
    columns = ("rating", *ITEM_COLUMNS)
    counts = prepare(as_source(release, category, files), folder, name, Filters(), columns)
    _logger.info(
        f"{inter}: {counts['users']:,} users, {counts['items']:,} items, "
        f"{counts['interactions']:,} interactions"
    )


def checked(source: Any, dataset: str) -> Mapping[str, Any]:
    """Return a ``source`` that has what it needs and nothing else.

    Raises:
        ConfigurationError: names the key, what was expected and what was found.
    """
    example = "{amazon: Beauty, release: 2014}"
    if not isinstance(source, dict) or not {"amazon", "release"} <= set(source):
        raise ConfigurationError(
            f"source of dataset {dataset} must be like {example}, found {source!r}."
        )
    for key, value in source.items():
        if key not in SOURCE_KEYS:
            raise ConfigurationError(
                f"source of dataset {dataset} has no key {key!r}; there are "
                f"{', '.join(SOURCE_KEYS)}.{did_you_mean(str(key), SOURCE_KEYS)}"
            )
        kinds, meaning = SOURCE_KEYS[key]
        if not isinstance(value, kinds):
            raise ConfigurationError(
                f"source of dataset {dataset}: {key} must be {meaning}, found {value!r}."
            )
    return source
