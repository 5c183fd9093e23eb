"""Half-whitening against its definition, on random and degenerate features."""

import numpy as np
import pytest

from recbole_m3rec.features.align import half_whitening


def standardized(n, width, seed=0):
    random = np.random.default_rng(seed)
    rows = random.normal(size=(n, width)) @ random.normal(size=(width, width))
    return (rows - rows.mean(axis=0)) / rows.std(axis=0)


def test_the_deviation_in_each_direction_becomes_its_square_root():
    rows = standardized(500, 12)
    mapped = rows @ half_whitening([rows])
    before = np.sqrt(np.linalg.eigvalsh(np.cov(rows.T, ddof=0)))
    after = np.sqrt(np.linalg.eigvalsh(np.cov(mapped.T, ddof=0)))
    assert np.allclose(after / after[-1], np.sqrt(before / before[-1]))
    assert mapped.std(axis=0).mean() == pytest.approx(1)


def test_blocks_give_what_all_rows_give():
    rows = standardized(300, 8)
    assert np.allclose(half_whitening([rows]), half_whitening([rows[:7], rows[7:]]))


def test_columns_without_correlation_stay_as_they_are():
    rows = np.array([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])
    assert np.allclose(half_whitening([rows]), np.eye(2))


@pytest.mark.parametrize(("n", "width"), [(1, 3), (2, 40), (30, 40)])
def test_fewer_rows_than_columns(n, width):
    rows = standardized(max(n, 2), width)[:n] if n > 1 else np.zeros((1, width))
    mapped = rows @ half_whitening([rows])
    assert np.isfinite(mapped).all()
    assert np.linalg.matrix_rank(mapped) == np.linalg.matrix_rank(rows)


def test_a_constant_column_is_left_out():
    rows = standardized(50, 4)
    rows[:, 2] = 0
    whitening = half_whitening([rows])
    assert np.allclose(whitening[2], 0, atol=1e-12)
    assert np.isfinite(whitening).all()
