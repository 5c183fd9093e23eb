"""How a training step grows: with history length, with items, with how lengths are spread.

python benchmarks/growth.py length
python benchmarks/growth.py items
python benchmarks/growth.py spread
"""

from __future__ import annotations

import statistics
from typing import Any

import numpy as np
import torch
from competitors import made_up, training_step
from measure import arguments, ratios, report, take_turns

LENGTHS = (50, 100, 200, 500, 1000, 2000)
ITEMS = (10_000, 30_000, 100_000, 300_000, 1_000_000)
N_ITEMS, LONGEST = 10_000, 50


def spreads(batch: int, longest: int) -> dict[str, np.ndarray]:
    """Histories of a batch, by how their lengths are spread."""
    random = np.random.default_rng(0)
    geometric = np.minimum(random.geometric(1 / 8, size=batch), longest)
    return {
        "all of length 1": np.ones(batch, dtype=np.int64),
        "geometric, mean about 8": geometric,
        "uniform": random.integers(1, longest + 1, size=batch),
        "all full": np.full(batch, longest),
    }


def compare(
    label: dict[str, Any], args: Any, n_items: int, lengths: np.ndarray, longest: int
) -> dict[str, Any]:
    """One row: a step of ours and of each peer."""
    competitors = {}
    for name in ("M3Rec", *filter(None, args.models.split(","))):
        dtype = torch.float16 if n_items > 100_000 else None
        settings = {"gpu_id": ""} if args.device == "cpu" else {}
        model, batches = made_up(name, n_items, lengths, longest, dtype=dtype, **settings)
        competitors[name] = training_step(model, batches)
    seconds = take_turns(competitors, args.rounds, args.device)
    row = dict(label)
    for name, times in seconds.items():
        row[f"{name}, ms"] = 1e3 * statistics.median(times)
    for name in list(competitors)[1:]:
        row[f"faster than {name}"] = ratios(seconds[name], seconds["M3Rec"])
    return row


def main() -> None:
    parser = arguments(__doc__.splitlines()[0], rounds=3)
    parser.add_argument("what", choices=["length", "items", "spread"])
    parser.add_argument("--models", default="SASRec", help="of RecBole; empty: ours alone")
    parser.add_argument("--batch", type=int, help="histories a step; 16 for length, else 2048")
    parser.add_argument("--only", type=int, nargs="*", help="only these lengths or item counts")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    batch = args.batch or (16 if args.what == "length" else 2048)
    rows = []
    if args.what == "length":
        for length in args.only or LENGTHS:
            full = np.full(batch, length)
            rows.append(compare({"length": length}, args, N_ITEMS, full, length))
    elif args.what == "items":
        lengths = spreads(batch, LONGEST)["geometric, mean about 8"]
        for n_items in args.only or ITEMS:
            rows.append(compare({"items": n_items}, args, n_items, lengths, LONGEST))
    else:
        for name, lengths in spreads(batch, LONGEST).items():
            rows.append(compare({"lengths": name}, args, N_ITEMS, lengths, LONGEST))
    title = f"A training step of {batch} histories, ID + image + text, {args.threads} threads"
    report(title, rows, args)


if __name__ == "__main__":
    main()
