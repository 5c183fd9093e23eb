"""How much of a training step each fused CPU kernel saves: the step with it and without it.

python benchmarks/kernels.py --dataset beauty --threads 1 --clock processor

Without a kernel PyTorch computes the same from the same random masks. A kernel stays in the package
where the step without it takes at least 3 % longer.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from competitors import endless, prepare, training_step
from measure import arguments, report, rows_against, take_turns

from recbole_m3rec.ops.dropout import dropout

NETWORK = "recbole_m3rec.network.m3rec"
CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}
WITHOUT = {
    "GELU with dropout": (f"{NETWORK}.gelu_dropout", lambda x, p: dropout(F.gelu(x), p)),
    "dropout with norm": (
        f"{NETWORK}.dropout_norm",
        lambda x, residual, p, weight, bias, eps: F.layer_norm(
            dropout(x, p) if residual is None else dropout(x, p) + residual,
            *(weight.shape, weight, bias, eps),
        ),
    ),
    "softmax with loss": ("recbole_m3rec.ops.softmax_loss._compiled_for", lambda logits: False),
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

    def without(*kernels: str) -> None:  # on the batch that the step as shipped had
        with ExitStack() as stack:
            for kernel in kernels:
                stack.enter_context(patch(*WITHOUT[kernel]))
            step()

    competitors = {
        "as shipped": as_shipped,
        **{f"without {name}": lambda name=name: without(name) for name in WITHOUT},
        "without all of them": lambda: without(*WITHOUT),
    }
    seconds = take_turns(competitors, args.rounds, args.device, CLOCKS[args.clock])
    title = f"{args.dataset}, width {args.hidden_size}, {args.threads} threads, {args.clock} clock"
    report(title, rows_against("as shipped", seconds), args)


if __name__ == "__main__":
    main()
