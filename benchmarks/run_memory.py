"""Resident memory of a whole run, every few seconds, as numbers and as a picture.

    python benchmarks/run_memory.py --json run.json -- python run_recbole.py --model=M3Rec \
        --dataset=beauty --config_files=properties/presets/m3rec-published.yaml

The picture is ``run.png`` beside it.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import time
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from measure import environment

MEGABYTE = 2**20


def sampled(command: list[str], every: float) -> tuple[list[float], list[float]]:
    """Run a command; return seconds since its start and its resident megabytes then."""
    seconds, megabytes, started = [], [], time.monotonic()
    with subprocess.Popen(command) as process:
        memory = Path(f"/proc/{process.pid}/statm")
        while process.poll() is None:
            pages = int(memory.read_text(encoding="ascii").split()[1])
            seconds.append(time.monotonic() - started)
            megabytes.append(pages * resource.getpagesize() / MEGABYTE)
            time.sleep(every)
    return seconds, megabytes


def draw(file: Path) -> None:
    """Draw what a JSON file of this script holds."""
    content = json.loads(file.read_text(encoding="utf-8"))
    figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
    axes.plot([second / 60 for second in content["seconds"]], content["megabytes"], linewidth=1)
    axes.set(xlabel="minutes", ylabel="resident memory, MB", ylim=(0, None))
    axes.grid(alpha=0.3)
    figure.savefig(file.with_suffix(".png"), dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--every", type=float, default=2.0, help="seconds between two looks")
    parser.add_argument("--json", type=Path, required=True, help="file for the numbers")
    parser.add_argument("command", nargs="+", help="after --, what to run")
    args = parser.parse_args()
    seconds, megabytes = sampled(args.command, args.every)
    content = {"command": args.command, "seconds": seconds, "megabytes": megabytes}
    content |= environment(threads=0)
    args.json.write_text(json.dumps(content) + "\n", encoding="utf-8")
    draw(args.json)


if __name__ == "__main__":
    main()
