"""Our dataset beside RecBole's own on the same files: the same splits, and features besides."""

import logging
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from recbole.data import create_dataset
from recbole.data.dataset.sequential_dataset import SequentialDataset
from recbole.data.interaction import Interaction
from recbole.utils import FeatureSource, FeatureType

from recbole_m3rec.data.dataset import M3RecDataset, feature_folder
from recbole_m3rec.features import feature_map
from recbole_m3rec.features.recipes import resolve_modalities
from tests.tiny import write_vectors

COLUMNS = ("user_id:token", "item_id:token", "timestamp:float", "rating:float", "tags:token_seq")


@pytest.fixture
def configure(make_config):
    """Return a function that makes a configuration for our dataset, without features by default."""

    def configure(model="SASRec", **keys):
        defaults = {
            "train_neg_sample_args": None,
            "train_positions": "last",
            "modalities": [],
            "feature_norm": "none",
        }
        return make_config(model, **{**defaults, **keys})

    return configure


def assert_same_interactions(ours, recboles):
    assert ours.columns == recboles.columns
    for field in recboles.columns:
        assert ours[field].dtype == recboles[field].dtype, field
        assert torch.equal(ours[field], recboles[field]), field


# Augmentation


def bare_dataset(cls, columns, types, max_length, numerical):
    """A dataset of these columns that has read no file and filtered nothing."""
    dataset = cls.__new__(cls)
    dataset.config = {
        "LIST_SUFFIX": "_list",
        "MAX_ITEM_LIST_LENGTH": max_length,
        "numerical_features": numerical,
    }
    dataset.logger = logging.getLogger("bare")
    dataset.dataset_name = "bare"
    dataset.uid_field, dataset.time_field = "user", "time"
    dataset.max_item_list_len, dataset.item_list_length_field = max_length, "item_length"
    dataset.field2type = dict(types)
    dataset.field2source = dict.fromkeys(types, FeatureSource.INTERACTION)
    dataset.field2seqlen = {
        field: columns[field].shape[1] if "seq" in ftype.value else 1
        for field, ftype in types.items()
    }
    dataset.inter_feat = Interaction(dict(columns))
    return dataset


@given(
    n_interactions=st.integers(2, 80),
    n_users=st.integers(1, 12),
    n_times=st.sampled_from([1, 3, 1000]),
    max_length=st.sampled_from([1, 2, 5, 50]),
    time_has_buckets=st.booleans(),
    widths=st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3)),
    seed=st.integers(0, 10**6),
)
def test_augmentation_equals_recboles_to_the_bit_for_every_kind_of_field(
    n_interactions, n_users, n_times, max_length, time_has_buckets, widths, seed
):
    draw = torch.Generator().manual_seed(seed)
    n = n_interactions

    def tokens(*shape):
        return torch.randint(0, 9, (n, *shape), generator=draw)

    def floats(*shape):
        return torch.randn(n, *shape, generator=draw)

    columns = {
        "user": torch.randint(1, n_users + 1, (n,), generator=draw),
        "tags": tokens(widths[0]),
        "item": torch.randint(1, 99, (n,), generator=draw),
        "time": torch.randint(0, n_times, (n,), generator=draw).float(),
        "rating": floats(),
        "price": floats(2),
        "scores": floats(widths[1]),
        "levels": floats(widths[2], 2),
    }
    if int(torch.bincount(columns["user"]).max()) < 2:
        columns["user"][:2] = 1
    types = {
        "user": FeatureType.TOKEN,
        "item": FeatureType.TOKEN,
        "time": FeatureType.FLOAT,
        "rating": FeatureType.FLOAT,
        "price": FeatureType.FLOAT,
        "tags": FeatureType.TOKEN_SEQ,
        "scores": FeatureType.FLOAT_SEQ,
        "levels": FeatureType.FLOAT_SEQ,
    }
    numerical = ["price", "levels", "time"] if time_has_buckets else ["price", "levels"]
    if time_has_buckets:
        columns["time"] = torch.stack([columns["time"], floats()], dim=1)
    ours = bare_dataset(M3RecDataset, columns, types, max_length, numerical)
    recboles = bare_dataset(SequentialDataset, columns, types, max_length, numerical)
    ours.data_augmentation()
    recboles.data_augmentation()
    assert_same_interactions(ours.inter_feat, recboles.inter_feat)
    assert ours.field2type == recboles.field2type
    assert ours.field2seqlen == recboles.field2seqlen


def test_a_log_in_which_nobody_comes_back_is_refused():
    columns = {"user": torch.tensor([1, 2]), "item": torch.tensor([1, 1])}
    columns["time"] = torch.tensor([1.0, 2.0])
    types = {"user": FeatureType.TOKEN, "item": FeatureType.TOKEN, "time": FeatureType.FLOAT}
    with pytest.raises(ValueError, match="bare: no user has two interactions"):
        bare_dataset(M3RecDataset, columns, types, 5, []).data_augmentation()


# Splits of real files


@pytest.fixture
def log(write_files):
    """An ``.inter`` file with ties in time, ratings and tags, and users of 1 to 20 interactions."""
    draw = np.random.default_rng(0)
    lines = ["\t".join(COLUMNS)]
    for _ in range(300):
        user = int(30 * draw.random() ** 2)
        tags = " ".join(f"t{tag}" for tag in draw.integers(0, 5, draw.integers(1, 4)))
        time, rating = 1_400_000_000 + int(draw.integers(0, 40)) * 100, draw.integers(1, 6)
        lines.append(f"u{user}\ti{draw.integers(25)}\t{time}\t{rating}\t{tags}")
    write_files("log", {"inter": "\n".join(lines) + "\n"})


@pytest.mark.parametrize(
    ("split", "group_by", "max_length"),
    [
        ({"LS": "valid_and_test"}, "user", 1),
        ({"LS": "valid_and_test"}, "none", 50),
        ({"LS": "valid_only"}, "user", 5),
        ({"LS": "test_only"}, "user", 50),
        ({"RS": [0.8, 0.1, 0.1]}, "user", 5),
        ({"RS": [0.8, 0.1, 0.1]}, "none", 1),
        ({"RS": [3, 2, 2]}, "user", 50),
        ({"RS": [3, 2, 2]}, "none", 5),
    ],
    ids=str,
)
def test_splits_equal_recboles_to_the_bit(log, configure, split, group_by, max_length):
    config = configure(
        dataset="log",
        eval_args={"split": split, "order": "TO", "mode": "full", "group_by": group_by},
        load_col={"inter": [column.split(":")[0] for column in COLUMNS]},
        user_inter_num_interval="[1,inf)",
        item_inter_num_interval="[2,inf)",
        MAX_ITEM_LIST_LENGTH=max_length,
    )
    ours, recboles = M3RecDataset(config), SequentialDataset(config)
    for our_part, recboles_part in zip(ours.build(), recboles.build(), strict=True):
        assert_same_interactions(our_part.inter_feat, recboles_part.inter_feat)
    assert_same_interactions(ours.inter_feat, recboles.inter_feat)
    assert ours.field2id_token.keys() == recboles.field2id_token.keys()


def test_unused_columns_are_dropped_from_every_part(log, configure):
    config = configure(
        dataset="log",
        load_col={"inter": [column.split(":")[0] for column in COLUMNS]},
        user_inter_num_interval="[1,inf)",
        item_inter_num_interval="[1,inf)",
        unused_col={"inter": ["rating_list", "tags"]},
    )
    for part in M3RecDataset(config).build():
        assert "rating" in part.inter_feat
        assert "rating_list" not in part.inter_feat
        assert "tags" not in part.inter_feat


# Item features


def write_modality(folder, modality, tokens, dim=3):
    """A feature file whose row for item ``i07`` is 7, 7.5, 8, ..."""
    values = [[int(token[1:]) + column / 2 for column in range(dim)] for token in tokens]
    write_vectors(folder, modality, tokens, values)


TOKENS = [f"i{number:02d}" for number in range(12)]


def test_features_are_aligned_by_token_in_the_configured_order(tmp_path, configure):
    folder = tmp_path / "features"
    write_modality(folder, "text", TOKENS[::-1])
    write_modality(folder, "image", [*TOKENS[2:], "i99"], dim=2)
    dataset = M3RecDataset(configure(modalities=["text", "image"], feature_path=str(folder)))
    assert list(dataset.item_features) == ["text", "image"]
    text, image = dataset.item_features.values()
    for token in TOKENS:
        row, number = dataset.token2id("item_id", token), int(token[1:])
        assert text.values[row].tolist() == [number, number + 0.5, number + 1]
        assert bool(image.present[row]) == (number >= 2)
    # Items of a feature file never join the candidates.
    assert len(text.values) == len(image.values) == dataset.item_num == 13
    assert "i99" not in dataset.field2token_id["item_id"]


def test_a_map_follows_the_ids_beside_an_array(tmp_path, configure, monkeypatch):
    monkeypatch.setattr(feature_map, "MAPPED_FROM", 1)
    config = configure(modalities=["image"], feature_path=str(tmp_path))
    np.save(tmp_path / f"{config['dataset']}.image.npy", np.arange(12, dtype=np.float32)[:, None])
    for tokens in (TOKENS, TOKENS[::-1]):
        np.save(tmp_path / f"{config['dataset']}.image.item_id.npy", np.array(tokens))
        dataset = M3RecDataset(config)
        rows = dataset.item_features["image"].values[dataset.token2id("item_id", tokens)]
        assert rows[:, 0].tolist() == list(range(12))


def test_features_leave_ids_and_splits_as_they_are(write_dataset, configure):
    write_modality(write_dataset(), "text", [*TOKENS[3:], "i50"])
    with_features = M3RecDataset(configure(modalities="auto"))
    recboles = SequentialDataset(configure())
    assert with_features.field2token_id == recboles.field2token_id
    for ours, theirs in zip(with_features.build(), recboles.build(), strict=True):
        assert_same_interactions(ours.inter_feat, theirs.inter_feat)


def test_the_log_says_what_auto_chose_and_how_many_items_have_features(
    write_dataset, configure, caplog
):
    write_modality(write_dataset(), "text", TOKENS[:9])
    caplog.set_level(logging.INFO)
    config = configure(modalities="auto")
    caplog.clear()
    M3RecDataset(config)
    lines = [message for message in caplog.messages if "text" in message]
    assert any("modalities: auto" in line and "tiny.text.parquet" in line for line in lines)
    assert any("text: 9 of 12 items (75.0 %), 3-d" in line for line in lines)


def test_a_recipe_reads_the_raw_item_file_whatever_load_col_says(configure):
    recipe = {"encoder": "tfidf-svd", "fields": ["title"], "dim": 2}
    dataset = M3RecDataset(configure(modalities=["text"], features={"text": recipe}))
    assert dataset.item_feat is None or "title" not in dataset.item_feat
    assert dataset.item_features["text"].present.all()


def test_the_copies_of_a_split_share_the_features(write_dataset, configure):
    write_modality(write_dataset(), "text", TOKENS)
    dataset = M3RecDataset(configure(modalities="auto"))
    for part in dataset.build():
        assert part.item_features["text"].values is dataset.item_features["text"].values


def test_a_pickled_dataset_keeps_its_features_and_splits(write_dataset, configure):
    write_modality(write_dataset(), "text", TOKENS)
    dataset = M3RecDataset(configure(modalities="auto"))
    again = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(again.item_features["text"].values, dataset.item_features["text"].values)
    for ours, theirs in zip(again.build(), dataset.build(), strict=True):
        assert_same_interactions(ours.inter_feat, theirs.inter_feat)


def test_a_model_without_content_modalities_gets_no_features(write_dataset, configure):
    write_modality(write_dataset(), "text", TOKENS)
    config = configure(modalities="auto")
    config.model_class = type("IdsOnly", (), {"content_modalities": False})
    assert M3RecDataset(config).item_features == {}


def test_feature_files_lie_in_the_working_directory_wherever_the_data_is(configure):
    config = configure(dataset="ml-100k")
    assert feature_folder(config).resolve() == (feature_folder(config).cwd() / "dataset/ml-100k")
    assert "recbole" in config["data_path"]  # RecBole's own copy, inside its package


# Bad input


def test_an_unknown_train_positions_is_refused(configure):
    with pytest.raises(ValueError, match="train_positions must be one of all, last, found 'first'"):
        M3RecDataset(configure("M3Rec", train_positions="first"))


def test_a_model_of_one_target_a_row_refuses_windows(configure):
    with pytest.raises(ValueError, match="'all', but SASRec trains on one target a row"):
        M3RecDataset(configure(train_positions="all"))
    M3RecDataset(configure(train_positions=None))


def test_windows_of_ready_made_rows_are_refused(configure):
    config = configure(
        "M3Rec", train_positions="all", benchmark_filename=["train", "valid", "test"]
    )
    with pytest.raises(ValueError, match="benchmark_filename.*set train_positions: last"):
        M3RecDataset(config)


@pytest.mark.parametrize("length", [0, -3, 2.5])
def test_a_longest_history_below_one_is_refused(configure, length):
    with pytest.raises(ValueError, match="MAX_ITEM_LIST_LENGTH"):
        M3RecDataset(configure(MAX_ITEM_LIST_LENGTH=length))


def test_a_ready_made_row_without_history_is_refused_by_file_and_line(write_files, configure):
    header = "user_id:token\titem_id_list:token_seq\titem_id:token\n"
    train, test = "u1\ti1 i2\ti3\nu2\ti3\ti1\n", "u1\ti1 i2 i3\ti2\nu2\t\ti2\n"
    write_files("ready", {"train.inter": header + train, "test.inter": header + test})
    config = configure(
        dataset="ready",
        benchmark_filename=["train", "test"],
        alias_of_item_id=["item_id_list"],
        load_col=None,
    )
    with pytest.raises(ValueError, match=r"ready\.test\.inter, line 3: item_id_list is empty"):
        M3RecDataset(config)


@pytest.mark.parametrize("model", ["M3Rec", "SASRecF"])
def test_modalities_are_resolved_once(make_config, write_dataset, monkeypatch, model):
    calls = []

    def resolve(*args):
        calls.append(args)
        return resolve_modalities(*args)

    write_dataset()
    monkeypatch.setattr("recbole_m3rec.data.dataset.resolve_modalities", resolve)
    features = {"noise": {"encoder": "random-codes", "dim": 4}}
    config = make_config(model, modalities="auto", features=features)
    assert list(create_dataset(config).item_features) == ["noise"]
    assert len(calls) == 1
