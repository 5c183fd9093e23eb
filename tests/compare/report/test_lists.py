"""What lists of recommendations are like, on a few lists whose numbers a reader can work out."""

import numpy as np
import pytest

from recbole_m3rec.compare.report.aggregate import tables
from recbole_m3rec.compare.report.lists import distance, list_grid, measures, novelty
from recbole_m3rec.compare.user_values import Lists
from recbole_m3rec.features.feature_table import FeatureTable

ITEMS = np.array(["[PAD]", "a", "b", "c", "d"])
# Of 16 training interactions a has 8, b 4, c 4 and d none.
POPULARITY = np.array([0, 8, 4, 4, 0])


def lists(*top):
    return Lists(np.array(top, dtype=np.int32), ITEMS, POPULARITY)


TWO = lists([1, 2, 4], [1, 3, 4])


def test_recboles_metrics_of_the_first_two_of_each_list():
    found = measures(TWO, 2)
    assert found["ItemCoverage"] == pytest.approx(3 / 4)  # a, b, c
    # Counts 0 1 1 2: (-3, -1, 1, 3) times them is 6, over 4 times 4.
    assert found["GiniIndex"] == pytest.approx(6 / (4 * 4))
    assert found["AveragePopularity"] == pytest.approx((8 + 4 + 8 + 4) / 4)
    # -(.5 log .5 + 2 * .25 log .25)
    assert found["ShannonEntropy"] == pytest.approx(0.5 * np.log(2) + 0.5 * np.log(4))
    assert found["TailPercentage"] == pytest.approx(1 / 4)  # the rarest that was used is b


def test_novelty_is_the_mean_self_information():
    assert novelty(TWO, 2) == pytest.approx((1 + 2 + 1 + 2) / 4)  # a half, b and c a quarter
    assert novelty(TWO, 3) == pytest.approx((1 + 2 + 4 + 1 + 2 + 4) / 6)  # d as if used once of 16


def test_distance_is_one_less_the_mean_cosine_of_two_items_of_a_list():
    # a points east, b north, c south-west by its length of 2; d has no features.
    features = FeatureTable(
        np.array(["c", "b", "a"], dtype=object),
        np.array([[-(2**0.5), -(2**0.5)], [0, 3], [5, 0]], dtype=np.float32),
    )
    half = 0.5**0.5
    assert distance(lists([1, 2, 4]), 3, features) == pytest.approx(1.0)  # a, b: at right angles
    assert distance(lists([1, 2, 3]), 3, features) == pytest.approx(1 + 2 * half / 3)
    both = distance(lists([1, 2, 3], [4, 1, 4]), 3, features)
    assert both == pytest.approx(1 + 2 * half / 3)  # a alone has no other
    assert np.isnan(distance(lists([4, 4, 1]), 3, features))


def test_the_grid_has_a_row_for_each_name_and_a_column_for_each_modality(outcome):
    text = FeatureTable(np.array(["a", "b"], dtype=object), np.eye(2, dtype=np.float32))
    runs = [
        outcome("A", {"ndcg@2": [0.5, 0.5]}, seed=1, lists=lists([1, 2, 4], [1, 2, 4])),
        outcome("A", {"ndcg@2": [0.5, 0.5]}, seed=2, lists=lists([1, 2, 4], [1, 3, 4])),
        outcome("B", {"ndcg@2": [0.5, 0.5]}, seed=1),
    ]
    (table,) = tables(runs)
    grid = list_grid(table, {"text": text})
    assert grid is not None
    assert grid.head[-2:] == ["novelty, bits", "distance by text"]
    ((name, coverage, *_, new, far),) = grid.rows
    assert name.text == "A"
    assert coverage.text == "0.625"  # two and three of four
    assert (new.text, far.text) == ("1.50", "1.000")
    assert "lists of 2" in grid.caption


def test_without_lists_there_is_no_grid(outcome):
    (table,) = tables([outcome("A", {"ndcg@2": [0.5]})])
    assert list_grid(table, {}) is None
