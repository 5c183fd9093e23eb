"""How a step and an evaluation grow with items, tokens and width: measured, fitted, predicted.

    python benchmarks/scaling.py items                 # ten million items beside 100,000
    python benchmarks/scaling.py fit                   # a cost model, and a run 4 times larger

Items are generated; their features, 512 and 768 columns of float16, lie in sparse files that are
mapped, so that reading a row costs no disk. Every case runs in a fresh process. Seconds are those
of the processor; memory is the peak of resident memory (VmHWM) of the process, libraries included.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from competitors import CODES, configure, made_up_batches, made_up_dataset
from growth import LONGEST, spreads
from measure import arguments, report
from recbole.utils import get_model, get_trainer, init_seed
from scipy.optimize import nnls

from recbole_m3rec.data.windows import TARGET_LIST
from recbole_m3rec.evaluator.ranking import rank_targets
from recbole_m3rec.features.align import ItemFeatures
from recbole_m3rec.features.feature_map import FeatureMap

GIGABYTE = 1e9
COLUMNS = sum(code["dim"] for code in CODES.values())
N_TOP = 20
CACHED_ITEMS = 2**14


class Case(NamedTuple):
    """One run: items, targets a batch, width ``H``, items drawn for the softmax.

    Every position of a history has its target, as ``train_positions: all`` makes them.
    """

    items: int
    targets: int
    width: int
    drawn: int = 2048


TEN_MILLION = [Case(n, 2048, width) for width in (64, 128) for n in (100_000, 10_000_000)]
FITTED = [
    *(Case(items, 2048, 64) for items in (20_000, 50_000, 100_000, 250_000)),
    *(Case(100_000, targets, 64) for targets in (512, 1024, 4096)),
    *(Case(items, 4096, 32) for items in (50_000, 250_000)),
    *(Case(100_000, targets, 32) for targets in (1024, 2048)),
    *(Case(50_000, 2048, 64, drawn) for drawn in (512, 8192)),
]
LARGER = Case(1_000_000, 16_384, 64)  # four times the items and the targets of any fitted
VAST = Case(100_000_000, 2048, 64)


# One case, in a process of its own


def measured(case: Case, rounds: int, evaluates: bool) -> dict[str, float]:
    """Train and evaluate on generated items in this process."""
    with tempfile.TemporaryDirectory() as folder:
        trainer, batches = build(case, Path(folder))
        found = {**case._asdict(), **counts(case, next(batches))}
        forget_peak()
        found["step, s"] = fastest(training_step(trainer, batches), rounds)
        found["step, bytes"] = peak()
        if evaluates:
            model, trainer = trainer.model.eval(), None
            forget_peak()
            found["evaluation, s"] = fastest(lambda: evaluate(model, next(batches)), rounds // 3)
            found["evaluation, bytes"] = peak()
        return found


def build(case: Case, folder: Path) -> tuple[Any, Iterator[Any]]:
    """A trainer as a run makes it, with its model, and batches of random histories."""
    config = configure(
        *("M3Rec", "ml-100k"),
        **{"gpu_id": "", "MAX_ITEM_LIST_LENGTH": LONGEST, "hidden_size": case.width},
        **{"softmax_items": case.drawn, "id_updates": "sparse", "id_init": "normal"},
    )
    init_seed(config["seed"], config["reproducibility"])
    features = {}
    for name, code in CODES.items():
        path, shape = folder / f"{name}.values", (case.items, code["dim"])
        np.memmap(path, np.float16, "w+", shape=shape)  # a file without blocks on the disk
        array = np.memmap(path, np.float16, "c", shape=shape)
        values, rows = torch.from_numpy(array), FeatureMap(path, array)
        present = torch.ones(case.items, dtype=torch.bool)
        features[name] = ItemFeatures(name, values, present, "generated", name, rows)
    model = get_model("M3Rec")(config, made_up_dataset(case.items, features))
    trainer = get_trainer(config["MODEL_TYPE"], "M3Rec")(config, model)
    return trainer, with_all_targets(case)


def with_all_targets(case: Case) -> Iterator[Any]:
    """Random histories of about 8 items, with as many random targets as they have items."""
    lengths = spreads(case.targets, LONGEST)["geometric, mean about 8"]
    lengths = lengths[: int(np.searchsorted(lengths.cumsum(), case.targets)) + 1]
    lengths[-1] -= lengths.sum() - case.targets
    targets = made_up_batches(case.items, lengths, LONGEST)
    next(targets)  # so that they are no histories
    for batch in made_up_batches(case.items, lengths, LONGEST):
        batch.interaction[TARGET_LIST] = next(targets)["item_id_list"]
        yield batch


def counts(case: Case, batch: Any) -> dict[str, int]:
    """Histories, candidates of the softmax and projected items of a batch."""
    read, asked = batch["item_id_list"].unique(), batch[TARGET_LIST].unique()
    candidates = len(asked) + case.drawn
    rows = len(torch.cat([read, asked]).unique()) + case.drawn
    return {"histories": len(batch), "candidates": candidates, "rows": rows}


def training_step(trainer: Any, batches: Iterator[Any]) -> Callable[[], None]:
    trainer.model.train()

    def step() -> None:
        trainer.optimizer.zero_grad()
        trainer.model.calculate_loss(next(batches)).backward()
        trainer.optimizer.step()

    return step


@torch.no_grad()
def evaluate(model: Any, batch: Any) -> None:
    """Rank a target for each of a batch's users among all items, as evaluation does."""
    users = torch.arange(len(batch["item_id"]))
    with model.cached_items():
        queries, terms = model.queries(batch), model.score_terms(batch)
        table = model.item_table()
        rank_targets(queries, table, users, batch["item_id"], n_top=N_TOP, terms=terms)


def fastest(run: Callable[[], None], rounds: int) -> float:
    """Processor seconds of the fastest of some rounds, after one that is not counted.

    Others may use the machine: what they take is no cost of the run.
    """
    seconds = []
    for _ in range(rounds + 1):
        started = time.process_time()
        run()
        seconds.append(time.process_time() - started)
    return min(seconds[1:])


def forget_peak() -> None:
    """Let the kernel count the peak of resident memory anew."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak() -> float:
    """Bytes of resident memory at its peak, VmHWM."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024.0 * int(status.split("VmHWM:")[1].split()[0])


def in_a_process(case: Case, args: Any, evaluates: bool = True) -> dict[str, float]:
    """Measure a case in a fresh process."""
    command = [sys.executable, __file__, "case", "--case", json.dumps(case)]
    command += ["--threads", str(args.threads), "--rounds", str(args.rounds)]
    command += [] if evaluates else ["--step_only"]
    child = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    found: dict[str, float] = json.loads(child.stdout.splitlines()[-1])
    print(found, file=sys.stderr)
    return found


# The cost model


def parts_of_step(c: dict[str, float]) -> dict[str, float]:
    """What the seconds of a step are proportional to."""
    return {
        "step": 1,
        "token x width": c["targets"] * c["width"],
        "token x width^2": c["targets"] * c["width"] ** 2,
        "projected item x width x column": c["rows"] * c["width"] * COLUMNS,
        "target x candidate x width": c["targets"] * c["candidates"] * 3 * c["width"],
        "target x candidate": c["targets"] * c["candidates"],
        # A larger table is less often in a processor's caches.
        "row x log2(items in no cache)": c["rows"] * math.log2(c["items"] / CACHED_ITEMS),
    }


def parts_of_evaluation(c: dict[str, float]) -> dict[str, float]:
    """What the seconds of evaluating a batch of users are proportional to."""
    return {
        "batch": 1,
        "token x width^2": c["targets"] * c["width"] ** 2,
        "item x width x column": c["items"] * c["width"] * COLUMNS,
        "user x item x width": c["histories"] * c["items"] * 3 * c["width"],
        "user x item": c["histories"] * c["items"],
    }


def parts_of_step_memory(c: dict[str, float]) -> dict[str, float]:
    """What the peak bytes of a step are proportional to."""
    return {
        "process": 1,
        "item": c["items"],
        "item x width": c["items"] * c["width"],
        "token x width": c["targets"] * c["width"],
        "projected item x column": c["rows"] * COLUMNS,
    }


def parts_of_evaluation_memory(c: dict[str, float]) -> dict[str, float]:
    """What the peak bytes of an evaluation are proportional to."""
    return {
        "process": 1,
        "item": c["items"],
        "item x width": c["items"] * c["width"],
        "token x width": c["targets"] * c["width"],
    }


MODELS = {
    "step, s": parts_of_step,
    "evaluation, s": parts_of_evaluation,
    "step, bytes": parts_of_step_memory,
    "evaluation, bytes": parts_of_evaluation_memory,
}


def fit(what: str, cases: list[dict[str, float]]) -> dict[str, float]:
    """Non-negative costs of each part, by least squares of relative errors."""
    parts = [MODELS[what](case) for case in cases]
    matrix = np.array([[*part.values()] for part in parts])
    weights = 1 / np.array([case[what] for case in cases])
    scale = matrix.max(axis=0)
    costs, _ = nnls((matrix / scale) * weights[:, None], np.ones(len(cases)))
    return dict(zip(parts[0], (costs / scale).tolist(), strict=True))


def predict(what: str, costs: dict[str, float], case: dict[str, float]) -> float:
    """What a case costs: seconds or bytes."""
    return sum(costs[name] * size for name, size in MODELS[what](case).items())


# The commands


def show_items(args: Any) -> None:
    rows, of_few = [], 0.0
    for case in TEN_MILLION:
        found = in_a_process(case, args, evaluates=False)
        if case.items == TEN_MILLION[0].items:
            of_few = found["step, s"]
        rows.append(
            {
                "items": f"{case.items:,}",
                "width": case.width,
                "step, ms": 1e3 * found["step, s"],
                "against fewest items": found["step, s"] / of_few,
                "resident memory, GB": found["step, bytes"] / GIGABYTE,
            }
        )
    title = f"A training step of {TEN_MILLION[0].targets} targets, softmax_items 2048"
    report(f"{title}, features of {COLUMNS} columns, {args.threads} threads", rows, args)


def show_fit(args: Any) -> None:
    if args.cases:
        *cases, larger = json.loads(args.cases.read_text(encoding="utf-8"))["cases"]
    else:
        *cases, larger = [in_a_process(case, args) for case in (*FITTED, LARGER)]
    costs = {what: fit(what, cases) for what in MODELS}
    rows = []
    for what, of_parts in costs.items():
        unit = GIGABYTE if "bytes" in what else 1.0
        predicted = predict(what, of_parts, larger)
        errors = [abs(predict(what, of_parts, case) / case[what] - 1) for case in cases]
        rows.append(
            {
                "what": what.replace("bytes", "GB"),
                "largest error of the fitted": f"{max(errors):.0%}",
                "predicted": predicted / unit,
                "measured": larger[what] / unit,
                "error": f"{predicted / larger[what] - 1:+.0%}",
            }
        )
    size = f"{LARGER.items:,} items, {LARGER.targets:,} targets"
    report(
        f"{size}: 4 times the largest that was fitted, {args.threads} threads",
        *(rows, args),
        costs=costs,
        cases=[*cases, larger],
    )
    vast = {**VAST._asdict(), "histories": VAST.targets / 8.75}  # items of a mean history
    vast |= {"candidates": VAST.targets + VAST.drawn, "rows": 2 * VAST.targets + VAST.drawn}
    print(f"\nPredicted of {VAST.items:,} items, {VAST.targets:,} targets, by part")
    for what, of_parts in costs.items():
        print(f"{what}: {predict(what, of_parts, vast):,.4g}")
        for name, size in MODELS[what](vast).items():
            print(f"    {of_parts[name] * size:,.3g} {name}")


def main() -> None:
    parser = arguments((__doc__ or "").splitlines()[0], rounds=6)
    parser.add_argument("what", choices=["items", "fit", "case"])
    parser.add_argument("--cases", type=Path, help="take what a --json file of fit measured")
    parser.add_argument("--case", type=json.loads, help="(for the processes it starts)")
    parser.add_argument("--step_only", action="store_true", help="(likewise) no evaluation")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.what == "case":
        print(json.dumps(measured(Case(*args.case), args.rounds, not args.step_only)))
    elif args.what == "items":
        show_items(args)
    else:
        show_fit(args)


if __name__ == "__main__":
    main()
