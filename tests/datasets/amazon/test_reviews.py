"""Reading reviews: whole blocks, and single lines where something is wrong."""

import json
import random

import numpy as np
import pytest

from recbole_m3rec.datasets.amazon.reviews import PROBLEMS, ReviewFormat, read_reviews
from recbole_m3rec.datasets.io import id_codes, raw_lines
from recbole_m3rec.datasets.io.problems import Problems

FORM = ReviewFormat(("user_id", "parent_asin", "rating", "timestamp"), milliseconds=True)
TIME = 1_588_687_728_923


def line(user="u", item="i", rating=5.0, time=TIME):
    record = {"rating": rating, "text": "é 🙂", "parent_asin": item, "user_id": user}
    return json.dumps(record | {"timestamp": time}, ensure_ascii=False).encode()


def read(tmp_path, lines, **options):
    path = tmp_path / "reviews.jsonl"
    path.write_bytes(b"\n".join(lines) + b"\n")
    problems = Problems(PROBLEMS)
    reviews, n_lines = read_reviews(path, options.pop("form", FORM), problems, **options)
    assert n_lines == len(lines)
    return reviews, problems


def rows(reviews):
    users = reviews.user_ids.to_pylist()
    items = reviews.item_ids.to_pylist()
    ratings = np.full(len(reviews), np.nan) if reviews.ratings is None else reviews.ratings
    columns = (reviews.users, reviews.items, ratings, reviews.times)
    return [
        (users[user], items[item], float(rating), int(time))
        for user, item, rating, time in zip(*columns, strict=True)
    ]


@pytest.mark.parametrize(
    ("bad", "kind", "kept"),
    [
        (b'{"user_id": "u", ', "reviews_unparseable", False),
        (b"[1, 2]", "reviews_unparseable", False),
        (line() + line(), "reviews_unparseable", False),
        (b'{"x":' + b"[" * 50_000 + b"]" * 50_000 + b"}x", "reviews_unparseable", False),
        (line().replace(b'"u"', b'"u\xff"'), "reviews_not_utf8", False),
        (line(user=None), "reviews_without_user", False),
        (line(user=""), "reviews_without_user", False),
        (line(user="a\tb"), "reviews_without_user", False),
        (line(user="a\x7fb"), "reviews_without_user", False),
        (line(user="null"), "reviews_without_user", False),
        (b'{"rating": 1}', "reviews_without_user", False),
        (line(item=None), "reviews_without_item", False),
        (line(item=["i"]), "reviews_without_item", False),
        (line(time=None), "reviews_without_time", False),
        (line(time="soon"), "reviews_without_time", False),
        (line(time=0), "reviews_without_time", False),
        (line(time=10**18), "reviews_without_time", False),
        (line(time=TIME // 1000), "times_in_seconds", True),
    ],
)
@pytest.mark.parametrize("around", [2, 600])
def test_a_bad_line_is_counted_and_the_others_are_kept(bad, kind, kept, around, tmp_path, caplog):
    good = [line(user=f"u{n}") for n in range(around)]
    reviews, problems = read(tmp_path, [*good, bad, *good])
    assert problems.found() == {kind: 1}
    assert f"reviews.jsonl:{around + 1}: {PROBLEMS[kind]}" in caplog.text
    found = [row for row in rows(reviews) if row[0].startswith("u") and row[0] != "u"]
    assert [row[0] for row in found] == [f"u{n}" for n in range(around)] * 2
    assert len(reviews) == 2 * around + kept


@pytest.mark.parametrize(
    ("odd", "row"),
    [
        (line(user=7), ("7", "i", 5.0, TIME)),
        (line(time=str(TIME)), ("u", "i", 5.0, TIME)),
        (line(time=float(TIME)), ("u", "i", 5.0, TIME)),
        (line(rating="4.5"), ("u", "i", 4.5, TIME)),
        (line(rating=4), ("u", "i", 4.0, TIME)),
        (line().replace("é".encode(), b"\xe9"), ("u", "i", 5.0, TIME)),
        (line()[:-1] + b', "user_id": "u"}', ("u", "i", 5.0, TIME)),
    ],
)
def test_an_odd_line_that_can_be_understood_is(odd, row, tmp_path):
    reviews, problems = read(tmp_path, [odd, line(rating=None)])
    assert rows(reviews)[0] == row
    assert np.isnan(rows(reviews)[1][2])
    assert problems.found() == {}


def test_milliseconds_where_seconds_are_due_are_converted(tmp_path):
    form = ReviewFormat(FORM.names)
    reviews, problems = read(tmp_path, [line(time=TIME), line(time=TIME // 1000)], form=form)
    assert reviews.times.tolist() == [TIME, TIME // 1000 * 1000]
    assert problems.found() == {"times_in_milliseconds": 1}


def test_no_rating_at_all_is_none(tmp_path):
    assert read(tmp_path, [line(rating=None)])[0].ratings is None


def test_only_times_between_two_are_kept(tmp_path):
    lines = [line(user=f"u{n}", time=TIME + n) for n in range(5)]
    reviews, _ = read(tmp_path, lines, between=(TIME + 1, TIME + 3))
    assert [row[0] for row in rows(reviews)] == ["u1", "u2", "u3"]
    assert reviews.user_ids.to_pylist() == ["u1", "u2", "u3"]


@pytest.mark.parametrize(
    ("bad", "kind"),
    [
        (b"u,i,5.0", "reviews_unparseable"),
        (b"u,i,five,1400025600", "reviews_unparseable"),
        (b"user,item,rating,timestamp", "reviews_unparseable"),
        (b",i,5.0,1400025600", "reviews_without_user"),
        (b"u,i,5.0,", "reviews_without_time"),
    ],
)
def test_a_bad_line_of_ratings_is_counted(bad, kind, tmp_path):
    form = ReviewFormat(("user", "item", "rating", "time"), is_csv=True)
    good = b"u1,i1,4.0,1400025600"
    reviews, problems = read(tmp_path, [good, bad, b"", good], form=form)
    assert problems.found() == {kind: 1}
    assert rows(reviews) == [("u1", "i1", 4.0, 1_400_025_600_000)] * 2


def test_small_blocks_give_what_one_gives(tmp_path, monkeypatch):
    draw = random.Random(1)
    lines = [
        line(f"u{draw.randrange(90)}", f"i{draw.randrange(40)}", draw.choice([1.0, None]), TIME + n)
        for n in range(2000)
    ]
    lines[700] = b"broken"
    whole, _ = read(tmp_path, lines)
    monkeypatch.setattr(raw_lines, "BLOCK_SIZE", 1500)
    monkeypatch.setattr(id_codes, "_MERGE_AT", 5)
    parts, _ = read(tmp_path, lines)
    assert str(rows(whole)) == str(rows(parts))
    assert whole.user_ids.equals(parts.user_ids)
    expected = [json.loads(text) for text in lines if text != b"broken"]
    assert [row[0] for row in rows(parts)] == [record["user_id"] for record in expected]
    assert [row[3] for row in rows(parts)] == [record["timestamp"] for record in expected]


def test_only_the_first_cases_of_a_kind_are_logged(tmp_path, caplog):
    _, problems = read(tmp_path, [b"broken"] * 50 + [line()])
    assert problems.counts["reviews_unparseable"] == 50
    assert len(caplog.records) == 3
    assert "only counted" in caplog.records[2].getMessage()
