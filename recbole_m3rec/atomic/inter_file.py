"""Interactions as columns, the filters that keep some of them, and writing ``.inter`` files."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recbole_m3rec.atomic.atomic_file import AtomicFileError, read_columns, read_header
from recbole_m3rec.atomic.exact_times import check_times
from recbole_m3rec.atomic.k_core import k_core, n_repeated, one_per_pair
from recbole_m3rec.cluster.pieces import THIS_PROCESS, Cluster

DUPLICATES = ("keep", "first", "last")
EARLIEST, LATEST = 631_152_000, 4_102_444_800  # 1990 and 2100, in seconds
_ROWS_AT_ONCE = 1 << 20  # are written as text by a thread
_THREADS = min(8, os.cpu_count() or 1)

# What pandas, hence RecBole, takes for a missing value.
READ_AS_MISSING = pa.array(
    ["", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN"]
    + ["<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"]
)


class NothingLeftError(ValueError):
    """No interaction is left of a dataset."""


@dataclass
class Interactions:
    """Interactions as columns of equal length ``n``, in the order of their file.

    ``users`` and ``items`` are int32 codes into ``user_ids`` and ``item_ids``; ``times`` int64, in
    milliseconds; ``ratings`` float32, NaN where missing, None where there are none.
    """

    users: np.ndarray
    items: np.ndarray
    ratings: np.ndarray | None
    times: np.ndarray
    user_ids: pa.StringArray
    item_ids: pa.StringArray

    def __len__(self) -> int:
        return len(self.users)

    def rows(self, chosen: np.ndarray) -> Interactions:
        """Return chosen rows, a mask or indices; ids stay as they are."""
        return replace(
            self,
            users=self.users[chosen],
            items=self.items[chosen],
            ratings=None if self.ratings is None else self.ratings[chosen],
            times=self.times[chosen],
        )


@dataclass(frozen=True)
class Filters:
    """What is kept of the interactions; applied in this order.

    ``since`` and ``until`` are the first and the last millisecond since 1970, None for no limit;
    ``duplicates`` says what is kept of several interactions of a user with an item; ``k_core`` how
    many interactions each user and item left has at least, 1 for all.
    """

    since: int | None = None
    until: int | None = None
    duplicates: str = "keep"
    k_core: int = 5


def filtered(
    log: Interactions, filters: Filters, source: str, cluster: Cluster = THIS_PROCESS
) -> tuple[Interactions, dict[str, int]]:
    """Return the interactions to keep, in the order of time, and how many went for which reason.

    RecBole's own times are of 32 bits, about two minutes exact, and its sorting keeps the order of
    the file among those: in this order, RecBole without this package finds it too. Equal times stay
    in the order they were in.

    Args:
        log: the interactions; of ``filters``, the days have been applied to them.

    Raises:
        NothingLeftError: the k-core is empty.
    """
    n_read = len(log)
    if filters.duplicates != "keep":
        log = log.rows(one_per_pair(log.users, log.items, log.times, filters.duplicates))
    n_single = len(log)
    rows = k_core(log.users, log.items, filters.k_core, cluster)
    if not len(rows):
        most = max_core(log.users, log.items)
        raise NothingLeftError(
            f"{source}: --k-core {filters.k_core} leaves none of {n_single:,} interactions."
            f" Take --k-core {most}, the largest that leaves some, or fewer, or more interactions"
        )
    rows = rows[order_of(log.times[rows])]
    return log.rows(rows), {
        "dropped_as_duplicates": n_read - n_single,
        "dropped_by_k_core": n_single - len(rows),
    }


def order_of(times: np.ndarray) -> np.ndarray:
    """Return what sorts times, ``[n]`` int64, and keeps equal ones in their order.

    Time and place in one number are sorted five times as fast as by a stable ``argsort``; times
    that leave no room for the place take that.
    """
    place_bits = max(len(times) - 1, 0).bit_length()
    keys = times - times.min(initial=LATEST * 1000)
    if not (keys % 1000).any():
        keys //= 1000
    if int(keys.max(initial=0)).bit_length() + place_bits > 63:
        return np.argsort(times, kind="stable")
    keys <<= place_bits
    keys |= np.arange(len(times))
    keys.sort()
    keys &= (1 << place_bits) - 1
    return keys


def max_core(users: np.ndarray, items: np.ndarray) -> int:
    """Return the largest ``k`` whose k-core of at least one interaction is not empty."""
    k = 1
    while len(rows := k_core(users, items, k + 1)):
        users, items, k = users[rows], items[rows], k + 1
    return k


def write_interactions(log: Interactions, file: IO[bytes]) -> list[str]:
    """Write an ``.inter`` file and return the ids of its items, in the order of appearance."""
    columns = [("user_id", "token"), ("item_id", "token")]
    columns += [] if log.ratings is None else [("rating", "float")]
    names = [f"{name}:{kind}" for name, kind in [*columns, ("timestamp", "float")]]
    file.write(("\t".join(names) + "\n").encode())
    with ThreadPoolExecutor(_THREADS) as pool:
        starts = range(0, len(log), _ROWS_AT_ONCE)
        for at_once in (starts[i : i + _THREADS] for i in range(0, len(starts), _THREADS)):
            file.writelines(pool.map(partial(_lines, log), at_once))
    first = np.full(len(log.item_ids), len(log))
    first[log.items[::-1]] = np.arange(len(log))[::-1]  # of several, what is assigned last stays
    codes = np.argsort(first)[: np.count_nonzero(first < len(log))]
    ids: list[str] = log.item_ids.take(pa.array(codes)).to_pylist()
    return ids


def _lines(log: Interactions, start: int) -> memoryview:
    """Return the lines of ``_ROWS_AT_ONCE`` interactions."""
    part = log.rows(np.arange(start, min(start + _ROWS_AT_ONCE, len(log))))
    arrays = [
        part.user_ids.take(pa.array(part.users)),
        part.item_ids.take(pa.array(part.items)),
    ]
    if part.ratings is not None:
        arrays.append(pa.array(part.ratings, from_pandas=True))
    seconds, thousandths = np.divmod(part.times, 1000)
    arrays.append(pa.array(part.times / 1000 if thousandths.any() else seconds))
    texts = [pc.fill_null(array.cast(pa.string()), "") for array in arrays]
    texts[-1] = pc.binary_join_element_wise(texts[-1], "", "\n")
    rows = pc.binary_join_element_wise(*texts, "\t")
    n_bytes = pc.sum(pc.binary_length(rows)).as_py()
    return memoryview(rows.buffers()[2])[:n_bytes]  # row after row, each with its line feed


def read_interactions(
    path: Path,
    user_field: str = "user_id",
    item_field: str = "item_id",
    time_field: str | None = None,
) -> Interactions:
    """Read an ``.inter`` file, without ratings.

    Args:
        path: its place.
        user_field: of the users.
        item_field: of the items.
        time_field: of the times; None is ``timestamp``, and where that is not there they are all 0.

    Raises:
        FileNotFoundError: there is no such file.
        AtomicFileError: it is empty, in another format, or lacks a field or a time.
    """
    fields = [user_field, item_field]
    has_times = time_field is not None or "timestamp" in read_header(path)
    time_field = time_field or "timestamp"
    columns = read_columns(path, [*fields, time_field] if has_times else fields)
    if not len(columns[0]):
        raise AtomicFileError(f"{path}: holds a header and no interaction")
    users, items = (column.combine_chunks().dictionary_encode() for column in columns[:2])
    times = np.zeros(len(users), np.int64)
    if has_times:
        check_times(path, time_field, columns[2])
        seconds = np.array([float(word) for word in columns[2].to_pylist()])
        times = np.round(seconds * 1000).astype(np.int64)
    return Interactions(
        users.indices.to_numpy(),
        items.indices.to_numpy(),
        None,
        times,
        users.dictionary,
        items.dictionary,
    )


def counts(log: Interactions) -> dict[str, Any]:
    """Return what ``.stats.json`` says of interactions in the order of time."""
    histories = np.bincount(log.users)
    histories = histories[histories > 0]
    n_items = int(np.count_nonzero(np.bincount(log.items)))
    first, last = np.array([log.times[0], log.times[-1]], "datetime64[ms]")
    return {
        "users": len(histories),
        "items": n_items,
        "interactions": len(log),
        "repeated_interactions": n_repeated(log.users, log.items),
        "density": round(len(log) / (len(histories) * n_items), 8),
        "interactions_per_user": round(float(histories.mean()), 3),
        "first_interaction": f"{first}Z",
        "last_interaction": f"{last}Z",
    }
