"""Seconds of a training step: M3Rec beside RecBole's models and beside the padded way.

python benchmarks/training.py --dataset ml-100k
python benchmarks/training.py --dataset beauty --json docs/performance/training-beauty.json
"""

from __future__ import annotations

from typing import Any

import torch
from competitors import endless, prepare, training_step
from measure import arguments, ratios, report, rows_against, take_turns
from padded import PaddedM3Rec

OURS = "M3Rec, ID + image + text"
DETACHED, BFLOAT16 = f"{OURS}, detached", f"{OURS}, bfloat16"
PADDED = "M3Rec the padded way, detached"


def main() -> None:
    parser = arguments(__doc__.splitlines()[0], rounds=7)
    parser.add_argument("--dataset", default="ml-100k", help="any prepared dataset")
    parser.add_argument("--models", default="SASRec,GRU4Rec,BERT4Rec", help="of RecBole")
    parser.add_argument("--train_positions", default="last", choices=["last", "all"])
    parser.add_argument("--batch", type=int, default=2048, help="targets a step")
    parser.add_argument("--padded", action="store_true", help="also the released program's way")
    parser.add_argument("--amp", action="store_true", help="also ours and the models in bfloat16")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    competitors, steps = {}, {}
    settings: dict[str, Any] = {
        "train_positions": args.train_positions,
        "train_batch_size": args.batch,
    }
    if args.device == "cpu":
        settings["gpu_id"] = ""
    _, model, train, _ = prepare("M3Rec", args.dataset, **settings)
    competitors[OURS] = training_step(model, endless(train))
    steps[OURS] = len(train)
    _, other, _, _ = prepare("M3Rec", args.dataset, modality_gradient="detached", **settings)
    competitors[DETACHED] = training_step(other, endless(train))
    if args.amp:
        _, other, _, _ = prepare("M3Rec", args.dataset, **settings)
        competitors[BFLOAT16] = training_step(other, endless(train), amp=True)
    _, mamba4rec, own, _ = prepare("Mamba4Rec", args.dataset, **settings)
    competitors["Mamba4Rec (ID alone)"] = training_step(mamba4rec, endless(own))
    if args.padded:
        padded = PaddedM3Rec(model.network)
        competitors[PADDED] = training_step(padded, endless(train))
    alone = {key: value for key, value in settings.items() if key != "train_positions"}
    for name in filter(None, args.models.split(",")):
        _, peer, batches, _ = prepare(name, args.dataset, **alone)
        competitors[f"RecBole's {name}"] = training_step(peer, endless(batches))
        steps[f"RecBole's {name}"] = len(batches)
        if args.amp:
            _, peer, batches, _ = prepare(name, args.dataset, **alone)
            label = f"RecBole's {name}, bfloat16"
            competitors[label] = training_step(peer, endless(batches), amp=True)

    seconds = take_turns(competitors, args.rounds, args.device)
    rows = rows_against(OURS, seconds)
    for row in rows:
        times = seconds[row["what"]]
        row["detached is faster"] = ratios(times, seconds[DETACHED])
        if args.amp:
            row["bfloat16 is faster"] = ratios(times, seconds[BFLOAT16])
        n_steps = steps.get(row["what"], len(train))
        row["epoch, s"] = row["milliseconds"] / 1e3 * n_steps
    report(
        f"Training step on {args.dataset}, batch {train.config['train_batch_size']}, "
        f"{args.train_positions}, {args.threads} threads",
        rows,
        args,
        seconds=seconds,
    )


if __name__ == "__main__":
    main()
