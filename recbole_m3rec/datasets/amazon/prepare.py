"""Prepares one category of an Amazon release: interactions, items, statistics."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from recbole_m3rec.atomic.inter_file import (
    Filters,
    NothingLeftError,
    counts,
    filtered,
    write_interactions,
)
from recbole_m3rec.cluster.pieces import THIS_PROCESS, Cluster
from recbole_m3rec.datasets.amazon import metadata as item_metadata
from recbole_m3rec.datasets.amazon import reviews as review_files
from recbole_m3rec.datasets.amazon.metadata import ItemCounts, MetadataFormat, write_items
from recbole_m3rec.datasets.amazon.releases import Release
from recbole_m3rec.datasets.amazon.reviews import ReviewFormat, read_reviews
from recbole_m3rec.datasets.io.problems import Problems
from recbole_m3rec.datasets.io.raw_lines import reading
from recbole_m3rec.support.safe_write import new_files

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


@dataclass(frozen=True)
class Source:
    """The raw files of one category of a release; no ``metadata``, no ``.item`` file."""

    release: Release
    category: str
    reviews: Path
    metadata: Path | None


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
    cluster: Cluster = THIS_PROCESS,
) -> dict[str, Any]:
    """Write the three files of a dataset, all or none, and return what ``.stats.json`` says.

    Rows of the ``.inter`` file stand in the order of time, equal times in that of the raw file.
    What a cluster has parsed is kept in ``.<name>.work`` until all is done: the same call resumes.

    Args:
        folder: where the files go, made if need be.
        filters: which reviews are kept.
        columns: besides ids and time, ``rating`` and ``ITEM_COLUMNS``; those that the raw files do
            not fill are left out.
        cluster: where lines are parsed and the k-core is found.

    Raises:
        RawFileError: a raw file is damaged, cut off, empty or something else.
        NothingLeftError: no interaction is left.
        CannotWriteError: e.g. the disk is full; files that were there are unchanged.
        FileInUseError: another run writes the same dataset.
    """
    problems = Problems(review_files.PROBLEMS | item_metadata.PROBLEMS)
    inter, item, stats = (folder / f"{name}.{kind}" for kind in ("inter", "item", "stats.json"))
    work = folder / f".{name}.work"
    # The statistics come last: where they are, all is.
    with new_files(inter, *([item] if source.metadata else []), stats) as files:
        with reading(source.reviews, "reviews") as progress:
            reviews, n_lines = read_reviews(
                source.reviews,
                review_format(source),
                problems,
                between=(filters.since, filters.until),
                progress=progress,
                cluster=cluster,
                work=work,
            )
        n_read = len(reviews)
        if not n_read:
            limited = (filters.since, filters.until) != (None, None)
            raise NothingLeftError(
                f"{source.reviews}: none of its {n_lines:,} lines is a review that can be used"
                + (", of the days asked for" if limited else "")
                + f". Found were: {problems.found() or 'no problems'}"
            )
        reviews, dropped = filtered(reviews, filters, str(source.reviews), cluster)
        if "rating" not in columns:
            reviews = replace(reviews, ratings=None)
        with files[0].writing():
            wanted = write_interactions(reviews, files[0].file)
        result = {
            "release": source.release.year,
            "category": source.category,
            "files": [
                {"name": path.name, "bytes": path.stat().st_size}
                for path in filter(None, (source.reviews, source.metadata))
            ],
            "filters": asdict(filters),
            **counts(reviews),
            "review_lines": n_lines,
            "reviews_usable": n_read,
            **dropped,
        }
        del reviews
        if source.metadata:
            with reading(source.metadata, "items") as progress, files[1].writing():
                items = write_items(
                    source.metadata,
                    METADATA_FORMATS[source.release.year],
                    wanted,
                    [column for column in columns if column != "rating"],
                    files[1].file,
                    problems,
                    progress,
                    cluster,
                    work,
                )
            result |= _item_counts(items, len(wanted))
        result["problems"] = problems.found()
        files[-1].write((json.dumps(result, indent=2) + "\n").encode())
        shutil.rmtree(work, ignore_errors=True)
    return result


def _item_counts(items: ItemCounts, n_wanted: int) -> dict[str, Any]:
    return {
        "metadata_lines": items.n_lines,
        "items_with_metadata": items.n_written,
        "items_without_metadata": n_wanted - items.n_written,
        "metadata_lines_of_other_items": items.n_other_items,
        "items_with": items.filled,
    }
