"""Train a model, then test its best epoch under every protocol; results go to a CSV file.

    python benchmarks/quality.py --dataset beauty --seeds 2024 2025 2026 --modalities=[text]
    python benchmarks/quality.py --model Mamba4Rec --dataset beauty --row "IDs alone"

Validation chooses the epoch; the test is scored once. What the file has already under the name of
the row is not trained again. Settings are written --key=value, as for run_recbole.py.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from recbole_m3rec.cli.commands import run_script  # registers the models, too
from recbole_m3rec.config.yaml_files import ConfigurationError

MEASURED = ("hit@10", "ndcg@10", "hit@20")
COLUMNS = (
    *("row", "model", "dataset", "seed", "settings", "protocol", "split", *MEASURED),
    *("best_epoch", "epochs", "seconds", "threads", "torch"),
)
PROTOCOLS = {"U": False, "M": True}  # history items stay candidates, or do not


def train(model: str, dataset: str, seed: int, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Train once and return a result for each split and protocol."""
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.utils import get_model, get_trainer, init_logger, init_seed

    sys.argv = sys.argv[:1]  # RecBole reads the command line too
    config = Config(model=model, dataset=dataset, config_dict={**settings, "seed": seed})
    measured = {f"{m}@{k}".lower() for m in config["metrics"] for k in config["topk"]}
    if not set(MEASURED) <= measured or not 0 < config["eval_step"] <= config["epochs"]:
        raise ConfigurationError(
            f"metrics and topk must give {', '.join(MEASURED)}, and eval_step and epochs a "
            f"validation; found {config['metrics']}, {config['topk']}, {config['eval_step']}, "
            f"{config['epochs']}."
        )
    init_seed(config["seed"], config["reproducibility"])
    init_logger(config)
    train_data, valid_data, test_data = data_preparation(config, create_dataset(config))
    init_seed(config["seed"], config["reproducibility"])
    network = get_model(config["model"])(config, train_data._dataset).to(config["device"])
    trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, network)
    epochs: list[float] = []
    started = time.time()
    trainer.fit(
        train_data,
        valid_data,
        show_progress=config["show_progress"],
        callback_fn=lambda _, score: epochs.append(score),
    )
    seconds = time.time() - started
    best = max(range(len(epochs)), key=epochs.__getitem__)
    results = []
    for protocol, mask_seen in PROTOCOLS.items():
        config["mask_seen"] = mask_seen
        _, valid_data, test_data = data_preparation(config, create_dataset(config))
        for split, loader in (("valid", valid_data), ("test", test_data)):
            found = trainer.evaluate(loader, load_best_model=True, show_progress=False)
            values = {key: found[key] for key in MEASURED}
            results.append({"protocol": protocol, "split": split, **values})
    run = {"best_epoch": best + 1, "epochs": len(epochs), "seconds": round(seconds)}
    return [{**run, **result} for result in results]


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="M3Rec")
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--row", default="as shipped", help="what the file calls this row")
    parser.add_argument("--seeds", type=int, nargs="+", default=[2024])
    parser.add_argument("--output", type=Path, default=Path("quality.csv"))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options, rest = parser.parse_known_args(arguments)
    settings = {}
    for argument in rest:
        key, _, value = argument.removeprefix("--").partition("=")
        settings[key] = yaml.safe_load(value)
    torch.set_num_threads(options.threads)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    shared = {
        **{"row": options.row, "model": options.model, "dataset": options.dataset},
        **{
            "settings": json.dumps(settings, sort_keys=True),
            "threads": options.threads,
            "torch": torch.__version__,
        },
    }
    for seed in options.seeds:
        identity = {key: str(shared[key]) for key in ("row", "model", "dataset", "settings")}
        identity["seed"] = str(seed)
        if any(identity.items() <= row.items() for row in read(options.output)):
            print(f"{options.row}, seed {seed}: in {options.output} already")
            continue
        found = train(options.model, options.dataset, seed, settings)
        new = not options.output.exists()
        with options.output.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS)
            if new:
                writer.writeheader()
            writer.writerows({**shared, "seed": seed, **result} for result in found)


def read(path: Path) -> list[dict[str, str]]:
    """Return the rows of a results file, none where there is no file."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


if __name__ == "__main__":
    raise SystemExit(run_script(main))
