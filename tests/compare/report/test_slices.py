"""Parts of a test beside each other: held-out items, histories, popularity."""

import numpy as np

from recbole_m3rec.compare.report.aggregate import tables
from recbole_m3rec.compare.report.figures import group_names
from recbole_m3rec.compare.report.slices import cold_grid, edges_apart_from_zero, slice_grids
from recbole_m3rec.compare.report.tables import result_grid, split
from recbole_m3rec.compare.user_values import SEVERAL

VALUES = {"hit@5": [1.0, 0.0], "ndcg@5": [0.5, 0.0], "mrr@5": [0.25, 0.0]}


def parts(warm, cold):
    return {f"{part} {m}": v for part, v in (("warm", warm), ("cold", cold)) for m in VALUES}


def test_warm_cold_and_all_targets_stand_in_a_table_of_their_own(outcome):
    runs = [
        outcome("A", VALUES, parts=parts(0.6, 0.1), cold_items=0.1),
        outcome("B", VALUES, parts=parts(0.7, 0.0), cold_items=0.1),
    ]
    (table,) = tables(runs)
    grid = cold_grid(table)
    assert grid is not None
    assert grid.head == [
        *("model", "Hit@5 warm", "Hit@5 cold", "Hit@5 all"),
        *("NDCG@5 warm", "NDCG@5 cold", "NDCG@5 all"),
    ]
    assert [entry.text for entry in grid.rows[0][:4]] == ["A", "0.6000", "0.1000", "0.5000"]
    assert [row[1].bold for row in grid.rows] == [False, True]
    assert [row[2].bold for row in grid.rows] == [True, False]
    assert result_grid(table, "").head == ["model", "Hit@5", "NDCG@5", "MRR@5"]
    assert {test.metric for test in table.tests} == set(VALUES)
    assert "a share of 0.1 of the items is held out" in result_grid(table, "").caption


def test_results_with_and_without_held_out_items_share_no_table(outcome):
    runs = [outcome("A", VALUES), outcome("A", VALUES, parts=parts(1, 0), cold_items=0.1)]
    first, second = tables(runs)
    assert cold_grid(first) is None
    assert cold_grid(second) is not None


def test_slices_are_means_over_the_tests_of_a_group(outcome):
    # Histories are 3 to 11, popularity 0 to 6, round and round (see the fixture).
    hits = [float(i % 9 >= 4) for i in range(90)]
    (table,) = tables([outcome("A", {"hit@5": hits, "mrr@5": hits}), outcome("B", {"hit@5": hits})])
    history, popularity = slice_grids(table)
    assert history.head == [
        *("model", "metric", "history 3 (n = 10)", "history 4 to 5 (n = 20)"),
        *("history 6 to 7 (n = 20)", "history 8 to 9 (n = 20)", "history 10 to 11 (n = 20)"),
    ]
    assert [entry.text for entry in history.rows[0]] == [
        *("A", "Hit@5", "0.0000", "0.0000", "0.5000", "1.0000", "1.0000")
    ]
    assert [row[1].text for row in history.rows] == ["Hit@5", "Hit@5"]
    assert popularity.head[2].startswith("popularity 0")


def test_tests_of_several_targets_are_not_grouped_by_popularity(outcome):
    made = outcome("A", {"hit@5": [1.0, 0.0]})
    made.users.popularity[1] = SEVERAL
    (table,) = tables([made])
    assert [grid.head[2].split()[0] for grid in slice_grids(table)] == ["history"]


def test_a_caption_names_the_split_by_time():
    how = {"split": {"time_quantiles": [0.8, 0.9]}, "order": "TO", "group_by": None}
    said = split({"eval_args": how})
    assert said == (
        "by time, the first 0.8 of all interactions train, the next up to 0.9 validate, the last "
        "test"
    )


def test_items_without_training_interactions_are_a_group_of_their_own():
    by = np.array([0] * 8 + [3, 3, 5, 9, 9])
    labels = ["0 to 2 (n = 8)", "3 to 4 (n = 2)", "5 to 8 (n = 1)", "9 (n = 2)"]
    assert group_names(by, edges_apart_from_zero(by), 1) == labels
