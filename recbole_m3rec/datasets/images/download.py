"""Downloads many item images: in parallel, few per host, resumable, reported."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from tqdm import tqdm

from recbole_m3rec.cluster.pieces import THIS_PROCESS, Cluster
from recbole_m3rec.datasets.images.hosts import Politeness, results_of
from recbole_m3rec.datasets.images.report import (
    FAILED,
    REFUSED,
    REPORT_NAME,
    STORED,
    Entry,
    append_to_report,
    read_report,
    write_report,
)
from recbole_m3rec.datasets.io.download import (
    TOO_LARGE,
    DownloadError,
    Limits,
    download,
    too_large,
)
from recbole_m3rec.datasets.io.urls import RefusedAddressError, shortened
from recbole_m3rec.features.encoders.image_files import ImageFileError, decode_image
from recbole_m3rec.features.image_sources import IMAGE_SUFFIXES, ImageSourceError, file_stem
from recbole_m3rec.support.hashing import sha256_of
from recbole_m3rec.support.safe_write import CannotWriteError, FileInUseError, NewFile

MOST_OF_ADDRESS = 10_000  # characters; servers take fewer

IMAGE_LIMITS = Limits(max_bytes=20_000_000, stall=30.0, try_time=300.0, tries=4)

_PLACEHOLDER = re.compile(r"placeholder, the same picture at (\d+) addresses")
_SUFFIXES = {"JPEG": ".jpg", "MPO": ".jpg", "TIFF": ".tif", "PPM": ".ppm"}


def fetch_images(
    urls: Mapping[str, str],
    folder: Path,
    *,
    limits: Limits = IMAGE_LIMITS,
    politeness: Politeness = Politeness(),  # noqa: B008
    placeholder_from: int = 20,
    retry_refused: bool = False,
    allow_private: bool = False,
    show_progress: bool = True,
    cluster: Cluster = THIS_PROCESS,
) -> list[Entry]:
    """Fetch the images that are not there yet to ``<folder>/<item id, percent-encoded>.<suffix>``.

    The report ``<folder>/download.csv`` says what became of each item. It grows while the run goes
    on, so that a run that was killed goes on where it was, and is sorted by item at the end.

    Args:
        urls: address by item id, ``""`` where an item has none.
        folder: made where needed.
        politeness: how many fetches at once.
        placeholder_from: a picture that so many different addresses give is taken for "no image
            available" and not kept; 0 keeps all.
        retry_refused: try again also what was refused by an earlier run.
        allow_private: also ask this machine and private networks.
        cluster: where the images are fetched and looked at.

    Returns:
        The report, sorted by item.

    Raises:
        ValueError: ``placeholder_from`` is 1, or below 0.
        FileInUseError: another run fetches images to the folder.
        CannotWriteError: the disk is full, or the folder cannot be written.
    """
    if placeholder_from == 1 or placeholder_from < 0:
        raise ValueError(
            "placeholder_from must be 0, to keep all pictures, or a whole number from 2 on, found"
            f" {placeholder_from}"
        )
    with ExitStack() as at_the_end:
        at_the_end.callback(NewFile(folder / f"{REPORT_NAME}.lock", named=folder).give_up)
        earlier = read_report(folder)

        def holds(entry: Entry) -> bool:
            if entry.status == STORED:
                return _is_there(entry, folder)
            is_lifted = _is_lifted(entry, limits, allow_private, placeholder_from)
            return entry.status == REFUSED and not retry_refused and not is_lifted

        entries = {
            item: entry
            for item, entry in earlier.items()
            if urls.get(item) == entry.url and holds(entry)
        }
        left: dict[str, list[str]] = defaultdict(list)
        for item, url in sorted(urls.items()):
            if item in entries:
                continue
            if item in earlier and earlier[item].file:  # of another address, or damaged
                (folder / earlier[item].file).unlink(missing_ok=True)
            problem = _hopeless(item, url)
            if problem:
                entries[item] = Entry(item, REFUSED, problem, shortened(url))
            else:
                left[url].append(item)
        write_report(folder, entries.values())
        n_left = sum(map(len, left.values()))
        with (
            tqdm(total=n_left, desc="images", unit="image", disable=not show_progress) as bar,
            open(folder / REPORT_NAME, "a", encoding="utf-8", newline="") as report,
        ):
            fetch = partial(_fetch_on, cluster) if cluster.is_remote else _fetch
            fetch = partial(fetch, folder=folder, limits=limits, allow_private=allow_private)
            for made in results_of(left, politeness, fetch):
                append_to_report(report, made)
                for entry in made:
                    entries[entry.item_id] = entry
                bar.update(len(made))
        final = _without_placeholders(entries, folder, placeholder_from)
        write_report(folder, final)
        if not any(entry.status == FAILED for entry in final):  # else their first bytes are kept
            shutil.rmtree(folder / ".incoming", ignore_errors=True)
        return final


def _hopeless(item: str, url: str) -> str:
    if not url:
        return "no address"
    if len(url) > MOST_OF_ADDRESS:
        return f"an address that is too long ({len(url):,} characters)"
    try:
        file_stem(item)
    except ImageSourceError as error:
        return str(error)
    return ""


def _is_there(entry: Entry, folder: Path) -> bool:
    path = folder / entry.file
    is_whole = path.is_file() and str(path.stat().st_size) == entry.bytes
    return is_whole and path.suffix in IMAGE_SUFFIXES


def _is_lifted(entry: Entry, limits: Limits, allow_private: bool, placeholder_from: int) -> bool:
    """Tell whether what an earlier run refused, another option of this one allows."""
    if at := _PLACEHOLDER.fullmatch(entry.reason):
        return placeholder_from == 0 or int(at[1]) < placeholder_from
    if entry.reason.startswith(TOO_LARGE):
        return limits.max_bytes is None or entry.reason != too_large(limits.max_bytes)
    return allow_private and "--allow-private" in entry.reason


def _fetch(
    url: str, items: Sequence[str], folder: Path, limits: Limits, allow_private: bool
) -> list[Entry]:
    suffix, problem = "", ""

    def check(path: Path) -> str | None:
        nonlocal suffix, problem
        try:
            _, image_format = decode_image(path)
        except ImageFileError as error:
            problem = str(error)
            return problem
        suffix = _SUFFIXES.get(image_format, f".{image_format.lower()}")
        return None

    incoming = _incoming(folder, url)
    try:
        download(url, incoming, limits=limits, allow_private=allow_private, check=check)
    except FileInUseError:
        return [Entry(item, FAILED, "another run fetches it", url) for item in items]
    except RefusedAddressError as error:
        return [Entry(item, REFUSED, error.reason, url) for item in items]
    except DownloadError as error:
        # A subclass says that the server was asked in vain, and may answer another time.
        status = REFUSED if type(error) is DownloadError else FAILED
        return [Entry(item, status, problem or error.reason, url) for item in items]
    size, digest = str(incoming.stat().st_size), sha256_of(incoming)
    entries = []
    for item in items:
        name = file_stem(item) + suffix
        _place(incoming, folder / name)
        entries.append(Entry(item, STORED, "", url, name, size, digest))
    incoming.unlink()
    return entries


def _fetch_on(
    cluster: Cluster,
    url: str,
    items: Sequence[str],
    folder: Path,
    limits: Limits,
    allow_private: bool,
) -> list[Entry]:
    """Have an address fetched by a worker of a cluster, and place what it gave."""
    [(made, content)] = cluster.map(fetch_on_worker, [(url, items, limits, allow_private)])
    if content:
        incoming = _incoming(folder, url)
        try:
            incoming.parent.mkdir(exist_ok=True)
            incoming.write_bytes(content)
        except OSError as error:
            raise CannotWriteError(f"cannot write {incoming}: {error.strerror}") from error
        for entry in made:
            _place(incoming, folder / entry.file)
        incoming.unlink()
    return made


def fetch_on_worker(
    url: str, items: Sequence[str], limits: Limits, allow_private: bool
) -> tuple[list[Entry], bytes]:
    """Fetch an address on a worker: an entry for each item, and the image, empty if there is none.

    Nothing stays there; of an image that arrived in part, nothing at all.
    """
    with TemporaryDirectory(prefix="recbole_m3rec-") as folder:
        made = _fetch(url, items, Path(folder), limits, allow_private)
        file = made[0].file
        return made, (Path(folder) / file).read_bytes() if file else b""


def _incoming(folder: Path, url: str) -> Path:
    return folder / ".incoming" / hashlib.sha256(url.encode()).hexdigest()[:32]


def _place(incoming: Path, path: Path) -> None:
    temporary = incoming.with_name(f"{incoming.name}.copy")
    try:
        shutil.copyfile(incoming, temporary)
        os.replace(temporary, path)
    except OSError as error:
        raise CannotWriteError(f"cannot write {path}: {error.strerror}") from error


def _without_placeholders(
    entries: Mapping[str, Entry], folder: Path, placeholder_from: int
) -> list[Entry]:
    """Turn stored pictures that many addresses gave into refused ones, and remove their files."""
    addresses: dict[str, set[str]] = defaultdict(set)
    for entry in entries.values():
        if entry.sha256:
            addresses[entry.sha256].add(entry.url)
    final = []
    for _, entry in sorted(entries.items()):
        n_addresses = len(addresses[entry.sha256]) if entry.sha256 else 0
        if entry.status == STORED and 0 < placeholder_from <= n_addresses:
            reason = f"placeholder, the same picture at {n_addresses} addresses"  # _PLACEHOLDER
            if entry.file:
                (folder / entry.file).unlink(missing_ok=True)
            entry = replace(entry, status=REFUSED, reason=reason, file="")
        final.append(entry)
    return final
