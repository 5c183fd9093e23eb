"""A softmax over items that processes share is the softmax over all: loss, gradients, memory."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
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


def result_of(rank: int, sizes: list[int], folder: Path, idle: int | None) -> None:
    """Compute the part of one process, and write what it gives."""
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
    n_counted = sum(size for number, size in enumerate(sizes) if number != idle)
    (loss * (0.0 if rank == idle else sizes[rank] / n_counted)).backward()
    found = {"loss": loss.item(), "grads": [leaf.grad for leaf in leaves], "n_logits": n_logits}
    torch.save(found, folder / f"{rank}.pt")
    dist.destroy_process_group()


def run(sizes: list[int], folder: Path, idle: int | None = None) -> list[dict]:
    """Fork a process for each size and return what they wrote."""
    children = []
    for rank in range(len(sizes)):
        child = os.fork()
        if not child:
            code = 1
            try:
                result_of(rank, sizes, folder, idle)
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * len(sizes)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(len(sizes))]


def expected(n_rows: int) -> tuple[Tensor, list[Tensor]]:
    """Loss and gradients of the first rows in one process."""
    query, table, targets, (rows, items, values) = inputs()
    leaves = [part.requires_grad_() for part in (query[:n_rows].clone(), table, values)]
    mine = rows < n_rows
    terms = ScoreTerms(rows[mine], items[mine], values[mine])
    loss = whole.linear_cross_entropy(leaves[0], table, targets[:n_rows], terms)
    loss.backward()
    return loss.detach(), [leaf.grad for leaf in leaves]


@pytest.mark.parametrize("sizes", [[10], [6, 4], list(SIZES)], ids=["1", "2", "4"])
def test_several_processes_give_the_loss_and_gradients_of_one(
    tmp_path: Path, sizes: list[int]
) -> None:
    parts = run(sizes, tmp_path)
    loss, grads = expected(10)
    together = sum(part["loss"] * size for part, size in zip(parts, sizes, strict=True)) / 10
    assert together == pytest.approx(loss.item(), abs=1e-6)
    for number, grad in enumerate(grads):
        found = torch.cat([part["grads"][number] for part in parts])
        torch.testing.assert_close(found, grad, rtol=0, atol=1e-6)


def test_a_process_scores_all_queries_against_its_own_items_alone(tmp_path: Path) -> None:
    counts = [part["n_logits"] for part in run(list(SIZES), tmp_path)]
    assert counts == [16 * n for n in (9, 9, 9, 10)]  # ten queries and six rows of zeros


def test_the_row_of_a_process_without_a_share_counts_for_nothing(tmp_path: Path) -> None:
    parts = run([6, 3, 1], tmp_path, idle=2)
    _, grads = expected(9)
    assert not parts[2]["grads"][0].any()
    table = torch.cat([part["grads"][1] for part in parts])
    torch.testing.assert_close(table, grads[1], rtol=0, atol=1e-6)
