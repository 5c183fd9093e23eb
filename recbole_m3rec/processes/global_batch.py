"""One step of several processes is the step of one: each loss counts by its share of the batch.

A model returns a mean over the rows, or targets, of what its process has of a global batch, and
``DistributedDataParallel`` averages gradients over processes. With ``n_r`` of ``N`` targets in
process ``r`` of ``W``, the loss is therefore multiplied by ``W · n_r / N``: the average is then the
gradient of the mean over all ``N``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.distributed as dist

from recbole_m3rec.hooks import wrap


class Followed:
    """A training loader whose batches pass a generator; everything else is the loader's own."""

    def __init__(self, loader: Any, batches: Callable[[Any], Iterator[Any]]) -> None:
        self._loader, self._batches = loader, batches

    def __iter__(self) -> Iterator[Any]:
        return self._batches(self._loader)

    def __len__(self) -> int:
        return len(self._loader)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)


def install() -> None:
    """Seed processes by their number of all."""
    from recbole.quick_start import quick_start
    from recbole.utils import init_seed

    @wrap(quick_start, "get_model")
    def get_model(original: Callable[..., Any], name: str) -> Callable[..., Any]:
        model_class = original(name)

        def build(config: Any, dataset: Any) -> Any:
            """Build the same model everywhere, then let each process draw numbers of its own."""
            if config["single_spec"]:
                return model_class(config, dataset)
            init_seed(config["seed"], config["reproducibility"])
            model = model_class(config, dataset)
            init_seed(config["seed"] + dist.get_rank(), config["reproducibility"])
            return model

        return build


def train_epoch(
    original: Callable[..., Any],
    self: Any,
    train_data: Any,
    epoch_idx: int,
    loss_func: Any = None,
    **kwargs: Any,
) -> Any:
    """Train an epoch with weighed losses; its loss is the one of all processes."""
    if self.config["single_spec"]:
        return original(self, train_data, epoch_idx, loss_func=loss_func, **kwargs)
    loss_of, weight = loss_func or self.model.calculate_loss, 1.0

    def batches(loader: Any) -> Iterator[Any]:
        nonlocal weight
        sampler: Any = getattr(loader, "sampler", None)
        shares = sampler.shares() if hasattr(sampler, "shares") else None
        for number, batch in enumerate(loader):
            weight = 1.0 if shares is None else shares[number] * dist.get_world_size()
            yield batch

    def weighed(interaction: Any) -> Any:
        losses = loss_of(interaction)
        if isinstance(losses, tuple):
            return tuple(weight * loss for loss in losses)
        return weight * losses

    data = Followed(train_data, batches)
    return original(self, data, epoch_idx, loss_func=weighed, **kwargs)


def mean_over_processes(values: tuple[float, ...], device: torch.device) -> tuple[float, ...]:
    """Return the mean of each process's values; of weighed losses that is the global batch's."""
    total = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(total)
    return tuple((total / dist.get_world_size()).tolist())
