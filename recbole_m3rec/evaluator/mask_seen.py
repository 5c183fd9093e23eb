"""``mask_seen``: whether items of a user's history are candidates, the same for every model.

RecBole leaves them among the candidates for sequential models and takes them out for general ones.
Here `mask_seen` decides, for every kind of model: False leaves them in, True takes them out. The
history of a validation target is what its user has in training and in the row's own list, which
rows of sequential models have and those of splits that give a user several targets; a test target's
is that and what validates.

A target that is in the history itself is out of reach with True. It stays a target, and counts as
one that is ranked behind every candidate.
"""

from __future__ import annotations

from collections.abc import Callable
from logging import getLogger
from typing import Any

import torch
from torch import Tensor

from recbole_m3rec.config.yaml_files import ConfigurationError
from recbole_m3rec.evaluator.seen_items import SeenItems
from recbole_m3rec.hooks import wrap

KEY = "mask_seen"

# Rows of a loader that are compared with their histories at once.
ROWS_AT_ONCE = 65_536


def install() -> None:
    """Put histories into the batches of RecBole's loader."""
    from recbole.data.dataloader.general_dataloader import FullSortEvalDataLoader

    @wrap(FullSortEvalDataLoader, "collate_fn")
    def collate(original: Callable[..., Any], self: Any, index: Any) -> Any:
        interaction, _, positive_u, positive_i = original(self, index)
        return interaction, history_of(self, index), positive_u, positive_i


def give_histories(config: Any, train: Any, valid: Any, test: Any) -> None:
    """Give each evaluation loader the histories of its users, and log which protocol holds.

    Raises:
        ConfigurationError: ``mask_seen: True`` where candidates are not all items.
    """
    from recbole.data.dataloader.general_dataloader import FullSortEvalDataLoader

    loaders = {"valid": valid, "test": test}
    if not all(isinstance(loader, FullSortEvalDataLoader) for loader in loaders.values()):
        refuse_sampled_candidates(config)
        return
    earlier = [used_in(train._dataset)]
    repeats = {}
    for name, loader in loaders.items():
        dataset = loader._dataset
        users, items = (torch.cat(columns) for columns in zip(*earlier, strict=True))
        seen = SeenItems(users, items, dataset.user_num, dataset.item_num)
        repeats[name] = count_repeats(loader, seen)
        loader.seen_items = seen if config[KEY] else None
        earlier.append(used_in(dataset))
    announce(bool(config[KEY]), repeats)


def refuse_sampled_candidates(config: Any) -> None:
    """Raise for ``mask_seen: True`` where RecBole draws candidates, or ranks labelled rows."""
    mode = config["eval_args"]["mode"]
    if config[KEY]:
        raise ConfigurationError(
            f"{KEY}: True takes the history out of a ranking of all items, but eval_args.mode is "
            f"{mode}: set mode: full, or {KEY}: False."
        )
    getLogger().info(
        f"Protocol: eval_args.mode is {mode}, so that RecBole chooses the candidates and {KEY} has "
        "no say."
    )


def used_in(dataset: Any) -> tuple[Tensor, Tensor]:
    """Return the user and the item of every interaction that a split tells of, two ``[N]`` int64.

    A row of a sequential dataset is a target after a list. Of lists that RecBole makes, the last
    items are enough: together with the targets they are all interactions of the split's rows, first
    ones included. Lists that were given as files are read whole.
    """
    from recbole_m3rec.data.history_rows import entries

    rows = dataset.inter_feat
    users, items = rows[dataset.uid_field], rows[dataset.iid_field]
    lists = list_field(dataset)
    if lists is None:
        return users, items
    if dataset.config["benchmark_filename"] is None:
        latest = (rows[dataset.item_list_length_field] - 1).clamp(min=0)
        before = entries(rows, lists, torch.arange(len(rows)), latest)
        return torch.cat([users, users]), torch.cat([items, before])
    row, column = rows[lists].nonzero(as_tuple=True)
    return torch.cat([users, users[row]]), torch.cat([items, rows[lists][row, column]])


def list_field(dataset: Any) -> str | None:
    """Return the name of the field with the lists of a sequential dataset, None for another."""
    field = getattr(dataset, "item_id_list_field", None)
    return field if field in dataset.inter_feat.columns else None


def history_of(loader: Any, index: Any) -> tuple[Tensor, Tensor] | None:
    """Return the items that are no candidates in a batch of RecBole's full-ranking loader.

    Args:
        index: numbers of the batch's rows, or users of a general model.

    Returns:
        Rows of the batch, ascending, and items, two ``[S]`` int64; None where all are candidates.
    """
    if not loader.config[KEY]:
        return None
    if getattr(loader, "seen_items", None) is None:
        raise RuntimeError(
            f"{KEY} is True, but this loader knows no histories: make it by RecBole's "
            "data_preparation, under the configuration it is used with."
        )
    lists = list_field(loader._dataset)
    if lists is None:
        return loader.seen_items.of(loader.uid_list[torch.as_tensor(index)])
    rows = loader._dataset.inter_feat[torch.as_tensor(index)]
    return loader.seen_items.of(rows[loader.uid_field], rows[lists])


def count_repeats(loader: Any, seen: SeenItems) -> tuple[int, int]:
    """Return how many targets of a loader are in their user's history, and how many there are."""
    dataset = loader._dataset
    lists = list_field(dataset)
    users = dataset.inter_feat[dataset.uid_field]
    items = dataset.inter_feat[dataset.iid_field]
    if lists is None:  # a user's targets are ranked together, each once
        pairs = torch.unique(users * dataset.item_num + items)
        users, items = pairs // dataset.item_num, pairs % dataset.item_num
    is_repeat = seen.contains(users, items)
    if lists is not None:
        for start in range(0, len(items), ROWS_AT_ONCE):
            some = slice(start, start + ROWS_AT_ONCE)
            listed = dataset.inter_feat[some][lists] == items[some, None]
            is_repeat[some] |= listed.any(1)
    return int(is_repeat.sum()), len(items)


def count_as_last(collector: Any, counts: Tensor) -> None:
    """Add targets that are no candidates to the newest batch, ranked behind every candidate.

    Args:
        counts: such targets of each row, ``[B]`` int64.
    """
    struct, need = collector.data_struct, collector.register.need
    if need("rec.topk"):
        hits = struct.get("rec.topk")  # 1 where a list has a target, then how many there are
        hits[-len(counts) :, -1] += counts.to(hits)
    if need("rec.meanrank"):
        ranks = struct.get("rec.meanrank")[-len(counts) :]  # sum of ranks, listed, targets
        more = counts.to(ranks)
        ranks[:, 0] += more * ranks[:, 1] + more * (more + 1) / 2
        ranks[:, 1] += more
        ranks[:, 2] += more


def announce(mask_seen: bool, repeats: dict[str, tuple[int, int]]) -> None:
    """Log which protocol holds and, where targets repeat an item of the history, how many do."""
    what = "are no candidates" if mask_seen else "stay among the candidates"
    message = f"Protocol: all items are ranked, history items {what} ({KEY}: {mask_seen})."
    if any(count for count, _ in repeats.values()):
        how_many = " and ".join(
            f"{count:,} of {total:,} {name} targets" for name, (count, total) in repeats.items()
        )
        becomes = "which is out of reach" if mask_seen else f"which {KEY}: True puts out of reach"
        message += f" In the history already, {becomes}: {how_many}."
    getLogger().info(message)
