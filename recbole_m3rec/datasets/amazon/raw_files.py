"""The raw files of an Amazon category, found in a folder or downloaded into it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from recbole_m3rec.datasets.amazon.prepare import Source
from recbole_m3rec.datasets.amazon.releases import CategoryError, Release
from recbole_m3rec.datasets.io.download import download


class MissingRawFileError(FileNotFoundError):
    """A raw file is not there and was not to be fetched."""


@dataclass(frozen=True)
class RawFile:
    """A raw file, there or not; ``url`` is where it can be had."""

    path: Path
    url: str

    @property
    def missing(self) -> bool:
        return not self.path.is_file()


def raw_files(
    release: Release,
    category: str,
    folder: Path,
    *,
    ratings: bool = False,
    items: bool = True,
    base_url: str | None = None,
) -> list[RawFile]:
    """Return the review file and, if items are wanted, the metadata file of a category.

    A file may also lie there unpacked, or a CSV file gzipped. Where the five-core reviews are not
    there and the ratings are, these are taken.

    Args:
        release: of the category.
        category: its full name.
        folder: where the files lie or go.
        ratings: take the ratings before the five-core, not the reviews of the five-core.
        items: whether the metadata is needed.
        base_url: another address than the release's, below which its files lie as below that.

    Raises:
        CategoryError: ratings are asked for of a release that has none.
    """
    if ratings and release.ratings is None:
        raise CategoryError(
            f"Release {release.year} has no file of ratings alone: its reviews are those before the"
            " five-core. Leave out --ratings"
        )

    def raw_file(file: str) -> RawFile:
        path = folder / file.format(category).rpartition("/")[2]
        other = path.with_suffix("") if path.suffix == ".gz" else Path(f"{path}.gz")
        found = other if other.is_file() and not path.is_file() else path
        return RawFile(found, release.url(file, category, base_url))

    reviews = raw_file(release.five_core)
    if release.ratings is not None and (ratings or reviews.missing):
        before = raw_file(release.ratings)
        if ratings or not before.missing:
            reviews = before
    return [reviews, raw_file(release.metadata)] if items else [reviews]


def require(files: list[RawFile]) -> None:
    """Raise where a file is missing.

    Raises:
        MissingRawFileError: says where each missing file can be had, and how.
    """
    missing = [file for file in files if file.missing]
    if missing:
        raise MissingRawFileError(
            f"{' and '.join(str(file.path) for file in missing)}: no such file. Add --download to"
            " fetch what is missing, or fetch it yourself: "
            + " && ".join(f"curl -L --create-dirs -o {file.path} {file.url}" for file in missing)
        )


def fetch_missing(files: list[RawFile], allow_private: bool = False) -> None:
    """Fetch the files that are missing, with progress bars.

    Raises:
        RefusedAddressError, DownloadError, CannotWriteError, FileInUseError: as in ``download``.
    """
    for file in files:
        if file.missing:
            download(
                file.url,
                file.path,
                allow_private=allow_private,
                check=_not_packed if file.path.suffix == ".gz" else _no_table,
                show_progress=None,
            )


def as_source(release: Release, category: str, files: list[RawFile]) -> Source:
    """Return the files as what ``prepare`` takes."""
    return Source(release, category, files[0].path, files[1].path if len(files) > 1 else None)


def _not_packed(path: Path) -> str | None:
    with open(path, "rb") as file:
        start = file.read(60)
    if start[:2] == b"\x1f\x8b":
        return None
    return f"the server sent something else than a gzip file, beginning with {start!r}"


def _no_table(path: Path) -> str | None:
    with open(path, "rb") as file:
        start = file.read(60)
    if start.lstrip()[:1] == b"<":
        return f"the server sent a web page, {start!r}"
    is_text = start.isascii() and b"\0" not in start
    return None if is_text else f"the server sent something else than a table, {start!r}"
