"""From raw files of each release to datasets that RecBole reads."""

import csv
import gzip
import json

import numpy as np
import pytest

from recbole_m3rec.atomic.inter_file import Filters, NothingLeftError, max_core
from recbole_m3rec.datasets.amazon.item_fields import ITEM_COLUMNS
from recbole_m3rec.datasets.amazon.prepare import Source, prepare
from recbole_m3rec.datasets.amazon.releases import RELEASES

COLUMNS = ("rating", *ITEM_COLUMNS)
DAY = 86_400
START = 1_400_025_600  # 2014-05-14


def packed(path, lines):
    path.write_bytes(gzip.compress("".join(f"{line}\n" for line in lines).encode()))
    return path


def reviews_2014(rows):
    return [
        json.dumps(
            {
                "reviewerID": user,
                "asin": item,
                "overall": 4.0,
                "unixReviewTime": time,
                "reviewText": 'A "quoted"\ttext',
                "helpful": [0, 0],
                "reviewTime": "05 14, 2014",
            }
        )  # fmt: skip
        for user, item, time in rows
    ]


def metadata_2014(items, **extra):
    record = {"categories": [["Beauty", "Hair Care"], ["Beauty", "Skin"]], "price": 9.5} | extra
    return [repr({"asin": item, "title": f"Item {item}"} | record) for item in items]


def square(users=5, items=5):
    """Every user reviews every item, one a day."""
    return [
        (f"U{user}", f"B{item}", START + DAY * (user + item))
        for user in range(users)
        for item in range(items)
    ]


def source_2014(folder, rows, metadata):
    return Source(
        RELEASES["2014"],
        "Beauty",
        packed(folder / "reviews_Beauty_5.json.gz", reviews_2014(rows)),
        packed(folder / "meta_Beauty.json.gz", metadata),
    )


def table(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def triples(path):
    return [
        (row["user_id:token"], row["item_id:token"], int(row["timestamp:float"]))
        for row in table(path)
    ]


def test_release_2014_becomes_a_dataset(tmp_path):
    rows = square()
    source = source_2014(tmp_path, rows, metadata_2014(["B9", *(f"B{n}" for n in range(4))]))
    stats = prepare(source, tmp_path / "beauty", "beauty", Filters(), COLUMNS)
    kept = triples(tmp_path / "beauty/beauty.inter")
    assert kept == sorted(rows, key=lambda row: row[2])  # stable: ties stay as they were
    assert table(tmp_path / "beauty/beauty.inter")[0]["rating:float"] == "4"
    items = table(tmp_path / "beauty/beauty.item")
    assert [row["item_id:token"] for row in items] == ["B0", "B1", "B2", "B3"]
    assert items[0] == {
        "item_id:token": "B0",
        "title:token_seq": "Item B0",
        "categories:token_seq": "Beauty Hair Care Skin",
        "price:float": "9.5",
    }
    assert stats == json.loads((tmp_path / "beauty/beauty.stats.json").read_text())
    wanted = {"users": 5, "items": 5, "interactions": 25, "items_without_metadata": 1}
    assert wanted.items() <= stats.items()
    assert stats["metadata_lines_of_other_items"] == 1
    assert stats["problems"] == {}


def test_ratings_before_the_five_core_are_filtered_to_it(tmp_path):
    rows = [*square(), ("U9", "B0", START), ("U0", "B9", START)]
    ratings = tmp_path / "ratings_Beauty.csv"
    ratings.write_text("".join(f"{user},{item},5.0,{time}\n" for user, item, time in rows))
    meta = packed(tmp_path / "meta_Beauty.json.gz", metadata_2014(["B0"]))
    source = Source(RELEASES["2014"], "Beauty", ratings, meta)
    stats = prepare(source, tmp_path / "b", "b", Filters(), COLUMNS)
    assert sorted(triples(tmp_path / "b/b.inter")) == sorted(square())
    assert stats["dropped_by_k_core"] == 2


def test_ratings_of_2018_name_the_item_first(tmp_path):
    ratings = tmp_path / "All_Beauty.csv"
    ratings.write_text("".join(f"{item},{user},5.0,{time}\n" for user, item, time in square()))
    source = Source(RELEASES["2018"], "All_Beauty", ratings, None)
    prepare(source, tmp_path / "b", "b", Filters(), ("rating",))
    assert sorted(triples(tmp_path / "b/b.inter")) == sorted(square())
    assert not (tmp_path / "b/b.item").exists()


def test_release_2018_becomes_a_dataset(tmp_path):
    meta = {
        "asin": "B0",
        "title": "Red & blue\thair\r\nband",
        "brand": "NA\u2028ME",
        "category": ["Beauty", "Hair <b>Care</b>"],
        "price": "$1,299.50 - $1,400.00",
        "description": ["First.", "", "Second."],
        "imageURL": ["https://host/small._SX38_.jpg"],
        "imageURLHighRes": ["https://host/large.jpg"],
        "also_buy": ["B1"],
    }
    source = Source(
        RELEASES["2018"],
        "All_Beauty",
        packed(tmp_path / "All_Beauty_5.json.gz", reviews_2014(square())),
        packed(tmp_path / "meta_All_Beauty.json.gz", [json.dumps(meta)]),
    )
    prepare(source, tmp_path / "b", "b", Filters(), COLUMNS)
    assert table(tmp_path / "b/b.item") == [
        {
            "item_id:token": "B0",
            "title:token_seq": "Red & blue hair band",
            "brand:token": "NA ME",
            "categories:token_seq": "Beauty Hair <b>Care</b>",
            "price:float": "1299.50",
            "description:token_seq": "First. Second.",
            "image_url:token": "https://host/large.jpg",
        }
    ]


def test_release_2023_becomes_a_dataset(tmp_path):
    reviews = [
        {"rating": 5.0, "title": "t", "text": "t", "images": [], "asin": "variant",
         "parent_asin": item, "user_id": user, "timestamp": time * 1000 + 7,
         "helpful_vote": 0, "verified_purchase": True}
        for user, item, time in square()
    ]  # fmt: skip
    meta = {
        "main_category": "All Beauty", "title": "Band", "average_rating": 4.8, "price": None,
        "images": [
            {"thumb": "https://h/t2", "large": "https://h/l2", "variant": "PT01", "hi_res": None},
            {"thumb": "https://h/t1", "large": "https://h/l1", "variant": "MAIN", "hi_res": None},
        ],
        "store": "Howard", "categories": [], "description": ["One"], "parent_asin": "B0",
    }  # fmt: skip
    source = Source(
        RELEASES["2023"],
        "All_Beauty",
        packed(tmp_path / "All_Beauty.jsonl.gz", [json.dumps(review) for review in reviews]),
        packed(tmp_path / "meta_All_Beauty.jsonl.gz", [json.dumps(meta)]),
    )
    prepare(source, tmp_path / "b", "b", Filters(), COLUMNS)
    assert table(tmp_path / "b/b.inter")[0]["timestamp:float"] == f"{START}.007"
    item = table(tmp_path / "b/b.item")[0]
    assert (item["brand:token"], item["image_url:token"]) == ("Howard", "https://h/l1")


def test_recbole_reads_what_was_written_and_drops_nothing(tmp_path, make_config, monkeypatch):
    from recbole.data import create_dataset

    monkeypatch.chdir(tmp_path)
    titles = ['7" of "silk"', '"All" quoted', "tab\tand\nline", "null", "'single", "ends \\"]
    metadata = [repr({"asin": f"B{n}", "title": title}) for n, title in enumerate(titles)]
    # A chain that a single round of dropping would leave too much of.
    rows = [*square(6, 6), *((f"V{n}", f"B{n}", START) for n in range(4)), ("V0", "C1", START)]
    source = source_2014(tmp_path, rows, metadata)
    stats = prepare(source, tmp_path / "dataset/b", "b", Filters(), COLUMNS)
    config = make_config(
        "SASRec",
        "b",
        load_col={"inter": ["user_id", "item_id", "timestamp"], "item": ["item_id", "title"]},
        user_inter_num_interval="[5,inf)",
        item_inter_num_interval="[5,inf)",
    )
    dataset = create_dataset(config)
    assert (dataset.user_num - 1, dataset.item_num - 1) == (stats["users"], stats["items"])
    assert len(dataset.inter_feat) == stats["interactions"] == 36
    words = dataset.item_feat["title"][dataset.token2id("item_id", "B0")]
    read = [dataset.id2token("title", int(word)) for word in words if word]
    assert read == ['7"', "of", '"silk"']


def test_the_k_core_is_recboles(tmp_path, make_config, monkeypatch):
    import random

    from recbole.data import create_dataset

    monkeypatch.chdir(tmp_path)
    draw = random.Random(5)
    rows = [
        (f"U{int(draw.paretovariate(0.6)) % 60}", f"B{int(draw.paretovariate(0.6)) % 50}",
         START + DAY * draw.randrange(300))
        for _ in range(700)
    ]  # fmt: skip
    source = source_2014(tmp_path, rows, metadata_2014(["B1"]))
    for name, k in (("all", 1), ("core", 5)):
        prepare(source, tmp_path / "dataset" / name, name, Filters(k_core=k), COLUMNS)
    config = make_config(
        "SASRec", "all", user_inter_num_interval="[5,inf)", item_inter_num_interval="[5,inf)"
    )
    dataset = create_dataset(config)
    inter = dataset.inter_feat
    theirs = sorted(
        zip(
            dataset.id2token("user_id", np.asarray(inter["user_id"])),
            dataset.id2token("item_id", np.asarray(inter["item_id"])),
            np.asarray(inter["timestamp"]).astype(int).tolist(),
            strict=True,
        )
    )
    ours = sorted(triples(tmp_path / "dataset/core/core.inter"))
    assert ours == theirs
    assert 0 < len(ours) < len(rows)


@pytest.mark.parametrize(("keep", "days"), [("keep", [0, 1, 2]), ("first", [0]), ("last", [2])])
def test_of_repeated_reviews_all_the_first_or_the_last_are_kept(keep, days, tmp_path):
    rows = [("U0", "B0", START + DAY * day) for day in (1, 0, 2)]
    source = source_2014(tmp_path, rows, metadata_2014(["B0"]))
    filters = Filters(duplicates=keep, k_core=1)
    stats = prepare(source, tmp_path / "b", "b", filters, COLUMNS)
    kept = triples(tmp_path / "b/b.inter")
    assert [time for _, _, time in kept] == [START + DAY * day for day in days]
    assert stats["dropped_as_duplicates"] == 3 - len(days)
    assert stats["repeated_interactions"] == len(days) - 1


def test_the_range_of_days_comes_before_the_k_core(tmp_path):
    rows = square(6, 5)
    since, until = (START + DAY) * 1000, (START + 9 * DAY) * 1000
    source = source_2014(tmp_path, rows, metadata_2014(["B0"]))
    stats = prepare(source, tmp_path / "b", "b", Filters(since, until, k_core=4), COLUMNS)
    assert stats["reviews_usable"] == 29
    times = [time for _, _, time in triples(tmp_path / "b/b.inter")]
    assert (min(times), max(times)) == (START + DAY, START + 9 * DAY)


def test_a_k_core_that_leaves_nothing_says_which_would(tmp_path):
    source = source_2014(tmp_path, square(3, 3), metadata_2014(["B0"]))
    with pytest.raises(NothingLeftError, match="leaves none of 9 interactions. Take --k-core 3"):
        prepare(source, tmp_path / "b", "b", Filters(), COLUMNS)
    assert list((tmp_path / "b").iterdir()) == []


def test_a_category_without_reviews_is_an_error(tmp_path):
    source = source_2014(tmp_path, [("", "B0", START)], metadata_2014(["B0"]))
    with pytest.raises(NothingLeftError, match="none of its 1 lines .*'reviews_without_user': 1"):
        prepare(source, tmp_path / "b", "b", Filters(), COLUMNS)


def test_the_largest_core_of_a_square_is_its_side():
    users, items = np.divmod(np.arange(16, dtype=np.int32), 4)
    assert max_core(users, items) == 4


def test_only_chosen_columns_are_written(tmp_path):
    source = source_2014(tmp_path, square(), metadata_2014(["B0"]))
    prepare(source, tmp_path / "b", "b", Filters(), ("title", "price"))
    assert list(table(tmp_path / "b/b.item")[0]) == [
        "item_id:token",
        "title:token_seq",
        "price:float",
    ]
    assert "rating:float" not in table(tmp_path / "b/b.inter")[0]
