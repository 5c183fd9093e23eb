"""Milliseconds of the selective scan, forward and backward, for every backend that is there.

python benchmarks/scan.py --tokens 16744 --sequences 2048
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from measure import arguments, report, take_turns

from recbole_m3rec.ops.selective_scan import backends, selective_scan


def ragged(n_tokens: int, n_sequences: int) -> torch.Tensor:
    """Bounds of sequences of random lengths, at least 1, that sum to ``n_tokens``."""
    random = np.random.default_rng(0)
    inner = random.choice(n_tokens - 1, size=n_sequences - 1, replace=False) + 1
    return torch.tensor([0, *sorted(inner.tolist()), n_tokens], dtype=torch.int32)


def main() -> None:
    parser = arguments(__doc__.splitlines()[0], rounds=15)
    parser.add_argument("--tokens", type=int, default=16744)
    parser.add_argument("--sequences", type=int, default=2048)
    parser.add_argument("--d_inner", type=int, default=128)
    parser.add_argument("--d_state", type=int, default=32)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    new = {"device": args.device}
    bounds = ragged(args.tokens, args.sequences).to(args.device)
    x, dt = (torch.randn(args.tokens, args.d_inner, **new) for _ in range(2))
    B, C = (torch.randn(args.tokens, args.d_state, **new) for _ in range(2))
    A = -torch.arange(1.0, args.d_state + 1, **new).repeat(args.d_inner, 1)
    D, bias = torch.ones(args.d_inner, **new), torch.full((args.d_inner,), -4.0, **new)
    inputs = [t.requires_grad_() for t in (x, dt, A, B, C, D)]
    upstream = torch.randn(args.tokens, args.d_inner, **new)

    def forward(backend: str) -> Callable[[], None]:
        def run() -> None:
            with torch.no_grad():
                selective_scan(*inputs, bounds, dt_bias=bias, backend=backend)

        return run

    def both(backend: str) -> Callable[[], None]:
        def run() -> None:
            selective_scan(*inputs, bounds, dt_bias=bias, backend=backend).backward(upstream)

        return run

    there = [name for name, state in backends().items() if state.startswith("available")]
    fit = {"cpu": ("cpu", "reference"), "cuda": ("triton", "mamba_ssm", "reference")}
    there = [name for name in there if name in fit[args.device]]
    competitors = {f"{name}, forward": forward(name) for name in there}
    competitors |= {f"{name}, forward and backward": both(name) for name in there}
    seconds = take_turns(competitors, args.rounds, args.device)
    rows = [
        {"what": name, "milliseconds": 1e3 * sorted(times)[len(times) // 2]}
        for name, times in seconds.items()
    ]
    title = (
        f"Scan of {args.tokens:,} tokens in {args.sequences:,} sequences, d_inner {args.d_inner}"
    )
    report(f"{title}, d_state {args.d_state}, {args.threads} threads", rows, args, seconds=seconds)


if __name__ == "__main__":
    main()
