"""Recipes: which source a modality has, and making its file once."""

import logging
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from recbole_m3rec.atomic.item_file import ItemFile
from recbole_m3rec.features.feature_file import FeatureTable, read_features, write_features
from recbole_m3rec.features.feature_table import FeatureFileError
from recbole_m3rec.features.recipe_config import Recipe, RecipeError, parse_recipe, parse_recipes
from recbole_m3rec.features.recipes import (
    ModalityError,
    ModalitySource,
    digest,
    load_or_build,
    resolve_modalities,
)

TEXT = {"encoder": "tfidf-svd", "fields": ["title", "kind"], "min_df": 1}
CODES = {"encoder": "random-codes", "dim": 4}


@pytest.fixture
def folder(tmp_path):
    """The folder of feature files, empty."""
    path = tmp_path / "features"
    path.mkdir()
    return path


@pytest.fixture
def item_file(tmp_path):
    """Four items: "b" has no text, and nothing else is in tune with "d"."""
    path = tmp_path / "tiny.item"
    lines = ["item_id:token\ttitle:token_seq\tkind:token"]
    lines += ["c\tred <b>hat</b>\twool", "a\tred scarf\twool", "b\t\t", "d\tblue shoe\t"]
    path.write_text("\n".join(lines) + "\n")
    return path


def bring(path):
    """Put a feature file there, of a format by its name, that no recipe made."""
    ids, values = np.array(["a", "c"]), np.float32([[1, 2], [3, 4]])
    if path.suffix == ".npz":
        np.savez(path, item_id=ids, embedding=values)
    else:
        write_features(path, FeatureTable(ids.astype(object), values, {"encoder": "mine"}))
    return path


def resolve(modalities, folder, **features):
    return resolve_modalities(modalities, "tiny", folder, features)


def built(folder, item_file, **changes):
    [source] = resolve("text", folder, text=TEXT | changes)
    return load_or_build(source, ItemFile(item_file), show_progress=False)


# Which modalities there are


def test_auto_is_every_file_and_recipe_in_alphabetical_order(folder, caplog):
    bring(folder / "tiny.video.parquet")
    bring(folder / "tiny.image.npz")
    caplog.set_level(logging.INFO)
    np.save(folder / "tiny.sound.item_id.npy", ["a"])
    assert len(resolve("auto", folder)) == 2
    assert not caplog.text
    for other in ("other.sound.npz", "tiny.inter", "tiny.id.npz", "tiny.npz", "tiny.a.b.npz"):
        (folder / other).touch()
    sources = resolve("auto", folder, text=TEXT, sound=None)
    assert [source.modality for source in sources] == ["image", "text", "video"]
    assert [source.path for source in sources] == [
        folder / "tiny.image.npz",
        folder / "tiny.text.parquet",
        folder / "tiny.video.parquet",
    ]
    assert [source.recipe is None for source in sources] == [True, False, True]


@pytest.mark.parametrize("modalities", ["auto", ["image"]])
def test_a_folder_or_a_looping_link_is_said_to_be_one(folder, modalities):
    path = folder / "tiny.image.npz"
    path.mkdir()
    with pytest.raises(FeatureFileError, match="is a folder, expected a feature file"):
        resolve(modalities, folder)
    assert not resolve([], folder)
    path.rmdir()
    path.symlink_to(path.name)
    with pytest.raises(FileNotFoundError, match="leads nowhere or in a circle"):
        resolve(modalities, folder)


@pytest.mark.parametrize(
    "listed",
    [["text", "image"], ("text", "image"), "[text, image]", "text,image", "['text','image']"],
)
def test_a_list_keeps_its_order_however_it_is_written(folder, listed):
    sources = resolve(listed, folder, image=CODES, text=CODES, sound=CODES)
    assert [source.modality for source in sources] == ["text", "image"]


@pytest.mark.parametrize("nothing", [[], (), "[]", ""])
def test_an_empty_list_is_none(folder, nothing):
    assert resolve(nothing, folder, text=TEXT) == ()


def test_auto_that_finds_none_says_what_to_do(tmp_path):
    with pytest.raises(ModalityError, match=r"auto found neither .* modalities: \[\]"):
        resolve_modalities("auto", "tiny", tmp_path / "not there", None)


def test_a_listed_modality_without_file_or_recipe_names_the_nearest(folder):
    with pytest.raises(ModalityError, match="txt has neither .*There is text. Did you mean text?"):
        resolve("txt", folder, text=TEXT)


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        (["id", "text"], "id is always part of the model"),
        (["auto", "text"], "auto stands alone"),
        (["text", "text"], "each name once"),
        (["te xt"], "'te xt' is no name"),
        (["repetition"], "'repetition' is taken: scores are told in columns user, rank"),
        (["items"], "'items' is a name that PyTorch keeps for itself"),
        ([1], "1 is no name"),
        (None, "found None"),
        ({"text": 1}, "expected auto, a list"),
    ],
)
def test_names_that_cannot_be_are_refused(folder, listed, expected):
    with pytest.raises(ModalityError, match=expected):
        resolve(listed, folder, text=TEXT)


@pytest.mark.parametrize("name", ["id", "repetition", "auto", "items", "../x", "", 5])
def test_a_recipe_for_such_a_name_is_refused(name):
    with pytest.raises(RecipeError, match=f"features.{name}: the modality {name!r} (is|stands)"):
        parse_recipes({name: TEXT})


@pytest.mark.parametrize("name", ["id", "repetition", "score", "items"])
def test_a_file_of_such_a_name_is_no_modality(folder, name, caplog):
    bring(folder / "tiny.text.npz")
    bring(folder / f"tiny.{name}.npz")
    with caplog.at_level(logging.INFO):
        assert [source.modality for source in resolve("auto", folder)] == ["text"]
    assert f"tiny.{name}.npz is no feature file: {name!r} is " in caplog.text


def test_two_files_of_the_user_are_refused(folder):
    bring(folder / "tiny.text.npz")
    bring(folder / "tiny.text.parquet")
    with pytest.raises(ModalityError, match=r"text has several files, .*npz, .*parquet. Keep one"):
        resolve("auto", folder)


# Which source wins


def test_a_file_of_the_user_wins_over_a_recipe_and_the_file_it_made(folder, item_file, caplog):
    built(folder, item_file)
    path = bring(folder / "tiny.text.npz")
    with caplog.at_level(logging.INFO):
        [source] = resolve("text", folder, text=TEXT)
    assert source == ModalitySource("text", path, None)
    assert f"{path} wins over the recipe tfidf-svd of title kind" in caplog.text
    assert load_or_build(source, ItemFile(item_file)).item_ids.tolist() == ["a", "c"]


def test_random_codes_win_over_any_file(folder):
    bring(folder / "tiny.text.parquet")
    [source] = resolve("auto", folder, text=CODES)
    assert source.path is None


def test_a_made_file_is_used_where_its_recipe_is_gone(folder, item_file):
    table = built(folder, item_file)
    [source] = resolve("auto", folder)
    assert source.recipe is None
    np.testing.assert_array_equal(load_or_build(source, ItemFile(item_file)).values, table.values)


# Recipes


def test_a_recipe_is_completed_by_defaults():
    recipe = parse_recipe("text", {"encoder": "tfidf-svd", "fields": "title"})
    options = {"dim": 512, "min_df": 2, "max_ngram": 1, "unit_rows": True}
    assert recipe == Recipe("tfidf-svd", ("title",), options)
    assert str(recipe) == "tfidf-svd of title"
    codes = parse_recipe("text", {"encoder": "random-codes"})
    assert str(codes) == "random-codes of deviation 0.02"
    bert = parse_recipe("text", {"encoder": "transformers:bert", "fields": "a", "pooling": "mean"})
    assert (bert.options["pooling"], bert.options["max_tokens"]) == ("mean", 512)
    assert str(bert) == "transformers:bert of a"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"encoder": "tfidf-sdv", "fields": ["a"]}, "unknown encoder.*Did you mean tfidf-svd?"),
        ({"fields": ["a"]}, "unknown encoder None"),
        (TEXT | {"dims": 5}, "has no option 'dims'.*Did you mean dim?"),
        (TEXT | {"progress": 5}, "has no option 'progress'"),
        (CODES | {"seed": 5}, "has no option 'seed'"),
        (CODES | {"fields": ["a"]}, "has no option 'fields'"),
        ({"encoder": "tfidf-svd"}, "needs fields"),
        ({"encoder": "tfidf-svd", "fields": [1]}, r"fields must be names .* found \[1\]"),
        (TEXT | {"keep_html": "yes"}, "keep_html must be true or false, found 'yes'"),
        ({"encoder": "os:system", "fields": ["a"]}, "unknown encoder"),
        ({"encoder": "transformers:", "fields": ["a"]}, "unknown encoder"),
        ({"encoder": "transformers:a", "fields": ["b"], "device": "cpu"}, "no option 'device'"),
        ("tfidf-svd", "expected a mapping"),
    ],
)
def test_a_wrong_recipe_is_named_by_its_key(folder, given, expected):
    with pytest.raises(RecipeError, match=f"features.text: .*{expected}"):
        resolve("text", folder, text=given)


def test_features_that_are_no_mapping_are_refused(folder):
    with pytest.raises(RecipeError, match="expected recipes by modality"):
        resolve_modalities("auto", "tiny", folder, ["text"])


def test_an_option_out_of_range_is_named_when_followed(folder, item_file):
    with pytest.raises(RecipeError, match="features.text: tfidf-svd: dim must be .* found -1"):
        built(folder, item_file, dim=-1)
    [source] = resolve("text", folder, text=CODES | {"std": -1})
    with pytest.raises(RecipeError, match="features.text: random-codes: std must be"):
        load_or_build(source, ItemFile(item_file), tokens=["a"])
    assert not list(folder.iterdir())


# Making files


def test_a_missing_file_is_made_of_the_items_that_have_a_text(tmp_path, item_file, caplog):
    folder = tmp_path / "not" / "there"
    with caplog.at_level(logging.INFO):
        table = built(folder, item_file)
    assert table.item_ids.tolist() == ["a", "c", "d"]
    assert table.values[0] @ table.values[1] > 0.1
    assert abs(table.values[0] @ table.values[2]) < 1e-5
    assert [path.name for path in folder.iterdir()] == ["tiny.text.parquet"]
    assert table.metadata["encoder"] == "tfidf-svd"
    assert table.metadata["fields"] == ["title", "kind"]
    assert "3 of 4 items" in caplog.text


def test_items_without_any_known_term_are_left_out(folder, item_file):
    assert built(folder, item_file, min_df=2).item_ids.tolist() == ["a", "c"]


def test_the_order_of_the_lines_does_not_matter(folder, item_file):
    first = built(folder, item_file)
    header, *lines = item_file.read_text().splitlines(keepends=True)
    item_file.write_text(header + "".join(reversed(lines)))
    (folder / "tiny.text.parquet").unlink()
    again = built(folder, item_file)
    assert again.item_ids.tolist() == first.item_ids.tolist()
    np.testing.assert_array_equal(again.values, first.values)


def test_a_file_is_made_once(folder, item_file):
    built(folder, item_file)
    made = (folder / "tiny.text.parquet").stat()
    built(folder, item_file)
    assert (folder / "tiny.text.parquet").stat() == made


@pytest.mark.parametrize("change", ["recipe", "fields", "items"])
def test_a_file_is_made_again_when_its_making_has_changed(folder, item_file, change, caplog):
    before = built(folder, item_file)
    if change == "items":
        item_file.write_text(item_file.read_text().replace("blue", "red"))
    changes = {"recipe": {"dim": 1}, "fields": {"fields": ["kind"]}, "items": {}}[change]
    with caplog.at_level(logging.INFO):
        after = built(folder, item_file, **changes)
    assert not np.array_equal(before.values, after.values)
    assert ("tiny.item changed" if change == "items" else "recipe has changed") in caplog.text


def test_a_made_file_outlives_its_item_file(folder, item_file):
    before = built(folder, item_file)
    item_file.unlink()
    np.testing.assert_array_equal(built(folder, item_file).values, before.values)


def test_without_a_file_the_item_file_must_be_there(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="none.item"):
        built(folder, tmp_path / "none.item")


def test_a_failure_while_remaking_leaves_the_old_file(folder, item_file):
    before = built(folder, item_file)
    item_file.write_text("item_id:token\ttitle:token_seq\tkind:token\na\t!\t\n")
    with pytest.raises(RecipeError, match="has a word"):
        built(folder, item_file)
    np.testing.assert_array_equal(read_features(folder / "tiny.text.parquet").values, before.values)


def test_makers_of_the_same_file_at_once_all_read_it_whole(folder, item_file):
    with ThreadPoolExecutor(4) as pool:
        tables = list(pool.map(lambda _: built(folder, item_file), range(8)))
    assert [list(table.item_ids) for table in tables] == [["a", "c", "d"]] * 8
    assert [path.name for path in folder.iterdir()] == ["tiny.text.parquet"]


def test_the_progress_bar_reaches_the_number_of_texts(folder, item_file, capsys):
    [source] = resolve("text", folder, text=TEXT)
    load_or_build(source, ItemFile(item_file))
    assert "3/3" in capsys.readouterr().err
    load_or_build(source, ItemFile(item_file))
    assert capsys.readouterr().err == ""


# Random codes


def test_random_codes_are_drawn_for_all_tokens_and_never_stored(folder, item_file):
    sources = resolve("image,text", folder, image=CODES, text=CODES)
    tokens = ["[PAD]", "c", "a"]
    image, text = (load_or_build(s, ItemFile(item_file), tokens=tokens, seed=1) for s in sources)
    as_array = np.array(tokens[::-1])  # as the dataset keeps them
    again = load_or_build(sources[0], ItemFile(item_file), tokens=as_array, seed=1)
    other = load_or_build(sources[0], ItemFile(item_file), tokens=tokens, seed=2)
    assert image.item_ids.tolist() == sorted(tokens)
    assert image.values.shape == (3, 4)
    np.testing.assert_array_equal(image.values, again.values)
    assert (image.values != text.values).all()
    assert (image.values != other.values).all()
    assert not list(folder.iterdir())


def test_random_codes_without_tokens_are_an_error(folder, item_file):
    [source] = resolve("text", folder, text=CODES)
    with pytest.raises(ValueError, match="text: random codes need the tokens"):
        load_or_build(source, ItemFile(item_file))


# Digests


def test_a_digest_changes_with_what_it_stands_for(folder, item_file):
    [made] = resolve("text", folder, text=TEXT)
    [codes] = resolve("text", folder, text=CODES)
    brought = ModalitySource("text", bring(folder / "tiny.text.npz"), None)
    prints = [digest(made), digest(made, item_file), digest(codes), digest(codes, seed=1)]
    prints += [digest(codes, seed=2), digest(brought)]
    with open(item_file, "a") as file:
        file.write("e\tgreen coat\t\n")
    prints.append(digest(made, item_file))
    np.savez(folder / "tiny.text.npz", item_id=["a"], embedding=np.ones((1, 1)))
    prints.append(digest(brought))
    array = ModalitySource("text", folder / "tiny.text.npy", None)
    np.save(array.path, np.ones((2, 1)))
    for ids in (["a", "b"], ["b", "a"]):
        np.save(folder / "tiny.text.item_id.npy", ids)
        prints.append(digest(array))
    assert len(set(prints)) == len(prints)
    assert digest(codes, item_file, seed=2) == digest(codes, seed=2)
