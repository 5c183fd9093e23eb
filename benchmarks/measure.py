"""Side-by-side timing: competitors take turns in one process, so that noise meets all alike.

What is compared are ratios within a round. A round runs every competitor once; reported are the
median over rounds, and the quartiles as spread.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

LIBRARIES = ("torch", "recbole", "numpy", "pandas", "mamba-ssm", "causal-conv1d", "triton")


def arguments(description: str, rounds: int) -> argparse.ArgumentParser:
    """A parser with the options that every benchmark has."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=rounds, help="rounds to take turns in")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--json", type=Path, help="file for the numbers, with machine and versions")
    return parser


def take_turns(
    competitors: Mapping[str, Callable[[], Any]],
    rounds: int,
    device: str = "cpu",
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Run every competitor once a round, after a round that is not counted; seconds of each."""
    seconds: dict[str, list[float]] = {name: [] for name in competitors}
    for turn in range(rounds + 1):
        for name, run in competitors.items():
            started = clock()
            run()
            if device != "cpu":
                torch.cuda.synchronize()
            if turn > 0:
                seconds[name].append(clock() - started)
    return seconds


def ratios(slower: Sequence[float], faster: Sequence[float]) -> dict[str, float]:
    """Median and quartiles of ``slower / faster``, round by round."""
    each = sorted(a / b for a, b in zip(slower, faster, strict=True))
    low, _, high = statistics.quantiles(each, n=4) if len(each) > 1 else (each[0],) * 3
    return {"median": statistics.median(each), "low": low, "high": high}


def rows_against(ours: str, seconds: Mapping[str, Sequence[float]]) -> list[dict[str, Any]]:
    """One row a competitor: its median time and how many times ours is faster."""
    return [
        {
            "what": name,
            "milliseconds": 1e3 * statistics.median(times),
            "ours is faster": ratios(times, seconds[ours]),
        }
        for name, times in seconds.items()
    ]


def environment(threads: int) -> dict[str, Any]:
    """The machine and the versions that a number belongs to."""
    versions = {}
    for library in LIBRARIES:
        try:
            versions[library] = version(library)
        except PackageNotFoundError:
            continue
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "versions": versions,
        "load after": os.getloadavg()[0],
    }


def processor() -> str:
    """The processor's name, where the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def show(value: Any) -> str:
    """A cell of the table."""
    if isinstance(value, dict):
        return f"{value['median']:.3f} ({value['low']:.3f} to {value['high']:.3f})"
    return f"{value:,.2f}" if isinstance(value, float) else str(value)


def report(
    title: str, rows: Sequence[Mapping[str, Any]], args: argparse.Namespace, **more: Any
) -> None:
    """Print a table and write the JSON file, if one is asked for."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    cells = [columns, *[[show(row.get(column, "")) for column in columns] for row in rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    print(f"\n{title}")
    for number, row in enumerate(cells):
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )
        if number == 0:
            print("  ".join("-" * width for width in widths))
    if args.json is not None:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        content = {"title": title, **environment(args.threads), "rows": list(rows), **more}
        args.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
