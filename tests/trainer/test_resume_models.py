"""Every model with settings of its own resumes exactly; runs in one folder do not meet."""

import os

import pytest

from recbole_m3rec.config.layers import properties_folder
from recbole_m3rec.trainer.progress import Progress
from tests.tiny import small, write_tiny
from tests.trainer.killed_runs import (
    SHARED,
    arguments,
    digests,
    outcome,
    start,
    wait,
)
from tests.trainer.test_resume import at_call, output

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="runs are forked"),
    pytest.mark.slow,
]

MODELS = sorted(path.stem for path in (properties_folder() / "model").glob("*.yaml"))
KEPT = ("hidden_size", "embedding_size", "inner_size", "n_heads", "num_layers", "d_state")
KEPT += ("features",)
MORE = {
    "GRU4Rec": ["--num_layers=1"],
    "S3Rec": ["--pretrain_epochs=2", "--save_step=1", "--item_attribute=kind"]
    + ["--load_col={inter: [user_id, item_id, timestamp], item: [item_id, kind]}"],
}


def given(model):
    """Return the arguments of a small run."""
    settings = small(model)
    own = [f"--{key}={settings[key]}" for key in KEPT if key in settings]
    return [
        f"--model={model}",
        *(each for each in SHARED if "epochs" not in each),
        "--epochs=3",
        f"--modalities={settings.get('modalities', [])}",
        *own,
        *MORE.get(model, []),
    ]


def place(folder, name):
    """Return a new folder with a data set and attributes of its items."""
    write_tiny(folder / name)
    lines = ["item_id:token\tkind:token", *(f"i{n:02d}\tk{n % 3}" for n in range(12))]
    (folder / name / "dataset/tiny/tiny.item").write_text("\n".join(lines) + "\n")
    return folder / name


@pytest.mark.parametrize("model", MODELS)
def test_a_run_killed_within_an_epoch_ends_as_the_unbroken_one(model, tmp_path):
    whole, broken = place(tmp_path, "whole"), place(tmp_path, "broken")
    assert wait(start(whole, given(model))) == 0, output(whole)
    call = 1 if model == "ContentKNN" else 10
    more = ["--checkpoint_minutes=0.00001"]
    stop = at_call(Progress, "_add_loss", call, lambda: os.kill(os.getpid(), 9))
    assert wait(start(broken, [*given(model), *more], stop)) == -9, output(broken)
    resume = ["--resume"] if list((broken / "saved").glob("*-last.ckpt")) else []
    assert resume or model == "ContentKNN"
    assert wait(start(broken, [*given(model), *resume])) == 0, output(broken)
    assert outcome(broken) == outcome(whole)


def test_two_runs_in_one_folder_end_as_each_alone(tmp_path):
    caches = ["--save_dataset=True", "--save_dataloaders=True"]
    runs = [arguments("M3Rec", *caches, f"--seed={seed}") for seed in (1, 2)]
    alone = []
    for number, run in enumerate(runs):
        folder = place(tmp_path, str(number))
        assert wait(start(folder, run)) == 0, output(folder)
        alone.append(outcome(folder)[1:])
    together = place(tmp_path, "together")
    processes = [start(together, run) for run in (*runs, *runs)]
    assert [wait(process) for process in processes] == [0] * 4, output(together)
    saved = together / "saved"
    pairs = [
        digests(saved / path.name.replace("-last.ckpt", ".pth"), path)
        for path in saved.glob("*-last.ckpt")
    ]
    assert sorted(pairs) == sorted([*alone, *alone])
    assert not [*saved.glob(".*")]
