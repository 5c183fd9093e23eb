"""Two optimisers as one: lazy Adam for embeddings with sparse gradients, the learner for the rest.

Adam moves every row of a table in every step: one that has no gradient goes on along its old
moments, which decay. :class:`torch.optim.SparseAdam` is *lazy*: rows without a gradient, and their
moments, stay as they are. So a rare item keeps its moments until it is seen again, while the bias
correction counts all steps. A step then reads and writes the rows of its own items alone.

Several processes send each other the rows that they have gradients for (gloo), and make the same
step.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from recbole_m3rec.config.yaml_files import ConfigurationError

LEARNERS = ("adam", "adamw")


class DenseAndSparse(torch.optim.Optimizer):
    """One optimiser of the parameters with dense gradients, one of those with sparse ones.

    A learning rate that is set on ``param_groups`` holds for both; a checkpoint carries both.
    """

    def __init__(self, dense: torch.optim.Optimizer, sparse: torch.optim.Optimizer) -> None:
        self.parts = {"dense": dense, "sparse": sparse}
        super().__init__([*dense.param_groups, *sparse.param_groups], {})

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Make one step of each."""
        for part in self.parts.values():
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """Return the state of each by name."""
        return {name: part.state_dict() for name, part in self.parts.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over the state of each; the groups are theirs again."""
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
        self.param_groups = [group for part in self.parts.values() for group in part.param_groups]


def build_optimizer(dense: Callable[..., Any], trainer: Any) -> Any:
    """Return ``dense(params=...)`` beside an optimiser of its own for tables with sparse gradients.

    Without such tables it is ``dense()`` alone.
    """
    tables = sparse_parameters(trainer.model)
    if not tables:
        return dense()
    check(trainer.config)
    ours = {id(table) for table in tables}
    rest = [each for each in trainer.model.parameters() if id(each) not in ours]
    sparse = torch.optim.SparseAdam(tables, lr=trainer.learning_rate)
    for table in tables:
        moments = {name: untouched_zeros(table) for name in ("exp_avg", "exp_avg_sq")}
        sparse.state[table] = {"step": 0, **moments}
    return DenseAndSparse(dense(params=rest), sparse)


def sparse_parameters(model: nn.Module) -> list[Tensor]:
    """Return the tables of a model that ask for sparse gradients."""
    return [
        module.weight
        for module in model.modules()
        if isinstance(module, nn.Embedding) and module.sparse
    ]


def refuse_dense_parameters(learner: str, model: nn.Module) -> None:
    """Raise where ``sparse_adam``, which takes sparse gradients alone, would meet others."""
    if learner.lower() != "sparse_adam":
        return
    sparse = {id(table) for table in sparse_parameters(model)}
    others = [name for name, each in model.named_parameters() if id(each) not in sparse]
    if others:
        raise ConfigurationError(
            f"learner: {learner} moves tables with sparse gradients alone, and "
            f"{type(model).__name__} has other parameters, such as {others[0]}. Use adam or adamw."
        )


def check(config: Any) -> None:
    """Raise for settings under which rows cannot be updated alone."""
    wrong = None
    if config["learner"].lower() not in LEARNERS:
        wrong = f"learner: {config['learner']}, expected one of {', '.join(LEARNERS)}"
    elif config["weight_decay"]:
        wrong = f"weight_decay: {config['weight_decay']}, which would move every item: set it to 0"
    elif config["clip_grad_norm"]:
        wrong = "clip_grad_norm, which knows dense gradients alone: leave it out"
    elif not config["single_spec"] and config["device"].type == "cuda":
        wrong = "several GPUs, as NCCL adds up no sparse gradients: train on one, or on CPUs"
    if wrong:
        raise ConfigurationError(f"id_updates: sparse does not go with {wrong}.")


def untouched_zeros(like: Tensor) -> Tensor:
    """Return zeros that take memory, on a CPU, only where they are written."""
    if not like.is_cpu or not hasattr(mmap, "MAP_ANONYMOUS"):
        return torch.zeros_like(like)
    kind = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    pages = mmap.mmap(-1, like.numel() * like.element_size(), flags=kind)
    if hasattr(mmap, "MADV_NOHUGEPAGE"):  # one row would take 2 MiB
        pages.madvise(mmap.MADV_NOHUGEPAGE)
    return torch.frombuffer(pages, dtype=like.dtype).view(like.shape)
