"""Where the time of a training step goes, by operation.

python benchmarks/profile_step.py --dataset ml-100k --train_positions all
"""

from __future__ import annotations

from typing import Any

import torch
from competitors import endless, prepare, training_step
from measure import arguments, report


def main() -> None:
    parser = arguments(__doc__.splitlines()[0], rounds=8)
    parser.add_argument("--dataset", default="ml-100k", help="any prepared dataset")
    parser.add_argument("--model", default="M3Rec")
    parser.add_argument("--train_positions", default="last", choices=["last", "all"])
    parser.add_argument("--shipped", action="store_true", help="ours by the shipped recipe")
    parser.add_argument("--rows", type=int, default=15, help="operations shown")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    settings: dict[str, Any] = {"gpu_id": ""} if args.device == "cpu" else {}
    if args.shipped:
        settings["shipped"] = True
    elif args.model in ("M3Rec", "Mamba4Rec"):
        settings["train_positions"] = args.train_positions
    _, model, train, _ = prepare(args.model, args.dataset, **settings)
    step = training_step(model, endless(train))
    for _ in range(3):
        step()
    with torch.profiler.profile() as profile:
        for _ in range(args.rounds):
            step()
    on_gpu = args.device != "cpu"
    events = [
        (e.key, e.self_device_time_total if on_gpu else e.self_cpu_time_total, e.count)
        for e in profile.key_averages()
    ]
    total = sum(time for _, time, _ in events)
    rows = [
        {
            "operation": key,
            "milliseconds a step": time / args.rounds / 1e3,
            "share, %": 100 * time / total,
            "calls a step": count / args.rounds,
        }
        for key, time, count in sorted(events, key=lambda event: -event[1])[: args.rows]
    ]
    how = "shipped" if args.shipped else args.train_positions
    title = f"{args.model} on {args.dataset}, {how}, {args.threads} threads"
    report(f"{title}: {total / args.rounds / 1e3:.1f} ms a step", rows, args)


if __name__ == "__main__":
    main()
