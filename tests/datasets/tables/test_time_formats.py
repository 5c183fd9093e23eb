"""Times as people write them."""

from datetime import date, datetime, timezone

import pyarrow as pa
import pytest

from recbole_m3rec.datasets.tables.time_formats import (
    EPOCH,
    ISO,
    describe_format,
    guess_time_formats,
    to_milliseconds,
)

NOON = 1_700_049_600_000  # 2023-11-15 12:00 UTC, in milliseconds


@pytest.mark.parametrize(
    ("values", "formats"),
    [
        (["1700049600", "1700049601.5", ""], [EPOCH]),
        (["1700049600000"], [EPOCH]),
        (["2023-11-15T12:00:00Z", "2023-11-15 13:00:00+01:00", "2023-11-15"], [ISO]),
        (["20231115"], ["%Y%m%d"]),
        (["2023111512", "2023111600"], ["%Y%m%d%H", EPOCH]),
        (["2023111512", "2023119900"], [EPOCH]),
        (["15.11.2023 12:00"], ["%d.%m.%Y %H:%M"]),
        (["05/11/2023", "15/11/2023"], ["%d/%m/%Y"]),
        (["11/05/2023 1:00 PM", "11/15/2023 12:00 PM"], ["%m/%d/%Y %I:%M %p"]),
        (["05/11/2023", "06/11/2023"], ["%d/%m/%Y", "%m/%d/%Y"]),
        (["23/11/01", "23/11/14"], ["%d/%m/%y", "%y/%m/%d"]),
        (["23.11.01 10:00"], ["%d.%m.%y %H:%M", "%y.%m.%d %H:%M"]),
        (["08/03/01"], ["%d/%m/%y", "%m/%d/%y", "%y/%m/%d"]),
        (["15/11/99"], ["%d/%m/%y"]),
        (["soon", "later"], []),
        (["1", "2"], []),
        ([], []),
    ],
)
def test_formats_are_guessed_and_doubts_shown(values, formats):
    assert guess_time_formats(values) == formats


@pytest.mark.parametrize(
    ("value", "form"),
    [
        ("1700049600", EPOCH),
        ("1700049600000", EPOCH),
        ("1700049600000000", EPOCH),
        ("1700049600000000000", EPOCH),
        ("1700049600.0", EPOCH),
        (NOON // 1000, EPOCH),
        ("2023-11-15T12:00:00Z", ISO),
        ("2023-11-15 13:00:00+01:00", ISO),
        ("15.11.2023 12:00", "%d.%m.%Y %H:%M"),
        ("15.11.2023, 12:00", "%d.%m.%Y, %H:%M"),
        ("2023-11-15 12:00:00 UTC", "%Y-%m-%d %H:%M:%S UTC"),
        ("2023-11-15 12:00:00,000", "%Y-%m-%d %H:%M:%S,%f"),
        (datetime(2023, 11, 15, 12), ISO),
        (datetime(2023, 11, 15, 12, tzinfo=timezone.utc), ISO),
    ],
)
def test_every_way_to_write_a_moment_gives_it(value, form):
    if isinstance(value, str):
        assert guess_time_formats([value]) == [form]
    times, good = to_milliseconds(pa.array([value, None]), form)
    assert times[0] == NOON
    assert good.tolist() == [True, False]


def test_days_begin_at_midnight():
    times, good = to_milliseconds(pa.array([date(2023, 11, 15)]), ISO)
    assert (times.tolist(), good.tolist()) == ([NOON - 12 * 3_600_000], [True])


def test_what_lies_outside_of_1990_to_2100_is_no_time():
    _, good = to_milliseconds(pa.array(["1989-12-31", "0001-01-01", "2101-01-01", "x"]), ISO)
    assert not good.any()
    _, good = to_milliseconds(pa.array(["0", "-1", "5e9", "inf", "nan", ""]), EPOCH)
    assert not good.any()


def test_units_are_named():
    assert describe_format(EPOCH, ["1700049600000"]) == "milliseconds since 1970"
    assert describe_format("%d.%m.%Y", []) == "dates written %d.%m.%Y, UTC"
