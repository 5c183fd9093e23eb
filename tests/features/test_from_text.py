"""Features from the text of an .item file, by recipe and by the encode_text."""

import re
import shutil
from functools import partial

import numpy as np
import pytest

from recbole_m3rec.atomic.item_file import ItemFile
from recbole_m3rec.cli.commands import run_script
from recbole_m3rec.cli.prepare import encode_text
from recbole_m3rec.features import from_text
from recbole_m3rec.features.encoders import encode_texts
from recbole_m3rec.features.feature_file import read_features, read_metadata, write_features
from recbole_m3rec.features.from_text import make_text_features, work_folder
from recbole_m3rec.features.recipe_config import parse_recipe
from recbole_m3rec.features.recipes import load_or_build, resolve_modalities
from tests.features.encoders.test_text_models import bert  # noqa: F401  (a fixture)

ITEMS = """item_id:token\ttitle:token_seq\tbrand:token
c\tred <b>hat</b> &amp; coat\tAcme
a\tred scarf\tBolt
b\t\t
d\tblue shoe\t
"""


@pytest.fixture
def item_file(tmp_path):
    path = tmp_path / "dataset" / "shop" / "shop.item"
    path.parent.mkdir(parents=True)
    path.write_text(ITEMS)
    return path


def run(*arguments):
    return run_script(
        encode_text.encode_text, ["--dataset", "shop", "--option", "min_df=1", *arguments]
    )


def test_html_is_kept_where_the_recipe_says_so(item_file):
    given = {"encoder": "tfidf-svd", "fields": ["title"], "min_df": 1}
    kept, plain = (parse_recipe("text", given | {"keep_html": keep}) for keep in (True, False))
    assert kept.as_metadata() != plain.as_metadata()
    tables = [
        make_text_features("text", recipe, ItemFile(item_file), show_progress=False)[0]
        for recipe in (kept, plain)
    ]
    assert not np.array_equal(tables[0].values, tables[1].values)


def test_the_script_makes_the_table_that_a_recipe_makes(item_file, tmp_path, capsys):
    assert run() == 0
    assert "3 of 4 items" in capsys.readouterr().out
    made = read_features(item_file.with_name("shop.text.parquet"))
    given = {"text": {"encoder": "tfidf-svd", "fields": ["title", "brand"], "min_df": 1}}
    [source] = resolve_modalities("auto", "shop", tmp_path / "other", given)
    table = load_or_build(source, ItemFile(item_file), show_progress=False)
    assert made.item_ids.tolist() == table.item_ids.tolist()
    np.testing.assert_array_equal(made.values, table.values)


def test_what_the_script_made_is_the_users_and_wins_over_a_recipe(item_file):
    assert run() == 0
    path = item_file.with_name("shop.text.parquet")
    assert "recipe" not in read_metadata(path)
    assert read_metadata(path)["options"]["min_df"] == 1
    other = {"text": {"encoder": "tfidf-svd", "fields": ["brand"]}}
    [source] = resolve_modalities("auto", "shop", path.parent, other)
    assert source.recipe is None


def test_a_second_run_does_nothing_and_one_made_otherwise_is_kept(item_file, capsys):
    path = item_file.with_name("shop.text.parquet")
    assert run() == 0
    made = path.stat().st_mtime_ns, path.read_bytes()
    assert run() == 0
    assert "is up to date" in capsys.readouterr().out
    assert run("--fields", "title") == 2
    assert "made otherwise (fields ['title', 'brand'])" in capsys.readouterr().err
    item_file.write_text(ITEMS.replace("blue", "green"))
    assert run() == 2
    assert "shop.item was changed. Add --overwrite" in capsys.readouterr().err
    assert (path.stat().st_mtime_ns, path.read_bytes()) == made
    for _ in range(2):  # also what is up to date
        made = path.stat().st_mtime_ns
        assert run("--fields", "title", "--overwrite") == 0
        assert path.stat().st_mtime_ns > made
    assert read_metadata(path)["fields"] == ["title"]


def test_an_item_file_that_changes_while_it_is_encoded_is_found_changed(
    item_file, monkeypatch, capsys
):
    def encode(*arguments, **options):
        item_file.write_text(ITEMS.replace("blue", "green"))
        return encode_texts(*arguments, **options)

    monkeypatch.setattr(from_text, "encode_texts", encode)
    assert run() == 0
    assert run() == 2
    assert "shop.item was changed. Add --overwrite" in capsys.readouterr().err


def test_other_weights_of_a_model_are_found(item_file, bert, tmp_path, capsys):  # noqa: F811
    import transformers

    shutil.copytree(bert, tmp_path / "model")
    encoder = ["--encoder", f"transformers:{tmp_path / 'model'}", "--device", "cpu"]
    run_bert = partial(run_script, encode_text.encode_text, ["--dataset", "shop", *encoder])
    assert run_bert() == run_bert() == 0
    assert "is up to date" in capsys.readouterr().out
    model = transformers.AutoModel.from_pretrained(bert)
    model.embeddings.word_embeddings.weight.data += 1
    model.save_pretrained(tmp_path / "model")
    assert run_bert() == 2
    assert "made with other weights of transformers:" in capsys.readouterr().err
    path = item_file.with_name("shop.text.parquet")
    table = read_features(path)
    shutil.rmtree(tmp_path / "model")
    assert run_bert() == 0
    assert "Whether its weights are the same is not known" in capsys.readouterr().out
    del table.metadata["weights_sha256"]  # as of before these were noted
    write_features(path, table)
    assert run_bert() == 0
    assert "not known" not in capsys.readouterr().out


def test_a_dry_run_says_what_it_would_do_and_does_nothing(item_file, capsys):
    assert run("--dry-run") == 0
    said = capsys.readouterr().out
    assert "4 items, 3 with text" in said
    assert 'title: 3 items, for example "red hat & coat"' in said
    assert "brand: 2 items" in said
    assert [path.name for path in item_file.parent.iterdir()] == ["shop.item"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--encoder", "tfidf-sdv"], "--encoder: unknown encoder 'tfidf-sdv'.*Did you mean tfidf"),
        (["--encoder", "random-codes"], "random-codes: these .* features: {text: {encoder: random"),
        (["--option", "dim=0"], "--encoder: tfidf-svd: dim must be"),
        (["--option", "dim"], "--option dim: expected NAME=VALUE"),
        (["--option", "dim=[1"], "dim must be"),
        (["--option", "dim=010"], "dim must be"),
        (["--pooling", "cls"], "tfidf-svd has no option 'pooling'"),
        (["--fields", "titel"], "no field 'titel'.*Did you mean title?"),
        (["--item-file", "none.item"], "none.item: there is no such file"),
        (["--output", "text.npz"], "text.npz: a feature file is written as .parquet"),
    ],
)
def test_a_users_error_is_one_line_and_exit_code_2(item_file, capsys, arguments, expected):
    assert run(*arguments) == 2
    said = capsys.readouterr().err.strip().split("\n")[-1]
    assert re.search(f"^error: .*{expected}", said), said
    assert not list(item_file.parent.glob("*.parquet"))


def test_an_item_file_without_a_known_column_asks_for_fields(item_file, capsys):
    item_file.write_text(ITEMS.replace("title:", "name:").replace("brand:", "maker:"))
    assert run() == 2
    assert "has the columns item_id, name, maker: name --fields" in capsys.readouterr().err


def test_finished_batches_are_gone_once_the_file_is_there(item_file):
    path = item_file.with_name("shop.text.parquet")
    (work_folder(path) / "earlier").mkdir(parents=True)
    assert run() == 0
    assert sorted(other.name for other in path.parent.iterdir()) == ["shop.item", path.name]
