"""Histories are read as they were meant, or one message says what is wrong."""

import numpy as np
import pandas as pd
import pytest

from recbole_m3rec.serving.histories import RequestError

DAY = pd.Timestamp("2024-03-01")


def frame_of(times, users=None, items=None):
    n = len(times)
    return pd.DataFrame(
        {
            "user": users or ["a"] * n,
            "item": items or [f"i{9 - n}" for n in range(n)],
            "time": times,
        }
    )


@pytest.mark.parametrize(
    "times",
    [
        [10, 9, 10, 2],
        [1.5, 1.25, 1.5, -np.inf],
        [2**62 + 2, 2**62 + 1, 2**62 + 2, 2**62],  # floats would not tell them apart
        pd.array([2**62 + 2, 2**62 + 1, 2**62 + 2, 2**62], dtype="Int64"),
        [DAY + pd.Timedelta(n, "ns") for n in (3, 2, 3, 1)],
        pd.to_datetime(["2024-03-31 04:00+02:00", "2024-03-31 01:59Z"] * 2, utc=True),
    ],
    ids=["int", "float", "large", "nullable", "nanoseconds", "zone"],
)
def test_a_frames_rows_are_in_the_exact_order_of_time_and_equal_times_in_that_of_rows(shop, times):
    frame = frame_of(times)
    expected = [f"i{9 - n}" for n in sorted(range(4), key=lambda n: frame["time"][n])]
    assert shop.histories_of(frame) == {"a": expected}


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (
            frame_of(["10", "9"]),
            r"'time': .* 2 of 2; .* row 0: '10' \(str\).*pd.to_numeric or pd.to_d",
        ),
        (frame_of(pd.array(["10", "9"], dtype="string")), "'time': expected numbers or datetimes"),
        (frame_of([DAY, 5]), "'time': expected numbers or datetimes"),
        (frame_of([True, False]), "'time': expected numbers or datetimes"),
        (frame_of([3, np.nan, 1, np.nan]), "'time': expected a value .* 2 of 4; .* row 1: nan"),
        (frame_of([DAY, pd.NaT]), "'time': expected a value .* 1 of 2; .* row 1: NaT.*dropna"),
        (frame_of([1, 2, 3], users=["a", None, None]), "'user': .* 2 of 3; .* row 1"),
        (frame_of([1, 2], users=[1.0, np.nan]), "'user': .* 1 of 2; .* row 1"),
        (frame_of([1, 2], items=["i1", None]), "'item': .* 1 of 2; .* row 1"),
        (frame_of([1, 2], items=[50.0, 181.0]), "'item': .*whole numbers .* row 0: 50.0 .*astype"),
        (frame_of([1, 2], items=["i1", ["i2"]]), r"'item': .* 1 of 2; .* row 1: \['i2'\]"),
        (frame_of([1]).assign(user_id="a"), "one column each.*'user_id'"),
        (frame_of([1])[["item", "user", "time"]].rename(columns={"time": "at"}), "found .*'at'"),
        (frame_of([1]).iloc[:, :2], "found the columns"),
    ],
)
def test_a_frame_that_could_be_read_wrongly_is_refused(shop, frame, message):
    with pytest.raises(RequestError, match=message):
        shop.recommend(frame)


def test_frames_without_names_without_rows_and_of_other_users(shop):
    frame = frame_of([2, 1], items=["i1", "i2"])
    frame.columns = range(3)
    assert shop.histories_of(frame) == {"a": ["i2", "i1"]}
    assert shop.recommend(frame[:0]).empty
    frame[0] = [7, "a"]
    assert shop.histories_of(frame) == {"a": ["i2"], 7: ["i1"]}
    of_groups = frame_of([1, 2], items=["i4", "i5"]).astype(
        {"user": "category", "item": "category"}
    )
    assert shop.histories_of(of_groups) == {"a": ["i4", "i5"]}
