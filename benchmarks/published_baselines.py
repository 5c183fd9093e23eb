"""M3Rec, as README's first command trains it, against RecBole's models as they were published.

    python benchmarks/published_baselines.py --dataset ml-100k --seeds 3

Each baseline trains to its own early stop. The report tests the difference over users, whose values
are means over seeds. A run that has its result already is not trained again.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import yaml

from recbole_m3rec import Run
from recbole_m3rec.cli.commands import run_script
from recbole_m3rec.compare.comparison import compare

# What the first command sets, and here M3Rec alone has.
PRESET = Path(__file__).parents[1] / "properties" / "presets" / "quick.yaml"
BASELINES = ("GRU4Rec", "NARM", "BERT4Rec", "SASRec")


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--dataset", default="ml-100k")
    parser.add_argument("--baselines", nargs="+", default=BASELINES)
    parser.add_argument("--seeds", type=int, default=3, help="how many, from 2024 on")
    parser.add_argument("--mask-seen", action="store_true", help="history items are no candidates")
    parser.add_argument("--output", type=Path, default=Path("published-baselines"))
    options = parser.parse_args(arguments)
    protocol = {"mask_seen": options.mask_seen}
    quick = yaml.safe_load(PRESET.read_text(encoding="utf-8"))
    names = {"M3Rec": quick, **{name: {} for name in options.baselines}}
    runs = [
        Run(name, name, options.dataset, 2024 + seed, {**settings, **protocol})
        for name, settings in names.items()
        for seed in range(options.seeds)
    ]
    compare(runs, options.output, reference="M3Rec", title="M3Rec and published settings")


if __name__ == "__main__":
    raise SystemExit(run_script(main))
