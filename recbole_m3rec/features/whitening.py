"""Half-whitening of features: directions in which items differ much no longer drown the others.

Vectors of language and image models differ mostly in a few directions. Whitening gives all
directions the same deviation, noise included; half of it gives each the square root of its own.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

SMALLEST_VARIANCE = 1e-6  # of a direction, as a share of the widest one's; below it there is noise


def half_whitening(blocks: Iterable[np.ndarray]) -> np.ndarray:
    """Return the map that takes the square root of the deviation in each principal direction.

    Args:
        blocks: the rows ``[n, d]``, some at a time; columns have mean 0 and deviation 1, or are 0.

    Returns:
        ``[d, d]`` float64, symmetric. The mapped columns have a mean deviation of 1; directions
        without variance become 0.
    """
    covariance: np.ndarray | float = 0.0
    n = 0
    for block in blocks:
        rows = block.astype(np.float64)
        covariance, n = covariance + rows.T @ rows, n + len(rows)
    variances, directions = np.linalg.eigh(np.asarray(covariance) / n)
    wide = (variances > SMALLEST_VARIANCE * variances[-1]) & (variances > 0)
    variances, directions = variances[wide], directions[:, wide]
    deviations = np.sqrt((directions**2 * np.sqrt(variances)).sum(axis=1))
    is_column = deviations > 0
    scale = deviations[is_column].mean() if is_column.any() else 1.0
    mapped: np.ndarray = (directions * variances**-0.25 / scale) @ directions.T
    return mapped
