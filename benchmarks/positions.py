"""Seconds of a training epoch: a target at every position of a window beside RecBole's prefixes.

python benchmarks/positions.py --dataset ml-100k
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from competitors import prepare, training_step
from measure import arguments, report, rows_against, take_turns

OURS = "train_positions: all"


def epoch(dataset: str, positions: str, **settings: Any) -> Callable[[], None]:
    """A function that trains M3Rec with three modalities on every target once."""
    _, model, train, _ = prepare("M3Rec", dataset, train_positions=positions, **settings)

    def run() -> None:
        batches = iter(train)
        step = training_step(model, batches)
        for _ in range(len(train)):
            step()

    return run


def main() -> None:
    parser = arguments(__doc__.splitlines()[0], rounds=3)
    parser.add_argument("--dataset", default="ml-100k", help="any prepared dataset")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    settings = {"gpu_id": ""} if args.device == "cpu" else {}
    competitors = {
        OURS: epoch(args.dataset, "all", **settings),
        "train_positions: last": epoch(args.dataset, "last", **settings),
    }
    seconds = take_turns(competitors, args.rounds, args.device)
    title = f"An epoch of M3Rec, ID + image + text, on {args.dataset}, {args.threads} threads"
    report(title, rows_against(OURS, seconds), args, seconds=seconds)


if __name__ == "__main__":
    main()
