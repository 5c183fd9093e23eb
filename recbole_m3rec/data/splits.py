"""Two ways to split interactions beside RecBole's own, for every model alike.

``cold_items: 0.1`` holds a tenth of the items out of training and validation altogether. Each of
their interactions is a test target, ranked after the user's earlier interactions with other items:

    log        w1 c1 w2 w3 c2 w4 w5          w: an item that is trained on, c: one that is held out
    training   w1 w2 w3                      leave one out on what is left: w4 validates
    test       w1 w2 w3 w4 -> w5             w1 -> c1            w1 w2 w3 -> c2

``eval_args: {split: {time_quantiles: [0.8, 0.9]}}`` cuts the whole log at two points in time, which
that share of the interactions does not exceed. Training ends at the first; what lies between
validates; what comes after the second tests. A target has at least one earlier interaction of its
user, in whichever part, so that models with and without histories are asked for the same targets.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from logging import getLogger
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from recbole_m3rec.config.yaml_files import ConfigurationError
from recbole_m3rec.data import augmentation
from recbole_m3rec.evaluator.mask_seen import list_field

COLD = "cold_items"
TIME = "time_quantiles"
PARTS = ("training", "validation", "test")


def build(original: Callable[..., Any], self: Any) -> Any:
    """Build the three parts of a dataset, as RecBole does where its split is RecBole's own."""
    return _build(self, lambda: original(self)) if splits_apart(self.config) else original(self)


def leave_cold_items_out(samplers: Any, dataset: Any) -> None:
    """Keep the sampler of training from drawing items that are held out."""
    is_cold = getattr(dataset, "cold_items", None)
    if is_cold is not None and samplers[0] is not None:
        samplers[0].sampling = partial(sample_trained, samplers[0].sampling, is_cold.numpy())


def splits_apart(config: Any) -> bool:
    """Tell whether a user may have several test targets, each of which is ranked by itself."""
    return bool(config[COLD]) or TIME in (config["eval_args"]["split"] or {})


def sample_trained(sample: Callable[[int], np.ndarray], is_cold: np.ndarray, n: int) -> np.ndarray:
    """Draw ``n`` negatives of training, none of which is held out: it would be taught to be wrong.

    Args:
        sample: draws so many item ids.
        is_cold: ``[n_items]`` bool.
    """
    items = sample(n)
    again = is_cold[items].nonzero()[0]
    while len(again):
        items[again] = sample(len(again))
        again = again[is_cold[items[again]]]
    return items


def choose_cold_items(tokens: Sequence[str], share: float, seed: int) -> Tensor:
    """Draw the items that are held out, the same for the same tokens whatever their ids.

    Args:
        tokens: item tokens by id; the first is padding, which is never drawn.
        share: of the items, rounded to whole ones, at least one.
        seed: of the draw.

    Returns:
        ``[n_items]`` bool.
    """
    by_token = np.argsort(np.asarray(tokens[1:], dtype=str)) + 1
    order = np.random.default_rng(seed).permutation(len(by_token))
    is_cold = torch.zeros(len(tokens), dtype=torch.bool)
    is_cold[by_token[order[: max(1, round(share * len(by_token)))]]] = True
    return is_cold


def _build(dataset: Any, build_as_recbole_does: Callable[[], Any]) -> Any:
    """Build the three parts; ``dataset.cold_items`` and ``dataset.train_counts`` tell of them.

    Raises:
        ConfigurationError: a part has nothing in it.
    """
    frame, config = dataset.inter_feat, dataset.config
    ranks = dataset.__dict__.get("_time_ranks")  # in place of times while RecBole splits
    log = _time_ordered(dataset, ranks)
    cuts = _cuts(dataset, log, ranks)
    is_cold = None
    if config[COLD]:
        tokens = dataset.field2id_token[dataset.iid_field]
        is_cold = choose_cold_items(tokens, config[COLD], config["seed"])
        if is_cold[1:].all():
            raise ConfigurationError(
                f"{COLD}: {config[COLD]} holds out all {len(is_cold) - 1:,} items and leaves none "
                "to train on: hold fewer items out."
            )
        is_kept = ~is_cold.numpy()[frame[dataset.iid_field].to_numpy()]
        dataset.inter_feat = frame[is_kept].reset_index(drop=True)
        dataset._time_ranks = None if ranks is None else ranks[is_kept]
    dataset.cold_items = is_cold
    is_trained = torch.ones(len(log), dtype=torch.bool)
    if cuts is not None:
        is_trained &= _times(dataset, log) <= cuts.ends[0]
    if is_cold is not None:
        is_trained &= ~is_cold[log[dataset.iid_field]]
    if cuts is None:
        parts = build_as_recbole_does()
        if list_field(dataset) is None and "LS" in config["eval_args"]["split"]:
            _train_on_second(parts)
    else:
        dataset.train_counts = torch.bincount(
            log[dataset.iid_field][is_trained], minlength=dataset.item_num
        )
        parts = _split_at(dataset, cuts)
    if is_cold is not None:
        parts[2] = _with_cold_targets(dataset, log, is_cold, parts[2], cuts)
    for name, part in zip(PARTS, parts, strict=True):
        if len(part.inter_feat) == 0:
            raise ConfigurationError(_empty(dataset, name, cuts))
    if cuts is not None:
        _announce_cuts(dataset, log, is_trained, parts, cuts)
    return parts


def _train_on_second(parts: Sequence[Any]) -> None:
    """Have general models, too, train on a user's second interaction, whatever follows it.

    To models with histories it is the first target, which leave-one-out never takes from training.
    """
    from recbole.data.interaction import cat_interactions

    train = parts[0]
    for part in parts[1:]:
        rows, field = part.inter_feat, part.uid_field
        counts = torch.bincount(train.inter_feat[field], minlength=train.user_num)
        is_second = counts[rows[field]] == 1
        train.inter_feat = cat_interactions([train.inter_feat, rows[is_second]])
        part.inter_feat = rows[~is_second]


def _time_ordered(dataset: Any, ranks: np.ndarray | None) -> Any:
    """Return all interactions as RecBole's ``Interaction``, users side by side, each in order."""
    whole = dataset.copy(dataset._dataframe_to_interaction(dataset.inter_feat))
    if ranks is not None:
        whole.inter_feat[dataset.time_field] = torch.from_numpy(ranks)
    whole.sort(by=[dataset.uid_field, dataset.time_field], ascending=True)
    return whole.inter_feat


def _times(dataset: Any, rows: Any) -> Tensor:
    times: Tensor = rows[dataset.time_field]
    return times[..., 0] if times.dim() > 1 else times  # a number and its bucket


class Cuts(NamedTuple):
    """Where training and validation end.

    Attributes:
        ends: the last time of each, or its rank among all times.
        named: the last time of each, for people.
    """

    ends: tuple[Tensor, Tensor]
    named: tuple[str, str]


def _cuts(dataset: Any, log: Any, ranks: np.ndarray | None) -> Cuts | None:
    """Return the two times that the configured shares of interactions do not exceed."""
    shares = dataset.config["eval_args"]["split"].get(TIME)
    if shares is None:
        return None
    if dataset.time_field not in log.columns:
        raise ConfigurationError(
            f"eval_args: {TIME} needs the time of each interaction, but there is no column "
            f"{dataset.time_field} (TIME_FIELD) among those that are loaded (load_col)."
        )
    times = _times(dataset, log).sort().values
    places = [max(1, math.ceil(round(share * len(times), 6))) - 1 for share in shares]
    first, second = times[places[0]], times[places[1]]
    named = [float(first), float(second)]
    if ranks is not None:
        values = dataset.inter_feat[dataset.time_field].to_numpy()
        named = [values[np.searchsorted(ranks, int(cut))] for cut in (first, second)]
    return Cuts((first, second), (f"{named[0]:.15g}", f"{named[1]:.15g}"))


def _split_at(dataset: Any, cuts: Cuts) -> list[Any]:
    dataset._change_feat_format()  # rows with histories, for sequential models
    dataset.sort(by=dataset.time_field)
    rows = dataset.inter_feat
    times = _times(dataset, rows)
    part = (times > cuts.ends[0]).long() + (times > cuts.ends[1]).long()
    is_general = list_field(dataset) is None
    if is_general:
        by_user = augmentation.group_rows(rows[dataset.uid_field])
        before, place = torch.empty_like(by_user.order), torch.empty_like(by_user.order)
        before[by_user.order] = by_user.position
        place[by_user.order] = torch.arange(len(rows))
        part[(before == 0) & (part > 0)] = -1
        items = rows[dataset.iid_field][by_user.order]
        length = before.clamp(max=dataset.config["MAX_ITEM_LIST_LENGTH"])
        histories = augmentation.PrefixRows(place - length, place, length)
    dataset._drop_unused_col()
    of_parts = [(part == k).nonzero().squeeze(1) for k in range(3)]
    parts = [dataset.copy(rows[of_part]) for of_part in of_parts]
    if is_general:
        for of_part, targets in zip(of_parts[1:], parts[1:], strict=True):
            _give_histories(targets, items, histories.taken(of_part))
    return parts


def _give_histories(part: Any, items: Tensor, rows: augmentation.PrefixRows) -> None:
    """Give targets of a general model the lists that a sequential one reads: `mask_seen` does."""
    from recbole_m3rec.data.history_rows import HistoryRows

    config = part.config
    part.item_id_list_field = part.iid_field + config["LIST_SUFFIX"]
    part.item_list_length_field = config["ITEM_LIST_LENGTH_FIELD"]
    fields = {name: part.inter_feat[name] for name in part.inter_feat.columns}
    fields[part.item_list_length_field] = rows.length
    lists = augmentation.PrefixLists(items, rows, (config["MAX_ITEM_LIST_LENGTH"],))
    part.inter_feat = HistoryRows(fields, {part.item_id_list_field: lists})


def _with_cold_targets(
    dataset: Any, log: Any, is_cold: Tensor, test: Any, cuts: Cuts | None
) -> Any:
    """Add a row for each interaction with a held-out item to the test, and say how many."""
    users, items = log[dataset.uid_field], log[dataset.iid_field]
    cold = is_cold[items]
    before = (~cold).cumsum(0) - (~cold).long()  # trained items of all users before each row
    starts = torch.searchsorted(users.contiguous(), users.contiguous())
    first = before[starts]
    is_target = cold & (before > first)
    if cuts is not None:
        is_target &= _times(dataset, log) > cuts.ends[1]
    target = is_target.nonzero().squeeze(1)
    getLogger().info(
        f"{COLD}: {dataset.config[COLD]} (seed {dataset.config['seed']}) holds "
        f"{int(is_cold.sum()):,} of {len(is_cold) - 1:,} items out of training, with "
        f"{int(cold.sum()):,} interactions: {len(target):,} are test targets of their own, the "
        "others have nothing before them" + (" or lie before the cut." if cuts else ".")
    )
    if len(target) == 0:
        raise ConfigurationError(
            f"{COLD}: {dataset.config[COLD]} leaves no target: none of the {int(is_cold.sum()):,} "
            "items that are held out was used after another item. Hold out more, or take another "
            "seed."
        )
    from recbole.data.interaction import Interaction

    if list_field(test) is None:  # nothing of the test lies before the targets of RecBole's split
        none = torch.zeros(len(test.inter_feat), dtype=torch.int64)
        _give_histories(test, none[:1], augmentation.PrefixRows(none, none, none))
    width = dataset.config["MAX_ITEM_LIST_LENGTH"]
    start = torch.maximum(first, before - width)[target]
    rows = augmentation.PrefixRows(start, target, before[target] - start)
    warm = (~cold).nonzero().squeeze(1)
    suffix, new = dataset.config["LIST_SUFFIX"], {}
    for field in test.inter_feat.columns:
        known = test.inter_feat[field]
        if field in log.columns:
            values = log[field][target]
        elif field == dataset.config["ITEM_LIST_LENGTH_FIELD"]:
            values = rows.length
        else:
            source = log[field.removesuffix(suffix)][warm]
            values = augmentation.PrefixLists(source, rows, known.shape[1:]).laid_out()
        new[field] = torch.cat([known, values.to(known.dtype)])
    return test.copy(Interaction(new))


def _empty(dataset: Any, part: str, cuts: Cuts | None) -> str:
    if cuts is None:
        return (
            f"{COLD}: {dataset.config[COLD]} leaves nothing for {part}: hold fewer items out, or "
            "keep users with more interactions."
        )
    shares = dataset.config["eval_args"]["split"][TIME]
    name = dataset.time_field
    span = {
        "training": f"{name} <= {cuts.named[0]}",
        "validation": f"{cuts.named[0]} < {name} <= {cuts.named[1]}",
        "test": f"{name} > {cuts.named[1]}",
    }[part]
    return (
        f"eval_args: {TIME}: {list(shares)} leaves no target for {part}: no interaction with "
        f"{span} has an earlier one of its user. Move the cuts apart, or away from 0 and 1."
    )


def _announce_cuts(
    dataset: Any, log: Any, is_trained: Tensor, parts: list[Any], cuts: Cuts
) -> None:
    counts = [f"{len(part.inter_feat):,}" for part in parts]
    phrases = []
    for name, part in zip(PARTS[1:], parts[1:], strict=True):
        for what, field in (("users", dataset.uid_field), ("items", dataset.iid_field)):
            tested = torch.unique(part.inter_feat[field])
            unknown = ~torch.isin(tested, torch.unique(log[field][is_trained]))
            phrases.append(f"{int(unknown.sum()):,} of {len(tested):,} {what} of the {name}")
    getLogger().info(
        f"Time split: training up to {dataset.time_field} {cuts.named[0]}, validation up to "
        f"{cuts.named[1]}, test after it; {counts[0]} rows, then {counts[1]} and {counts[2]} "
        f"targets. Without a past in training: {', '.join(phrases)}."
    )
