"""The arguments of a comparison: what they mean, and what is refused before anything is trained."""

from pathlib import Path

import pytest

from recbole_m3rec.cli import compare
from recbole_m3rec.cli.compare import parse
from recbole_m3rec.cli.parsers import UsageError


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--models", "SASRek", "--datasets", "tiny"], "Did you mean SASRec"),
        (["--models", "SASRec", "--datasets", "tinny"], "Did you mean tiny"),
        (["--models", "BPR", "--datasets", "tiny", "--epoch=3"], "Did you mean epochs"),
        (["--models", "BPR", "--datasets", "tiny", "--job", "2"], "Did you mean --jobs"),
        (["--models", "BPR,,Pop", "--datasets", "tiny"], "nothing between two commas"),
        (["--models", "BPR", "--datasets", "tiny", "--seeds", "0"], "from 1 on"),
        (["--models", "BPR", "--datasets", "tiny", "--reference", "Pop"], "none of --models"),
        (["--datasets", "tiny"], "--models"),
    ],
)
def test_what_cannot_be_meant_is_said_in_one_line_before_anything_is_trained(
    write_dataset, capsys, given, said, refuse_workers
):
    write_dataset("tiny")
    refuse_workers()
    assert compare.main([*given, "--data_path=dataset"]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not Path("comparison").exists()


def test_settings_of_files_come_before_those_of_the_command_line(tmp_path):
    (tmp_path / "a.yaml").write_text("epochs: 5\ntopk: [1]\n", encoding="utf-8")
    (tmp_path / "b.yaml").write_text("epochs: 6\nhidden_size: 8\n", encoding="utf-8")
    given = ["--models", "A,B", "--datasets", "x", "--config_files", "a.yaml,b.yaml"]
    options, settings = parse([*given, "--hidden_size=16"])
    assert options.models == ["A", "B"]
    assert settings == {"epochs": 6, "topk": [1], "hidden_size": "16"}


def test_a_part_of_eval_args_leaves_those_of_the_files_as_they_were(tmp_path):
    (tmp_path / "a.yaml").write_text("eval_args: {split: {LS: valid_only}}\n", encoding="utf-8")
    given = ["--models", "A", "--datasets", "x", "--config_files", "a.yaml"]
    _, settings = parse([*given, "--eval_args={'mode': 'uni20'}"])
    assert settings["eval_args"] == {"split": {"LS": "valid_only"}, "mode": "uni20"}


@pytest.mark.parametrize("setting", ["--seed=7", "--download=False"])
def test_a_setting_named_almost_as_an_option_is_a_setting(setting):
    _, settings = parse(["--models", "A", "--datasets", "x", setting])
    key, _, value = setting[2:].partition("=")
    assert settings == {key: value}


def test_a_setting_without_a_value_is_refused():
    with pytest.raises(UsageError, match="--epochs=3"):
        parse(["--models", "A", "--datasets", "x", "--epochs", "3"])


def test_help_has_examples(capsys):
    with pytest.raises(SystemExit):
        parse(["--help"])
    assert "--models M3Rec,SASRec,GRU4Rec --datasets ml-100k" in capsys.readouterr().out
