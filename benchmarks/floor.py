"""What a training step has to compute and to move at least, and how far from it a step is.

    python benchmarks/floor.py --dataset beauty

Counted are the products of matrices (a multiplication and an addition are two operations), the
arithmetic of the scan and the bytes of what must be read and written once: features, item table,
activations between the parts, weights with their gradients and Adam's moments. Divided by what this
machine reaches on one large product and on one large copy, each is a time that is hard to go below;
nothing is taken to overlap.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from competitors import endless, prepare, training_step
from measure import arguments, report, take_turns

from recbole_m3rec.ops.cpu.linear import is_supported, linear

FLOAT = 4  # bytes


def products(network: Any, n_tokens: int, n_rows: int) -> Iterator[tuple[str, float]]:
    """Yield parts of a step with one target a row (rule ``frozen``) and their operations."""
    hidden, n_items = network.config.hidden_size, network.n_items
    n_modalities = len(network.modalities)
    features = sum(content.features.shape[1] for content in network.content.values())
    n_content = n_modalities - 1
    # Forward, then gradients of weights; features take none.
    first, second = 2.0 * n_items * hidden * features, 2.0 * n_items * hidden**2 * n_content
    yield "projection of the catalogue", 2 * first + 3 * second
    # Logits, then gradients of queries and of the table.
    yield "cross-entropy", 3 * 2.0 * n_rows * n_items * n_modalities * hidden
    block = network.layers[0].shared.mamba
    inner, projected = block.D.numel(), block.dt_rank + 2 * block.d_state
    blocks = experts = 0.0
    for depth in range(network.config.num_layers):
        read = n_rows if depth == network.config.num_layers - 1 else n_tokens
        once = 2.0 * n_tokens * inner * (hidden + projected + block.dt_rank)
        once += 2.0 * read * inner * 2 * hidden  # gate and output projection
        blocks += once * (3 + 2 * n_content)  # content teaches the blocks nothing
        experts += 3 * 2.0 * read * 8 * hidden**2 * n_modalities
    yield "Mamba blocks", blocks
    yield "experts", experts


def scan_arithmetic(network: Any, n_tokens: int) -> float:
    """Return the scans' operations, each vector instruction counted as a multiply-add.

    Nine for a decay, the fewest that we know to give an exponential in float32; two to move a state
    and read it; nine for the gradients.
    """
    block = network.layers[0].shared.mamba
    elements = n_tokens * block.D.numel() * block.d_state * network.config.num_layers
    return 2.0 * (9 + 2 + 9) * elements * len(network.modalities)


def moved(network: Any, n_tokens: int, n_rows: int) -> float:
    """Return the bytes that have to be read or written once, in float32."""
    hidden, n_modalities = network.config.hidden_size, len(network.modalities)
    features = sum(content.features.numel() for content in network.content.values())
    table = network.n_items * hidden * n_modalities
    weights = sum(p.numel() for p in network.parameters())
    inner = network.layers[0].shared.mamba.D.numel()
    # What one part leaves for the next: input, both halves of the projection, the convolution's
    # and the scan's results, the expert's inner and outer width; written, read, and both again for
    # the gradient.
    tokens = 0
    for depth in range(network.config.num_layers):
        read = n_rows if depth == network.config.num_layers - 1 else n_tokens
        tokens += n_tokens * (hidden + 2 * inner) + read * (2 * inner + 6 * hidden)
    return FLOAT * (2.0 * features + 4 * table + 7 * weights + 4 * n_modalities * tokens)


def best(run: Callable[[], Any]) -> float:
    """Seconds of the fastest of some calls."""
    seconds = []
    for _ in range(12):
        started = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - started)
    return min(seconds[2:])


def rates() -> dict[str, float]:
    """Operations of products and bytes of copies that this machine does in a second."""
    left, right = torch.randn(4096, 512), torch.randn(512, 512)
    ways: list[Callable[[], Any]] = [lambda: left @ right.T]
    if is_supported(left, right):
        ways.append(lambda: linear(left, right))
    onednn = torch.randn(4096, 512)
    ways.append(lambda: torch.ops.mkldnn._linear_pointwise(onednn, right, None, "none", [], ""))
    source = torch.empty(2**26)
    target = torch.empty_like(source)
    return {
        "products": 2.0 * 4096 * 512 * 512 / min(best(way) for way in ways),
        "bytes": 2.0 * FLOAT * source.numel() / best(lambda: target.copy_(source)),
    }


def main() -> None:
    parser = arguments(__doc__.splitlines()[0], rounds=7)
    parser.add_argument("--dataset", default="ml-100k", help="any prepared dataset")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    _, model, train, _ = prepare("M3Rec", args.dataset, train_positions="last", gpu_id="")
    batches = endless(train)
    lengths = [batch["item_length"] for _, batch in zip(range(8), batches, strict=False)]
    n_rows = len(lengths[0])
    n_tokens = int(statistics.median(int(length.sum()) for length in lengths))
    step = training_step(model, batches)
    seconds = statistics.median(take_turns({"step": step}, args.rounds)["step"])

    network, rate = model.network, rates()
    rows = []

    def add(part: str, amount: float, kind: str, unit: str) -> None:
        rows.append({"part": part, "amount": amount / 1e9, "of": unit})
        rows[-1]["milliseconds at least"] = 1e3 * amount / rate[kind]

    for part, operations in products(network, n_tokens, n_rows):
        add(part, operations, "products", "10^9 operations")
    add("scan", scan_arithmetic(network, n_tokens), "products", "10^9 operations")
    add("memory", moved(network, n_tokens, n_rows), "bytes", "GB")
    floor = sum(row["milliseconds at least"] for row in rows)
    rows.append({"part": "all", "amount": "", "of": "", "milliseconds at least": floor})
    rows.append(
        {"part": "measured", "amount": "", "of": "", "milliseconds at least": 1e3 * seconds}
    )
    reached = ", ".join(f"{value / 1e9:,.1f} · 10^9 {kind}" for kind, value in rate.items())
    title = f"A step of {n_rows} rows with {n_tokens:,} items on {args.dataset}"
    report(f"{title}, {args.threads} threads; a second here: {reached}", rows, args, rates=rate)


if __name__ == "__main__":
    main()
