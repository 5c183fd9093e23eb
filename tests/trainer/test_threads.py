"""RecBole's own models, too, give the same weights again with several threads, also resumed."""

import os
import random
from pathlib import Path

import pytest
import torch

from recbole_m3rec.trainer.progress import Progress
from tests.fresh_python import fresh_python
from tests.trainer.killed_runs import outcome, start, wait
from tests.trainer.test_resume import at_call, output

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="runs are forked"),
    pytest.mark.slow,
]

GIVEN = [
    *("--dataset=made", "--data_path=dataset", "--epochs=2", "--show_progress=False", "--gpu_id="),
    *(
        "--train_batch_size=2048",
        "--metric_decimal_place=12",
        "--checkpoint_minutes=0.00001",
    ),
]


def place(folder, name):
    """Return a new folder with 150 users, whose gradients are long enough for two threads."""
    chance = random.Random(1)
    lines = ["user_id:token\titem_id:token\ttimestamp:float"]
    for user in range(150):
        items = chance.sample(range(400), 30)
        lines += [f"u{user}\ti{item}\t{step}" for step, item in enumerate(items)]
    data = folder / name / "dataset" / "made"
    data.mkdir(parents=True)
    (data / "made.inter").write_text("\n".join(lines) + "\n")
    return folder / name


def test_two_threads_give_the_same_bits_again_and_after_a_kill(tmp_path):
    """In a process that has had no threads yet: what is forked from one that has would hang."""
    fresh_python(
        f"from tests.trainer.test_threads import compare\ncompare('LightGCN', {str(tmp_path)!r})"
    )


def compare(model, folder):
    """Fork two runs with two threads and one that is killed and resumed; all must end alike."""

    def two_threads(then=lambda: None):
        return lambda: (torch.set_num_threads(2), then())

    given = [f"--model={model}", *GIVEN]
    made = Path(folder, model)
    whole, again, broken = (place(made, name) for name in ("whole", "again", "broken"))
    for folder in (whole, again):
        assert wait(start(folder, given, two_threads())) == 0, output(folder)
    kill = at_call(Progress, "_add_loss", 3, lambda: os.kill(os.getpid(), 9))
    assert wait(start(broken, given, two_threads(kill))) == -9, output(broken)
    assert wait(start(broken, [*given, "--resume"], two_threads())) == 0, output(broken)
    assert outcome(again) == outcome(whole)
    assert outcome(broken) == outcome(whole)
