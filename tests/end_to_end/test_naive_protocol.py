"""Fifty generated data sets: splits, histories, masks and metrics are those of twenty naive lines.

The naive protocol reads the file by ``str.split``, sorts by exact decimals and looks at one user
after another. Everything that RecBole and the plugin do with whole columns has to come to the same.
"""

import math
import random
from decimal import Decimal

import pytest
import torch
from recbole.data.interaction import Interaction
from recbole.utils import get_model, get_trainer

from tests.tiny import ALL_USED

OTHERS = ("SASRec", "BPR", "ItemKNN")
SEQUENTIAL = ("M3Rec", "SASRec")
METRICS = ("Hit", "Recall", "NDCG", "MRR", "Precision", "MAP")
TOPK = (1, 3, 5)
LENGTH = 4

# Ways in which times are written; each is a function of a small whole number.
TIMES = (
    lambda step: str(1_600_000_000 + step),
    lambda step: str(1_600_000_000_000 + step),
    lambda step: str(1_600_000_000_000_000_000 + step),  # float64 loses these too
    lambda step: f"{1_600_000_000 + step // 3}.{step % 3}",
    lambda step: f"1600000000.{step:09d}",
    lambda step: f"{step - 40}e25",
    lambda step: str((step % 5) * 10**7),  # nearly all are tied
    lambda step: str(step**6 - 10**9),
    lambda step: f"{step % 7 + 1_600_000_000}.0" if step % 2 else str(step % 7 + 1_600_000_000),
)
NAMES = (
    "a",
    '"',
    '"b',
    "it's",
    "é",
    "日本",
    "🙂 x",
    "\u2028y",
    "-1",
    "007",
    "7",
    "#c",
    "nul",
    " d",
)


def generate(seed):
    """Return lines of an .inter file: shuffled, with ties, repeated pairs and short histories."""
    draw = random.Random(seed)
    n_items = draw.randint(7, len(NAMES))
    rows = []
    for user in range(draw.randint(8, 14)):
        length = draw.choice((1, 2, 3, 3, 4, 5, 8, 12))
        steps = [draw.randrange(0, 60) for _ in range(length)]
        rows += [(f"{NAMES[user]}u", draw.choice(NAMES[:n_items]), step) for step in steps]
    rows.append(("solo", "rare", 30))  # no other user has every item: something is left to sample
    draw.shuffle(rows)
    write = TIMES[seed % len(TIMES)]
    return [f"{user}\t{item}\t{write(step)}" for user, item, step in rows]


def naive_histories(lines):
    """Return each user's items in the order of time, equal times in the order of the file."""
    rows = [(*line.split("\t"), place) for place, line in enumerate(lines)]
    histories = {}
    for user, item, _, _ in sorted(rows, key=lambda row: (Decimal(row[2]), row[3])):
        histories.setdefault(user, []).append(item)
    return histories


def naive_split(histories, sequential):
    """Return for validation and test each user's target and what came before it."""
    valid, test = {}, {}
    for user, items in histories.items():
        n_rows = len(items) - 1 if sequential else len(items)  # a first item has no history
        if n_rows > 1:
            test[user] = (items[-1], items[:-1])
        if n_rows > 2:
            valid[user] = (items[-2], items[:-2])
    return valid, test


def naive_metrics(ranks):
    """Return every metric of single targets by their ranks, which count from 1."""
    found = {}
    for k in TOPK:
        hits = [rank for rank in ranks if rank <= k]
        found[f"hit@{k}"] = found[f"recall@{k}"] = len(hits) / len(ranks)
        found[f"ndcg@{k}"] = sum(1 / math.log2(rank + 1) for rank in hits) / len(ranks)
        found[f"mrr@{k}"] = found[f"map@{k}"] = sum(1 / rank for rank in hits) / len(ranks)
        found[f"precision@{k}"] = len(hits) / k / len(ranks)
    return found


def naive_rank(scores, target, seen):
    """Return the rank of a target; of equal scores the lower id is first, seen items are last."""
    if target in seen:
        return math.inf
    better = [item for item, score in scores.items() if item not in seen and item != target]
    return 1 + sum((scores[item], target) > (scores[target], item) for item in better)


def built(model_name, seed, prepare):
    keys = {
        **ALL_USED,
        "MAX_ITEM_LIST_LENGTH": LENGTH,
        "metrics": list(METRICS),
        "topk": list(TOPK),
        "valid_metric": "NDCG@3",
        "metric_decimal_place": 12,
        "mask_seen": seed % 2 == 1,
        "eval_batch_size": 5 if model_name in SEQUENTIAL else 64,
    }
    config, dataset, *loaders = prepare(model_name, "made", **keys)
    torch.manual_seed(seed)
    model = get_model(model_name)(config, loaders[0]._dataset).eval()
    if model_name == "ItemKNN":  # RecBole leaves the order of its many equal scores to chance
        predict, n_items = model.full_sort_predict, dataset.item_num
        lower_first = -1e-4 * torch.arange(n_items)
        model.full_sort_predict = lambda batch: (
            predict(batch).view(-1, n_items) + lower_first
        ).flatten()
    return config, dataset, loaders, model


def read_split(dataset, loader, sequential):
    """Return each user's target and list, in the file's own ids, as a loader's split has them."""
    feat = loader._dataset.inter_feat
    users = dataset.id2token("user_id", feat["user_id"].numpy())
    items = dataset.id2token("item_id", feat["item_id"].numpy())
    assert len(set(users)) == len(users)
    if not sequential:
        return dict(zip(users, ((item, None) for item in items), strict=True))
    lists = [
        dataset.id2token("item_id", row[:length].numpy()).tolist()
        for row, length in zip(feat["item_id_list"], feat["item_length"], strict=True)
    ]
    return dict(zip(users, zip(items, lists, strict=True), strict=True))


def read_masks(dataset, loader):
    """Return each user's masked items, as the batches of a loader have them."""
    masks = {}
    for interaction, history, _, _ in loader:
        users = dataset.id2token("user_id", interaction["user_id"].numpy())
        masks.update({user: set() for user in users})
        if history is not None:
            items = dataset.id2token("item_id", history[1].numpy())
            for row, item in zip(history[0], items, strict=True):
                masks[users[row]].add(item)
    return masks


def scores_of(model, dataset, user, before):
    """Return the score of every item by its internal id, one user at a time."""
    ids = [dataset.token2id("item_id", item) for item in before[-LENGTH:]]
    batch = {
        "user_id": torch.tensor([dataset.token2id("user_id", user)]),
        "item_id_list": torch.tensor([ids + [0] * (LENGTH - len(ids))]),
        "item_length": torch.tensor([len(ids)]),
    }
    with torch.no_grad():
        scores = model.full_sort_predict(Interaction(batch)).flatten().tolist()
    return dict(enumerate(scores[1:], start=1))


@pytest.mark.parametrize("seed", range(50))
def test_splits_histories_masks_and_metrics_are_the_naive_ones(seed, prepare, write_files):
    lines = generate(seed)
    header = "user_id:token\titem_id:token\ttimestamp:float"
    write_files("made", {"inter": "\n".join([header, *lines]) + "\n"})
    histories = naive_histories(lines)
    for name in ("M3Rec", OTHERS[seed // 18]):  # 18 seeds go through all times, masked and not
        sequential = name in SEQUENTIAL
        config, dataset, loaders, model = built(name, seed, prepare)
        trainer = get_trainer(config["MODEL_TYPE"], name)(config, model)
        trainer.eval_collector.data_collect(loaders[0])
        for loader, expected in zip(loaders[1:], naive_split(histories, sequential), strict=True):
            found = read_split(dataset, loader, sequential)
            assert found == {
                user: (target, before[-LENGTH:] if sequential else None)
                for user, (target, before) in expected.items()
            }, name
            masked = {user: set(before) for user, (_, before) in expected.items()}
            no_mask = {user: set() for user in expected}
            assert read_masks(dataset, loader) == (masked if config["mask_seen"] else no_mask), name
            ranks = []
            for user, (target, before) in expected.items():
                seen = {dataset.token2id("item_id", item) for item in before}
                ranks.append(
                    naive_rank(
                        scores_of(model, dataset, user, before),
                        dataset.token2id("item_id", target),
                        seen if config["mask_seen"] else set(),
                    )
                )
            metrics = trainer.evaluate(loader, load_best_model=False)
            assert metrics == pytest.approx(naive_metrics(ranks), abs=1e-9), name
