"""Search spaces are read as RecBole reads them, and run nothing."""

import math

import pytest

from recbole_m3rec.compare.search_space import Range, read_space, space_of
from recbole_m3rec.config.layers import properties_folder
from recbole_m3rec.config.yaml_files import ConfigurationError

SHIPPED = sorted((properties_folder() / "tuning").glob("*.hyper"))


def space(tmp_path, text):
    file = tmp_path / "X.hyper"
    file.write_text(text, encoding="utf-8")
    return read_space(file)


def test_the_kinds_of_ranges(tmp_path):
    found = space(
        tmp_path,
        "\ufeff#search:space\n\na choice [1, 'x #',[2, 3]] # (int) what, >= 1\nb\tuniform 0.1,0.5\n"
        "c loguniform -8, 0\nd quniform 10,50,10\n",
    )
    assert found == {
        "a": Range("choice", (1, "x #", [2, 3])),
        "b": Range("uniform", (0.1, 0.5)),
        "c": Range("loguniform", (-8, 0)),
        "d": Range("quniform", (10, 50, 10)),
    }
    assert [str(each) for each in found.values()] == [
        "1, x #, [2, 3]", "0.1 to 0.5", "0.000335463 to 1", "10 to 50 by 10",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "line",
    [
        "a choice __import__('os').system('false')",
        "a choice 3",
        "a among [1,2]",
        "a uniform 0.5,0.1",
        "a quniform 1,2",
        "a quniform 8,64,0",
        "a choice [{1,2}]",
        "a loguniform 1,1000",
        "a loguniform -1000,1",
        "a uniform 0,1e400",
        "a uniform {1,2}",
        "a",
        "seed choice [1,2]",
        "valid_metric choice ['MRR@10']",
        "cold_items uniform 0.1,0.2",
        "b choice [3]",  # given before
    ],
)
def test_a_line_that_is_no_range_is_named(tmp_path, line):
    with pytest.raises(ConfigurationError, match=r"X\.hyper, line 2: "):
        space(tmp_path, f"b choice [1]\n{line}\n")


def test_a_file_that_is_no_text_is_named(tmp_path):
    (tmp_path / "X.hyper").write_bytes(b"a choice ['\xff']\n")
    with pytest.raises(ConfigurationError, match=r"X\.hyper is no UTF-8"):
        read_space(tmp_path / "X.hyper")


def test_a_trial_gets_values_of_the_range():
    optuna = pytest.importorskip("optuna")
    trial = optuna.trial.FixedTrial({"a": "[2, 3]", "b": 0.01})
    assert Range("choice", (1, [2, 3])).suggested(trial, "a") == [2, 3]
    assert Range("loguniform", (math.log(1e-3), math.log(1))).suggested(trial, "b") == 0.01


def test_steps_of_whole_numbers_are_whole_numbers():
    optuna = pytest.importorskip("optuna")
    trial = optuna.create_study().ask()
    drawn = Range("quniform", (32, 96, 32)).suggested(trial, "hidden_size")
    assert isinstance(drawn, int)
    assert drawn in (32, 64, 96)
    assert isinstance(Range("quniform", (0, 1, 0.5)).suggested(trial, "dropout_prob"), float)


def test_a_model_without_a_file_has_no_space():
    assert space_of("Pop") is None


def test_a_file_in_the_working_directory_wins(tmp_path):
    own = tmp_path / "properties" / "tuning"
    own.mkdir(parents=True)
    (own / "SASRec.hyper").write_text("n_layers choice [1]\n", encoding="utf-8")
    assert space_of("SASRec") == {"n_layers": Range("choice", (1,))}


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_shipped_spaces_search_keys_of_their_models(file):
    from recbole_m3rec.compare.settings import settable_keys

    found = read_space(file)
    assert found
    assert set(found) <= settable_keys(file.stem, "tiny")
