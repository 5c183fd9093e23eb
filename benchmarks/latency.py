"""Microseconds of one new interaction on a kept state, beside encoding the whole history again.

python benchmarks/latency.py --length 500
"""

from __future__ import annotations

import torch
from measure import arguments, report, rows_against, take_turns

from recbole_m3rec.network.mamba import MambaBlock

OURS = "one step on a kept state"


def main() -> None:
    parser = arguments(__doc__.splitlines()[0], rounds=50)
    parser.add_argument("--length", type=int, default=500, help="items of the history")
    parser.add_argument("--hidden_size", type=int, default=64)
    parser.add_argument("--layers", type=int, default=2, help="Mamba blocks, one after the other")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    blocks = [MambaBlock(args.hidden_size).to(args.device) for _ in range(args.layers)]
    history = torch.randn(args.length, args.hidden_size, device=args.device)
    bounds = torch.tensor([0, args.length], dtype=torch.int32, device=args.device)
    states, h = [], history
    with torch.no_grad():
        for block in blocks:
            states.append(block.last_state(h, bounds))
            h = block(h, bounds)

    @torch.no_grad()
    def step() -> None:
        h = history[:1]
        for block, state in zip(blocks, states, strict=True):
            h, _ = block.step(h, state)

    @torch.no_grad()
    def again() -> None:
        h = history
        for number, block in enumerate(blocks):
            h = block(h, bounds, last_only=number == len(blocks) - 1)

    seconds = take_turns({OURS: step, "the history again": again}, args.rounds, args.device)
    title = f"One new interaction after {args.length}, batch 1, {args.layers} Mamba blocks"
    report(f"{title}, {args.threads} threads", rows_against(OURS, seconds), args, seconds=seconds)


if __name__ == "__main__":
    main()
