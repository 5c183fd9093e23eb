"""AdamW makes its step in one kernel, the same step; a run goes on as it began."""

import copy

import pytest
import torch


@pytest.fixture
def build(new_trainer):
    """Return a function from a learner to (trainer, a batch)."""

    def made(learner):
        trainer, train, *_ = new_trainer("M3Rec", learner=learner, weight_decay=0.1)
        return trainer, next(iter(train))

    return made


def test_a_step_in_one_kernel_is_that_of_torchs_loop(
    build,
):
    trainer, batch = build("adamw")
    assert all(group["fused"] for group in trainer.optimizer.param_groups)
    trainer.model.calculate_loss(batch).backward()
    before = [p.detach().clone() for p in trainer.model.parameters()]
    other = copy.deepcopy(trainer.model)
    for theirs, ours in zip(other.parameters(), trainer.model.parameters(), strict=True):
        theirs.grad = ours.grad
    loop = torch.optim.AdamW(
        other.parameters(), lr=trainer.learning_rate, weight_decay=0.1, foreach=False
    )
    for _ in range(3):
        trainer.optimizer.step()
        loop.step()
    for ours, theirs, start in zip(
        trainer.model.parameters(), other.parameters(), before, strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
        assert not torch.equal(ours, start)


def test_adam_is_torchs_loop_as_recbole_builds_it(build):
    trainer, _ = build("adam")
    assert not any(group["fused"] for group in trainer.optimizer.param_groups)


def test_a_run_that_began_in_torchs_loop_goes_on_in_it(
    build,
):
    trainer, batch = build("adamw")
    trainer.model.calculate_loss(batch).backward()
    earlier = torch.optim.AdamW(trainer.model.parameters(), lr=0.01)
    earlier.step()
    trainer.optimizer.load_state_dict(earlier.state_dict())
    assert not any(group["fused"] for group in trainer.optimizer.param_groups)
    trainer.optimizer.step()
