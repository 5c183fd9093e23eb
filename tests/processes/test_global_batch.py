"""``train_batch_size`` is the batch of all processes: a step of several is the step of one."""

import os

import pytest
import torch

from tests.processes.worlds import losses_of, parameters_of, run_world
from tests.tiny import write_tiny
from tests.trainer.killed_runs import MODELS, SHARED

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="runs are forked"),
    pytest.mark.slow,
]

ONE_EPOCH = [*(each for each in SHARED if "epochs" not in each and "batch" not in each)]
SMALL = ["--hidden_size=8", "--epochs=1"]
M3REC = ["--model=M3Rec", "--d_state=4", "--modalities=[]", *SMALL]
SASREC = ["--model=SASRec", "--inner_size=8", "--n_heads=2", "--attn_dropout_prob=0.0", *SMALL]

SASRECMM = ["--model=SASRecMM", *SASREC[1:], "--hidden_dropout_prob=0.0", "--modalities=[]"]

SHARDED = ["--shard_softmax=True", "--train_positions=last", "--cold_items=0.2"]


def world(folder, given, size, **options):
    """Run a world in a new folder with the data set and return its latest state."""
    write_tiny(folder)
    codes = run_world(folder, [*ONE_EPOCH, *given], size, **options)
    assert codes == [0] * size, (folder / "output.txt").read_text()[-3000:]
    [last] = (folder / "saved").glob("*-last.ckpt")
    return last


@pytest.mark.parametrize(
    "given",
    [
        [*M3REC, "--dropout_prob=0.0", "--train_positions=all", "--train_batch_size=999"],
        [*M3REC, "--dropout_prob=0.0", "--train_positions=last", "--train_batch_size=37"],
        [*SASREC, "--hidden_dropout_prob=0.0", "--train_batch_size=999"],
        [*M3REC, "--dropout_prob=0.0", "--train_batch_size=37", "--repetition=True", *SHARDED],
        [*SASRECMM, "--train_batch_size=999", *SHARDED],
    ],
    ids=["M3Rec-all", "M3Rec-last", "SASRec", "M3Rec-sharded-cold", "SASRecMM-sharded-cold"],
)
def test_a_step_of_2_and_4_processes_is_the_step_of_one(tmp_path, given):
    alone = parameters_of(world(tmp_path / "1", given, 1))
    losses = losses_of(tmp_path / "1")
    for size in (2, 4) if given[0] == "--model=M3Rec" else (4,):
        together = parameters_of(world(tmp_path / str(size), given, size))
        assert losses_of(tmp_path / str(size)) == pytest.approx(losses, abs=1e-5)
        for name, value in alone.items():
            torch.testing.assert_close(together[name], value, rtol=0, atol=1e-5, msg=name)


def test_two_machines_of_one_process_give_the_numbers_of_one_machine_of_two(tmp_path):
    given = [*M3REC, "--dropout_prob=0.3", "--train_batch_size=16", "--train_positions=all"]
    here = world(tmp_path / "here", given, 2)
    far = world(tmp_path / "far", given, 2, local_world_size=1)  # both first on a shared disk
    assert losses_of(tmp_path / "here") == losses_of(tmp_path / "far")
    for name, value in parameters_of(here).items():
        assert torch.equal(value, parameters_of(far)[name]), name


def test_machines_that_share_no_disk_each_keep_a_checkpoint(tmp_path):
    places = [write_tiny(tmp_path / name) for name in "ab"]
    given = [*ONE_EPOCH, "--model=BPR", *MODELS["BPR"], "--epochs=1", "--train_batch_size=16"]
    assert run_world(places, given, 2, local_world_size=1) == [0, 0]
    a, b = ([*(place / "saved").glob("*-last.ckpt")] for place in places)
    assert [path.name for path in a] == [path.name for path in b]
    assert torch.equal(*(parameters_of(p[0])["user_embedding.weight"] for p in (a, b)))


SPARSE = ["--id_updates=sparse", "--dropout_prob=0.0", "--learner=adam", "--weight_decay=0"]


def same_negatives(rank):
    """Let every target have the same negative in all worlds."""
    from recbole_m3rec.network.m3rec import M3RecNetwork

    bpr = M3RecNetwork.bpr

    def fixed(self, packed, targets, negatives, scored=None):
        return bpr(self, packed, targets, targets % (self.n_items - 1) + 1, scored)

    M3RecNetwork.bpr = fixed


def test_sparse_steps_of_2_and_4_processes_are_those_of_one(tmp_path):
    given = [*M3REC, *SPARSE, "--loss_type=BPR", "--train_batch_size=30"]
    one, two, four = (
        parameters_of(world(tmp_path / str(size), given, size, prepare=same_negatives))
        for size in (1, 2, 4)
    )
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=0, atol=1e-5, msg=name)
        torch.testing.assert_close(four[name], value, rtol=0, atol=1e-5, msg=name)


def test_processes_that_draw_other_items_make_the_same_sparse_step(tmp_path):
    places = [write_tiny(tmp_path / name) for name in "ab"]
    given = [*ONE_EPOCH, *M3REC, *SPARSE, "--softmax_items=2", "--train_batch_size=8"]
    assert run_world(places, given, 2, local_world_size=1) == [0, 0]
    a, b = (parameters_of(*(place / "saved").glob("*-last.ckpt")) for place in places)
    for name, value in a.items():
        assert torch.equal(value, b[name]), name
