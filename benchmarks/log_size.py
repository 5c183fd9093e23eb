"""Memory and processor seconds per interaction from the .inter file to training rows.

    python benchmarks/log_size.py

Logs of generated interactions, eight a user, are read by fresh processes; what counts is how the
peak of resident memory and the time grow between the two sizes.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from competitors import prepare
from measure import arguments, report
from scaling import peak

SIZES = (100_000, 400_000)
NO_FILTER = {"user_inter_num_interval": "[0,inf)", "item_inter_num_interval": "[0,inf)"}


def loaded(size: int, length: int) -> dict[str, float]:
    """Write a log, and read it in this process as a run does."""
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "generated"
        path.mkdir()
        columns = {
            "user_id:token": np.arange(size) // 8,
            "item_id:token": random.integers(0, size // 20, size),
            "timestamp:float": np.arange(size) + 1_000_000_000,
        }
        pd.DataFrame(columns).to_csv(path / "generated.inter", sep="\t", index=False)
        del columns
        before, started = peak(), time.process_time()
        prepare("Mamba4Rec", "generated", data_path=folder, gpu_id="", **NO_FILTER,
                train_positions="all", MAX_ITEM_LIST_LENGTH=length)  # fmt: skip
        return {"seconds": time.process_time() - started, "bytes": peak(), "before": before}


def main() -> None:
    parser = arguments((__doc__ or "").splitlines()[0], rounds=1)
    parser.add_argument("--size", type=int, help="(for the processes it starts)")
    parser.add_argument("--length", type=int, default=200, help="MAX_ITEM_LIST_LENGTH")
    args = parser.parse_args()
    if args.size:
        print(json.dumps(loaded(args.size, args.length)))
        return
    found = []
    for size in SIZES:
        options = ["--size", str(size), "--length", str(args.length)]
        command = [sys.executable, __file__, *options]
        child = subprocess.run(command, stdout=subprocess.PIPE, check=True)
        found.append(json.loads(child.stdout.splitlines()[-1]))
    more = SIZES[1] - SIZES[0]
    rows = [
        {
            "interactions": f"{SIZES[0]:,} to {SIZES[1]:,}",
            "bytes each": (found[1]["bytes"] - found[0]["bytes"]) / more,
            "microseconds each": 1e6 * (found[1]["seconds"] - found[0]["seconds"]) / more,
        }
    ]
    report("Loading interactions", rows, args, found=found)


if __name__ == "__main__":
    main()
