"""The caption of a table: its protocol in sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recbole_m3rec.compare.report.aggregate import Table
from recbole_m3rec.data.splits import COLD, TIME

LEFT_OUT = {
    "valid_and_test": "leave one out: each user's last interaction tests, the one before validates",
    "valid_only": "leave one out: each user's last interaction validates",
    "test_only": "leave one out: each user's last interaction tests",
}
ORDERS = {"TO": "in the order of time", "RO": "in random order"}


def caption(table: Table) -> str:
    """Return the caption of a table of results: data, split, candidates, seeds, marks."""
    config = table.config
    seeds = sorted({outcome.run.seed for runs in table.outcomes.values() for outcome in runs})
    named = ", ".join(str(seed) for seed in seeds)
    over = (
        f"Mean ± sample standard deviation over {len(seeds)} seeds ({named})."
        if len(seeds) > 1
        else f"One seed ({named}), hence no deviation."
    )
    return " ".join(
        [
            f"{table.dataset}, tested by {tested(table)}.",
            f"Split: {split(config)}.",
            f"Candidates: {candidates(config)}.",
            f"Kept: {kept(config)}.",
            over,
            "The best of a column is bold, the second underlined.",
        ]
    )


def tested(table: Table) -> str:
    """Return how many users were tested, from the fewest to the most of a run if they differ."""
    numbers = {
        len(set(outcome.users.users.tolist()))
        for name in table.outcomes
        for outcome in table.done(name)
        if outcome.users is not None
    }
    if not numbers:
        return "metrics that have no value for each user"
    return " to ".join(f"{number:,}" for number in sorted({min(numbers), max(numbers)})) + " users"


def split(config: Mapping[str, Any]) -> str:
    """Return how interactions are split into training, validation and test."""
    if config.get("benchmark_filename"):
        return "as the files " + ", ".join(map(str, config["benchmark_filename"])) + " have it"
    how = config["eval_args"]
    order = ORDERS.get(how["order"], str(how["order"]))
    held_out = ""
    if config.get(COLD):
        held_out = f"; a share of {config[COLD]:g} of the items is held out and tested by itself"
    if TIME in how["split"]:
        first, second = how["split"][TIME]
        return (
            f"by time, the first {first:.4g} of all interactions train, the next up to "
            f"{second:.4g} validate, the last test{held_out}"
        )
    if "LS" in how["split"]:
        method = LEFT_OUT.get(how["split"]["LS"], f"leave out, {how['split']['LS']}")
    else:
        shares = " : ".join(f"{share:g}" for share in next(iter(how["split"].values())))
        by = f" of each {how['group_by']}" if how["group_by"] not in (None, "none") else ""
        method = f"shares {shares}{by}"
    return f"{method}, {order}{held_out}"


def candidates(config: Mapping[str, Any]) -> str:
    """Return which items a target is ranked among."""
    mode = config["eval_args"]["mode"]["test"]
    if mode == "labeled":
        return "none, labelled interactions are classified"
    if mode != "full":
        how = {"uni": "uniformly", "pop": "by popularity"}.get(mode[:3], mode)
        return f"{mode[3:]} items sampled {how}"
    left = "without those" if config.get("mask_seen") else "with those"
    return f"all items, {left} of the user's history (mask_seen: {bool(config.get('mask_seen'))})"


def kept(config: Mapping[str, Any]) -> str:
    """Return which users and items are kept, by their interactions."""
    parts = [
        f"{what} with {interval} interactions"
        for what, interval in (
            ("users", config.get("user_inter_num_interval")),
            ("items", config.get("item_inter_num_interval")),
        )
        if interval and interval != "[0,inf)"
    ]
    return " and ".join(parts) or "everything"
