"""Checks of the configuration's values, made when it is complete and before data are read."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from recbole_m3rec.config.keys import KEYS, KEYS_OF_MODELS, is_interval
from recbole_m3rec.config.sizes import no_multiple, no_two_halves
from recbole_m3rec.config.yaml_files import ConfigurationError
from recbole_m3rec.hooks import wrap
from recbole_m3rec.support.suggestions import did_you_mean, expected_one_of

# Set in the configuration of a checkpoint that is evaluated: no metric is watched.
EVALUATE_KEY = "evaluate"
# Of a dataset: how many items its filter by the number of interactions dropped.
DROPPED_ITEMS = "n_items_dropped_by_filter"

ORDERS, GROUPS = ("TO", "RO"), ("user", "none")
LEAVE_ONE_OUT = ("valid_and_test", "valid_only", "test_only")
_MODE = re.compile(r"full|labeled|(?:uni|pop)[1-9][0-9]*")

# Metrics of RecBole that are computed without a K.
WITHOUT_K = frozenset(["auc", "gauc", "mae", "rmse", "logloss"])


def install() -> None:
    """Check every configuration of RecBole as soon as all its layers are one."""
    from recbole.config import Config

    @wrap(Config, "_get_final_config_dict")
    def check(original: Callable[..., dict[str, Any]], self: Any) -> dict[str, Any]:
        values = original(self)
        for key in ("topk", "metrics", "gpu_id"):
            if isinstance(values.get(key), (list, tuple)):
                values[key] = (tuple if key == "gpu_id" else list)(values[key])  # as RecBole asks
        named = {**values, "model": self.model}
        check_values(named, self.internal_config_dict, lambda key: where_is(self, key))
        return values


def where_is(config: Any, key: str) -> str:
    """Return words for the place of a user's value; nothing for what the user sees anyway."""
    if key in config.cmd_config_dict or key in config.variable_config_dict:
        return ""
    if key in config.file_config_dict:
        return f" It stands in {', '.join(config._config_files)}."
    return ""


def check_values(
    values: Mapping[str, Any], defaults: Mapping[str, Any], where: Callable[[str], str]
) -> None:
    """Raise for the first value that is of another type than its key's, or out of range.

    Args:
        values: the complete configuration, before RecBole derives anything.
        defaults: the values of RecBole's and the plugin's files.
        where: from a key to words for the place of its value.
    """
    for key, value in values.items():
        of_model = f"{key} of {values['model']}"
        declared = KEYS_OF_MODELS.get(of_model) or KEYS.get(of_model) or KEYS.get(key)
        complaint = (
            declared.complaint(key, value)
            if declared is not None
            else unlike_default(key, value, defaults.get(key))
        )
        if complaint is not None:
            raise ConfigurationError(complaint + where(key))
    for key in filter(CHECKS.__contains__, values):  # they read each other's values
        complaint = CHECKS[key](values)
        if complaint is not None:
            raise ConfigurationError(complaint + where(key))


def unlike_default(key: str, value: Any, default: Any) -> str | None:
    """Return what is wrong with the value of a single model's key, by the kind of its default."""
    if isinstance(default, bool) and isinstance(value, str):
        words = ("yes", "no", "on", "off")  # each of which Python would take for true
        return f"{key} must be true or false, found {value!r}." if value.lower() in words else None
    if isinstance(default, bool) or not isinstance(default, (int, float)):
        return None
    if isinstance(value, (int, float)) and not math.isnan(value):
        return None
    return f"{key} must be a number such as {default}, found {value!r}."


def watched_metric(values: Mapping[str, Any]) -> str | None:
    """Return what is wrong with ``valid_metric``: it must be among those that are computed."""
    metrics, lengths = values.get("metrics"), values.get("topk")
    names = [metrics] if isinstance(metrics, str) else list(metrics or ())
    ks = [lengths] if isinstance(lengths, int) else list(lengths or ())
    computed = [
        name if name.lower() in WITHOUT_K else f"{name}@{k}"
        for name in map(str, names)
        for k in ([None] if name.lower() in WITHOUT_K else ks)
    ]
    watched = values["valid_metric"]
    if values.get(EVALUATE_KEY) or watched.lower() in [name.lower() for name in computed]:
        return None
    return (
        f"valid_metric: {watched!r} is none of what is computed, metrics {', '.join(names)} at "
        f"topk {', '.join(map(str, ks))}.{did_you_mean(watched, computed)}"
    )


def known_metrics(values: Mapping[str, Any]) -> str | None:
    """Return what is wrong with ``metrics``."""
    from recbole.evaluator.register import metrics_dict

    metrics = values["metrics"]
    for name in [metrics] if isinstance(metrics, str) else metrics:
        if str(name).lower() not in metrics_dict:
            names = [metric.__name__ for metric in metrics_dict.values()]
            return f"metrics: there is no metric named {name!r}.{did_you_mean(str(name), names)}"
    return None if metrics else "metrics is empty, expected at least one."


def splitting(values: Mapping[str, Any]) -> str | None:
    """Return what is wrong with ``eval_args``."""
    arguments, keys = values["eval_args"], ("split", "group_by", "order", "mode")
    if not arguments:
        return f"eval_args is empty, expected some of {', '.join(keys)}."
    for key in arguments:
        if key not in keys:
            return f"eval_args: {key!r} is none of {', '.join(keys)}.{did_you_mean(key, keys)}"
    if arguments.get("order", "TO") not in ORDERS:
        return expected_one_of("eval_args: order", arguments["order"], ORDERS)
    if arguments.get("group_by") not in (None, "None", *GROUPS):
        return expected_one_of("eval_args: group_by", arguments["group_by"], GROUPS)
    mode = arguments.get("mode", "full")
    return (
        wrong_split(arguments.get("split"))
        or wrong_mode(mode)
        or sampled_at_once(values, mode)
        or too_few_candidates(values, mode)
    )


def wrong_split(split: Any) -> str | None:
    """Return what is wrong with a split; None, RecBole's own, is not."""
    if split is None:
        return None
    [(kind, how)] = split.items() if isinstance(split, dict) and len(split) == 1 else [(None, None)]
    if kind == "LS" and how in LEAVE_ONE_OUT:
        return None
    if kind == "time_quantiles":
        return wrong_quantiles(how)
    shares = how if isinstance(how, (list, tuple)) and len(how) == 3 else [-1]
    numbers = all(isinstance(share, (int, float)) and share >= 0 for share in shares)
    if kind in ("RS", "TS") and numbers and sum(shares) > 0:
        return None
    return (
        f"eval_args: split must be {{LS: {' or '.join(LEAVE_ONE_OUT)}}}, shares such as "
        f"{{RS: [0.8, 0.1, 0.1]}} or {{time_quantiles: [0.8, 0.9]}}, found {split!r}."
    )


def wrong_quantiles(cuts: Any) -> str | None:
    """Return what is wrong with the shares of interactions at which a split by time cuts."""
    pair = cuts if isinstance(cuts, (list, tuple)) and len(cuts) == 2 else [0, 0]
    numbers = all(isinstance(cut, (int, float)) for cut in pair)
    if numbers and 0 < pair[0] < pair[1] < 1:
        return None
    return (
        f"eval_args: time_quantiles: {cuts!r}, expected two rising shares between 0 and 1, such as "
        "[0.8, 0.9]: where training ends, and where validation ends."
    )


def no_split_of_its_own(values: Mapping[str, Any]) -> str | None:
    """Return what is wrong with ``benchmark_filename`` beside another split."""
    split = (values.get("eval_args") or {}).get("split") or {}
    files = values["benchmark_filename"]
    if files is None or not (values.get("cold_items") or "time_quantiles" in split):
        return None
    return (
        f"benchmark_filename: {files} brings a split of its own: leave it out, or set cold_items: "
        "0 and another eval_args: split."
    )


def wrong_mode(mode: Any) -> str | None:
    """Return what is wrong with the candidates of a ranking."""
    modes = [mode] if isinstance(mode, str) else []
    if isinstance(mode, dict) and mode and set(mode) <= {"valid", "test"}:
        modes = list(mode.values())
    if modes and all(isinstance(each, str) and _MODE.fullmatch(each) for each in modes):
        return None
    return (
        "eval_args: mode must be full, labeled, or uniN or popN with a number N, for valid and "
        f"test alike or each its own, found {mode!r}."
    )


def sampled_at_once(values: Mapping[str, Any], mode: Any) -> str | None:
    """Return what is wrong with sampled candidates where each target is ranked by itself."""
    split = values["eval_args"].get("split") or {}
    by = "time_quantiles" if "time_quantiles" in split else "cold_items"
    by_itself = "time_quantiles" in split or values.get("cold_items")
    modes = mode.values() if isinstance(mode, dict) else [mode]
    if not by_itself or not any(each.startswith(("uni", "pop")) for each in modes):
        return None
    return (
        f"eval_args: mode: {mode} draws candidates for all targets of a user at once, but {by}"
        f" ranks each target by itself: set mode: full, or leave {by} out."
    )


HITS = frozenset(["hit", "recall", "precision"])  # what a list of all candidates says nothing by


def too_few_candidates(values: Mapping[str, Any], mode: Any) -> str | None:
    """Return what is wrong with lists that hold all sampled candidates: each would be a hit."""
    ks = values.get("topk") or []
    ks = [k for k in ([ks] if isinstance(ks, int) else ks) if isinstance(k, int)]
    metrics = values.get("metrics") or []
    metrics = [metrics] if isinstance(metrics, str) else metrics
    if not any(str(metric).lower() in HITS for metric in metrics):
        return None
    longest = max(ks, default=0)
    for each in mode.values() if isinstance(mode, dict) else [mode]:
        drawn = int(each[3:]) if each.startswith(("uni", "pop")) else longest
        if longest > drawn:
            return (
                f"eval_args: mode: {each} ranks a target among {drawn} drawn items, so that every"
                f" list of {longest} (topk) has it: set topk to {drawn} at most, or draw more."
            )
    return None


def kept_values(values: Mapping[str, Any]) -> str | None:
    """Return what is wrong with ``val_interval``: intervals of numbers, or lists of tokens."""
    for field, kept in (values["val_interval"] or {}).items():
        tokens = isinstance(kept, (list, tuple)) and all(isinstance(each, str) for each in kept)
        if not tokens and not (isinstance(kept, str) and is_interval(kept)):
            return (
                f"val_interval: {field} must be an interval such as '[3,inf)' or, for tokens, a "
                f"list of strings such as ['1', 'b'], found {kept!r}."
            )
    return None


def loaded_columns(values: Mapping[str, Any]) -> str | None:
    """Return what is wrong with ``load_col``: each file has its columns, ``.inter`` some."""
    loaded = values["load_col"]
    for suffix, columns in (loaded or {}).items():
        if columns != "*" and not isinstance(columns, (list, tuple, set)):
            return f"load_col: {suffix} must be a list of columns or '*', found {columns!r}."
    if loaded is None or loaded.get("inter"):
        return None
    return (
        f"load_col names no column of `inter`, the file of interactions, found {loaded}. Add them, "
        "such as {inter: [user_id, item_id, timestamp]}, or set ~ to load all columns."
    )


CHECKS: dict[str, Callable[[Mapping[str, Any]], str | None]] = {
    "metrics": known_metrics,
    "topk": lambda values: None if values["topk"] != [] else "topk is empty, expected a length.",
    "valid_metric": watched_metric,
    "eval_args": splitting,
    "benchmark_filename": no_split_of_its_own,
    "val_interval": kept_values,
    "load_col": loaded_columns,
    **dict.fromkeys(("n_heads", "num_heads", "n_factors"), no_multiple),
    "latent_dimension": no_two_halves,
}


def check_catalogue(config: Any, dataset: Any) -> None:
    """Raise where the ranked lists are longer than the catalogue."""
    from recbole.utils import EvaluatorType

    n_items = dataset.item_num - 1  # without padding
    shorter = shorter_lists(config["topk"], config["valid_metric"], n_items)
    if config["eval_type"] != EvaluatorType.RANKING or not shorter:
        return
    dropped = getattr(dataset, DROPPED_ITEMS, 0)
    filtering, loosen = "", ""
    if dropped:
        filtering = f" after filtering, which dropped {dropped:,},"
        loosen = ", or loosen item_inter_num_interval"
    raise ConfigurationError(
        f"topk: {max(config['topk'])}, but `{dataset.dataset_name}` has {n_items:,} items"
        f"{filtering} and no list is longer than the catalogue. Set {shorter}{loosen}."
    )


def shorter_lists(topk: int | Sequence[int], valid_metric: str, n_items: int) -> str:
    """Return the settings of lists that a catalogue can fill, ``""`` where it can as it is."""
    lengths = [topk] if isinstance(topk, int) else topk
    if max(lengths) <= n_items:
        return ""
    shorter = sorted({k for k in lengths if k <= n_items} or {n_items})
    metric = valid_metric.partition("@")[0]
    return f'--topk="{shorter}" --valid_metric={metric}@{shorter[-1]}'.replace(", ", ",")
