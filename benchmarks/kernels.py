"""How much of a training step each CPU kernel saves: the shipped recipe with it and without it.

python benchmarks/kernels.py --dataset beauty --threads 1 --clock processor

A kernel stays in the package where the step without it, by PyTorch's own operations, takes at least
3 % longer. The scan is measured by scan.py: without its kernel a step takes seconds.
"""

from __future__ import annotations

import time
from typing import Any
from unittest.mock import patch

import torch
from competitors import endless, prepare, training_step
from measure import arguments, report, rows_against, take_turns

CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}
WITHOUT = {
    "dropout": ("recbole_m3rec.ops.dropout.compiled_for", lambda x: False),
    "linear": ("recbole_m3rec.ops.matmul.is_supported", lambda x, weight: False),
    "convolution": (
        "recbole_m3rec.ops.causal_conv1d.choose_backend",
        lambda backend, x: "reference",
    ),
}


def main() -> None:
    parser = arguments(__doc__.splitlines()[0], rounds=30)
    parser.add_argument("--dataset", default="beauty", help="any prepared dataset")
    parser.add_argument("--modalities", nargs="+", default=["text"])
    parser.add_argument("--hidden_size", type=int, default=128)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    settings: dict[str, Any] = {"modalities": args.modalities, "hidden_size": args.hidden_size}
    _, model, train, _ = prepare("M3Rec", args.dataset, shipped=True, **settings)
    batches = endless(train)
    batch = next(batches)
    step = training_step(model, iter(lambda: batch, None))

    def as_shipped() -> None:
        nonlocal batch
        batch = next(batches)
        step()

    def without(kernel: str) -> None:  # on the batch that the step as shipped had
        with patch(*WITHOUT[kernel]):
            step()

    competitors = {
        "as shipped": as_shipped,
        **{f"without {name}": lambda name=name: without(name) for name in WITHOUT},
    }
    seconds = take_turns(competitors, args.rounds, args.device, CLOCKS[args.clock])
    title = f"{args.dataset}, width {args.hidden_size}, {args.threads} threads, {args.clock} clock"
    report(title, rows_against("as shipped", seconds), args)


if __name__ == "__main__":
    main()
