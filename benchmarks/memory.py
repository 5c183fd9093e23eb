"""Peak memory of training: growth of resident memory in a fresh process for each model.

    python benchmarks/memory.py --dataset ml-100k
    python benchmarks/memory.py --items 1000000

What is counted is the peak during the steps, less what the process held once model and data stood.
"""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from competitors import endless, made_up, prepare, training_step
from growth import LONGEST, spreads
from measure import arguments, report

MEGABYTE = 2**20


def resident() -> int:
    """Bytes of memory that the process holds now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()


def peak() -> int:
    """The most bytes that the process ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measured(args: Any) -> dict[str, Any]:
    """Train some steps in this process."""
    settings = {"gpu_id": ""}
    if args.items:
        lengths = spreads(2048, LONGEST)["geometric, mean about 8"]
        model, batches = made_up(
            args.child, args.items, lengths, LONGEST, dtype=torch.float16, **settings
        )
    else:
        _, model, train, _ = prepare(args.child, args.dataset, **settings)
        batches = endless(train)
    step, before, after_steps = training_step(model, batches), resident(), []
    for _ in range(args.steps):
        step()
        after_steps.append(resident())
    return {"before": before, "peak": max(peak(), *after_steps), "after steps": after_steps}


def main() -> None:
    parser = arguments(__doc__.splitlines()[0], rounds=1)
    parser.add_argument("--dataset", default="ml-100k", help="any prepared dataset")
    parser.add_argument("--items", type=int, help="a made-up catalogue of so many items instead")
    parser.add_argument("--models", default="M3Rec,SASRec", help="ours first")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--child", help="(for the processes it starts) measure this model here")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.child:
        print(json.dumps(measured(args)))
        return
    rows: list[dict[str, Any]] = []
    for name in args.models.split(","):
        child = subprocess.run(
            [sys.executable, *sys.argv, "--child", name], stdout=subprocess.PIPE, check=False
        )
        if child.returncode == -signal.SIGKILL:  # as Linux does when memory runs out
            rows.append({"model": f"{name}: killed, out of memory"})
            continue
        child.check_returncode()
        found = json.loads(child.stdout.splitlines()[-1])
        growth = (found["peak"] - found["before"]) / MEGABYTE
        steps = found["after steps"]
        first = next((row["growth, MB"] for row in rows if "growth, MB" in row), growth)
        rows.append(
            {
                "model": name,
                "growth, MB": growth,
                "share of the first": growth / first,
                "peak of the process, MB": found["peak"] / MEGABYTE,
                "last step less third, MB": (steps[-1] - steps[min(2, len(steps) - 1)]) / MEGABYTE,
            }
        )
    where = f"{args.items:,} items" if args.items else args.dataset
    report(f"Peak memory of training on {where}, {args.threads} threads", rows, args)


if __name__ == "__main__":
    main()
