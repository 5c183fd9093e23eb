"""Run every sequential and general model of RecBole for one short epoch, and tell how it went.

Each is run by ``run_recbole.py`` in a process of its own, with a time limit. Results are kept after
each one in a JSON file: a second call runs only what is not in it. The table in
``docs/baselines.md`` is made of that file.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import os
import pkgutil
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

import recbole_m3rec  # noqa: F401  (so that RecBole's models can be imported)

ROOT = Path(__file__).resolve().parent.parent
FAMILIES = ("sequential", "general")

# Small enough for a processor. A model reads those keys that it has; the rest is its default.
SETTINGS: dict[str, Any] = {
    "epochs": 1,
    "pretrain_epochs": 1,
    "hidden_size": 16,
    "embedding_size": 16,
    "inner_size": 32,
    "mlp_hidden_size": [16],
    "n_heads": 2,
    "MAX_ITEM_LIST_LENGTH": 20,
    "user_inter_num_interval": "[5,50)",  # half of the users of ml-100k, a sixth of what they did
}

# What a model cannot do with, for its network is laid out for its own default.
LEFT_OUT = {"ConvNCF": ("embedding_size", "mlp_hidden_size")}

# A row of the table that a run prints: validation, then test.
METRIC = re.compile(r"^ndcg@10\s+(\S+)\s+(\S+)$", re.MULTILINE)


def models(family: str) -> dict[str, Any]:
    """Return the modules of RecBole's models by the names of the models, in alphabetical order."""
    package = importlib.import_module(f"recbole.model.{family}_recommender")
    found = {}
    for each in pkgutil.iter_modules(package.__path__):
        module = importlib.import_module(f"{package.__name__}.{each.name}")
        for name, member in vars(module).items():
            is_own = inspect.isclass(member) and member.__module__ == module.__name__
            if is_own and name.lower() == each.name:
                found[name] = module
    return dict(sorted(found.items(), key=lambda item: item[0].lower()))


def paper(module: Any) -> str:
    """Return the paper that the text at the head of a model's module names, "" for none."""
    text = inspect.getdoc(module) or ""
    found = re.search(r"Reference:\s*\n((?:[ \t]*\S.*\n?)+)", text)
    if not found:
        return ""
    return " ".join(found[1].split()).partition(" Reference code")[0].rstrip(".")


def run(model: str, dataset: str, settings: Mapping[str, Any], limit: float) -> dict[str, Any]:
    """Train and test a model in a process of its own; a row of the table."""
    arguments = [f"--model={model}", f"--dataset={dataset}", *as_arguments(settings)]
    arguments += ["--show_progress=False", "--topk=[10]", "--metrics=['NDCG']"]
    arguments += ["--valid_metric=NDCG@10"]
    command = [sys.executable, str(ROOT / "run_recbole.py"), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        try:
            ended = subprocess.run(
                command,
                cwd=folder,
                env=environment,
                timeout=limit,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
            )
            found = outcome(model, ended.returncode, ended.stdout, ended.stderr)
        except subprocess.TimeoutExpired:
            found = outcome(model, 1, "", f"not done after {limit:.0f} seconds")
    return {"seconds": round(time.perf_counter() - started, 1), **found}


def as_arguments(settings: Mapping[str, Any]) -> list[str]:
    """Return settings as they are written on a command line."""
    return [f"--{key}={value}".replace(" ", "") for key, value in settings.items()]


def outcome(model: str, code: int, output: str, errors: str) -> dict[str, Any]:
    """Read from what a run printed whether it passed, what was chosen, and its test NDCG@10."""
    everything = re.sub(r"\x1b\[[0-9;]*m", "", output + "\n" + errors)
    chosen = re.search(rf"Chosen for {re.escape(model)}: (.+)", everything)
    found = METRIC.search(output)
    passes = code == 0 and found is not None
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    reason = lines[-1] if lines else f"exit code {code}"
    return {
        "passes": passes,
        "chosen": chosen[1].strip() if chosen else "",
        "ndcg": found[2] if passes and found else None,
        # Without the folders of the machine it ran on.
        "reason": "" if passes else re.sub(r"(?<=\s)/\S*/", "", reason.removeprefix("error: ")),
    }


def rows_to_run(
    wanted: Sequence[tuple[str, str]], known: Mapping[str, Any], again: Sequence[str]
) -> Iterator[tuple[str, str]]:
    """Yield family and model of what has no result yet, or is to run again."""
    for family, model in wanted:
        if model not in known or model in again:
            yield family, model


def table(results: Mapping[str, Mapping[str, Any]], family: str) -> str:
    """Return a family's rows as a table of Markdown."""
    lines = ["| model | test NDCG@10 | seconds | passes | chosen for it | paper |"]
    lines += ["|---|---|---|---|---|---|"]
    for model, row in results.items():
        if row["family"] == family:
            cells = [
                model,
                row["ndcg"] or "",
                f"{row['seconds']:.0f}",
                "yes" if row["passes"] else f"no: {row['reason']}",
                row["chosen"],
                row["paper"],
            ]
            safe = (str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells)
            lines.append("| " + " | ".join(safe) + " |")
    return "\n".join(lines) + "\n"


def page(content: Mapping[str, Any]) -> str:
    """Return ``docs/baselines.md``."""
    results = content["results"]
    settings = " ".join(as_arguments(content["settings"]))
    counts = {
        family: (
            sum(row["passes"] for row in results.values() if row["family"] == family),
            sum(row["family"] == family for row in results.values()),
        )
        for family in FAMILIES
    }
    parts = [
        "# The models of RecBole\n\n",
        "RecBole's sequential and general models run by\n"
        "`python run_recbole.py --model=NAME --dataset=DATASET`, on the split, the candidates and "
        "the metrics that M3Rec has;\nthe tables say which do not, and why.\n"
        "What a model needs is chosen for it, and the log says what: negatives and labels by its "
        "loss, item features,\nstages of training.\n\n"
        f"One short epoch of each on `{content['dataset']}`, with `{settings}`: the numbers show "
        "that a model runs, not how good it\nis. Made by `python benchmarks/zoo.py`, which runs "
        "each in a process of its own.\nHistory items are candidates (`mask_seen: False`), so that "
        "a model that ranks a user's own items first,\nas RepeatNet and NCEPLRec do, finds nothing "
        "new in ten places.\n",
        *(
            f"{model} keeps its own {' and '.join(f'`{key}`' for key in keys)}.\n"
            for model, keys in LEFT_OUT.items()
            if model in results
        ),
    ]
    for family in FAMILIES:
        passing, total = counts[family]
        parts.append(f"\n## {family.capitalize()} models: {passing} of {total} pass\n\n")
        parts.append(table(results, family))
    return "".join(parts)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what has no result yet, then write the page; 0 when every model has a result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", default="ml-100k")
    parser.add_argument("--limit", type=float, default=600, help="seconds for each model (600)")
    parser.add_argument("--models", nargs="+", help="run these alone (all)")
    parser.add_argument("--again", nargs="+", default=[], help="run these though they have results")
    results_file = ROOT / "docs" / "baselines" / "ml-100k.json"
    parser.add_argument("--results", type=Path, default=results_file, help="where results are kept")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "baselines.md")
    options = parser.parse_args(arguments)
    content: dict[str, Any] = {"dataset": options.dataset, "settings": SETTINGS, "results": {}}
    if options.results.is_file():
        content["results"] = json.loads(options.results.read_text(encoding="utf-8"))["results"]
    every = {
        (family, name): module for family in FAMILIES for name, module in models(family).items()
    }
    wanted = [key for key in every if not options.models or key[1] in options.models]
    todo = list(rows_to_run(wanted, content["results"], options.again))
    with tqdm(todo, unit="model") as progress:
        for family, model in progress:
            progress.set_description(model)
            settings = {k: v for k, v in SETTINGS.items() if k not in LEFT_OUT.get(model, ())}
            row = run(model, options.dataset, settings, options.limit)
            row |= {"family": family, "paper": paper(every[family, model])}
            content["results"][model] = row
            if not row["passes"]:
                progress.write(f"{model}: {row['reason']}")
            order = [name for _, name in every if name in content["results"]]
            content["results"] = {name: content["results"][name] for name in order}
            options.results.parent.mkdir(parents=True, exist_ok=True)
            options.results.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    options.page.write_text(page(content), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
