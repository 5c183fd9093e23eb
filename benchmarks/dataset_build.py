"""Seconds from read tables to data loaders: our dataset class beside RecBole's, without features.

    python benchmarks/dataset_build.py --dataset ml-100k

Both split the same filtered interactions in the same way, to the bit; the tests show that.
"""

from __future__ import annotations

import torch
from competitors import configure
from measure import arguments, report, rows_against, take_turns
from recbole.data import create_dataset, data_preparation

OURS = "M3Rec's dataset, last"


def main() -> None:
    parser = arguments(__doc__.splitlines()[0], rounds=5)
    parser.add_argument("--dataset", default="ml-100k", help="any prepared dataset")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    configs = {
        OURS: configure("M3Rec", args.dataset, modalities=[], features={}),
        "M3Rec's dataset, all": configure(
            "M3Rec", args.dataset, modalities=[], features={}, train_positions="all"
        ),
        "RecBole's": configure("SASRec", args.dataset),
    }
    whole = {
        name: lambda config=config: data_preparation(config, create_dataset(config))
        for name, config in configs.items()
    }
    # Reading and filtering the files is RecBole's in all three.
    read = {
        f"{name}, reading alone": lambda config=config: create_dataset(config)
        for name, config in configs.items()
    }
    seconds = take_turns({**whole, **read}, args.rounds)
    after = {
        name: [a - b for a, b in zip(seconds[name], seconds[f"{name}, reading alone"], strict=True)]
        for name in configs
    }
    title = f"Dataset build of {args.dataset} after reading, {args.threads} threads"
    report(title, rows_against(OURS, after), args, seconds=seconds)


if __name__ == "__main__":
    main()
