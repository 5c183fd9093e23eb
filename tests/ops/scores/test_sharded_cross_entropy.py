"""A softmax over items that processes share is the softmax over all: loss, gradients, memory."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from recbole_m3rec.ops.scores import linear_cross_entropy as whole
from recbole_m3rec.ops.scores.score_terms import ScoreTerms
from recbole_m3rec.ops.scores.sharded_cross_entropy import own_rows, sharded_cross_entropy

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")

N_ITEMS, WIDTH, SIZES = 37, 5, (4, 1, 3, 2)


def inputs() -> tuple[Tensor, Tensor, Tensor, ScoreTerms]:
    """Queries, table, targets and terms of ten queries."""
    torch.manual_seed(0)
    n = sum(SIZES)
    rows = torch.tensor([0, 0, 3, 4, 4, 9])
    items = torch.tensor([1, 1, 36, 0, 20, 8])
    terms = ScoreTerms(rows, items, torch.randn(len(rows)))
    return 3 * torch.randn(n, WIDTH), torch.randn(N_ITEMS, WIDTH), torch.randint(37, (n,)), terms


def result_of(rank: int, sizes: list[int], folder: Path, factors: list[float]) -> None:
    """Compute the part of one process, its loss a factor times its mean; write what it gives."""
    torch.set_num_threads(1)  # a fork of a process that has had threads would wait for them
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=len(sizes)
    )
    query, table, targets, (rows, items, values) = inputs()
    start = sum(sizes[:rank])
    own, shard = slice(start, start + sizes[rank]), own_rows(N_ITEMS)
    mine = (rows >= own.start) & (rows < own.stop)
    leaves = [part.clone().requires_grad_() for part in (query[own], table[shard], values[mine])]
    held, product = [], whole.matmul
    whole.matmul = lambda x, y, **options: held.append(len(x) * len(y)) or product(x, y, **options)
    terms = ScoreTerms(rows[mine] - own.start, items[mine], leaves[2])
    loss = sharded_cross_entropy(*leaves[:2], shard.start, targets[own], terms)
    n_logits = sum(held)
    (loss * factors[rank]).backward()
    found = {"loss": loss.item(), "grads": [leaf.grad for leaf in leaves], "n_logits": n_logits}
    torch.save(found, folder / f"{rank}.pt")
    dist.destroy_process_group()


def run(sizes: list[int], folder: Path, factors: list[float] | None = None) -> list[dict]:
    """Fork a process for each size and return what they wrote; rows count alike by default."""
    factors = factors or [size / sum(sizes) for size in sizes]
    children = []
    for rank in range(len(sizes)):
        child = os.fork()
        if not child:
            code = 1
            try:
                result_of(rank, sizes, folder, factors)
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * len(sizes)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(len(sizes))]


def expected() -> tuple[Tensor, list[Tensor]]:
    """Loss and gradients in one process."""
    query, table, targets, terms = inputs()
    leaves = [part.requires_grad_() for part in (query, table, terms.values)]
    loss = whole.linear_cross_entropy(query, table, targets, terms)
    loss.backward()
    return loss.detach(), [leaf.grad for leaf in leaves]


@pytest.mark.parametrize("sizes", [[10], [6, 4], list(SIZES)], ids=["1", "2", "4"])
def test_several_processes_give_the_loss_and_gradients_of_one(
    tmp_path: Path, sizes: list[int]
) -> None:
    parts = run(sizes, tmp_path)
    loss, grads = expected()
    together = sum(part["loss"] * size for part, size in zip(parts, sizes, strict=True)) / 10
    assert together == pytest.approx(loss.item(), abs=1e-6)
    for number, grad in enumerate(grads):
        found = torch.cat([part["grads"][number] for part in parts])
        torch.testing.assert_close(found, grad, rtol=0, atol=1e-6)


def test_a_process_scores_all_queries_against_its_own_items_alone(tmp_path: Path) -> None:
    counts = [part["n_logits"] for part in run(list(SIZES), tmp_path)]
    assert counts == [16 * n for n in (9, 9, 9, 10)]  # ten queries and six rows of zeros


@pytest.mark.parametrize("factors", [[1.0, 1.0], [1.0, 0.0], [-2.0, 3.0]])
def test_any_loss_of_the_means_has_the_gradients_of_the_sum(
    tmp_path: Path, factors: list[float]
) -> None:
    parts = run([1, 3], tmp_path, factors)
    query, table, targets, (rows, items, values) = inputs()
    leaves = [part.double().requires_grad_() for part in (query[:4], table, values)]
    mine = rows < 4
    logits = (leaves[0] @ leaves[1].T).index_put((rows[mine], items[mine]), leaves[2][mine], True)
    losses = F.cross_entropy(logits, targets[:4], reduction="none")
    (factors[0] * losses[:1].mean() + factors[1] * losses[1:].mean()).backward()
    grads = leaves[0].grad, leaves[1].grad, leaves[2].grad[mine]
    for number, grad in enumerate(grads):
        found = torch.cat([part["grads"][number] for part in parts])
        torch.testing.assert_close(found.double(), grad, rtol=1e-5, atol=1e-5)
