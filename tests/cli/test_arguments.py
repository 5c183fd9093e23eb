"""Arguments of training: which are settings, which options, and what is said of the others."""

from pathlib import Path

import pytest

from recbole_m3rec.cli import arguments


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("--hiden_size 8", "hiden_size is no setting .* Did you mean --hidden_size=8"),
        ("--learning_rate 0.1 --hiden_size=8", "A setting is written --learning_rate=0.1."),
        ("--weight_decay -1", "A setting is written --weight_decay=-1."),
        ("--epochs --hiden_size=8", "A setting is written --epochs=VALUE."),
    ],
)
def test_a_value_after_a_space_is_told_how_it_is_written_and_spelt(given, says):
    with pytest.raises(arguments.UsageError, match=says):
        arguments.parse(["--model=SASRec", "--dataset=x", *given.split()])


@pytest.mark.parametrize("value", ["[1.5]", "5.5", "[a]", "['5']", "{3}", "{a: 1}", "[5", "True"])
def test_what_reads_as_no_lengths_is_the_setting_topk_all_the_same(value, call):
    code, _, error = call("--model=SASRec", "--dataset=ml-100k", "--epochs=1", f"--topk={value}")
    assert code == 2
    assert error.startswith("error: topk must be an integer >= 1 or a list of such, found ")


def test_a_list_longer_than_a_file_name_is_the_setting_topk():
    value = str(list(range(1, 101)))
    options, settings = arguments.parse([f"--topk={value}"])
    assert (options.topk, settings) == (None, [f"--topk={value}"])


def test_a_file_whose_name_begins_as_a_list_is_a_checkpoint():
    Path("[1].pth").touch()
    options, _ = arguments.parse(["--topk=[1].pth", "--output=x.csv"])
    assert options.topk == Path("[1].pth")


@pytest.mark.parametrize("given", ["--verbose", "--verbose=True", "--verbose=False"])
def test_verbose_is_an_option_and_a_key(given):
    _, settings = arguments.parse(["--model=SASRec", "--dataset=x", given])
    assert settings == ["--verbose=True" if given == "--verbose" else given]


def test_a_setting_named_k_stays_a_setting_where_nothing_is_recommended():
    """ItemKNN's number of neighbours is called ``k``."""
    options, settings = arguments.parse(["--model=ItemKNN", "--dataset=tiny", "--k=50"])
    assert settings == ["--k=50"]
    assert options.topk is None
