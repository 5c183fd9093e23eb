"""ID vectors that start from what content says of an item, and not from noise.

An item that was bought three times cannot learn a vector of a hundred numbers. It starts with the
principal components of its features, whitened, so that alike items are alike from the first step,
and training moves those that it sees more often.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from recbole_m3rec.features.align import SMALLEST_VARIANCE, ItemFeatures

ROWS_AT_ONCE = 65_536
FITTED_ON = 2**18  # items, evenly spread, that components are found from where there are more


@torch.no_grad()
def start_from_content(
    embedding: Tensor, features: Mapping[str, ItemFeatures], deviation: float
) -> None:
    """Overwrite ID vectors by the whitened principal components of the items' features.

    Every modality counts the same, whatever its number and scale of columns. Padding, items without
    any feature, and columns beyond the features' rank keep what they have.

    Args:
        embedding: ``[n_items, H]``, changed in place.
        features: of the content modalities, at least one.
        deviation: standard deviation of each column.
    """
    stride = -(-len(embedding) // FITTED_ON)
    sample = list(_in_blocks(len(embedding), stride))
    means, scales = zip(*(_moments(each, sample) for each in features.values()), strict=True)

    def centred(items: Tensor) -> Tensor:
        """Centred and scaled features of all modalities side by side, zeros for missing ones."""
        parts = [
            (of_items.rows(items).double() - mean) * scale * _has_row(of_items, items)
            for of_items, mean, scale in zip(features.values(), means, scales, strict=True)
        ]
        return torch.cat(parts, 1)

    covariance: Tensor = sum(block.T @ block for block in map(centred, sample))  # type: ignore[assignment]
    variances, components = torch.linalg.eigh(covariance)  # ascending
    n_components = int(
        (variances > SMALLEST_VARIANCE * variances[-1]).sum().clamp(max=embedding.shape[1])
    )
    if n_components == 0:
        return  # all items are the same
    n_written = sum(int(_any_row(features, items).sum()) for items in sample)
    whitening = deviation * (n_written / variances[-n_components:]).sqrt()
    components = (components[:, -n_components:] * whitening).flip(1)  # the widest first
    for items in _in_blocks(len(embedding)):
        written = _any_row(features, items)
        embedding[items[written], :n_components] = (centred(items)[written] @ components).to(
            embedding
        )


def _in_blocks(n_items: int, stride: int = 1) -> Iterator[Tensor]:
    """Yield ids, ``[n]`` int64 each, of every item or of every so many."""
    for start in range(0, n_items, stride * ROWS_AT_ONCE):
        yield torch.arange(start, min(start + stride * ROWS_AT_ONCE, n_items), stride)


def _moments(of_items: ItemFeatures, blocks: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the mean of each column over the items that have a row, and 1 / total deviation."""
    total, squares, n = torch.zeros(()), torch.zeros(()), 0
    for items in blocks:
        values = of_items.rows(items)[_has_row(of_items, items).squeeze(1)].double()
        total, squares, n = total + values.sum(0), squares + values.square().sum(0), n + len(values)
    mean = total / max(1, n)
    variance = (squares / max(1, n) - mean.square()).clamp(min=0).sum()
    return mean, variance.clamp(min=1e-12).rsqrt()


def _has_row(of_items: ItemFeatures, items: Tensor) -> Tensor:
    """Return which of some items have a feature and are no padding, ``[n, 1]`` bool."""
    return (of_items.present[items] & (items > 0))[:, None]


def _any_row(features: Mapping[str, ItemFeatures], items: Tensor) -> Tensor:
    """Return which of some items have any feature, ``[n]`` bool."""
    return torch.cat([_has_row(of_items, items) for of_items in features.values()], 1).any(1)
