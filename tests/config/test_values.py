"""Values without a meaning are one line each, before any data are read."""

from pathlib import Path

import pytest
from recbole.config import Config

from recbole_m3rec.config.values import check_catalogue, unlike_default
from recbole_m3rec.config.yaml_files import ConfigurationError


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ("--learning_rate=nan", "learning_rate must be a number > 0, found 'nan'"),
        ("--learning_rate=-1", "learning_rate must be a number > 0, found -1"),
        ("--learning_rate=abc", "learning_rate must be a number > 0, found 'abc'"),
        ("--learning_rate=1e999", "learning_rate must be a number > 0, found inf"),
        ("--weight_decay=-0.1", "weight_decay must be a number >= 0"),
        ("--train_batch_size=0", "train_batch_size must be an integer >= 1, found 0"),
        ("--train_batch_size=2.5", "train_batch_size must be an integer >= 1"),
        ("--seed=abc", "seed must be an integer"),
        ("--seed=-1", "seed must be an integer"),
        ("--seed=4294967296", "seed must be an integer"),
        ("--worker=-1", "worker must be an integer >= 0"),
        ("--epochs=None", "epochs must be an integer >= 0, found None"),
        ("--epochs=True", "epochs must be an integer >= 0, found True"),
        ("--hidden_size=None", "hidden_size must be an integer >= 1, found None"),
        ("--hidden_dropout_prob=1", r"hidden_dropout_prob must be a number in \[0, 1\), found 1"),
        ("--show_progress=no", "show_progress must be true or false, found 'no'"),
        ("--learner=adamm", "learner must be one of .*Did you mean adam"),
        ("--state=loud", "state must be one of"),
        ("--eval_args={}", "eval_args is empty"),
        ("--eval_args=[1]", "eval_args must be a mapping"),
        ("--eval_args={'ordr': 'TO'}", "'ordr' is none of split, group_by, order, mode"),
        ("--eval_args={'order': 'XX'}", "order must be one of TO, RO"),
        ("--eval_args={'mode': 'fulll'}", "mode must be full"),
        ("--eval_args={'mode': 'uni'}", "mode must be full"),
        (
            "--eval_args={'mode': {'test': 'uni10'}, 'split': {'time_quantiles': [0.8, 0.9]}}",
            "but time_quantiles ranks each target by itself",
        ),
        ("--eval_args={'mode': 'uni5'}", "among 5 drawn items, so that every list of 20"),
        ("--eval_args={'split': {'LS': 'valid'}}", "split must be"),
        ("--eval_args={'split': {'RS': [0.8, 0.2]}}", "split must be"),
        ("--user_inter_num_interval=[5,oops)", "user_inter_num_interval must be an interval"),
        ("--item_inter_num_interval=5", "item_inter_num_interval must be an interval"),
        ("--item_inter_num_interval=[9,5]", "item_inter_num_interval must be an interval"),
        ("--val_interval={'rating': '[3,oops)'}", "rating must be an interval such as"),
        ("--val_interval={'rating': '[3,1]'}", "rating must be an interval such as"),
        ("--val_interval={'kind': [1, 2]}", "list of strings such as .*found .1, 2."),
        ("--topk=[]", "topk is empty"),
        ("--topk=[0]", r"topk must be an integer >= 1 or a list of such, found \[0\]"),
        ("--topk=[5,'a']", "topk must be an integer >= 1 or a list of such"),
        ("--topk=-1", "topk must be an integer >= 1 or a list of such"),
        ("--topk=5.5", "topk must be an integer >= 1 or a list of such, found 5.5"),
        ("--metrics=5", "metrics must be a list or a string, found 5"),
        ("--softmax_items=0", "softmax_items must be all or an integer >= 1, found 0"),
        ("--softmax_items=al", "softmax_items must be all or an integer >= 1, found 'al'"),
        ("--metrics=Hits", "no metric named 'Hits'.*Did you mean Hit"),
        ("--metrics=[]", "metrics is empty"),
        ("--valid_metric=Hit@7", "'Hit@7' is none of what is computed.*Did you mean Hit@5"),
        ("--valid_metric=Recall@5", "'Recall@5' is none of what is computed"),
        ("--topk=[7]", "'Hit@20' is none of what is computed"),
        ("--checkpoint_format=pickle", "checkpoint_format.*pickle"),
        ("--checkpoint_minutes=0", "checkpoint_minutes.*0"),
        ("--layer_norm_eps=tiny", "layer_norm_eps must be a number > 0"),
        ("--load_col={}", "load_col names no column of `inter`, .*, found {}"),
        ("--load_col={'intr': ['user_id']}", "load_col names no column of `inter`, .*'intr'"),
        ("--load_col={'inter': []}", "load_col names no column of `inter`"),
        ("--load_col={'inter': 'user_id'}", "load_col: inter must be a list of columns or '.'"),
        ("--load_col={'inter': '*', 'item': None}", "load_col: item must be a list .*found None"),
    ],
)
def test_a_value_without_meaning_is_told_before_data_are_read(argument, says, monkeypatch):
    monkeypatch.setattr("sys.argv", ["run", argument])
    with pytest.raises(ConfigurationError, match=says) as error:
        Config("SASRec", "no-such-data")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("model", "argument", "says"),
    [
        (
            "SASRec",
            "--n_heads=3",
            "hidden_size must be a multiple of n_heads, found hidden_size=64",
        ),
        ("SASRecMM", "--n_heads=3", "hidden_size must be a multiple of n_heads"),
        ("BERT4Rec", "--hidden_size=9", "hidden_size=9 and n_heads=2. Change one of them"),
        ("CORE", "--n_heads=3", "embedding_size must be a multiple of n_heads"),
        ("AutoInt", "--num_heads=3", "attention_size must be a multiple of num_heads"),
        ("AutoInt", "--num_heads=0", "num_heads must be an integer >= 1, found 0"),
        ("DGCF", "--n_factors=3", "embedding_size must be a multiple of n_factors"),
        ("ItemKNN", "--k=0", "k must be an integer >= 1, found 0"),
        ("ItemKNN", "--k=-1", "k must be an integer >= 1, found -1"),
        ("MultiVAE", "--latent_dimension=0", "latent_dimension must be an integer >= 2, found 0"),
        ("MultiVAE", "--latent_dimension=5", "latent_dimension must be even, found 5"),
        ("MultiVAE", "--mlp_hidden_size=[0]", r"a list of integers, each >= 1, found \[0\]"),
        ("MultiVAE", "--mlp_hidden_size=5", "a list of integers, each >= 1, found 5"),
        ("MultiVAE", "--mlp_hidden_size=[abc]", "mlp_hidden_size must be a list of integers"),
        ("NeuMF", "--mf_embedding_size=0", "mf_embedding_size must be an integer >= 1, found 0"),
        ("NeuMF", "--mlp_hidden_size=[]", r"at least one, each >= 1, found \[\]"),
        (
            "AutoInt",
            "--dropout_probs=[1,0,0]",
            r"at least one, each in \[0, 1\), found \[1, 0, 0\]",
        ),
        ("CDAE", "--corruption_ratio=1.5", "corruption_ratio must be a number in"),
        ("LINE", "--order=3", r"order must be an integer in \[1, 2\], found 3"),
    ],
)
def test_settings_of_single_models_are_in_range(model, argument, says, monkeypatch):
    monkeypatch.setattr("sys.argv", ["run", argument])
    with pytest.raises(ConfigurationError, match=says) as error:
        Config(model, "no-such-data")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("model", "argument"),
    [
        ("SASRec", "--n_heads=4"),
        ("CORE", "--n_heads=3 --dnn_type=ave"),
        ("MultiVAE", "--mlp_hidden_size=[]"),
        ("MultiDAE", "--latent_dimension=5"),
        ("BPR", "--load_col={'inter':['user_id','item_id'],'item':[]}"),
        ("BPR", "--load_col={'inter':'*'}"),
    ],
)
def test_settings_of_single_models_that_have_a_meaning_pass(model, argument, monkeypatch):
    monkeypatch.setattr("sys.argv", ["run", *argument.split()])
    Config(model, "ml-100k")


def test_the_tables_of_sizes_name_what_the_models_read():
    """A model or key that is spelt wrongly there would not be checked."""
    import recbole

    from recbole_m3rec.config.keys import KEYS, KEYS_OF_MODELS
    from recbole_m3rec.config.sizes import PARTS
    from recbole_m3rec.config.yaml_files import read_yaml

    folder = Path(recbole.__file__).parent / "properties/model"
    read = {file.stem: read_yaml(file) or {} for file in folder.glob("*.yaml")}
    declared = {tuple(name.split(" of ")) for name in KEYS_OF_MODELS}
    assert all(key in read[model] for key, model in declared)
    assert not {key for key, _ in declared} & KEYS.keys()
    with_heads = {model for model, keys in read.items() if {"n_heads", "num_heads"} & keys.keys()}
    assert with_heads <= PARTS.keys()


@pytest.mark.parametrize("model", ["BPR", "M3Rec", "DeepFM"])
def test_every_models_values_are_checked(model):
    with pytest.raises(ConfigurationError, match="learning_rate must be"):
        Config(model, "ml-100k", config_dict={"learning_rate": "fast"})


@pytest.mark.parametrize("family", ["general", "sequential", "context_aware", "knowledge_aware"])
def test_every_models_own_settings_are_in_range(family):
    import recbole

    properties = Path(recbole.__file__).parent / "properties/model"
    folder = properties.parents[1] / f"model/{family}_recommender"
    modules = {file.stem for file in folder.glob("*.py")}
    models = [file.stem for file in properties.glob("*.yaml") if file.stem.lower() in modules]
    assert len(models) > 5
    for model in models:
        Config(model, "ml-100k")


@pytest.mark.parametrize(("model", "loss"), [("SASRec", "BCE"), ("CDAE", "CE")])
def test_a_loss_of_other_models_is_told(model, loss, monkeypatch):
    monkeypatch.setattr("sys.argv", ["run", f"--loss_type={loss}"])
    with pytest.raises(ConfigurationError, match="loss_type must be one of"):
        Config(model, "no-such-data")


def test_words_for_a_switch_of_a_single_model_are_refused():
    assert unlike_default("own", "no", True) == "own must be true or false, found 'no'."
    assert unlike_default("own", "No", "yes") is None
    assert not any(unlike_default("own", value, False) for value in (True, 0, None, "mean"))


def test_a_number_of_a_single_model_must_be_one():
    with pytest.raises(ConfigurationError, match="alpha must be a number such as 1.0"):
        Config("DIEN", "ml-100k", config_dict={"alpha": "many"})


def test_a_bad_value_in_a_file_is_told_with_the_file(tmp_path):
    (tmp_path / "mine.yaml").write_text("epochs: many\n")
    with pytest.raises(ConfigurationError, match=r"epochs must be .*mine\.yaml"):
        Config("SASRec", "ml-100k", config_file_list=["mine.yaml"])


@pytest.mark.parametrize("text", ["# nothing\n", ""])
def test_a_file_of_comments_is_told(text, tmp_path):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ConfigurationError, match=r"mine\.yaml holds no settings"):
        Config("SASRec", "ml-100k", config_file_list=["mine.yaml"])


def test_values_that_recbole_takes_are_taken(monkeypatch):
    given = ["--learner=Adam", "--topk=5,10", "--valid_metric=hit@5"]
    given += ["--use_gpu=0", "--eval_step=-1"]
    given += ["--eval_args={'split': {'RS': [0.8, 0.1, 0.1]}, 'mode': 'uni100', 'order': 'RO'}"]
    monkeypatch.setattr("sys.argv", ["run", *given])
    config = Config("BPR", "ml-100k")
    assert config["topk"] == [5, 10]
    assert config["learner"] == "Adam"


@pytest.mark.parametrize("model", ["SASRec", "BPR"])
def test_lists_longer_than_the_catalogue_are_refused_before_training(
    model, prepare, write_dataset, tiny_interactions
):
    says = r'topk: 20, but `tiny` has 12 items and .*--topk="\[5\]" --valid_metric=NDCG@5\.'
    with pytest.raises(ConfigurationError, match=says):
        prepare(model, topk=[5, 20])
    write_dataset("rare", [*tiny_interactions, ("u00", "i99", 900.0)])
    says = "12 items after filtering, which dropped 1, .*, or loosen item_inter_num_interval"
    with pytest.raises(ConfigurationError, match=says):
        prepare(model, "rare", topk=[5, 20], item_inter_num_interval="[2,inf)")
    prepare(model, topk=[5, 12])


def test_a_catalogue_matters_where_lists_are_ranked_alone(make_config):
    from types import SimpleNamespace

    config = make_config("DeepFM", topk=[50], valid_metric="AUC")
    check_catalogue(config, SimpleNamespace(item_num=3, dataset_name="tiny"))


def test_a_gpu_that_is_named_and_not_there_is_refused(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("sys.argv", ["run", "--gpu_id=7"])
    with pytest.raises(ConfigurationError, match="gpu_id: 7, but none of these GPUs"):
        Config("SASRec", "ml-100k")
    for harmless in ("--gpu_id=", "--gpu_id=-1", "--epochs=1"):
        monkeypatch.setattr("sys.argv", ["run", harmless])
        assert Config("SASRec", "ml-100k")["device"].type == "cpu"
    monkeypatch.setattr("sys.argv", ["run"])
    # As a checkpoint of another machine brings it.
    assert Config("SASRec", "ml-100k", config_dict={"gpu_id": "7"})["device"].type == "cpu"


@pytest.mark.parametrize(
    ("metrics", "mode"), [(["GAUC"], "uni5"), (["MRR", "NDCG"], "uni19"), (["Hit"], "uni20")]
)
def test_metrics_that_all_drawn_candidates_tell_apart_are_computed(make_config, metrics, mode):
    watched = metrics[0] if metrics == ["GAUC"] else f"{metrics[0]}@20"
    keys = {"metrics": metrics, "valid_metric": watched, "topk": [20]}
    assert make_config("BPR", eval_args={"mode": mode}, **keys)["metrics"] == metrics
