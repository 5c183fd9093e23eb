"""The report of an image download, which the next run reads."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import TextIO

from recbole_m3rec.support.safe_write import CannotWriteError, write_whole

REPORT_NAME = "download.csv"

STORED, REFUSED, FAILED = "stored", "refused", "failed"


@dataclass(frozen=True)
class Entry:
    """What became of one item's image: a line of the report.

    ``status`` is ``stored``; ``refused``, which another run would not change (404, no image, a
    placeholder); or ``failed``, which the next run tries again (a time-out, 503).
    """

    item_id: str
    status: str
    reason: str
    url: str
    file: str = ""
    bytes: str = ""
    sha256: str = ""


NAMES = [field.name for field in fields(Entry)]


def read_report(folder: Path) -> dict[str, Entry]:
    """Read the report of an earlier run, by item; of a line that was cut off nothing."""
    entries: dict[str, Entry] = {}
    path = folder / REPORT_NAME
    if path.is_file():
        with open(path, encoding="utf-8", errors="replace", newline="") as file:
            csv.field_size_limit(2**31 - 1)  # Windows takes no more
            for row in csv.reader(file):
                is_entry = len(row) == len(NAMES) and row[1] in (STORED, REFUSED, FAILED)
                is_here = row[4:5] == [Path(*row[4:5]).name] and Path(row[4]).suffix
                if is_entry and (is_here or not row[4]):  # no folder, no file of another one
                    entries[row[0]] = Entry(*row)
    return entries


def count_reasons(entries: Iterable[Entry]) -> dict[str, int]:
    """Count the items without an image by reason, the most frequent first."""
    reasons = (entry.reason for entry in entries if entry.status != STORED)
    counts = Counter(sorted(reason.partition(",")[0].partition(" (")[0] for reason in reasons))
    return dict(counts.most_common())


def write_report(folder: Path, entries: Iterable[Entry]) -> None:
    """Write the report anew, sorted by item, all or nothing."""
    text = io.StringIO(newline="")
    table = csv.writer(text)
    table.writerow(NAMES)
    table.writerows(map(astuple, sorted(entries, key=lambda entry: entry.item_id)))
    write_whole(folder / REPORT_NAME, text.getvalue().encode())


def append_to_report(file: TextIO, entries: Iterable[Entry]) -> None:
    """Add lines to a growing report; they are with the system before the next fetch is awaited."""
    try:
        csv.writer(file).writerows(map(astuple, entries))
        file.flush()
    except OSError as error:
        raise CannotWriteError(f"cannot write {file.name}: {error.strerror}") from error
