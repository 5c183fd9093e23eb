"""Unknown names and unusable files: one message each, with what was found and what to do."""

import pytest
from recbole.config import Config
from recbole.data import create_dataset

from recbole_m3rec.atomic.atomic_file import AtomicFileError
from recbole_m3rec.atomic.exact_times import TimesError
from recbole_m3rec.config.data_checks import (
    InteractionFileError,
    UnknownNameError,
    refuse_unknown_dataset,
)
from recbole_m3rec.config.yaml_files import ConfigurationError
from recbole_m3rec.support.suggestions import did_you_mean, nearest


@pytest.mark.parametrize(
    ("name", "meant"),
    [("SASRek", "SASRec"), ("sasrec", "SASRec"), ("m3rec", "M3Rec"), ("M3REC", "M3Rec"),
     ("Bert4Rec", "BERT4Rec"), ("Mamba4rec", "Mamba4Rec"), ("XGBoost", "xgboost")],
)  # fmt: skip
def test_an_unknown_model_is_an_error_with_the_nearest_names(name, meant):
    with pytest.raises(UnknownNameError, match=rf"no model `{name}`. Did you mean {meant}"):
        Config(name, "ml-100k")
    with pytest.raises(UnknownNameError, match=rf"no model `{name}`. Did you mean {meant}"):
        Config(config_dict={"model": name, "dataset": "ml-100k"})


def test_a_model_like_no_other_is_an_error_without_guesses():
    with pytest.raises(UnknownNameError, match="no model `Xyzzy`. Models are named"):
        Config("Xyzzy", "ml-100k")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (
            "clothing",
            "`recbole-m3rec prepare amazon --release 2014 --category Clothing_Shoes_and_Jewelry"
            " --name clothing --download`",
        ),
        ("beauty", "--release 2014 --category Beauty --name beauty --download`"),
        ("toys-18", "--release 2018 --category Toys_and_Games --name toys-18 --download`"),
        ("Home_and_Kitchen", "--category Home_and_Kitchen --name Home_and_Kitchen --download`"),
        ("amazon-shoes", "recbole-m3rec prepare amazon --help` shows the names"),
        ("amazon-beuty", "Did you mean amazon-beauty"),
        ("ml100k", "Did you mean ml-100k"),
        ("tinyy", "Did you mean tiny"),
        ("mine", r"write .*mine\.inter with the columns `user_id:token`"),
    ],
)
def test_an_unknown_dataset_is_an_error_that_says_what_to_do(
    name, says, make_config, write_dataset
):
    write_dataset("tiny")
    with pytest.raises(UnknownNameError, match=f"no dataset `{name}`: .*{says}"):
        create_dataset(make_config("BPR", name, download=False))


def test_only_amazons_names_are_told_how_to_prepare_them(make_config):
    with pytest.raises(UnknownNameError) as error:
        create_dataset(make_config("BPR", "mine"))
    assert "amazon" not in str(error.value)
    assert "`recbole-m3rec prepare tables --name mine --log FILE` makes it" in str(error.value)


@pytest.mark.parametrize("model", ["M3Rec", "SASRecMM", "SASRec"])
def test_a_misspelt_dataset_is_told_before_its_features(model, make_config):
    config = make_config(model, "ml-100kk", modalities="auto", features={})
    with pytest.raises(UnknownNameError, match=r"no dataset `ml-100kk`: .*Did you mean ml-100k"):
        create_dataset(config)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("../x", "begins with a dot"),
        ("..", "begins with a dot"),
        ("/etc", "is a path"),
        ("a/b", "is a path"),
        ("a\\b", "is a path"),
        ("", "is empty"),
        (" ", "is empty"),
        ("a\nb", "not printable"),
        ("a\0b", "not printable"),
    ],
)
def test_what_names_no_folder_is_refused_as_a_name(name, says):
    with pytest.raises(UnknownNameError, match=f"cannot name a dataset: it .*{says}"):
        Config("SASRec", name)
    with pytest.raises(UnknownNameError, match=f"cannot name a dataset: it .*{says}"):
        Config(config_dict={"model": "BPR", "dataset": name})


@pytest.mark.parametrize("name", ["a b", "~", "-x"])
def test_a_name_that_no_command_makes_is_refused_as_a_name(name, tmp_path):
    with pytest.raises(UnknownNameError) as error:
        refuse_unknown_dataset(name, tmp_path / name)
    assert f"There is no dataset {name!r}, and this cannot name a dataset: expected letters" in str(
        error.value
    )
    assert "prepare tables" not in str(error.value)


HEADER = "user_id:token\titem_id:token\ttimestamp:float"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", r"hand\.inter is empty\. Its first line must be"),
        ("\nu1\ti1\t1\n", "begins with an empty line"),
        ("u1\ti1\t1\nu2\ti2\t2\n", "line 1, column 1: expected the header's name:type .*'u1'"),
        ("user_id\titem_id\ttimestamp\nu1\ti1\t1\n", "line 1, column 1: expected .*'user_id'"),
        (HEADER.replace("\t", ",") + "\nu1,i1,1\n", "column 1: .*its fields the separator"),
        ("user_id:text\titem_id:token\nu1\ti1\n", "a type of token, token_seq, float"),
        ("user:token\titem_id:token\nu1\ti1\n", "no column user_id; it has user, item_id"),
        (HEADER + "\n", "holds a header and no interaction"),
        (HEADER, "holds a header and no interaction"),
        (None, r"hand\.inter does not exist"),
    ],
)
def test_an_unusable_interaction_file_is_a_clear_error(text, says, make_config, write_files):
    write_files("hand", {} if text is None else {"inter": text})
    with pytest.raises(AtomicFileError, match=says):
        create_dataset(make_config("SASRec", "hand"))


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        ({"timestmp": "[3,4]"}, "no field 'timestmp' is loaded of `tiny`; .* Did you mean timesta"),
        ({"timestamp": ["3"]}, "timestamp of `tiny` is float, expected an interval, found"),
        ({"item_id": "[3,4]"}, "item_id of `tiny` is token, expected a list of tokens, found"),
    ],
)
def test_values_to_keep_that_fit_no_field_are_a_clear_error(wanted, says, make_config):
    with pytest.raises(ConfigurationError, match=says):
        create_dataset(make_config("BPR", val_interval=wanted))


@pytest.mark.parametrize(
    "keys",
    [
        {"TIME_FIELD": "when"},
        {"load_col": {"inter": ["user_id", "item_id"]}},
        {"threshold": {"timestamp": 500}},
    ],
)
def test_interactions_without_times_are_a_clear_error(keys, make_config):
    with pytest.raises(TimesError, match=r"no column \w+ among .* have no order of time"):
        create_dataset(make_config("BPR", **keys))
    dataset = create_dataset(make_config("BPR", **keys, eval_args={"order": "RO"}))
    assert len(dataset.build()) == 3


def test_a_filter_that_leaves_nothing_is_a_clear_error(make_config, write_dataset):
    write_dataset("few", [("u1", "a", 1.0), ("u1", "b", 2.0), ("u2", "a", 3.0)])
    with pytest.raises(
        InteractionFileError, match=r"None of the 3 interactions of `few`.*\[5,inf\)"
    ):
        create_dataset(make_config("SASRec", "few"))


@pytest.mark.parametrize(
    ("name", "known", "expected"),
    [
        ("hiden_size", ["hidden_size", "num_layers"], ["hidden_size"]),
        ("Hidden-Size", ["hidden_size"], ["hidden_size"]),
        ("xyzzy", ["hidden_size"], []),
    ],
)
def test_nearest_names(name, known, expected):
    assert nearest(name, known) == expected


def test_a_suggestion_is_a_sentence_or_nothing():
    assert did_you_mean("tinyy", ["tiny", "tine"]) == " Did you mean tiny or tine?"
    assert did_you_mean("xyzzy", ["tiny"]) == ""


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("load_col", {"inter": ["user_id", "item_id", "timestamp", "ratin"]}),
        ("alias_of_item_id", ["ratin"]),
        ("alias_of_user_id", ["ratin"]),
    ],
)
def test_a_column_that_is_named_and_not_there_is_an_error(key, value, make_config):
    with pytest.raises(InteractionFileError, match=f"^{key}: .*no column ratin.*mean rating"):
        create_dataset(make_config("BPR", "ml-100k", **{key: value}))
