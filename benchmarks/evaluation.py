"""Seconds of an evaluation of all users: M3Rec beside RecBole's SASRec with RecBole's evaluator.

python benchmarks/evaluation.py --dataset ml-100k
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from competitors import prepare
from measure import arguments, report, rows_against, take_turns
from recbole.utils import get_trainer

OURS = "M3Rec, ID + image + text"


def evaluation(model_name: str, dataset: str, **settings: Any) -> Callable[[], Any]:
    """A function that evaluates a model on the test data as a run does."""
    config, model, train, test = prepare(model_name, dataset, **settings)
    trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, model)
    trainer.eval_collector.data_collect(train)
    return lambda: trainer.evaluate(test, load_best_model=False, show_progress=False)


def main() -> None:
    parser = arguments(__doc__.splitlines()[0], rounds=7)
    parser.add_argument("--dataset", default="ml-100k", help="any prepared dataset")
    parser.add_argument("--models", default="SASRec,GRU4Rec", help="of RecBole")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    settings = {"gpu_id": ""} if args.device == "cpu" else {}
    competitors = {OURS: evaluation("M3Rec", args.dataset, **settings)}
    competitors["Mamba4Rec (ID alone)"] = evaluation("Mamba4Rec", args.dataset, **settings)
    for name in filter(None, args.models.split(",")):
        competitors[f"RecBole's {name}"] = evaluation(name, args.dataset, **settings)
    seconds = take_turns(competitors, args.rounds, args.device)
    title = f"Evaluation of all users of {args.dataset}, {args.threads} threads"
    report(title, rows_against(OURS, seconds), args, seconds=seconds)


if __name__ == "__main__":
    main()
