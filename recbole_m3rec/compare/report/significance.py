"""Paired tests, and Holm's correction for many of them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

DECIMALS = 12


@dataclass(frozen=True)
class Paired:
    """Two-sided tests of whether two measurements of the same things differ.

    Attributes:
        n: pairs.
        difference: mean of first minus second.
        t_test: p of the paired t-test, None for fewer than two pairs.
        wilcoxon: p of Wilcoxon's signed-rank test, None for fewer than two pairs.
    """

    n: int
    difference: float
    t_test: float | None
    wilcoxon: float | None


def paired(first: np.ndarray, second: np.ndarray) -> Paired:
    """Test two vectors whose entries belong together, ``[n]`` floating point each.

    Differences count up to ``DECIMALS``: beyond, means over seeds are rounding noise, which would
    order equal ones. Equal vectors have p = 1; differences that are all alike have no t-test. Pairs
    without a difference count for the t-test and are left out of Wilcoxon's, as it is usually
    defined.

    Raises:
        ValueError: the vectors differ in length.
    """
    if first.shape != second.shape:
        raise ValueError(f"paired vectors must be of one length, not {first.shape}, {second.shape}")
    difference = np.round(np.asarray(first, dtype=np.float64) - second, DECIMALS)
    n = len(difference)
    if n < 2:
        return Paired(n, float(difference.mean()) if n else 0.0, None, None)
    if not difference.any():
        return Paired(n, 0.0, 1.0, 1.0)
    with warnings.catch_warnings(), np.errstate(divide="ignore"):
        warnings.simplefilter("ignore")  # few pairs: p says so itself
        varies = np.ptp(difference) > 1e-9 * np.abs(difference).max()
        t_test = float(stats.ttest_rel(first, second).pvalue) if varies else None
        wilcoxon = float(stats.wilcoxon(difference).pvalue)
    return Paired(n, float(difference.mean()), t_test, wilcoxon)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Correct p values for their number by Holm's method; None is no test and stays None."""
    tested = [(p, place) for place, p in enumerate(p_values) if p is not None]
    corrected: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for done, (p, place) in enumerate(sorted(tested)):
        highest = max(highest, min(1.0, (len(tested) - done) * p))
        corrected[place] = highest
    return corrected
