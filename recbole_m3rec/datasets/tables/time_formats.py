"""Dates and times in many formats to milliseconds since 1970, UTC."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from recbole_m3rec.atomic.inter_file import EARLIEST, LATEST
from recbole_m3rec.datasets.tables.column_texts import as_strings

EPOCH, ISO = "epoch", "iso"
# By name, how many of the unit are a second. For 1990 to 2100 no two units share a number.
_UNITS = {"seconds": 1, "milliseconds": 10**3, "microseconds": 10**6, "nanoseconds": 10**9}
_DAYS = ("%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y", "%Y/%m/%d", "%Y.%m.%d",
         "%d/%m/%y", "%m/%d/%y", "%d.%m.%y", "%y/%m/%d", "%y.%m.%d", "%d %b %Y",
         "%b %d, %Y")  # fmt: skip
_HOURS = ("", " %H:%M", " %H:%M:%S", " %I:%M %p", " %I:%M:%S %p", ", %H:%M", ", %H:%M:%S")
_WHOLE = ("%Y-%m-%d %H:%M:%S UTC", "%Y-%m-%d %H:%M:%S,%f")  # what is like ISO and is not
_HOUR = "%Y%m%d%H"  # which reads as seconds of the years after 2033
_ENOUGH = 0.95


def guess_time_formats(values: Sequence[str]) -> list[str]:
    """Return the formats in which nearly all of some values can be read, the likely ones first.

    Args:
        values: texts, empty ones say nothing.

    Returns:
        ``"epoch"`` (a number of seconds or parts of them), ``"iso"``, or formats of ``strptime``;
        nothing where no format fits, several where they cannot be told apart, as day and month.
    """
    filled = [value for value in values if value]
    if not filled:
        return []
    for form in (EPOCH, "%Y%m%d", ISO):
        if _share(filled, form) >= _ENOUGH:
            is_hour = form == EPOCH and _share(filled, _HOUR) == 1
            return [_HOUR, form] if is_hour else [form]
    formats = [*_WHOLE, *(day + hour for day in _DAYS for hour in _HOURS)]
    # Few distinct values decide nothing less than many.
    distinct = list(dict.fromkeys(filled))[:300]
    shares = {form: _share(distinct, form) for form in formats}
    best = max(shares.values())
    return [form for form in formats if shares[form] == best] if best >= _ENOUGH else []


def describe_format(form: str, values: Sequence[str]) -> str:
    """Say in words what a format is."""
    if form == ISO:
        return "ISO dates, UTC where they name no zone"
    if form != EPOCH:
        return f"dates written {form}, UTC"
    numbers = pd.to_numeric(pd.Series(list(values), dtype=object), errors="coerce").to_numpy(float)
    unit = max(_UNITS, key=lambda unit: _in_range(numbers, _UNITS[unit]).sum())
    return f"{unit} since 1970"


def to_milliseconds(array: Any, form: str) -> tuple[np.ndarray, np.ndarray]:
    """Read a column of times.

    Args:
        array: Arrow array of text, numbers, dates or timestamps (these need no format).
        form: one of ``guess_time_formats``.

    Returns:
        Milliseconds, ``[n]`` int64, and which of them are times from 1990 to 2100, ``[n]`` bool.
    """
    if pa.types.is_timestamp(array.type) or pa.types.is_date(array.type):
        moments = array.cast(pa.timestamp("ms"), safe=False)
        times = moments.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
        return times, _in_range(times, 1000)
    if form == EPOCH:
        return _from_epoch(array)
    texts = as_strings(array).to_numpy(zero_copy_only=False)
    parsed = pd.to_datetime(
        texts, format="ISO8601" if form == ISO else form, utc=True, errors="coerce"
    )
    times = pd.DatetimeIndex(parsed).as_unit("ms").asi8
    return times, _in_range(times, 1000)


def _from_epoch(array: Any) -> tuple[np.ndarray, np.ndarray]:
    if pa.types.is_integer(array.type):
        numbers = array.fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    else:
        texts = pd.Series(as_strings(array).to_numpy(zero_copy_only=False), dtype=object)
        numbers = pd.to_numeric(texts, errors="coerce").to_numpy()
        numbers = np.nan_to_num(numbers, nan=0, posinf=0, neginf=0)
    times = np.zeros(len(numbers), np.int64)
    good = np.zeros(len(numbers), bool)
    for per_second in _UNITS.values():
        here = _in_range(numbers, per_second)
        good |= here
        if per_second <= 1000:
            times[here] = np.round(numbers[here] * (1000 // per_second))
        else:
            times[here] = numbers[here] // (per_second // 1000)
    return times, good


def _in_range(numbers: np.ndarray, per_second: int) -> np.ndarray:
    inside: np.ndarray = (numbers >= EARLIEST * per_second) & (numbers <= LATEST * per_second)
    return inside


def _share(values: Sequence[str], form: str) -> float:
    return float(to_milliseconds(pa.array(list(values), pa.string()), form)[1].mean())
