"""Which file wins, which files were read, and what a model gets without being asked."""

import logging
from pathlib import Path

import pytest
from recbole.config import Config
from recbole.utils import argument_list

from recbole_m3rec.config import layers as configuration
from recbole_m3rec.config.yaml_files import ConfigurationError


@pytest.fixture
def layers(tmp_path, monkeypatch):
    """Return a function that writes one layer; the plugin's own folder is ``plugin/``."""
    own = tmp_path / "plugin"

    def write(place, name, text):
        path = tmp_path / place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    write("plugin", "overall.yaml", "")
    (own / "model").mkdir()
    for model in configuration.OWN_MODELS:
        text = (configuration.properties_folder() / "model" / f"{model}.yaml").read_text()
        write("plugin", f"model/{model}.yaml", text)
    monkeypatch.setattr(configuration, "properties_folder", lambda: own)
    return write


# In rising order of precedence, where a value of `stopping_step` may come from.
ORDER = [
    ("plugin", "overall.yaml"),
    ("plugin", "model/SASRec.yaml"),
    ("plugin", "dataset/ml-100k.yaml"),
    ("properties", "overall.yaml"),
    ("properties", "model/SASRec.yaml"),
    ("properties", "dataset/ml-100k.yaml"),
    ("", "mine.yaml"),
    "dict",
    "command line",
]


@pytest.mark.parametrize("highest", range(len(ORDER)))
def test_every_layer_wins_over_those_before_it(highest, layers, monkeypatch):
    files, values = None, {}
    for rank, place in enumerate(ORDER[: highest + 1]):
        if place == "dict":
            values["stopping_step"] = rank
        elif place == "command line":
            monkeypatch.setattr("sys.argv", ["run", f"--stopping_step={rank}"])
        else:
            path = layers(*place, f"stopping_step: {rank}\n")
            files = [str(path)] if place[0] == "" else files
    config = Config("SASRec", "ml-100k", config_file_list=files, config_dict=values)
    assert config["stopping_step"] == highest


def test_users_layers_count_key_by_key(layers):
    layers("plugin", "overall.yaml", "stopping_step: 1\nepochs: 2\n")
    layers("properties", "overall.yaml", "epochs: 3\n")
    config = Config("SASRec", "ml-100k")
    assert (config["stopping_step"], config["epochs"]) == (1, 3)


@pytest.mark.parametrize("place", ["properties", "file", "dict", "command line"])
def test_a_part_of_eval_args_leaves_the_other_parts_as_they_were(place, tmp_path, monkeypatch):
    """RecBole fills what is not named with 80/10/10 at random: another protocol."""
    monkeypatch.chdir(tmp_path)
    files, values = [tmp_path / "split.yaml"], {}
    files[0].write_text("eval_args: {split: {LS: valid_only}}\n")
    if place == "properties":
        (tmp_path / "properties").mkdir()
        files.append(tmp_path / "properties/overall.yaml")
        files[-1].write_text("eval_args: {mode: uni20}\n")
    elif place == "file":
        files.append(tmp_path / "mode.yaml")
        files[-1].write_text("eval_args: {mode: uni20}\n")
    elif place == "dict":
        values = {"eval_args": {"mode": "uni20"}}
    else:
        monkeypatch.setattr("sys.argv", ["run", "--eval_args={'mode': 'uni20'}"])
    own = [str(file) for file in files if file.parent == tmp_path]
    config = Config("SASRec", "ml-100k", config_file_list=own, config_dict=values)
    assert config["eval_args"] == {
        "group_by": "user",
        "order": "TO",
        "split": {"LS": "valid_only"},
        "mode": {"valid": "uni20", "test": "uni20"},
    }


def test_models_of_labels_complete_eval_args_from_recboles(tmp_path):
    config = Config("FM", "ml-100k", config_dict={"eval_args": {"order": "TO"}})
    assert config["eval_args"]["split"] == {"RS": [0.8, 0.1, 0.1]}
    assert config["eval_args"]["mode"]["test"] == "labeled"


def test_empty_eval_args_are_refused():
    with pytest.raises(ConfigurationError, match="eval_args is empty"):
        Config("SASRec", "ml-100k", config_dict={"eval_args": {}})


def test_the_plugins_layers_follow_all_of_recboles(layers):
    """RecBole's own layer for sequential models and for ml-100k come after its overall.yaml."""
    layers("plugin", "overall.yaml", "eval_args: {mode: uni70}\nload_col: {inter: [user_id]}\n")
    config = Config("SASRec", "ml-100k")
    assert config["eval_args"]["mode"] == {"valid": "uni70", "test": "uni70"}
    assert config["load_col"] == {"inter": ["user_id"]}


def test_a_clones_properties_are_not_read_twice(monkeypatch):
    monkeypatch.chdir(configuration.properties_folder().parent)
    files = Config("SASRec", "ml-100k")["configuration_files"]
    assert len(files) == len(set(files))


def test_the_configuration_names_every_file_in_order(layers):
    mine = layers("", "mine.yaml", "epochs: 1\n")
    users = layers("properties", "overall.yaml", "epochs: 2\n")
    files = Config("SASRec", "ml-100k", config_file_list=[str(mine)])["configuration_files"]
    names = [Path(file).name for file in files]
    assert names[0] == "overall.yaml"
    assert "recbole" in files[0]
    assert "sequential.yaml" in names
    assert [Path(file).resolve() for file in files[-2:]] == [users, mine]
    assert str(files[-3]).endswith("plugin/overall.yaml")
    assert "mine.yaml" in str(Config("SASRec", "ml-100k", config_file_list=[str(mine)]))


def test_the_log_names_every_file(prepare, caplog):
    caplog.set_level(logging.INFO)
    prepare("SASRec")
    logged = [line for line in caplog.messages if line.startswith("Configuration files")]
    assert len(logged) == 1
    assert str(configuration.properties_folder() / "overall.yaml") in logged[0]


def test_recboles_lists_of_keys_are_left_alone(layers):
    before = list(argument_list.dataset_arguments)
    layers("properties", "dataset/ml-100k.yaml", "n_layers: 1\n")
    Config("SASRec", "ml-100k")
    assert argument_list.dataset_arguments == before


def test_lost_properties_are_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(configuration, "__file__", str(tmp_path / "a" / "b" / "configuration.py"))
    with pytest.raises(FileNotFoundError, match=r"overall\.yaml"):
        configuration.properties_folder()


# The published protocol


@pytest.mark.parametrize("model", ["SASRec", "GRU4Rec", "BERT4Rec", "BPR", "Pop", "LightGCN"])
def test_the_published_protocol_holds(model):
    config = Config(model, "ml-100k")
    assert config["eval_args"] == {
        "split": {"LS": "valid_and_test"},
        "order": "TO",
        "group_by": "user",
        "mode": {"valid": "full", "test": "full"},
    }
    assert config["metrics"] == ["Hit", "NDCG", "MRR"]
    assert config["topk"] == [5, 10, 20]
    assert config["user_inter_num_interval"] == config["item_inter_num_interval"] == "[5,inf)"


@pytest.mark.parametrize(("model", "repeatable"), [("SASRec", True), ("BPR", False)])
def test_seen_items_stay_candidates_of_sequential_models_alone(model, repeatable):
    """RecBole's rule: a general model's sampler and its evaluation leave seen items out."""
    assert Config(model, "ml-100k")["repeatable"] is repeatable


@pytest.mark.parametrize("model", ["DeepFM", "FM"])
def test_models_of_labels_keep_recboles_evaluation_and_columns(model):
    config = Config(model, "ml-100k")
    assert config["metrics"] == ["AUC", "LogLoss"]
    assert config["eval_args"]["mode"] == {"valid": "labeled", "test": "labeled"}
    assert "rating" in config["load_col"]["inter"]
    assert "age" in config["load_col"]["user"]


def test_models_of_item_columns_keep_them():
    config = Config("SASRecF", "ml-100k")
    assert config["load_col"]["item"] == ["item_id", "release_year", "class"]
    assert config["metrics"] == ["Hit", "NDCG", "MRR"]


# Negative sampling

NONE, ONE = "none", "uniform"


@pytest.mark.parametrize(
    ("model", "keys", "distribution"),
    [
        ("SASRec", {}, NONE),
        ("SASRec", {"loss_type": "BPR"}, ONE),
        ("RepeatNet", {}, NONE),
        ("SINE", {}, NONE),
        ("FPMC", {}, ONE),
        ("TransRec", {}, ONE),
        ("DIN", {}, ONE),
        ("BPR", {}, ONE),
        ("MultiVAE", {}, ONE),
        ("DeepFM", {}, NONE),
        ("BPR", {"train_neg_sample_args": {"distribution": "popularity"}}, "popularity"),
        ("DIN", {"train_neg_sample_args": None}, NONE),
    ],
)
def test_a_model_gets_the_negatives_its_loss_needs(model, keys, distribution):
    config = Config(model, "ml-100k", config_dict=keys)
    assert config["train_neg_sample_args"]["distribution"] == distribution


def test_negatives_set_in_the_working_directory_are_kept(layers):
    layers("properties", "overall.yaml", "train_neg_sample_args: {distribution: popularity}\n")
    config = Config("BPR", "ml-100k")
    assert config["train_neg_sample_args"]["distribution"] == "popularity"


def test_negatives_that_the_loss_cannot_use_are_recboles_error():
    with pytest.raises(ValueError, match="should be None when the loss_type is CE"):
        Config("SASRec", "ml-100k", config_dict={"train_neg_sample_args": {"sample_num": 1}})


# Slips


@pytest.mark.parametrize(
    ("model", "slip", "meant"),
    [
        ("M3Rec", "hiden_size", "hidden_size"),
        ("M3Rec", "hidden-size", "hidden_size"),
        ("M3Rec", "dropout_probe", "dropout_prob"),
        ("M3Rec", "num_layer", "num_layers"),
        ("M3Rec", "modality", "modalities"),
        ("M3Rec", "train_position", "train_positions"),
        ("SASRec", "learning_rat", "learning_rate"),
        ("BPR", "epocs", "epochs"),
        ("DeepFM", "train_batchsize", "train_batch_size"),
    ],
)
def test_a_misspelt_key_is_an_error_with_the_nearest(model, slip, meant):
    says = rf"`{slip}` in the configuration given as a dict.*Did you mean `{meant}`"
    with pytest.raises(ConfigurationError, match=says):
        Config(model, "ml-100k", config_dict={slip: 1})


def test_a_misspelt_key_is_found_on_the_command_line_and_in_files(layers, monkeypatch):
    mine = layers("", "mine.yaml", "d_stat: 4\n")
    with pytest.raises(ConfigurationError, match=r"`d_stat` in .*mine\.yaml.*`d_state`"):
        Config("M3Rec", "ml-100k", config_file_list=[str(mine)])
    layers("properties", "model/M3Rec.yaml", "d_conf: 4\n")
    with pytest.raises(ConfigurationError, match=r"`d_conf` in .*M3Rec\.yaml.*`d_conv`"):
        Config("M3Rec", "ml-100k")
    (Path("properties") / "model" / "M3Rec.yaml").unlink()
    monkeypatch.setattr("sys.argv", ["run", "--expandd=4"])
    with pytest.raises(ConfigurationError, match=r"`expandd` in the command line.*`expand`"):
        Config("M3Rec", "ml-100k")


@pytest.mark.parametrize("place", ["mine.yaml", "properties/overall.yaml"])
@pytest.mark.parametrize("key", ["nproc", "world_size"])
def test_a_file_starts_no_processes(layers, place, key):
    folder, _, name = place.rpartition("/")
    mine = layers(folder, name, f"{key}: 2\n")
    with pytest.raises(ConfigurationError, match=rf"`{key}` in .*{place}.*Give --{key}"):
        Config("M3Rec", "ml-100k", config_file_list=[str(mine)][bool(folder) :])
    layers(folder, name, f"{key}: 1\n")
    Config("M3Rec", "ml-100k", config_file_list=[str(mine)][bool(folder) :])


def test_every_key_of_the_plugins_files_is_known():
    from recbole_m3rec.config.yaml_files import read_yaml

    keys = {}
    for file in configuration.properties_folder().glob("presets/*.yaml"):
        keys.update(read_yaml(file))
    config = Config("M3Rec", "ml-100k", config_dict=keys)
    assert config._unread_keys == []


def test_a_key_of_the_users_own_is_reported_and_kept(make_config, caplog):
    config = make_config("M3Rec", zzz_experiment=7)
    assert config["zzz_experiment"] == 7
    configuration.announce(config)
    assert "Configuration keys that nothing reads: zzz_experiment" in caplog.messages


@pytest.mark.parametrize(
    ("model", "argument", "says"),
    [
        ("SASRec", "--hiden_size=8", "Did you mean `hidden_size`"),
        ("BPR", "--embeding_size=8", "Did you mean `embedding_size`"),
        ("SASRec", "--num_layers=4", "Did you mean `n_layers`"),  # a key of other models
        ("SASRec", "--foo=exit(7)", "SASRec reads none of this name"),
        ("M3Rec", "--zzz=1", "M3Rec reads none of this name"),
    ],
)
def test_an_unknown_key_of_the_command_line_is_refused(model, argument, says, monkeypatch):
    monkeypatch.setattr("sys.argv", ["run", argument])
    with pytest.raises(ConfigurationError, match=f"in the command line.*{says}"):
        Config(model, "ml-100k")


def test_keys_of_other_models_in_a_shared_file_are_reported(layers):
    mine = layers("", "mine.yaml", "num_layers: 1\nn_layers: 1\nspatial_ratio: 0\n")
    config = Config("SASRec", "ml-100k", config_file_list=[str(mine)])
    assert config._unread_keys == ["num_layers", "spatial_ratio"]


def test_what_a_users_own_model_reads_is_known(monkeypatch):
    from recbole.model.sequential_recommender import SASRec

    class Mine(SASRec):
        def __init__(self, config, dataset):
            super().__init__(config, dataset)
            self.taste = config["taste_of_mine"]

    monkeypatch.setattr("sys.argv", ["run", "--taste_of_mine=3", "--n_layers=1", "--loss_type=CE"])
    assert Config(Mine, "ml-100k", config_dict={"repeatable": True})["taste_of_mine"] == 3


@pytest.mark.parametrize(
    ("given", "value"),
    [
        ("[text]", ["text"]),
        ("[image, text]", ["image", "text"]),
        ("text,image", "text,image"),
        ("[id]", ["id"]),  # a function of Python's
    ],
)
def test_lists_of_names_are_lists_of_names(given, value, monkeypatch):
    monkeypatch.setattr("sys.argv", ["run", f"--modalities={given}"])
    assert Config("M3Rec", "ml-100k")["modalities"] == value
