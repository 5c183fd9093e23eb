"""Metrics of several processes are those of one: every user counts once.

Where candidates are sampled, each process draws those of its rows from its own random state.

RecBole gives each process as many rows as the others, repeating some, averages what the processes
computed, and weights them by their batches. Here each row is ranked by one process, and what was
collected is gathered, in the order of one process, before any metric is computed.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

from recbole_m3rec.hooks import wrap

# What RecBole's collector keeps of batches; everything else is the same in all processes.
OF_BATCHES = ("rec.items", "rec.topk", "rec.meanrank", "rec.score", "data.label")


def install() -> None:
    """Deal the rows of RecBole's evaluation loaders out, and let its collector gather results."""
    from recbole.data.dataloader import general_dataloader
    from recbole.evaluator.collector import Collector
    from recbole.trainer import Trainer

    def build(original: Callable[..., None], self: Any, config: Any, *args: Any, **kw: Any) -> None:
        original(self, config, *args, **kw)
        if not config["single_spec"]:
            # Every row belongs to one process, and none is repeated.
            rows = range(dist.get_rank(), self.sample_size, dist.get_world_size())
            self.batch_sampler.sampler = rows

    for evaluation_loader in (
        general_dataloader.FullSortEvalDataLoader,
        general_dataloader.NegSampleEvalDataLoader,
    ):
        wrap(evaluation_loader, "__init__")(build)

    @wrap(Collector, "get_data_struct")
    def get(original: Callable[..., Any], self: Any) -> Any:
        collected = original(self)
        several = dist.is_available() and dist.is_initialized()
        return gathered(collected) if several else collected

    @wrap(Trainer, "_map_reduce")
    def keep(original: Callable[..., Any], self: Any, result: Any, num_sample: int) -> Any:
        return result  # of all users already


def gathered(collected: Any) -> Any:
    """Return what all processes collected, rows in the order in which one process would."""
    own = {name: collected.get(name) for name in OF_BATCHES if name in collected}
    parts: list[dict[str, torch.Tensor]] = [{} for _ in range(dist.get_world_size())]
    dist.all_gather_object(parts, own)
    whole = copy.copy(collected)
    for name in dict.fromkeys(name for part in parts for name in part):
        whole.set(name, interleave([part[name] for part in parts if name in part]))
    return whole


def interleave(parts: list[torch.Tensor]) -> torch.Tensor:
    """Join rows that were dealt out one by one, ``[n_1, ...]``, ``[n_2, ...]`` to ``[n, ...]``.

    Parts whose lengths no such dealing explains, of sampled candidates, follow each other.
    """
    lengths = [len(part) for part in parts]
    n_rows, n_parts = sum(lengths), len(parts)
    if lengths != [len(range(rank, n_rows, n_parts)) for rank in range(n_parts)]:
        return torch.cat(parts)
    whole = parts[0].new_empty((n_rows, *parts[0].shape[1:]))
    for rank, part in enumerate(parts):
        whole[rank::n_parts] = part
    return whole
