"""Draw the JSON files that training.py and growth.py wrote into a folder.

python benchmarks/plot.py docs/performance
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

OURS, PEER = "#2c6fad", "#c0651a"
GROWTH = {
    "length": "history length, items (16 full histories a step)",
    "items": "items of the catalogue (2,048 histories a step)",
}


def growth(folder: Path, what: str, axis: str) -> None:
    """Step time against one quantity, ours and each peer's, both axes logarithmic."""
    rows = read(folder / f"growth-{what}.json")["rows"]
    x = [row[what] for row in rows]
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for column in (key for key in rows[0] if key.endswith(", ms")):
        name = column.removesuffix(", ms")
        colour = OURS if name == "M3Rec" else PEER
        label = "M3Rec, three modalities" if name == "M3Rec" else f"RecBole's {name}"
        points = [(a, row[column]) for a, row in zip(x, rows, strict=True) if column in row]
        axes.loglog(*zip(*points, strict=True), "o-", color=colour, label=label)
    axes.set(xlabel=axis, ylabel="training step, ms")
    axes.grid(which="both", alpha=0.3)
    axes.legend()
    figure.savefig(folder / f"growth-{what}.png", dpi=120)


def ratios(folder: Path, picture: str) -> None:
    """How many times faster than each competitor a training step is, by dataset."""
    files = sorted(folder.glob("training-*.json"))
    figure, several = plt.subplots(
        len(files), figsize=(7, 2.2 * len(files)), layout="constrained", squeeze=False
    )
    for axes, path in zip(several[:, 0], files, strict=True):
        content = read(path)
        rows = [row for row in content["rows"] if row["what"].startswith(("RecBole", "M3Rec the"))]
        ratio = [row["ours is faster"] for row in rows]
        middle = [r["median"] for r in ratio]
        spread = [
            [r["median"] - r["low"] for r in ratio],
            [r["high"] - r["median"] for r in ratio],
        ]
        axes.barh([row["what"] for row in rows], middle, xerr=spread, color=OURS)
        axes.axvline(1, color="grey", linestyle=":")
        axes.invert_yaxis()
        axes.set_title(content["title"], fontsize=9, loc="left")
    several[-1, 0].set_xlabel("time of its training step, in those of M3Rec with three modalities")
    figure.savefig(folder / picture, dpi=120)


def read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    if list(folder.glob("training-*.json")):
        ratios(folder, "training.png")
    for what, axis in GROWTH.items():
        if (folder / f"growth-{what}.json").exists():
            growth(folder, what, axis)


if __name__ == "__main__":
    main()
