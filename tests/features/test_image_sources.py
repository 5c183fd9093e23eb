"""Which image file belongs to which item."""

import os
from pathlib import Path
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recbole_m3rec.features.image_sources import (
    ImageSourceError,
    file_stem,
    images_by_mapping,
    images_in_folder,
    images_of,
)


@pytest.mark.parametrize(
    ("item_id", "stem"),
    [
        ("B00X", "B00X"),
        ("a/b", "a%2Fb"),
        ("../../etc/passwd", "%2E.%2F..%2Fetc%2Fpasswd"),
        ("..", "%2E."),
        (".hidden", "%2Ehidden"),
        ("a\\b:c", "a%5Cb%3Ac"),
        ("Überzug 1", "%C3%9Cberzug%201"),
        ("50%", "50%25"),
    ],
)
def test_an_id_becomes_a_name_in_the_same_folder(item_id, stem):
    assert file_stem(item_id) == stem


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=10))
def test_every_id_comes_back_and_stays_in_the_folder(item_id):
    stem = file_stem(item_id)
    assert unquote(stem) == item_id
    assert Path("folder", stem).parent == Path("folder")
    assert Path(f"{stem}.jpg").name == f"{stem}.jpg"
    assert not stem.startswith(".")


@pytest.mark.parametrize("item_id", ["", "x" * 300])
def test_ids_that_are_no_file_names_are_refused(item_id):
    with pytest.raises(ImageSourceError, match="cannot be the name of a file"):
        file_stem(item_id)


def test_a_folder_is_read_by_item_id(tmp_path):
    for name in ("a.jpg", "b%2Fc.PNG", "v1.5.webp", "notes.txt", "download.csv", ".d.jpg"):
        (tmp_path / name).touch()
    os.mkfifo(tmp_path / "pipe.jpg")
    found = images_in_folder(tmp_path)
    assert {item: path.name for item, path in found.items()} == {
        "a": "a.jpg",
        "b/c": "b%2Fc.PNG",
        "v1.5": "v1.5.webp",
    }


def test_two_images_of_an_item_are_refused(tmp_path):
    (tmp_path / "a.jpg").touch()
    (tmp_path / "a.png").touch()
    with pytest.raises(ImageSourceError, match="a.jpg and a.png are both of item 'a'"):
        images_in_folder(tmp_path)


def test_folders_without_images_are_named(tmp_path):
    (tmp_path / "a.heic").touch()
    with pytest.raises(ImageSourceError, match=r"no image <item id>.jpg .*\), found a.heic$"):
        images_in_folder(tmp_path)
    (tmp_path / "010").mkdir()
    with pytest.raises(
        ImageSourceError, match="010, a.heic. Folders in it are not entered: .* --mapping"
    ):
        images_in_folder(tmp_path)
    with pytest.raises(ImageSourceError, match="there is no such folder"):
        images_in_folder(tmp_path / "none")


@pytest.mark.parametrize("separator", [",", "\t"])
def test_a_mapping_names_paths_beside_it(tmp_path, separator):
    mapping = tmp_path / "map.csv"
    rows = [["path", "note", "item_id:token"], ["x/1.jpg", "", "a"], ["/2.jpg", "", "b"]]
    mapping.write_text("".join(separator.join(f'"{cell}"' for cell in row) + "\n" for row in rows))
    assert images_by_mapping(mapping) == {"a": tmp_path / "x" / "1.jpg", "b": Path("/2.jpg")}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("item,file\na,1.jpg\n", "line 1: expected the columns item_id and path"),
        ("item_id,path\na,1.jpg\n\na,2.jpg\n", "line 4: item 'a' stands on a line before"),
        ("item_id,path\na\n", "line 2: expected an item id and a path"),
        ("item_id,path\n,1.jpg\n", "line 2: expected an item id and a path"),
        ("item_id,path\n", "holds no item"),
        ("item_id,path\na,https://h/1.jpg\n", "line 2: https://h/1.jpg is an address"),
        ("", "line 1: expected the columns"),
        ("item_id,path\na,\udce4.jpg\n", "cannot be read .*0xe4.* Expected a table in UTF-8"),
    ],
)
def test_a_wrong_mapping_is_named_by_line(tmp_path, content, expected):
    (tmp_path / "map.csv").write_text(content, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(ImageSourceError, match=f"map.csv.*{expected}"):
        images_by_mapping(tmp_path / "map.csv")


def test_only_images_of_given_items_are_kept_and_none_is_an_error():
    images = {"a": Path("a.jpg"), "b": Path("b.jpg")}
    assert images_of(images, ["c", "b"], "photos") == {"b": Path("b.jpg")}
    with pytest.raises(ImageSourceError, match=r"photos: none of its 2 images .*\['a', 'b'\].*'c'"):
        images_of(images, ["c"], "photos")
