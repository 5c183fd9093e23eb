"""Seconds of a training step: M3Rec beside RecBole's models and beside the padded way.

python benchmarks/training.py --dataset ml-100k
python benchmarks/training.py --dataset beauty --json docs/performance/training-beauty.json
python benchmarks/training.py --dataset beauty --shipped --models SASRec

Ours have the published width, length and batch, as RecBole's models have; with --shipped they have
the recipe of M3Rec.yaml, with IDs and texts of 384 columns.
"""

from __future__ import annotations

from typing import Any

import torch
from competitors import endless, prepare, training_step
from measure import arguments, ratios, report, rows_against, take_turns
from padded import PaddedM3Rec

OURS = "M3Rec"
DETACHED, BFLOAT16 = f"{OURS}, detached", f"{OURS}, bfloat16"
TEXT = {"text": {"encoder": "random-codes", "dim": 384, "std": 0.02}}
PADDED = "M3Rec the padded way, detached"


def main() -> None:
    parser = arguments(__doc__.splitlines()[0], rounds=7)
    parser.add_argument("--dataset", default="ml-100k", help="any prepared dataset")
    parser.add_argument("--models", default="SASRec,GRU4Rec,BERT4Rec", help="of RecBole")
    parser.add_argument("--train_positions", default="last", choices=["last", "all"])
    parser.add_argument("--batch", type=int, default=2048, help="targets a step")
    parser.add_argument("--shipped", action="store_true", help="ours by the shipped recipe")
    parser.add_argument("--padded", action="store_true", help="also the released program's way")
    parser.add_argument("--amp", action="store_true", help="also ours and the models in bfloat16")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    competitors, steps = {}, {}
    device: dict[str, Any] = {"gpu_id": ""} if args.device == "cpu" else {}
    alone = {**device, "train_batch_size": args.batch}
    ours = {**alone, "train_positions": args.train_positions}
    if args.shipped:
        ours = {**device, "shipped": True, "modalities": ["text"], "features": TEXT}
    _, model, train, _ = prepare("M3Rec", args.dataset, **ours)
    competitors[OURS] = training_step(model, endless(train))
    steps[OURS] = len(train)
    detached = {**ours, "modality_gradient": "detached"}
    _, other, _, _ = prepare("M3Rec", args.dataset, **detached)
    competitors[DETACHED] = training_step(other, endless(train))
    if args.amp:
        _, other, _, _ = prepare("M3Rec", args.dataset, **ours)
        competitors[BFLOAT16] = training_step(other, endless(train), amp=True)
    _, mamba4rec, own, _ = prepare("Mamba4Rec", args.dataset, **ours)
    competitors["Mamba4Rec (ID alone)"] = training_step(mamba4rec, endless(own))
    if args.padded:
        padded = PaddedM3Rec(model.network)
        competitors[PADDED] = training_step(padded, endless(train))
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
        by_epoch = n_steps / len(train)
        row["epoch is faster"] = ratios([by_epoch * each for each in times], seconds[OURS])
    config = train.config
    recipe = "shipped" if args.shipped else "published"
    report(
        f"Training step on {args.dataset}, {recipe} recipe: {', '.join(config['modalities'])}, ID; "
        f"batch {config['train_batch_size']}, {config['train_positions']}, {args.threads} threads",
        rows,
        args,
        seconds=seconds,
    )


if __name__ == "__main__":
    main()
