"""MovieLens releases, with your own overviews and posters, to RecBole datasets."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa

from recbole_m3rec.atomic.inter_file import (
    Filters,
    NothingLeftError,
    counts,
    filtered,
)
from recbole_m3rec.atomic.item_file import write_row
from recbole_m3rec.datasets.amazon.item_fields import clean
from recbole_m3rec.datasets.io.problems import Problems
from recbole_m3rec.datasets.io.raw_lines import RawFileError, reading
from recbole_m3rec.datasets.tables import interactions, text_rows
from recbole_m3rec.datasets.tables.column_texts import as_strings
from recbole_m3rec.datasets.tables.images import check_images
from recbole_m3rec.datasets.tables.interactions import read_purchases
from recbole_m3rec.datasets.tables.prepare import Content, recipe, write_dataset
from recbole_m3rec.datasets.tables.read_table import TextTable, open_table
from recbole_m3rec.datasets.tables.time_formats import EPOCH
from recbole_m3rec.features.image_sources import images_by_mapping, images_in_folder

SHIPPED = "ml-100k"  # RecBole reads this dataset from its own package, whatever lies elsewhere
FIELDS = {"movie_title": "token_seq", "release_year": "token", "class": "token_seq"}
OVERVIEW = "overview"
PROBLEMS = {
    "movies_repeated": "a movie that an earlier line describes too, the first one wins",
    "overviews_repeated": "a movie with an overview on an earlier line, the first one wins",
    "overviews_of_other_movies": "an overview of a movie that nobody has rated, not used",
    "overviews_of_another_title": "an overview of a movie that has another title here, used",
}
_LOG = ("user", "item", "rating", "time")
_MOVIE = ("item", "title", "genres")
_GENRES = ("unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime",
           "Documentary", "Drama", "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery",
           "Romance", "Sci-Fi", "Thriller", "War", "Western")  # fmt: skip
# By the file of ratings, which tells a release: the file of movies, its columns, the separators of
# both, and their encoding, whether they have a header and quotes.
_OLD, _NEW = ("latin-1", False, False), ("utf-8", True, True)
_FORMS: dict[str, tuple[str, tuple[str, ...], tuple[str, str], tuple[str, bool, bool]]] = {
    "u.data": (
        *("u.item", ("item", "title", "day", "video_day", "url", *_GENRES)),
        *(("\t", "|"), _OLD),
    ),
    "ratings.dat": ("movies.dat", _MOVIE, ("::", "::"), _OLD),
    "ratings.csv": ("movies.csv", _MOVIE, (",", ","), _NEW),
    "ml-100k.inter": ("ml-100k.item", ("item", *FIELDS), ("\t", "\t"), _NEW),
}
_TITLE = re.compile(r"(?P<title>.*?)\s*\((?P<year>\d{4})\)\s*(?:\([A-Z]+\))?\s*$")


@dataclass(frozen=True)
class Release:
    """The two tables of a release that are used, whatever else lies beside them."""

    name: str
    ratings: TextTable
    movies: TextTable


def find_release(source: Path) -> Release:
    """Find a release in its folder or zip file, or RecBole's ``ml-100k`` in its folder.

    Raises:
        RawFileError: no such folder or file, or none of the known releases in it.
    """
    if not source.exists():
        raise RawFileError(f"{source}: there is no such folder or zip file")
    if source.is_dir():
        places: list[Any] = [source, *sorted(path for path in source.iterdir() if path.is_dir())]
    elif zipfile.is_zipfile(source):
        root = zipfile.Path(source)
        places = [root, *(path for path in root.iterdir() if path.is_dir())]
    else:
        raise RawFileError(f"{source}: neither a folder nor a zip file, or a damaged one")
    for place in places:
        for ratings, (movies, names, separators, form) in _FORMS.items():
            if (place / ratings).is_file():
                if not (place / movies).is_file():
                    raise RawFileError(f"{place}: has {ratings}, but no {movies}")
                log = TextTable(place / ratings, _LOG, separators[0], *form)
                table = TextTable(place / movies, names, separators[1], *form)
                return Release(_name(source, place, ratings), log, table)
    raise RawFileError(
        f"{source}: holds none of {', '.join(_FORMS)}. Expected the folder or zip file of ml-100k,"
        " ml-1m, ml-25m or ml-latest-small, as published"
    )


def prepare_movielens(
    release: Release,
    folder: Path,
    name: str,
    *,
    overviews: Path | None = None,
    posters: Path | None = None,
    recipe_file: Path | None = None,
) -> dict[str, Any]:
    """Write ``<name>.inter``, ``.item`` and ``.stats.json``, and return what the last one says.

    Args:
        folder: where the files go, made if need be.
        overviews: a table with the columns ``movie_id`` and ``overview``, and ``title`` to check.
        posters: a folder of ``<movie id>.jpg``, or a table of ``item_id`` and ``path``; checked.
        recipe_file: YAML for texts; left as it is where it is there.

    Raises:
        RawFileError: a file is damaged or something else.
        ImageSourceError: posters that belong to no movie.
        NothingLeftError: no rating.
        CannotWriteError: e.g. the disk is full; files that were there are unchanged.
    """
    problems = Problems(text_rows.PROBLEMS | interactions.PROBLEMS | PROBLEMS)
    path = release.ratings.path
    with reading(path, "ratings") as progress:
        columns = {role: role for role in _LOG}
        log, n_rows = read_purchases(release.ratings, columns, EPOCH, problems, progress)
    if not len(log):
        raise NothingLeftError(f"{path}: none of its {n_rows:,} lines is a rating")
    log, _ = filtered(log, Filters(k_core=1), str(path))
    items = log.item_ids.take(pa.array(np.unique(log.items))).to_pylist()
    movies, n_unrated = _movies(release.movies, items, problems)
    fields = dict(FIELDS)
    result = {
        "release": release.name,
        **counts(log),
        "lines_of_ratings": n_rows,
        "items_with_metadata": len(movies),
        "items_without_metadata": len(items) - len(movies),
        "movies_never_rated": n_unrated,
    }
    if overviews is not None:
        fields[OVERVIEW] = "token_seq"
        result["items_with_overview"] = _add_overviews(overviews, movies, problems)
    if posters is not None:
        images = images_in_folder(posters) if posters.is_dir() else images_by_mapping(posters)
        result |= check_images(images, items, posters)[1]
    result["problems"] = problems.found()
    more: dict[Path, Content] = {folder / f"{name}.item": partial(_write_movies, movies, fields)}
    if recipe_file is not None and not recipe_file.exists():
        more[recipe_file] = recipe(name, list(fields))
    return write_dataset(folder / name, log, result, more)


def _write_movies(
    movies: Mapping[str, Mapping[str, str]], fields: Mapping[str, str], file: IO[bytes]
) -> None:
    write_row(file, ["item_id:token", *(f"{field}:{kind}" for field, kind in fields.items())])
    for movie, row in movies.items():
        write_row(file, [movie, *(row.get(field, "") for field in fields)])


def _movies(
    table: TextTable, wanted: list[str], problems: Problems
) -> tuple[dict[str, dict[str, str]], int]:
    """Return the fields of the rated movies by id, and how many others there are."""
    rated, movies, n_others = set(wanted), {}, 0
    for arrays, lines in table.chunks(table.names, problems):
        texts = {name: as_strings(array).to_pylist() for name, array in arrays.items()}
        for row, line in enumerate(lines.tolist()):
            movie = {name: column[row] for name, column in texts.items()}
            if movie["item"] not in rated:
                n_others += 1
            elif movie["item"] in movies:
                problems.add("movies_repeated", table.path, [line])
            else:
                movies[movie["item"]] = _fields(movie)
    return movies, n_others


def _fields(movie: Mapping[str, str]) -> dict[str, str]:
    if "movie_title" in movie:  # of RecBole's own file
        return {field: clean(movie[field]) for field in FIELDS}
    match = _TITLE.match(movie["title"])
    genres = movie.get("genres", "").replace("(no genres listed)", "").split("|")
    if "genres" not in movie:
        genres = [genre for genre in _GENRES if movie[genre] == "1"]
    return {
        "movie_title": clean(match["title"] if match else movie["title"]),
        "release_year": match["year"] if match else "",
        "class": clean(" ".join(genres)),
    }


def _add_overviews(path: Path, movies: Mapping[str, dict[str, str]], problems: Problems) -> int:
    """Add the overviews of a table to their movies, and return how many have one."""
    table = open_table(path)
    ids = [name for name in ("movie_id", "movieId", "item_id", "id") if name in table.names]
    if not ids or OVERVIEW not in table.names:
        raise RawFileError(
            f"{path}, line 1: expected the columns movie_id, overview and, if you like, title;"
            f" found {', '.join(table.names)}"
        )
    names = [ids[0], OVERVIEW, *(["title"] if "title" in table.names else [])]
    for arrays, lines in table.chunks(names, problems):
        rows = zip(*(as_strings(arrays[name]).to_pylist() for name in names), strict=True)
        for line, (movie, overview, *title) in zip(lines.tolist(), rows, strict=True):
            if not overview:
                continue
            if movie not in movies:
                problems.add("overviews_of_other_movies", path, [line])
                continue
            row = movies[movie]
            if OVERVIEW in row:
                problems.add("overviews_repeated", path, [line])
                continue
            if title and title[0] and _plain(title[0]) != _plain(row["movie_title"]):
                problems.add("overviews_of_another_title", path, [line])
            row[OVERVIEW] = clean(overview)
    return sum(OVERVIEW in row for row in movies.values())


def _plain(title: str) -> str:
    """Return what is left of a title without year, capitals and signs."""
    match = _TITLE.match(title)
    return re.sub(r"\W+", "", match["title"] if match else title).lower()


def _name(source: Path, place: Any, ratings: str) -> str:
    names = {"u.data": "ml-100k", "ml-100k.inter": "ml-100k", "ratings.dat": "ml-1m"}
    here = [place.name, source.stem]
    return next((name for name in here if name.startswith("ml-")), names.get(ratings, "movielens"))
