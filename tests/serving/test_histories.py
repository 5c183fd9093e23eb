"""Histories are read as they were meant, or one message says what is wrong."""

import numpy as np
import pandas as pd
import pytest

from recbole_m3rec.serving.arguments import RequestError
from recbole_m3rec.serving.recommender import Recommender
from tests.serving.conftest import made_items

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
        pd.Series([10, 9, 10, 2], dtype=object),
        pd.Series([DAY, DAY - pd.Timedelta(1, "ns")] * 2, dtype=object),
        [DAY + pd.Timedelta(n, "ns") for n in (3, 2, 3, 1)],
        pd.to_datetime(["2024-03-31 04:00+02:00", "2024-03-31 01:59Z"] * 2, utc=True),
    ],
    ids=[
        *("int", "float", "large", "nullable", "objects", "objects of time"),
        "nanoseconds",
        "zone",
    ],
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


ASKED = {
    "recommend": lambda shop, history: shop.recommend([history, ["i1"]], 3),
    "of a user": lambda shop, history: shop.recommend({"a": history}, 3),
    "session": lambda shop, history: shop.session(history).recommend(3),
    "explain": lambda shop, history: shop.explain(history, "i30"),
    "allowed": lambda shop, items: shop.recommend([["i1"]], allowed=items),
    "blocked": lambda shop, items: shop.session(["i1"]).recommend(blocked=items),
}


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ("i4", r"must be a list of item ids, found 'i4' \(str\): write \['i4'\]"),
        (b"i4", "must be a list of item ids"),
        (5, r"must be a list of item ids, found 5 \(int\)"),
        (None, "must be a list of item ids, found None"),
        ({"i4": 1}, "must be a list of item ids"),
        (pd.DataFrame({"i4": [1]}), r"must be a list of item ids.*\(DataFrame\)"),
        (np.array("i4"), "must be a list of item ids"),
        (
            ["i4", 5.0],
            r"item 1 of .* must be an item id, a text or a whole number, found 5.0 \(float",
        ),
        (["i4", True], "item 1 of .* found True"),
        (["i4", None], "item 1 of .* found None"),
        (["i4", ["i5"]], r"item 1 of .* found \['i5'\] \(list\)"),
        ([b"i4"], "item 0 of .* found b'i4'"),
    ],
)
def test_what_is_no_list_of_ids_is_refused_and_not_skipped(shop, items, message):
    for name, ask in ASKED.items():
        if items is not None or name not in ("allowed", "blocked"):  # None is no filter
            with pytest.raises(RequestError, match=message):
                ask(shop, items)


def test_a_set_filters_but_is_no_history(shop):
    for ask in list(ASKED.values())[:4]:
        with pytest.raises(RequestError, match="found a set, which has no order"):
            ask(shop, {"i4", "i5"})
    frame = shop.recommend([["i1"]], allowed={"i2", "i3", "i4"}, blocked=frozenset(["i3"]))
    assert set(frame["item"]) == {"i2", "i4"}
    with pytest.raises(RequestError, match="found a set, in which they have no number"):
        shop.recommend({("i1", "i2")})
    assert set(shop.recommend({"ann", "böb"})["user"]) == {"ann", "böb"}


def test_what_is_no_histories_is_refused(shop):
    for given in (5, None, 1.5, "ann", b"ann"):
        with pytest.raises(RequestError, match="histories must be a list of users or histories,"):
            shop.recommend(given)


def test_what_is_no_id_is_refused_and_a_session_stays_as_it_was(shop):
    session = shop.session(["i4"])
    for ask in (session.add, shop.similar, lambda one: shop.explain(["i4"], one)):
        for item in (5.0, None, ["i5"], True):
            with pytest.raises(RequestError, match="item must be an item id"):
                ask(item)
    assert session.history == ["i4"]


def test_whole_numbers_are_read_as_their_digits_wherever_ids_are_given(write_made):
    items = made_items()
    ids = [item.removeprefix("i") for item in items["item_id"].to_pylist()]
    shop = Recommender.load(write_made(items=items.set_column(0, "item_id", [ids])))
    expected = shop.recommend([["4", "9", "17"]], 5, allowed=["7", "8"], blocked=["8"])
    assert list(expected["item"]) == ["7"]
    options = {"allowed": {7, 8}, "blocked": np.array([8])}
    frame = pd.DataFrame({"user": 0, "item": [9, 4, 17], "time": [2, 1, 3]})
    for histories in (
        [[4, 9, "17"]],
        np.array([[4, 9, 17]]),
        frame,
        frame.astype({"item": object}),
    ):
        pd.testing.assert_frame_equal(shop.recommend(histories, 5, **options), expected)
    session = shop.session(pd.Series([4, 9]))
    session.add(17)
    assert session.history == ["4", "9", "17"]
    assert shop.explain([4, 9], 30) == shop.explain(["4", "9"], "30")
    assert list(shop.similar(np.int64(7))["item"]) == list(shop.similar("7")["item"])


def test_a_series_of_lists_keeps_its_users(shop):
    log = frame_of([1, 2, 3], users=["b", "a", "b"], items=["i4", "i5", "i9"])
    histories = log.groupby("user")["item"].agg(list)
    assert shop.histories_of(histories) == {"a": ["i5"], "b": ["i4", "i9"]}
    assert set(shop.recommend(histories)["user"]) == {"a", "b"}
    assert shop.histories_of(pd.Series(["ann"], ["x"])) == {"ann": ["i1", "i2"]}
    with pytest.raises(RequestError, match=r"the user 'b' \(str\) twice: group them by user"):
        shop.recommend(log.set_index("user")["item"].map(lambda item: [item]))


def test_ids_come_in_any_iterable(shop):
    expected = list(shop.recommend([["i4", "i9"]])["item"])
    for history in (("i4", "i9"), np.array(["i4", "i9"]), pd.Index(["i4", "i9"])):
        assert list(shop.recommend([history])["item"]) == expected
        assert list(shop.recommend(iter([iter(history)]))["item"]) == expected
