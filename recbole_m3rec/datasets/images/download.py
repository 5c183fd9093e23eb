"""Downloads many item images: in parallel, few per host, resumable, reported."""

from __future__ import annotations

import hashlib
import os
import queue
import shutil
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from numbers import Integral
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

from tqdm import tqdm

from recbole_m3rec.cluster.pieces import THIS_PROCESS, Cluster
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
from recbole_m3rec.datasets.io.download import DownloadError, Limits, download
from recbole_m3rec.datasets.io.urls import RefusedAddressError
from recbole_m3rec.features.encoders.image_files import ImageFileError, decode_image
from recbole_m3rec.features.image_sources import ImageSourceError, file_stem
from recbole_m3rec.support.hashing import sha256_of
from recbole_m3rec.support.safe_write import CannotWriteError, FileInUseError

IMAGE_LIMITS = Limits(max_bytes=20_000_000, stall=30.0, try_time=300.0, tries=4)

_SUFFIXES = {"JPEG": ".jpg", "MPO": ".jpg", "TIFF": ".tif", "PPM": ".ppm"}


@dataclass(frozen=True)
class Politeness:
    """How many fetches run at once, in all and per host, from 1 on.

    Raises:
        ValueError: one of them is no whole number, or below 1.
    """

    at_once: int = 16
    per_host: int = 4

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
                raise ValueError(f"{name} must be a whole number from 1 on, found {value!r}")


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
        CannotWriteError: the disk is full, or the folder cannot be written.
    """
    earlier = read_report(folder)
    entries = {
        item: entry
        for item, entry in earlier.items()
        if item in urls and entry.url == urls[item] and _still_holds(entry, folder, retry_refused)
    }
    left: dict[str, list[str]] = defaultdict(list)
    for item, url in sorted(urls.items()):
        if item in entries:
            continue
        problem = _hopeless(item, url)
        if problem:
            entries[item] = Entry(item, REFUSED, problem, url)
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
        for made in _results(left, politeness, fetch):
            append_to_report(report, made)
            for entry in made:
                entries[entry.item_id] = entry
                before = earlier.get(entry.item_id)
                if before is not None and before.file not in ("", entry.file):
                    (folder / before.file).unlink(missing_ok=True)
            bar.update(len(made))
    final = _without_placeholders(entries, folder, placeholder_from)
    write_report(folder, final)
    if not any(entry.status == FAILED for entry in final):  # else their first bytes are kept
        shutil.rmtree(folder / ".incoming", ignore_errors=True)
    return final


def _hopeless(item: str, url: str) -> str:
    if not url:
        return "no address"
    try:
        file_stem(item)
    except ImageSourceError as error:
        return str(error)
    return ""


def _still_holds(entry: Entry, folder: Path, retry_refused: bool) -> bool:
    if entry.status == STORED:
        path = folder / entry.file
        return path.is_file() and str(path.stat().st_size) == entry.bytes
    return entry.status == REFUSED and not retry_refused


def _results(
    left: Mapping[str, Sequence[str]],
    politeness: Politeness,
    fetch: Callable[[str, Sequence[str]], list[Entry]],
) -> Iterator[list[Entry]]:
    """Yield what became of each address, as it comes: an entry for each of its items."""
    waiting: dict[str, deque[str]] = defaultdict(deque)  # by host
    for url in left:
        waiting[_host(url)].append(url)
    free = dict.fromkeys(waiting, politeness.per_host)
    asked: queue.SimpleQueue[str | None] = queue.SimpleQueue()  # None ends a thread
    finished: queue.SimpleQueue[tuple[str, list[Entry] | BaseException]] = queue.SimpleQueue()

    def work() -> None:
        while (url := asked.get()) is not None:
            try:
                finished.put((url, fetch(url, left[url])))
            except BaseException as error:
                finished.put((url, error))

    n_threads = n_idle = min(politeness.at_once, len(left))
    for _ in range(n_threads):
        # Daemons: an interrupted run does not wait for servers that stall.
        threading.Thread(target=work, daemon=True).start()
    try:
        for _ in left:
            while n_idle and (host := next((h for h in waiting if free[h]), None)) is not None:
                urls = waiting.pop(host)
                asked.put(urls.popleft())
                if urls:
                    waiting[host] = urls  # to the end of the line, so that hosts take turns
                n_idle, free[host] = n_idle - 1, free[host] - 1
            url, result = finished.get()
            n_idle, free[_host(url)] = n_idle + 1, free[_host(url)] + 1
            if isinstance(result, BaseException):
                raise result
            yield result
    finally:
        for _ in range(n_threads):
            asked.put(None)


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
        return [Entry(item, REFUSED, str(error), url) for item in items]
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
        if placeholder_from and n_addresses >= placeholder_from:
            reason = f"placeholder, the same picture at {n_addresses} addresses"
            if entry.file:
                (folder / entry.file).unlink(missing_ok=True)
            entry = replace(entry, status=REFUSED, reason=reason, file="")
        final.append(entry)
    return final


def _host(url: str) -> str:
    try:
        return urlsplit(url).netloc.lower()
    except ValueError:
        return ""
