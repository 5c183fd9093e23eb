"""The loader of windows: what a batch holds, how batches are cut, and RecBole's use of it."""

from collections import Counter
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from recbole.data import create_dataset, data_preparation
from recbole.data.dataloader import TrainDataLoader
from recbole.data.utils import create_samplers, load_split_dataloaders, save_split_dataloaders
from recbole.model.abstract_recommender import SequentialRecommender
from recbole.trainer import Trainer

from recbole_m3rec.data.augmentation import PrefixLists
from recbole_m3rec.data.dataset import M3RecDataset
from recbole_m3rec.data.loader import WindowBatchSampler, WindowTrainDataLoader
from recbole_m3rec.data.windows import TARGET_LIST

# Users of 4 to 24 interactions: with at most 4 inputs a row, most take several windows.
LOG = [
    (f"u{user:02d}", f"i{(user + 5 * step) % 17:02d}", float(100 * user + step))
    for user in range(10)
    for step in range(4 + 2 * user)
]
NEGATIVES = {"distribution": "uniform", "sample_num": 1, "alpha": 1.0, "dynamic": False}


@pytest.fixture
def make_loader(make_config, write_dataset):
    """Return a function from configuration keys to (loader, training split, config)."""

    def make(shuffle=True, **keys):
        write_dataset("long", LOG)
        defaults = {
            "train_neg_sample_args": None,
            "train_positions": "all",
            "modalities": [],
            "train_batch_size": 13,
            "MAX_ITEM_LIST_LENGTH": 4,
            "user_inter_num_interval": "[1,inf)",
            "item_inter_num_interval": "[1,inf)",
        }
        config = make_config("Mamba4Rec", "long", **{**defaults, **keys})
        dataset = M3RecDataset(config)
        parts = dataset.build()
        sampler = create_samplers(config, dataset, parts)[0]
        return WindowTrainDataLoader(config, parts[0], sampler, shuffle=shuffle), parts[0], config

    return make


def scored(batches):
    """(user, inputs up to the position, target) of every scored position, in order."""
    return [
        (int(user), tuple(inputs[: column + 1].tolist()), int(targets[column]))
        for batch in batches
        for user, inputs, targets in zip(
            batch["user_id"], batch["item_id_list"], batch[TARGET_LIST], strict=True
        )
        for column in targets.nonzero().flatten().tolist()
    ]


# What a batch holds


def test_an_epoch_scores_every_training_target_once_after_its_own_history(make_loader):
    loader, split, _ = make_loader()
    feat = split.inter_feat
    histories = {}
    for user, items, length, target in zip(
        feat["user_id"].tolist(),
        feat["item_id_list"].tolist(),
        feat["item_length"].tolist(),
        feat["item_id"].tolist(),
        strict=True,
    ):
        histories.setdefault((user, target), []).append(items[:length])
    got = scored(loader)
    assert Counter((user, target) for user, _, target in got) == Counter(
        zip(feat["user_id"].tolist(), feat["item_id"].tolist(), strict=True)
    )
    for user, seen, target in got:
        assert any(
            tuple(history[-len(seen) :]) == seen and 2 * len(seen) >= len(history)
            for history in histories[user, target]
        )


def test_batches_count_targets_and_are_trimmed_and_padded_with_zero(make_loader):
    loader, split, _ = make_loader()
    sizes = []
    for batch in loader:
        inputs, targets, lengths = (batch["item_id_list"], batch[TARGET_LIST], batch["item_length"])
        assert inputs.shape == targets.shape == (len(batch), int(lengths.max()))
        assert inputs.dtype == targets.dtype == lengths.dtype == torch.int64
        assert torch.equal(inputs > 0, torch.arange(inputs.shape[1]) < lengths[:, None])
        assert not targets[inputs == 0].any()
        sizes.append(int((targets > 0).sum()))
    assert max(sizes) <= 13
    assert sum(sizes) == len(split)
    assert all(size > 13 - 4 for size in sizes[:-1])


def test_rows_of_more_targets_than_a_batch_are_batches_of_their_own(make_loader):
    loader, split, _ = make_loader(train_batch_size=2)
    batches = list(loader)
    assert len(scored(batches)) == len(split)
    assert any(len(batch) == 1 and (batch[TARGET_LIST] > 0).sum() > 2 for batch in batches)


@pytest.mark.parametrize("mask_seen", [False, True])
@pytest.mark.parametrize(
    ("model", "more"),
    [
        ("Mamba4Rec", {"modalities": [], "train_positions": "all"}),
        ("Mamba4Rec", {"modalities": [], "train_positions": "last"}),
        ("SASRec", {}),
    ],
)
def test_no_histories_of_training_rows_are_laid_out(
    make_config, write_dataset, monkeypatch, model, more, mask_seen
):
    write_dataset("long", LOG)
    settings = {"train_neg_sample_args": None, "mask_seen": mask_seen, **more}
    filters = {f"{kind}_inter_num_interval": "[1,inf)" for kind in ("user", "item")}
    sizes = {"MAX_ITEM_LIST_LENGTH": 4, "train_batch_size": 13, "eval_batch_size": 2}
    config = make_config(model, "long", **settings, **filters, **sizes)
    most_rows = []
    original = PrefixLists.laid_out
    monkeypatch.setattr(
        PrefixLists, "laid_out", lambda self: most_rows.append(self.shape[0]) or original(self)
    )
    train, *held_out = data_preparation(config, create_dataset(config))
    for loader in (train, *held_out):
        for _ in loader:
            pass
    assert max(most_rows) <= 13  # a batch


def test_what_recbole_counts_in_the_split_is_the_same_with_windows(make_loader):
    loader, split, config = make_loader()
    recboles = TrainDataLoader(config, split, None, shuffle=True)
    assert loader.dataset.item_counter == recboles.dataset.item_counter
    assert loader.dataset is loader._dataset is split


# Shuffling and lengths


def test_the_length_is_that_of_the_coming_epoch(make_loader):
    loader, *_ = make_loader(train_batch_size=7)
    lengths = []
    for _ in range(8):
        lengths.append(len(loader))
        assert lengths[-1] == sum(1 for _ in loader)
    assert len(set(lengths)) > 1, "the test needs epochs of different lengths"


def test_a_seed_gives_the_same_epochs_whether_or_not_a_progress_bar_asks_for_the_length(
    make_loader,
):
    silent, *_ = make_loader(seed=7)
    asked, *_ = make_loader(seed=7)
    other, *_ = make_loader(seed=8)
    first = scored(silent)
    assert len(asked) > 0
    epoch = iter(asked)
    batches = [next(epoch)]
    assert len(asked) > 0
    assert scored([*batches, *epoch]) == first
    second = scored(silent)
    assert scored(asked) == second
    assert first != second
    assert sorted(first) == sorted(second)
    assert scored(other) != first


def test_without_shuffling_rows_keep_their_order(make_loader):
    loader, *_ = make_loader(shuffle=False)
    users = [user for user, _, _ in scored(loader)]
    assert users == sorted(users)
    assert scored(loader) == scored(loader)


@given(
    n_targets=st.lists(st.integers(1, 9), min_size=1, max_size=60),
    max_targets=st.integers(1, 20),
    world_size=st.integers(1, 5),
    shuffle=st.booleans(),
)
def test_processes_share_the_batches_of_one(n_targets, max_targets, world_size, shuffle):
    def sampler(rank, size):
        targets = torch.tensor(n_targets)
        generator = torch.Generator().manual_seed(3)
        return WindowBatchSampler(
            targets, targets + 1, max_targets,
            shuffle=shuffle, generator=generator, rank=rank, world_size=size,
        )  # fmt: skip

    alone = sampler(0, 1)
    samplers = [sampler(rank, world_size) for rank in range(world_size)]
    for _ in range(2):
        batches = list(alone)
        shares = [each.shares() for each in samplers]
        assert {len(each) for each in samplers} == {len(batches)}
        parts = [list(each) for each in samplers]
        for number, batch in enumerate(batches):
            own = [
                part[number].tolist()
                for part, share in zip(parts, shares, strict=True)
                if share[number] > 0
            ]
            assert sorted(sum(own, [])) == sorted(batch.tolist())
            total = sum(n_targets[row] for row in batch.tolist())
            expected = [sum(n_targets[row] for row in rows) / total for rows in own]
            assert [s[number] for s in shares if s[number] > 0] == expected
            assert all(len(part[number]) for part in parts)


def test_windows_are_dealt_by_tokens():
    n_tokens = torch.tensor([50, 1, 1, 48, 2, 2, 47, 3, 46, 4])
    samplers = [
        WindowBatchSampler(
            torch.ones(10, dtype=torch.int64), n_tokens, 99,
            shuffle=False, generator=None, rank=rank, world_size=2,
        )
        for rank in range(2)
    ]  # fmt: skip
    assert [int(n_tokens[next(iter(each))].sum()) for each in samplers] == [102, 102]


# Negatives


@pytest.mark.parametrize("distribution", ["uniform", "popularity"])
def test_bpr_draws_one_negative_for_every_target(make_loader, distribution):
    loader, split, _ = make_loader(
        loss_type="BPR", train_neg_sample_args={**NEGATIVES, "distribution": distribution}
    )
    for batch in loader:
        targets, negatives = batch[TARGET_LIST], batch["neg_target_item_list"]
        assert torch.equal(negatives > 0, targets > 0)
        assert int(negatives.max()) < split.item_num
        assert not (negatives == targets)[targets > 0].any()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"train_neg_sample_args": {**NEGATIVES, "sample_num": 2}}, "sample_num: 1"),
        (
            {"train_neg_sample_args": {**NEGATIVES, "dynamic": True, "candidate_num": 2}},
            "dynamic: false",
        ),
        ({"transform": "inverse_itemseq"}, "transform: inverse_itemseq .* train_positions: last"),
    ],
)
def test_settings_without_a_meaning_for_windows_are_refused(make_loader, keys, message):
    settings = {"loss_type": "BPR", "train_neg_sample_args": NEGATIVES, **keys}
    with pytest.raises(ValueError, match=message):
        make_loader(**settings)


# In RecBole's hands


def test_a_loader_pickled_by_recbole_goes_on_as_the_one_it_was_saved_from(make_loader):
    loader, split, config = make_loader(checkpoint_dir="saved", dataloaders_save_path=None)
    valid, test = (TrainDataLoader(config, split, None) for _ in range(2))
    first = scored(loader)
    twin, *_ = make_loader()
    assert scored(twin) == first
    save_split_dataloaders(config, (loader, valid, test))
    [path] = Path("saved").glob("*-dataloader.pth")
    config["dataloaders_save_path"] = str(path)  # no pickle is read unless it is named
    again = load_split_dataloaders(config)[0]
    assert len(again) > 0
    assert scored(again) == scored(twin)


def test_another_configuration_changes_the_size_of_batches(make_loader):
    loader, split, config = make_loader(train_batch_size=13)
    assert len(loader) > 0
    config["train_batch_size"] = 40
    loader.update_config(config)
    sizes = [int((batch[TARGET_LIST] > 0).sum()) for batch in loader]
    assert 13 < max(sizes) <= 40
    assert sum(sizes) == len(split)


@pytest.mark.slow
def test_worker_processes_give_the_same_epoch(make_loader):
    alone, *_ = make_loader(worker=0)
    helped, *_ = make_loader(worker=1)
    assert scored(helped) == scored(alone)


class Bias(SequentialRecommender):
    """Scores items by one number each, and notes the targets of every step."""

    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        self.bias = torch.nn.Parameter(torch.zeros(self.n_items))
        self.steps = []

    def calculate_loss(self, interaction):
        targets = interaction[TARGET_LIST]
        targets = targets[targets > 0]
        self.steps.append(targets)
        return torch.nn.functional.cross_entropy(self.bias.expand(len(targets), -1), targets)

    def full_sort_predict(self, interaction):
        return self.bias.expand(len(interaction), -1).reshape(-1)


@pytest.mark.parametrize("show_progress", [False, True])
def test_recboles_trainer_trains_on_windows(make_loader, show_progress):
    loader, split, config = make_loader(epochs=2, learning_rate=0.1, eval_step=0)
    model = Bias(config, split)
    Trainer(config, model).fit(loader, saved=False, show_progress=show_progress)
    counts = torch.bincount(torch.cat(model.steps), minlength=model.n_items)
    assert torch.equal(counts, 2 * torch.bincount(split.inter_feat["item_id"]))
    assert model.bias.detach().abs().sum() > 0
