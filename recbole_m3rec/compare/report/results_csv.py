"""``results.csv``: one line per run."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from recbole_m3rec.compare.results import Outcome

COSTS = ("seconds_per_epoch", "training_seconds", "seconds", "best_epoch", "parameters")
MEMORY = ("peak_memory_mib", "peak_gpu_memory_mib")


def render(outcomes: Sequence[Outcome]) -> str:
    """Return the table, metrics unrounded, empty where something is unknown.

    ``epochs`` counts the epochs trained; ``best_epoch`` is a number from 1 on.
    """
    metrics = _names(outcomes, "test")
    valid = _names(outcomes, "valid")
    versions = _names(outcomes, "versions")
    head = ["name", "model", "dataset", "seed", "mask_seen", "status", *metrics]
    head += [f"valid_{name}" for name in valid]
    head += [
        *COSTS,
        "epochs",
        *MEMORY,
        *(f"version_{name}" for name in versions),
        "hash",
        "message",
    ]
    file = io.StringIO()
    writer = csv.DictWriter(file, head, lineterminator="\n", restval="")
    writer.writeheader()
    for outcome in outcomes:
        writer.writerow(_row(outcome))
    return file.getvalue()


def _row(outcome: Outcome) -> dict[str, Any]:
    run, result = outcome.run, outcome.result
    row: dict[str, Any] = {
        "name": run.name,
        "model": run.model,
        "dataset": run.dataset,
        "seed": run.seed,
        "mask_seen": bool(outcome.identity.config.get("mask_seen")),
        "status": "failed" if result is None else "done",
        "hash": outcome.identity.hash,
        "message": outcome.failure,
    }
    if result is not None:
        row.update(result["test"])
        row.update({f"valid_{name}": value for name, value in result["valid"].items()})
        row.update({f"version_{name}": value for name, value in result["versions"].items()})
        row.update({key: result[key] for key in (*COSTS, *MEMORY)})
        row["epochs"] = len(result["epochs"])
        row["best_epoch"] = None if result["best_epoch"] is None else result["best_epoch"] + 1
    return row


def _names(outcomes: Sequence[Outcome], part: str) -> list[str]:
    results = [outcome.result for outcome in outcomes if outcome.result is not None]
    return list(dict.fromkeys(name for result in results for name in result[part]))
