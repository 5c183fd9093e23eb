"""Tables: means, deviations, places, gains and tests on numbers made by hand."""

import numpy as np
import pytest
from scipy import stats

from recbole_m3rec.compare.report.aggregate import tables
from recbole_m3rec.compare.report.document import Entry
from recbole_m3rec.compare.report.significance import holm
from recbole_m3rec.compare.report.tables import failure_grid, result_grid
from recbole_m3rec.compare.report.tables import test_grid as grid_of_tests
from recbole_m3rec.compare.report.write import heading


def test_mean_and_sample_deviation_over_seeds(outcome):
    runs = [outcome("A", {"hit@5": [x, x]}, seed=s) for s, x in enumerate((0.1, 0.2, 0.6))]
    (table,) = tables(runs)
    cell = table.cells["A"]["hit@5"]
    assert cell.mean == pytest.approx(0.3)
    assert cell.deviation == pytest.approx(np.sqrt((0.04 + 0.01 + 0.09) / 2))


def test_one_seed_has_no_deviation_and_a_caption_that_says_so(outcome):
    (table,) = tables([outcome("A", {"hit@5": [0.5, 0.0]})])
    grid = result_grid(table, "")
    assert grid.rows[0] == [Entry("A"), Entry("0.2500")]
    assert "One seed (1), hence no deviation." in grid.caption


def test_the_best_is_bold_and_the_second_underlined(outcome):
    runs = [
        outcome(name, {"hit@5": [value]})
        for name, value in (("A", 0.2), ("B", 0.4), ("C", 0.3), ("D", 0.1))
    ]
    (table,) = tables(runs, reference="A")
    entries = [row[1] for row in result_grid(table, "").rows[:4]]
    assert [entry.bold for entry in entries] == [False, True, False, False]
    assert [entry.underlined for entry in entries] == [False, False, True, False]


def test_what_looks_the_same_shares_its_place(outcome):
    values = (("A", 0.30001), ("B", 0.30002), ("C", 0.1))
    (table,) = tables([outcome(name, {"hit@5": [value]}) for name, value in values])
    assert [table.cells[name]["hit@5"].place for name in "ABC"] == [1, 1, 2]


def test_a_smaller_loss_is_the_better(outcome):
    runs = [outcome("A", {"logloss": [0.5]}), outcome("B", {"logloss": [0.25]})]
    (table,) = tables(runs, reference="B", smaller=["logloss"])
    assert table.cells["B"]["logloss"].place == 1
    assert table.gains["logloss"].percent == pytest.approx(50.0)


def test_the_gain_is_over_the_best_of_the_others(outcome):
    runs = [outcome(name, {"hit@5": [v]}) for name, v in (("A", 0.2), ("M3Rec", 0.3), ("C", 0.25))]
    (table,) = tables(runs)
    assert table.reference == "M3Rec"
    assert table.gains["hit@5"].other == "C"
    assert table.gains["hit@5"].percent == pytest.approx(20.0)


def test_without_m3rec_the_first_is_compared_with_the_others(outcome):
    (table,) = tables([outcome("B", {"hit@5": [0.2]}), outcome("A", {"hit@5": [0.1]})])
    assert table.reference == "B"


def test_tests_are_over_users_means_over_seeds_and_corrected_over_all(outcome):
    rng = np.random.default_rng(0)
    values = {
        (name, seed, metric): rng.random(40) + (0.2 if name == "A" else 0.0)
        for name in "ABC"
        for seed in (1, 2)
        for metric in ("hit@5", "ndcg@5")
    }
    runs = [
        outcome(name, {m: values[name, seed, m].tolist() for m in ("hit@5", "ndcg@5")}, seed=seed)
        for name in "ABC"
        for seed in (1, 2)
    ]
    (table,) = tables(runs)
    order = [(test.metric, test.other) for test in table.tests]
    assert order == [("hit@5", "B"), ("hit@5", "C"), ("ndcg@5", "B"), ("ndcg@5", "C")]

    def mean(name, metric):
        return (values[name, 1, metric] + values[name, 2, metric]) / 2

    raw = [stats.ttest_rel(mean("A", m), mean(o, m)).pvalue for m, o in order]
    assert [test.users.t_test for test in table.tests] == pytest.approx(raw, rel=1e-9)
    corrected = [test.users_corrected[0] for test in table.tests]
    assert corrected == pytest.approx(holm(raw), rel=1e-9)
    over_seeds = stats.ttest_rel(
        [values["A", s, "hit@5"].mean() for s in (1, 2)],
        [values["B", s, "hit@5"].mean() for s in (1, 2)],
    ).pvalue
    assert table.tests[0].seeds.t_test == pytest.approx(over_seeds, rel=1e-6)


def test_users_are_paired_by_name_and_not_by_row(outcome, monkeypatch):
    a = outcome("A", {"hit@5": [1.0, 0.0, 0.5, 0.25]})
    b = outcome("B", {"hit@5": [1.0, 0.0, 0.5, 0.25]})
    users = b.users
    assert users is not None
    users.users[:], users.values[:] = users.users[::-1].copy(), users.values[::-1].copy()
    (table,) = tables([a, b])
    assert table.tests[0].users.t_test == 1.0


def test_a_user_with_several_tests_counts_once(outcome):
    a, b = (
        outcome(name, {"hit@5": hits, "mrr@5": hits})
        for name, hits in (("A", [1.0, 0.0, 0.5]), ("B", [0.0, 0.0, 0.75]))
    )
    for each in (a, b):
        assert each.users is not None
        each.users.users[1] = each.users.users[0]
    (table,) = tables([a, b])
    for test in table.tests:
        assert test.users.n == 2
        assert test.users.difference == pytest.approx((0.5 - 0.25) / 2)


def test_a_split_that_tests_other_users_with_each_seed_pairs_those_of_each_seed(outcome):
    values = {("A", 1): [1.0, 0.5], ("B", 1): [0.0, 0.5], ("A", 2): [0.2, 0.4], ("B", 2): [0.1, 0]}
    runs = []
    for (name, seed), hits in values.items():
        each = outcome(name, {"hit@5": hits}, seed=seed)
        assert each.users is not None
        each.users.users[:] = ["u1", "u2"] if seed == 1 else ["u2", "u3"]
        runs.append(each)
    (table,) = tables(runs)
    over_users = table.tests[0].users
    assert over_users.n == 3
    # u1 1, u2 the mean of 0 and .1, u3 .4
    assert over_users.difference == pytest.approx((1.0 + 0.05 + 0.4) / 3)


def test_a_model_under_two_names_is_not_significantly_better_than_itself(outcome):
    rng = np.random.default_rng(1)
    runs = [
        outcome(name, {"hit@5": np.random.default_rng(seed).random(30).tolist()}, seed=seed)
        for name in ("A", "B")
        for seed in (1, 2)
    ]
    (table,) = tables(runs)
    assert table.tests[0].users_corrected == (1.0, 1.0)
    assert table.tests[0].seeds_corrected == 1.0
    assert not table.gains["hit@5"].significant
    better = outcome("A", {"hit@5": (rng.random(30) + 1).tolist()}, seed=9)
    worse = outcome("B", {"hit@5": rng.random(30).tolist()}, seed=9)
    (table,) = tables([better, worse])
    assert table.gains["hit@5"].significant


def test_models_that_no_seed_changes_are_not_tested_over_seeds(outcome):
    values = {"A": [0.75, 0.5], "B": [0.25, 0.5]}
    runs = [
        outcome(name, {"hit@5": hits}, seed=seed)
        for name, hits in values.items()
        for seed in (1, 2)
    ]
    (table,) = tables(runs)
    assert table.tests[0].seeds.difference == pytest.approx(0.25)
    assert table.tests[0].seeds.t_test is None
    assert table.tests[0].seeds_corrected is None
    assert table.tests[0].users.t_test is not None


def test_only_seeds_that_both_have_are_compared(outcome):
    runs = [
        outcome("A", {"hit@5": [1.0, 0.0]}, seed=1),
        outcome("A", {"hit@5": [0.0, 0.0]}, seed=2),
        outcome("B", {"hit@5": [1.0, 0.0]}, seed=1),
        outcome("B", None, seed=2),
    ]
    (table,) = tables(runs)
    assert table.tests[0].seeds.n == 1
    assert table.tests[0].users.difference == 0.0
    titles = [row[0].text for row in result_grid(table, "").rows]
    assert titles[:2] == ["A", "B (1 of 2 seeds)"]


def test_a_failed_run_is_named_with_its_reason_and_the_rest_stands(outcome):
    runs = [outcome("A", {"hit@5": [0.5]}), outcome("B", None, failure="no memory left")]
    (table,) = tables(runs)
    rows = result_grid(table, "").rows
    assert [row[0].text for row in rows] == ["A", "B (failed)"]
    assert rows[1][1].text == "–"
    failures = failure_grid([table])
    assert failures is not None
    assert [entry.text for entry in failures.rows[0]] == ["B", "tiny", "1", "no memory left"]


def test_captions_speak_of_users_where_there_are_any(outcome):
    (failed,) = tables([outcome("A", None)])
    assert "tested by none, all runs failed." in result_grid(failed, "").caption
    runs = [
        outcome(name, {"auc": [0.5 + seed * k]}, seed)
        for k, name in enumerate("AB")
        for seed in (1, 2)
    ]
    for each in runs:
        each.__dict__["users"] = None
    assert "users" not in grid_of_tests(tables(runs)[0]).caption
    assert grid_of_tests(tables(runs[::2])[0]) is None


def test_a_failed_reference_is_compared_with_nothing(outcome):
    runs = [outcome("M3Rec", None), outcome("A", {"hit@5": [0.5]}), outcome("B", {"hit@5": [0.1]})]
    (table,) = tables(runs)
    assert table.reference is None
    assert grid_of_tests(table) is None


def test_two_protocols_never_stand_in_one_table(outcome):
    runs = [
        outcome("A", {"hit@5": [0.5]}, mask_seen=False),
        outcome("B", {"hit@5": [0.6]}, mask_seen=True),
    ]
    both = tables(runs)
    assert [list(table.outcomes) for table in both] == [["A"], ["B"]]
    captions = [result_grid(table, "").caption for table in both]
    assert "with those of the user's history (mask_seen: False)" in captions[0]
    assert "without those of the user's history (mask_seen: True)" in captions[1]
    assert [heading(t, both) for t in both] == ["tiny, mask_seen: False", "tiny, mask_seen: True"]


def test_another_order_of_times_is_another_table_and_the_heading_says_so(outcome):
    runs = [outcome(order, {"hit@5": [0.5]}, time_order=order) for order in ("exact", "recbole")]
    both = tables(runs)
    assert [list(table.outcomes) for table in both] == [["exact"], ["recbole"]]
    assert [heading(t, both) for t in both] == [
        "tiny, time_order: exact",
        "tiny, time_order: recbole",
    ]


def test_another_split_is_another_table(outcome):
    sampled = {"split": {"RS": [0.8, 0.1, 0.1]}, "order": "RO", "group_by": "user"}
    sampled["mode"] = {"valid": "uni100", "test": "uni100"}
    runs = [outcome("A", {"hit@5": [0.5]}), outcome("B", {"hit@5": [0.5]}, eval_args=sampled)]
    other = result_grid(tables(runs)[1], "").caption
    assert "Split: shares 0.8 : 0.1 : 0.1 of each user, in random order." in other
    assert "Candidates: 100 items sampled uniformly." in other


def test_the_caption_states_the_protocol(outcome):
    runs = [outcome("A", {"hit@5": [0.5, 0.5]}, seed=s) for s in (7, 8)]
    caption = result_grid(tables(runs)[0], "Tuned: nothing.").caption
    for part in (
        "tiny, tested by 2 users.",
        "leave one out: each user's last interaction tests",
        "users with [5,inf) interactions and items with [5,inf) interactions",
        "over 2 seeds (7, 8)",
        "Tuned: nothing.",
    ):
        assert part in caption


def test_the_caption_does_not_hide_that_models_were_tested_by_other_numbers_of_users(outcome):
    runs = [outcome(name, {"hit@5": [0.5] * users}) for name, users in (("A", 3), ("B", 1200))]
    caption = result_grid(tables(runs)[0], "").caption
    assert "tested by numbers of users that differ" in caption
    assert "(A: 3; B: 1,200)." in caption
