"""Metrics of several processes are those of one."""

import sys
from pathlib import Path

import pytest
import torch
from recbole.quick_start import run

from recbole_m3rec.evaluator.all_processes import EveryNth, interleave


@pytest.mark.parametrize("world_size", [1, 2, 3, 5, 20])
@pytest.mark.parametrize("n_rows", [1, 12, 13])
def test_every_row_belongs_to_one_process_and_comes_back_in_order(n_rows, world_size):
    dealt = [list(EveryNth(n_rows, rank, world_size)) for rank in range(world_size)]
    assert sorted(sum(dealt, [])) == list(range(n_rows))
    parts = [torch.tensor(rows)[:, None] for rows in dealt if rows]
    assert interleave(parts).flatten().tolist() == list(range(n_rows))


def test_rows_of_sampled_candidates_follow_each_other():
    assert interleave([torch.tensor([1]), torch.tensor([2, 3])]).tolist() == [1, 2, 3]


@pytest.mark.slow
def test_two_processes_and_an_odd_number_of_users_give_the_metrics_of_one(
    make_config, write_dataset, tiny_interactions, monkeypatch, port
):
    model = "BPR"
    root = str(Path(__file__).resolve().parents[2])
    monkeypatch.setenv("PYTHONPATH", ":".join([root, *filter(None, sys.path)]))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    write_dataset("odd", [row for row in tiny_interactions if row[0] != "u11"])  # 11 users
    keys = make_config(model, "odd").variable_config_dict
    keys |= {"epochs": 0, "eval_batch_size": 3, "metric_decimal_place": 16}
    keys |= {"metrics": ["Hit", "NDCG", "MRR", "GAUC"]}
    alone = run(model, "odd", config_dict=dict(keys))["test_result"]
    together = run(model, "odd", config_dict=dict(keys), nproc=2, port=str(port))["test_result"]
    assert dict(together) == dict(alone)
