"""Somebody's own tables to a dataset: ids as they stand, nothing lost without being counted."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from recbole_m3rec.atomic.inter_file import Filters, NothingLeftError, read_interactions
from recbole_m3rec.atomic.item_file import ItemFile
from recbole_m3rec.atomic.k_core import n_identical
from recbole_m3rec.datasets.io.prices import price
from recbole_m3rec.datasets.tables.column_roles import (
    ITEM_ROLES,
    LOG_ROLES,
    ColumnError,
    guess_columns,
)
from recbole_m3rec.datasets.tables.items import NoItemFoundError
from recbole_m3rec.datasets.tables.prepare import Shop, TableSource, prepare_shop
from recbole_m3rec.datasets.tables.read_table import open_table
from recbole_m3rec.datasets.tables.time_formats import ISO
from recbole_m3rec.features.image_sources import ImageSourceError, images_by_mapping

ALL = Filters(k_core=1)
NONE: dict[str, Any] = dict.fromkeys([*LOG_ROLES, *ITEM_ROLES])


def source(path, roles):
    table = open_table(path)
    return TableSource(table, guess_columns(table.names, roles, {}))


def shop(folder, log, items=None, **extra):
    (folder / "log.csv").write_text(log, encoding="utf-8")
    if items is None:
        return Shop(source(folder / "log.csv", LOG_ROLES), ISO, **extra)
    (folder / "items.csv").write_text(items, encoding="utf-8")
    tables = [source(folder / "log.csv", LOG_ROLES), source(folder / "items.csv", ITEM_ROLES)]
    return Shop(tables[0], ISO, tables[1], **extra)


def prepare(folder, made, filters=ALL):
    return prepare_shop(made, folder / "out", "shop", filters, folder / "properties/shop.yaml")


def test_ids_keep_their_zeros_and_rows_come_in_the_order_of_time(tmp_path):
    log = "Customer,SKU,Date\n02,007,2024-01-02\n1, 07 ,2024-01-01\n02,A b,2024-01-01\n"
    result = prepare(tmp_path, shop(tmp_path, log))
    assert (tmp_path / "out/shop.inter").read_text().splitlines() == [
        "user_id:token\titem_id:token\ttimestamp:float",
        "1\t07\t1704067200",
        "02\tA b\t1704067200",
        "02\t007\t1704153600",
    ]
    assert json.loads((tmp_path / "out/shop.stats.json").read_text())["users"] == 2
    assert result["written"] == [
        str(tmp_path / f"out/shop.{end}") for end in ("inter", "stats.json")
    ]


def test_every_row_that_is_left_out_is_counted_and_logged_with_its_line(tmp_path, caplog):
    day = "2024-01-01"
    bad = [f",i,{day}", f"u,,{day}", f"\\N,i,{day}", f"u,NA,{day}", f"None,i,{day}",
           f"u,[PAD],{day}", f'u,"a\nb",{day}', f"u,a\tb,{day}", f"u\x7f,i,{day}",
           "u,i,", "u,i,soon", "u,i,1970-01-01", "u,i"]  # fmt: skip
    log = "user,item,time\n" + f"u,i,{day}\n" + "\n".join(bad) + "\n"
    result = prepare(tmp_path, shop(tmp_path, log))
    assert result["interactions"] == 1
    assert result["problems_of_the_log"] == {
        "lines_unparseable": 1,
        "without_user": 2,
        "without_item": 1,
        "user_with_control_character": 1,
        "item_with_control_character": 2,
        "user_read_as_missing": 1,
        "item_read_as_missing": 2,
        "without_time": 3,
    }
    assert "log.csv:3: no user id" in caplog.text
    assert "log.csv:9: an item id with a tab, a line break" in caplog.text
    assert "log.csv:16: another number of values" in caplog.text


def test_ids_with_quotes_are_written_and_read_back(tmp_path):
    ids = ['"', '"a', 'a"b', '""', "'", 'a "b" c', "é\u2028x"]
    quoted = ['"' + name.replace('"', '""') + '"' for name in ids]
    rows = [f"{user},{item},2024-01-0{k + 1}\n" for user in quoted for k, item in enumerate(quoted)]
    result = prepare(
        tmp_path,
        shop(tmp_path, "user,item,time\n" + "".join(rows), "item,title\n" + quoted[0] + ",x\n"),
    )
    assert result["problems_of_the_log"] == {}
    log = read_interactions(tmp_path / "out/shop.inter")
    pairs = {
        (log.user_ids[u].as_py(), log.item_ids[i].as_py())
        for u, i in zip(log.users, log.items, strict=True)
    }
    assert pairs == {(user, item) for user in ids for item in ids}
    assert ItemFile(tmp_path / "out/shop.item").read([])[0] == ids[:1]


def test_texts_with_tabs_breaks_and_quotes_come_out_of_the_item_file_clean(tmp_path):
    items = (
        "sku;name;maker;categories;cost;price\n"
        '07;"Tall\t""red""\nshoe";Acme;Shoes > Red|Sale;1;"1.299,00 €"\n'
        "08;=;;;;free\n09;never bought;;;;1\n07;other;;;;2\n;x;;;;\n"
    )
    log = "user,item,time\nu,07,2024-01-01\nu,08,2024-01-02\nu,10,2024-01-03\n"
    result = prepare(tmp_path, shop(tmp_path, log, items))
    item_file = tmp_path / "out/shop.item"
    tokens, columns = ItemFile(item_file).read(["title", "brand", "categories", "price"])
    assert tokens == ["07", "08"]
    assert [column[0] for column in columns] == [
        'Tall "red" shoe',
        "Acme",
        "Shoes Red Sale",
        "1299.00",
    ]
    assert len(item_file.read_text().splitlines()) == 3
    assert result["items_not_in_the_table"] == 1
    assert result["items_of_the_table_never_bought"] == 1
    assert result["problems_of_the_items"] == {
        "items_without_id": 1,
        "items_with_two_titles": 1,
        "prices_not_understood": 1,
    }


def test_the_recipe_names_the_texts_there_are_and_an_old_one_stays(tmp_path):
    log, items = "user,item,time\nu,1,2024-01-01\n", "item_id,title,brand\n1,Shoe,\n"
    made = shop(tmp_path, log, items)
    prepare(tmp_path, made)
    recipe = tmp_path / "properties/shop.yaml"
    assert "fields: [title]\n" in recipe.read_text()
    recipe.write_text("mine")
    prepare(tmp_path, made)
    assert recipe.read_text() == "mine"


def test_duplicates_and_what_five_core_leaves_are_counted(tmp_path):
    same = "u,i,2024-01-01\n"
    many = "".join(
        f"u{user},i{item},2024-01-0{item + 1}\n" for user in range(5) for item in range(5)
    )
    result = prepare(
        tmp_path, shop(tmp_path, "user,item,time\n" + 2 * same + "u,i,2024-01-02\n" + many)
    )
    assert (result["repeated_interactions"], result["of_these_at_the_same_time"]) == (2, 1)
    assert result["five_core"] == {"users": 5, "items": 5, "interactions": 25}
    filters = Filters(duplicates="last", k_core=2)
    result = prepare(tmp_path, shop(tmp_path, "user,item,time\n" + 2 * same + many), filters)
    assert (result["dropped_as_duplicates"], result["dropped_by_k_core"]) == (1, 1)
    assert n_identical(np.array([1, 1, 1]), np.array([2, 2, 3])) == 1


def test_photos_are_found_by_item_or_by_the_column_that_names_them(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for name, content in (("1.jpg", b"x"), ("2.jpg", b""), ("9.jpg", b"x"), ("a.png", b"x")):
        (photos / name).write_bytes(content)
    (tmp_path / "secret.jpg").write_bytes(b"x")
    log = "user,item,time\n" + "".join(f"u,{item},2024-01-01\n" for item in (1, 2, 3))
    by_name = prepare(tmp_path, shop(tmp_path, log, images=photos))
    assert {key: by_name[key] for key in by_name if "image" in key} == {
        "images": 4,
        "images_of_other_items": 2,
        "images_missing_or_empty": 1,
        "items_with_image": 1,
        "items_without_image": 2,
    }
    items = "item_id,title,photo\n1,A,a.png\n2,B,../secret.jpg\n3,C,somewhere/9.jpg\n"
    by_column = prepare(tmp_path, shop(tmp_path, log, items, images=photos))
    assert (by_column["items_with_image"], by_column["image_names_without_file"]) == (2, 1)
    mapping = images_by_mapping(tmp_path / "out/shop.images.csv")
    assert {item: path.resolve() for item, path in mapping.items()} == {
        "1": photos / "a.png",
        "3": photos / "9.jpg",
    }
    assert "image_url" not in (tmp_path / "out/shop.item").read_text()


@pytest.mark.parametrize(
    "cell",
    [
        '["https://h/a,b.jpg", "https://h/c.jpg"]',
        "https://h/a,b.jpg, https://h/c.jpg",
        "https://h/a,b.jpg;https://h/c.jpg",
        "https://h/a,b.jpg,https://h/c.jpg",
        "https://h/a,b.jpg,",
    ],
)
def test_the_first_web_address_of_photos_becomes_the_column_that_is_downloaded(tmp_path, cell):
    quoted = cell.replace('"', '""')
    items = f'item_id,image\n1,"{quoted}"\n'
    prepare(tmp_path, shop(tmp_path, "user,item,time\nu,1,2024-01-01\n", items))
    _, [urls] = ItemFile(tmp_path / "out/shop.item").read(["image_url"])
    assert urls == ["https://h/a,b.jpg"]


def test_photos_of_no_item_and_logs_of_nothing_are_errors_that_leave_no_file(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "9.jpg").write_bytes(b"x")
    with pytest.raises(ImageSourceError, match="none of its 1 images"):
        prepare(tmp_path, shop(tmp_path, "user,item,time\nu,1,2024-01-01\n", images=photos))
    with pytest.raises(NothingLeftError, match="none of its 1 rows"):
        prepare(tmp_path, shop(tmp_path, "user,item,time\nu,1,soon\n"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("bought", "listed", "says"),
    [
        ("007", "7", r"such as \['7'\] in column 'sku', is one of .* \['007'\].* zeros in front"),
        ("7.0", "7", r"is one of .* \['7.0'\].* without the .0 that programs add"),
        ("A1", "B1", r"such as \['B1'\] .* \['A1'\].* name the column"),
    ],
)
def test_a_table_of_other_items_is_an_error_that_shows_both_spellings(
    tmp_path, bought, listed, says
):
    log, items = f"user,item,time\nu,{bought},2024-01-01\n", f"sku,name\n{listed},Shoe\n"
    with pytest.raises(NoItemFoundError, match=says):
        prepare(tmp_path, shop(tmp_path, log, items))
    assert not (tmp_path / "out").exists()


def test_ratings_may_have_a_decimal_comma_and_one_of_thousands_is_none(tmp_path):
    log = "user;item;time;rating\n" + "".join(
        f"u;{item};2024-01-01;{rating}\n" for item, rating in enumerate(["4,5", "3", "1,000"])
    )
    result = prepare(tmp_path, shop(tmp_path, log))
    lines = (tmp_path / "out/shop.inter").read_text().splitlines()
    assert [line.split("\t")[2] for line in lines[1:]] == ["4.5", "3", ""]
    assert result["problems_of_the_log"] == {"ratings_not_understood": 1}


def test_without_times_the_order_of_the_rows_is_that_of_time(tmp_path):
    (tmp_path / "log.csv").write_text("user,item\nu,b\nu,a\n")
    prepare(tmp_path, Shop(source(tmp_path / "log.csv", LOG_ROLES), None))
    log = read_interactions(tmp_path / "out/shop.inter")
    assert log.item_ids.take(log.items).to_pylist() == ["b", "a"]
    assert log.times.tolist() == [0, 1000]


@pytest.mark.parametrize(
    ("text", "number"),
    [("$1,299.50", "1299.50"), ("12,99 €", "12.99"), ("1,299", "1299"), ("1'000", "1000"),
     ("1,234,567", "1234567"), ("gratis", ""), ("1e3", "1000"), ("1.5E-3 $", "0.0015"),
     ("1.299,00", "1299.00"), ("1.299", "1.299"), ("1.299.000", "1299000"), ("0,123", "0.123"),
     ("1 299,00 kr", "1299.00"), ("1,29,900", "129900"), ("€ 12,-", "12"), ("12.5 USD", "12.5"),
     ("€ 1.299,-", "1299"), ("1,299.–", "1299"), ("$5 million", ""),
     (".99", "0.99"), ("-3", "-3"), ("−€3", "-3"), ("$1,299.00 - $1,499.00", "1299.00"),
     ("nan", ""), ("inf", ""), ("1e400", ""), ("12k", ""), ("2.5 M", ""), ("12.5.2020", ""),
     ("10 20", ""), ("1,2,3", ""), ("١٢", ""), ("Rs.500", "500"), ("Rs.1,299.00", "1299.00"),
     ("kr.45,50", "45.50"), ("S/.25", "25"), ("$.99", "0.99")],
)  # fmt: skip
def test_prices_are_read_with_either_decimal_sign(text, number):
    assert price(text) == number


@pytest.mark.parametrize(
    ("prices", "numbers"),
    [
        (["1.299", "899,00", "12"], ["1299", "899.00", "12"]),
        (["1.299", "1.299.000"], ["1299", "1299000"]),
        (["1.299", "899.00"], ["1.299", "899.00"]),
        (["1.299", "899.00", "9,50"], ["1.299", "899.00", "9.50"]),
    ],
)
def test_the_decimal_mark_that_a_price_shows_is_that_of_its_column(tmp_path, prices, numbers):
    log = "user,item,time\n" + "".join(f"u,{k},2024-01-01\n" for k in range(len(prices)))
    items = "sku;price\n" + "".join(f"{k};{each}\n" for k, each in enumerate(prices))
    prepare(tmp_path, shop(tmp_path, log, items))
    assert ItemFile(tmp_path / "out/shop.item").read(["price"])[1] == [numbers]


def test_columns_are_guessed_by_name_unless_named():
    names = ["InvoiceNo", "StockCode", "Description", "InvoiceDate", "CustomerID"]
    guessed = guess_columns(names, LOG_ROLES, {})
    assert guessed == {"user": "CustomerID", "item": "StockCode", "time": "InvoiceDate"}
    named = guess_columns(names, LOG_ROLES, {"user": "InvoiceNo", "time": "-"})
    assert named == {"user": "InvoiceNo", "item": "StockCode"}
    with pytest.raises(ColumnError, match="no column 'who', named as user; there are 'InvoiceNo'"):
        guess_columns(names, LOG_ROLES, {"user": "who"})
    for item in ("SKU", "Product Id", "Variation ID"):
        assert guess_columns(["Line Item #", "Item #", item], LOG_ROLES, {}) == {"item": item}
    assert guess_columns(["Item #", "Customer #"], LOG_ROLES, {})["item"] == "Item #"
    assert guess_columns(["user_id:token", "item_id:token"], LOG_ROLES, {}) == {
        "user": "user_id:token",
        "item": "item_id:token",
    }
