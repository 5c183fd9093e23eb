"""Paired tests against scipy, Holm's correction by hand."""

import warnings

import numpy as np
import pytest
from scipy import stats

from recbole_m3rec.compare.report.significance import holm, paired

FIRST = np.array([0.9, 0.4, 0.7, 1.0, 0.0, 0.6, 0.8, 0.3])
SECOND = np.array([0.5, 0.4, 0.2, 0.9, 0.1, 0.3, 0.1, 0.3])


def test_both_tests_are_scipys():
    found = paired(FIRST, SECOND)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert found.t_test == pytest.approx(stats.ttest_rel(FIRST, SECOND).pvalue, rel=1e-12)
        rounded = np.round(FIRST - SECOND, 12)
        assert found.wilcoxon == pytest.approx(stats.wilcoxon(rounded).pvalue, rel=1e-12)
    assert found.n == 8
    assert found.difference == pytest.approx(np.mean(FIRST - SECOND))


def test_equal_vectors_do_not_differ():
    found = paired(FIRST, FIRST.copy())
    assert (found.t_test, found.wilcoxon, found.difference) == (1.0, 1.0, 0.0)


def test_rounding_orders_no_differences():
    # Of three seeds, one in 30 users and two in 30 others, against none and all.
    found = paired(np.repeat([1 / 3, 2 / 3], 30), np.repeat([0.0, 1.0], 30))
    assert found.wilcoxon == 1.0
    assert paired(np.full(9, 0.1 + 0.2), np.full(9, 0.3)).wilcoxon == 1.0


@pytest.mark.parametrize(
    ("first", "second"),
    [([0.5, 0.6], [0.4, 0.5]), ([17 / 30, 15 / 30, 16 / 30], [16 / 30, 14 / 30, 15 / 30])],
)
def test_differences_that_are_all_alike_say_nothing_of_chance(first, second):
    found = paired(np.array(first), np.array(second))
    assert found.t_test is None
    assert found.difference == pytest.approx(first[0] - second[0])


def test_one_pair_is_no_test():
    found = paired(np.array([0.3]), np.array([0.1]))
    assert found.t_test is None
    assert found.wilcoxon is None
    assert found.difference == pytest.approx(0.2)


def test_vectors_of_two_lengths_are_refused():
    with pytest.raises(ValueError, match="one length"):
        paired(FIRST, SECOND[:-1])


def test_holm_by_hand():
    # Sorted: .01 x 4 = .04, .02 x 3 = .06, .03 x 2 = .06, .04 x 1 = .04 but never below .06.
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])


def test_holm_stops_at_one_and_passes_over_what_was_not_tested():
    assert holm([0.6, None, 0.7]) == [1.0, None, 1.0]
    assert holm([]) == []
