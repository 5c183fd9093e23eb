"""Sparse updates of the ID vectors: only a step's items move, and a run resumes to the last bit."""

import os
import signal

import pytest
import torch
from torch import nn

from recbole_m3rec.config.yaml_files import ConfigurationError
from recbole_m3rec.network.settings import ModelConfigError
from recbole_m3rec.trainer.learning_rate import Schedule
from recbole_m3rec.trainer.progress import Progress
from recbole_m3rec.trainer.sparse_updates import DenseAndSparse, untouched_zeros
from tests.trainer.killed_runs import Trial, arguments, outcome, start, wait
from tests.trainer.test_resume import at_call

FEW = {"softmax_items": 2, "id_updates": "sparse", "train_batch_size": 2}


@pytest.fixture
def build(new_trainer):
    """Return a function from configuration keys to (trainer, training loader)."""

    return lambda name="M3Rec", **keys: new_trainer(name, **{**FEW, **keys})[:2]


def table_of(model):
    embedding = model.network.item_embedding
    weight = getattr(embedding, "id", embedding).weight
    return weight


@pytest.mark.parametrize("name", ["M3Rec", "Mamba4Rec", "SASRecMM"])
@pytest.mark.parametrize("loss", ["CE", "BPR"])
def test_a_step_moves_the_ids_of_its_items_alone_and_all_other_weights(build, name, loss):
    more = {"modalities": "auto"} if name == "Mamba4Rec" else {}
    if loss == "BPR":
        more["softmax_items"] = "all"
    trainer, train = build(name, loss_type=loss, **more)
    table = table_of(trainer.model)
    before, others = (
        table.detach().clone(),
        [p.detach().clone() for p in trainer.model.parameters()],
    )
    trainer.model.calculate_loss(next(iter(train))).backward()
    assert table.grad is not None
    assert table.grad.is_sparse
    touched = table.grad.coalesce().indices()[0].tolist()
    assert len(touched) < len(table)
    trainer.optimizer.step()
    moved = (table != before).any(1).nonzero()[:, 0].tolist()
    assert set(moved) <= set(touched)
    assert len(moved) >= 3
    changed = [
        not torch.equal(now, then)
        for now, then in zip(trainer.model.parameters(), others, strict=True)
        if now.grad is not None
    ]
    assert all(changed)


def test_where_every_row_has_a_gradient_lazy_adam_is_adam():
    torch.manual_seed(0)
    start_from = torch.randn(5, 3)
    tables = [nn.Embedding(5, 3, sparse=sparse) for sparse in (False, True)]
    for table in tables:
        table.weight.data.copy_(start_from)
    dense, sparse = (table.weight for table in tables)
    rest = [nn.Parameter(torch.zeros(1)) for _ in range(2)]
    both = DenseAndSparse(
        torch.optim.Adam([rest[1]], lr=0.1), torch.optim.SparseAdam([sparse], lr=0.1)
    )
    optimizers = [torch.optim.Adam([dense, rest[0]], lr=0.1), both]
    for _ in range(5):
        target = torch.randn(5, 3)
        for table, other, optimizer in zip(tables, rest, optimizers, strict=True):
            optimizer.zero_grad()
            (
                (table(torch.arange(5)) - target).square().sum() + (other - 1).square().sum()
            ).backward()
            optimizer.step()
    torch.testing.assert_close(sparse, dense)
    torch.testing.assert_close(*rest)


def test_a_schedule_sets_the_rate_of_both_before_and_after_a_checkpoint_is_read():
    weights = [nn.Parameter(torch.ones(2, 2)) for _ in range(2)]
    parts = torch.optim.AdamW([weights[0]], lr=1.0), torch.optim.SparseAdam([weights[1]], lr=1.0)
    both = DenseAndSparse(*parts)
    schedule = Schedule(both, 1.0, "linear", warmup=4, total=100)
    rates = []
    for _ in range(3):
        schedule.before()
        assert parts[0].param_groups[0]["lr"] == parts[1].param_groups[0]["lr"]
        rates.append(parts[1].param_groups[0]["lr"])
        both.load_state_dict(both.state_dict())
    assert 0 < rates[0] < rates[1] < rates[2] < 1


def test_untouched_zeros_are_zeros_that_can_be_written():
    like = torch.ones(3, 4, dtype=torch.float64)
    zeros = untouched_zeros(like)
    assert (zeros.shape, zeros.dtype) == (like.shape, like.dtype)
    assert not zeros.any()
    zeros[1] += 2
    assert zeros.sum() == 8


@pytest.mark.skipif(not hasattr(os, "fork"), reason="runs are forked")
@pytest.mark.parametrize("form", ["recbole", "safe"])
def test_a_run_that_is_stopped_and_resumed_ends_as_the_unbroken_one(tmp_path, form):
    if form == "safe":
        pytest.importorskip("safetensors")
    given = ["--softmax_items=2", "--id_updates=sparse", f"--checkpoint_format={form}"]
    trial = Trial(tmp_path, [])
    unbroken, broken = trial.place("unbroken"), trial.place("broken")
    assert wait(start(unbroken, arguments("M3Rec", *given))) == 0
    stop = at_call(Progress, "_add_loss", 9, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert wait(start(broken, arguments("M3Rec", *given), stop)) == 143
    assert wait(start(broken, arguments("M3Rec", *given, "--resume"))) == 0
    assert outcome(broken) == outcome(unbroken)


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"learner": "sgd"}, "learner: sgd, expected one of adam, adamw"),
        ({"weight_decay": 0.1}, "weight_decay: 0.1, which would move every item"),
        ({"clip_grad_norm": {"max_norm": 5}}, "clip_grad_norm"),
    ],
)
def test_settings_that_would_move_every_item_are_refused(build, keys, says):
    with pytest.raises(ConfigurationError, match=f"id_updates: sparse does not go with {says}"):
        build(**keys)


@pytest.mark.parametrize("softmax_items", ["all", 1000])
def test_an_exact_softmax_is_refused(build, softmax_items):
    with pytest.raises(ModelConfigError, match=f"softmax_items: {softmax_items} gives each of"):
        build(softmax_items=softmax_items)
