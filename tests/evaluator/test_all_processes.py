"""Metrics of several processes are those of one."""

import json
import os
from pathlib import Path

import pytest
import torch

from recbole_m3rec.evaluator.all_processes import interleave
from tests.processes.worlds import run_world
from tests.trainer.killed_runs import arguments

METRICS = ["Hit", "NDCG", "MRR", "GAUC"]
REPLACED = ("--dataset", "--epochs", "--metric_decimal_place")


@pytest.mark.parametrize("world_size", [1, 2, 3, 5, 20])
@pytest.mark.parametrize("n_rows", [1, 12, 13])
def test_rows_that_were_dealt_out_come_back_in_order(n_rows, world_size):
    dealt = [list(range(rank, n_rows, world_size)) for rank in range(world_size)]
    parts = [torch.tensor(rows)[:, None] for rows in dealt if rows]
    assert interleave(parts).flatten().tolist() == list(range(n_rows))


def test_rows_of_sampled_candidates_follow_each_other():
    assert interleave([torch.tensor([1]), torch.tensor([2, 3])]).tolist() == [1, 2, 3]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="runs are forked")
def test_two_processes_and_an_odd_number_of_users_give_the_metrics_of_one(
    write_dataset, tiny_interactions, tmp_path
):
    write_dataset("odd", [row for row in tiny_interactions if row[0] != "u11"])  # 11 users
    given = [each for each in arguments("BPR") if not each.startswith(REPLACED)]
    given += ["--dataset=odd", "--epochs=0", "--eval_batch_size=3", "--metric_decimal_place=16"]
    found = []
    for size in (1, 2):
        assert run_world(tmp_path, [*given, f"--metrics={METRICS}"], size) == [0] * size
        found.append(json.loads(Path("metrics.json").read_text(encoding="utf-8")))
    assert found[1] == found[0]
    assert len(found[0]["test"]) == 7  # GAUC has no lengths, the others two
