"""One category of an Amazon release to a RecBole dataset: interactions, items, statistics."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
from tqdm import tqdm

from recbole_m3rec.data import item_metadata, review_files
from recbole_m3rec.data.amazon_releases import Release
from recbole_m3rec.data.atomic_files import new_files
from recbole_m3rec.data.item_metadata import ItemCounts, MetadataFormat, write_items
from recbole_m3rec.data.k_core import k_core, n_repeated, one_per_pair
from recbole_m3rec.data.problems import Problems
from recbole_m3rec.data.review_files import ReviewFormat, Reviews, read_reviews

METADATA_FORMATS = {
    "2014": MetadataFormat("asin", python=True),
    "2018": MetadataFormat("asin"),
    "2023": MetadataFormat("parent_asin"),
}
_REVIEW_KEYS = ("reviewerID", "asin", "overall", "unixReviewTime")
REVIEW_FORMATS = {
    "2014": ReviewFormat(_REVIEW_KEYS),
    "2018": ReviewFormat(_REVIEW_KEYS),
    "2023": ReviewFormat(("user_id", "parent_asin", "rating", "timestamp"), milliseconds=True),
}
DUPLICATES = ("keep", "first", "last")
_ROWS_AT_ONCE = 1 << 20


class NothingLeftError(ValueError):
    """No interaction is left of a category."""


@dataclass(frozen=True)
class Source:
    """The raw files of one category of a release; no ``metadata``, no ``.item`` file."""

    release: Release
    category: str
    reviews: Path
    metadata: Path | None


@dataclass(frozen=True)
class Filters:
    """What is kept of the reviews; applied in this order.

    ``since`` and ``until`` are the first and the last millisecond since 1970, None for no limit;
    ``duplicates`` says what is kept of several reviews of an item by one user; ``k_core`` how many
    interactions each user and item left has at least, 1 for all.
    """

    since: int | None = None
    until: int | None = None
    duplicates: str = "keep"
    k_core: int = 5


def review_format(source: Source) -> ReviewFormat:
    """Return the format of the source's review file: CSV of ratings alone, or JSON."""
    if ".csv" in source.reviews.suffixes:
        return ReviewFormat(source.release.rating_columns, is_csv=True)
    return REVIEW_FORMATS[source.release.year]


def prepare(
    source: Source,
    folder: Path,
    name: str,
    filters: Filters,
    columns: tuple[str, ...],
    show_progress: bool | None = None,
) -> dict[str, Any]:
    """Write the three files of a dataset, all or none, and return what ``.stats.json`` says.

    Rows of the ``.inter`` file stand in the order of time, equal times in that of the raw file:
    RecBole's own times are of 32 bits, about two minutes exact, and its sorting keeps the order of
    the file among those.

    Args:
        source: the raw files.
        folder: where the files go, made if need be.
        name: of the dataset.
        filters: which reviews are kept.
        columns: besides ids and time, ``rating`` and ``ITEM_COLUMNS``; those that the raw files do
            not fill are left out.
        show_progress: None shows progress bars on terminals alone.

    Raises:
        RawFileError: a raw file is damaged, cut off, empty or something else.
        NothingLeftError: no interaction is left.
        CannotWriteError: e.g. the disk is full; files that were there are unchanged.
        FileInUseError: another run writes the same dataset.
    """
    problems = Problems(review_files.PROBLEMS | item_metadata.PROBLEMS)
    inter, item, stats = (folder / f"{name}.{kind}" for kind in ("inter", "item", "stats.json"))
    # The statistics come last: where they are, all is.
    with new_files(inter, *([item] if source.metadata else []), stats) as files:
        with _progress(source.reviews, "reviews", show_progress) as progress:
            reviews, n_lines = read_reviews(
                source.reviews,
                review_format(source),
                problems,
                between=(filters.since, filters.until),
                progress=progress,
            )
        n_read = len(reviews)
        if not n_read:
            limited = (filters.since, filters.until) != (None, None)
            raise NothingLeftError(
                f"{source.reviews}: none of its {n_lines:,} lines is a review that can be used"
                + (", of the days asked for" if limited else "")
                + f". Found were: {problems.found() or 'no problems'}"
            )
        reviews, filtered = _filtered(reviews, filters, source)
        if "rating" not in columns:
            reviews = replace(reviews, ratings=None)
        with files[0].writing():
            wanted = _write_interactions(reviews, files[0].file)
        result = {
            "release": source.release.year,
            "category": source.category,
            "files": [_identity(path) for path in (source.reviews, source.metadata) if path],
            "filters": asdict(filters),
            **_counts(reviews, wanted),
            "review_lines": n_lines,
            "reviews_usable": n_read,
            **filtered,
        }
        del reviews
        if source.metadata:
            with (
                _progress(source.metadata, "items", show_progress) as progress,
                files[1].writing(),
            ):
                items = write_items(
                    source.metadata,
                    METADATA_FORMATS[source.release.year],
                    wanted,
                    [column for column in columns if column != "rating"],
                    files[1].file,
                    problems,
                    progress,
                )
            result |= _item_counts(items, len(wanted))
        result["problems"] = problems.found()
        with files[-1].writing():
            files[-1].file.write((json.dumps(result, indent=2) + "\n").encode())
    return result


def _filtered(reviews: Reviews, filters: Filters, source: Source) -> tuple[Reviews, dict[str, int]]:
    """Return the reviews to keep, in the order of time, and how many went for which reason."""
    n_read = len(reviews)
    if filters.duplicates != "keep":
        reviews = reviews.rows(
            one_per_pair(reviews.users, reviews.items, reviews.times, filters.duplicates)
        )
    n_single = len(reviews)
    kept = k_core(reviews.users, reviews.items, filters.k_core)
    if not len(kept):
        most = max_core(reviews.users, reviews.items)
        raise NothingLeftError(
            f"{source.reviews}: --k-core {filters.k_core} leaves none of {n_single:,} interactions."
            f" Take --k-core {most}, the largest that leaves some, or fewer, or more reviews"
        )
    kept = kept[np.argsort(reviews.times[kept], kind="stable")]
    return reviews.rows(kept), {
        "dropped_as_duplicates": n_read - n_single,
        "dropped_by_k_core": n_single - len(kept),
    }


def max_core(users: np.ndarray, items: np.ndarray) -> int:
    """Return the largest ``k`` whose k-core of at least one interaction is not empty."""
    k = 1
    while len(kept := k_core(users, items, k + 1)):
        users, items, k = users[kept], items[kept], k + 1
    return k


def _write_interactions(reviews: Reviews, file: IO[bytes]) -> list[str]:
    """Write an ``.inter`` file and return the ids of its items, in the order of appearance."""
    names = [f"{name}:{kind}" for name, kind in _inter_columns(reviews)]
    file.write(("\t".join(names) + "\n").encode())
    plain = pyarrow.csv.WriteOptions(include_header=False, delimiter="\t", quoting_style="none")
    for start in range(0, len(reviews), _ROWS_AT_ONCE):
        part = reviews.rows(np.arange(start, min(start + _ROWS_AT_ONCE, len(reviews))))
        arrays = [
            part.user_ids.take(pa.array(part.users)),
            part.item_ids.take(pa.array(part.items)),
        ]
        if part.ratings is not None:
            arrays.append(pa.array(part.ratings, from_pandas=True))
        seconds, thousandths = np.divmod(part.times, 1000)
        arrays.append(pa.array(part.times / 1000 if thousandths.any() else seconds))
        pyarrow.csv.write_csv(pa.table(arrays, names=names), file, plain)
    codes, first = np.unique(reviews.items, return_index=True)
    return reviews.item_ids.take(pa.array(codes[np.argsort(first)])).to_pylist()


def _inter_columns(reviews: Reviews) -> list[tuple[str, str]]:
    rating = [] if reviews.ratings is None else [("rating", "float")]
    return [("user_id", "token"), ("item_id", "token"), *rating, ("timestamp", "float")]


def _counts(reviews: Reviews, wanted: list[str]) -> dict[str, Any]:
    histories = np.bincount(reviews.users)
    histories = histories[histories > 0]
    first, last = np.array([reviews.times[0], reviews.times[-1]], "datetime64[ms]")
    return {
        "users": len(histories),
        "items": len(wanted),
        "interactions": len(reviews),
        "repeated_interactions": n_repeated(reviews.users, reviews.items),
        "density": round(len(reviews) / (len(histories) * len(wanted)), 8),
        "interactions_per_user": round(float(histories.mean()), 3),
        "first_interaction": f"{first}Z",
        "last_interaction": f"{last}Z",
    }


def _item_counts(items: ItemCounts, n_wanted: int) -> dict[str, Any]:
    return {
        "metadata_lines": items.n_lines,
        "items_with_metadata": items.n_written,
        "items_without_metadata": n_wanted - items.n_written,
        "metadata_lines_of_other_items": items.n_other_items,
        "items_with": items.filled,
    }


def _identity(path: Path) -> dict[str, Any]:
    return {"name": path.name, "bytes": path.stat().st_size}


@contextmanager
def _progress(path: Path, what: str, show: bool | None) -> Iterator[Any]:
    """Show how far a raw file is read, with rate and remaining time."""
    with tqdm(
        total=path.stat().st_size,
        desc=f"{what}: {path.name}",
        unit="B",
        unit_scale=True,
        disable=None if show is None else not show,
    ) as bar:
        yield bar.update
