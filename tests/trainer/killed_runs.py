"""Runs of the command line in processes of their own, killed at moments that a seed decides.

Processes are forked from the test's, which has imported everything, so that a run takes less than a
second. ``python -m tests.trainer.killed_runs 100`` tries a hundred seeds and prints each.
"""

import hashlib
import json
import logging
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path

import numpy as np
import torch

from recbole_m3rec.cli import train
from recbole_m3rec.trainer import checkpoint_file
from tests import before_forks  # noqa: F401
from tests.tiny import write_tiny

SHARED = [
    *("--dataset=tiny", "--data_path=dataset", "--epochs=5", "--train_batch_size=16"),
    *("--MAX_ITEM_LIST_LENGTH=5", "--topk=[3,5]", "--valid_metric=NDCG@5", "--stopping_step=3"),
    *("--show_progress=False", "--gpu_id=", "--metric_decimal_place=12", "--learning_rate=0.02"),
]
MODELS = {
    "M3Rec": [
        *("--hidden_size=8", "--d_state=4", "--modalities=[]", "--dropout_prob=0.3"),
        *("--lr_scheduler=cosine", "--warmup_steps=3"),
    ],
    "SASRec": ["--hidden_size=8", "--inner_size=8", "--n_heads=2", "--loss_type=BPR"],
    "BPR": ["--embedding_size=8"],
    "MultiVAE": ["--latent_dimension=8", "--mlp_hidden_size=[8]"],
}
WAYS = ("time", "line", "terminate")


def arguments(model, *more):
    """Return a run's arguments."""
    return [f"--model={model}", *SHARED, *MODELS[model], *more]


def start(folder, given, prepare=lambda: None):
    """Start a run in a folder in a forked process and return its number."""
    process = os.fork()
    if process:
        return process
    code = 70
    try:
        os.setpgid(0, 0)
        os.chdir(folder)
        os.environ["XDG_STATE_HOME"] = str(folder / ".state")
        with open("output.txt", "a", encoding="utf-8") as output:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
        sys.stdout = open(1, "w", closefd=False, encoding="utf-8")  # noqa: SIM115
        sys.stderr = open(2, "w", closefd=False, encoding="utf-8")  # noqa: SIM115
        logging.getLogger().handlers.clear()  # RecBole logs where nobody else does
        sys.argv = ["run_recbole.py"]
        torch.set_num_threads(1)
        train.print_metrics = write_metrics
        prepare()
        code = train.main(given)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.settrace(None)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def write_metrics(results):
    """Write a run's metrics, to the last digit, beside its files."""
    Path("metrics.json").write_text(json.dumps(results, default=float), encoding="utf-8")


def wait(process):
    """Wait for a process and return its exit code, negative for the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def outcome(folder):
    """Return a run's metrics and the digests of the weights of its best and its latest state."""
    [last] = (folder / "saved").glob("*-last.ckpt")
    run = last.name.removesuffix("-last.ckpt")
    [best] = [path for path in (folder / "saved").glob(f"{run}.*") if path != last]
    metrics = (folder / "metrics.json").read_text(encoding="utf-8")
    return metrics, *digests(best, last)


def digests(best, last):
    """Return the digests of everything that two checkpoints hold of a training."""
    found = []
    for path in (best, last):
        content = checkpoint_file.load(path, map_location="cpu")
        progress = content["progress"]
        whole = [content["state_dict"], content["optimizer"], content["epoch"]]
        whole += [progress[key] for key in ("random", "train_loss", "model", "optimizers")]
        found.append(digest_of(whole))
    return found[0], found[1]


def digest_of(value):
    """Return a digest of every bit of a nested value with tensors and arrays."""
    if isinstance(value, torch.Tensor):
        value = value.numpy()
    if isinstance(value, np.ndarray):
        return hashlib.sha256(value.tobytes()).hexdigest()
    if isinstance(value, dict):
        value = sorted((repr(key), digest_of(part)) for key, part in value.items())
    elif isinstance(value, (list, tuple)):
        value = [digest_of(part) for part in value]
    return hashlib.sha256(repr(value).encode()).hexdigest()


def end_at_line(number):
    """Return what ends a process, at once, at its n-th line in the files that save."""

    def prepare():
        left = number

        def trace(frame, event, argument):
            nonlocal left
            if "recbole_m3rec" not in frame.f_code.co_filename:
                return None
            name = os.path.basename(frame.f_code.co_filename)
            if name not in ("safe_write.py", "progress.py", "resume.py", "checkpoint_file.py"):
                return None
            if event == "line":
                left -= 1
                if left == 0:
                    os._exit(9)
            return trace

        sys.settrace(trace)

    return prepare


def interrupt(seed, folder, seconds, lines):
    """Kill a run once or twice, resume it to its end, and return its model and how it went.

    Args:
        seed: decides model, options, ways and moments.
        folder: empty but for the data set.
        seconds: how long an unbroken run takes.
        lines: how many lines an unbroken run has in the files that save.
    """
    chance = random.Random(seed)
    model = list(MODELS)[seed % len(MODELS)]
    given = arguments(model)
    if chance.random() < 0.5:
        given.append("--checkpoint_minutes=0.00001")
    if chance.random() < 0.25:
        given.append("--checkpoint_format=safe")
    story = [model, *given[len(arguments(model)) :]]
    resume = []
    for _ in range(chance.choice((1, 1, 2))):
        way = chance.choice(WAYS)
        if way == "line":
            line = chance.randint(1, lines)
            story.append(f"line {line}")
            code = wait(start(folder, [*given, *resume], end_at_line(line)))
        else:
            moment = chance.uniform(0, seconds)
            process = start(folder, [*given, *resume])
            time.sleep(moment)
            number = signal.SIGKILL if way == "time" else signal.SIGTERM
            os.kill(process, number)
            code = wait(process)
            story.append(f"{number.name} {moment:.3f} s")
        story.append(f"exit {code}")
        saved = list((folder / "saved").glob("*-last.ckpt"))
        resume = ["--resume"] if saved else []
        if not saved:  # killed before anything was saved: what there is does not count
            for path in (folder / "saved").glob("*"):
                path.unlink()
    code = wait(start(folder, [*given, *resume]))
    story.append(f"{'resumed' if resume else 'begun anew'}, exit {code}")
    if code != 0:
        story.append((folder / "output.txt").read_text(encoding="utf-8")[-2000:])
    return model, ", ".join(story)


class Trial:
    """Unbroken runs of every model, and killed ones that are compared with them."""

    def __init__(self, folder, models=MODELS):
        self.folder = folder
        self.expected = {}
        self.seconds = 0.0
        for model in models:
            place = self.place(model)
            begun = time.monotonic()
            code = wait(start(place, arguments(model)))
            self.seconds = max(self.seconds, time.monotonic() - begun)
            assert code == 0, (place / "output.txt").read_text(encoding="utf-8")[-3000:]
            self.expected[model] = outcome(place)

    def place(self, name):
        """Return a new folder with the data set."""
        return write_tiny(self.folder / name)

    def differs(self, seed):
        """Return how a seed's run went where it ended otherwise than the unbroken one."""
        place = self.place(str(seed))
        model, self.story = interrupt(seed, place, self.seconds, lines=4000)
        try:
            found = outcome(place)
        except (ValueError, OSError) as error:
            return f"seed {seed}: {self.story}: {error}"
        equal = [a == b for a, b in zip(found, self.expected[model], strict=True)]
        return None if all(equal) else f"seed {seed}: {self.story}: {equal}"


def main():
    """Try seeds 0, 1, … and print how each went."""
    import tempfile

    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        trial = Trial(Path(folder))
        for seed in range(*map(int, sys.argv[1:])):
            wrong = trial.differs(seed)
            failures += wrong is not None
            print(wrong or f"seed {seed}: {trial.story}: equal", flush=True)
    print(f"{failures} differ")
    return failures


if __name__ == "__main__":
    sys.exit(main())
