"""How several processes share a global batch: each trains on a part of every batch of one process.

All processes draw one order, from generators that are seeded alike and asked equally often, so the
batches are those that one process would make.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist

from recbole_m3rec.hooks import wrap


class SharedBatches(torch.utils.data.Sampler[list[int]]):
    """Every ``world_size``-th row of each batch, in the order in which one process reads rows.

    Where a batch has fewer rows than there are processes, one without a row gets the first one:
    its share of the batch is 0.

    Args:
        batch_size: rows of a global batch.
        shuffle: draw an order for each epoch; otherwise rows keep theirs.
        generator: source of the orders, in the same state in all processes.
    """

    def __init__(
        self,
        n_rows: int,
        batch_size: int,
        *,
        shuffle: bool,
        generator: torch.Generator,
        rank: int,
        world_size: int,
    ) -> None:
        self.n_rows, self.batch_size = n_rows, batch_size
        self.rank, self.world_size = rank, world_size
        self.order: Any = range(n_rows)
        if shuffle:  # torch's own, so that the generator ends in the state that it leaves
            self.order = torch.utils.data.RandomSampler(self.order, generator=generator)

    def __len__(self) -> int:
        return -(-self.n_rows // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        order = list(self.order)
        for begin in range(0, self.n_rows, self.batch_size):
            batch = order[begin : begin + self.batch_size]
            yield batch[self.rank :: self.world_size] or batch[:1]

    def shares(self) -> list[float]:
        """Return which share of each batch of an epoch is this process's, between 0 and 1."""
        sizes = [
            min(self.batch_size, self.n_rows - begin)
            for begin in range(0, self.n_rows, self.batch_size)
        ]
        return [len(range(self.rank, size, self.world_size)) / size for size in sizes]

    def set_epoch(self, epoch: int) -> None:
        """Do nothing: RecBole numbers epochs for samplers that draw by number."""


def deal_by_size(sizes: Sequence[int], world_size: int) -> list[list[int]]:
    """Deal pieces out so that the sums of their sizes are about equal.

    The largest piece goes first, always to whom has least so far; every part is in ascending order.

    >>> deal_by_size([3, 1, 2, 6], 2)
    [[3], [0, 1, 2]]
    """
    parts: list[list[int]] = [[] for _ in range(world_size)]
    loads = [(0, rank) for rank in range(world_size)]
    for piece in sorted(range(len(sizes)), key=lambda piece: -sizes[piece]):
        load, rank = loads[0]
        parts[rank].append(piece)
        heapq.heapreplace(loads, (load + sizes[piece], rank))
    return [sorted(part) for part in parts]


def install() -> None:
    """Let RecBole's training loaders share batches; it repeats rows and shuffles otherwise."""
    from recbole.data.dataloader import general_dataloader, knowledge_dataloader, user_dataloader

    def build(original: Callable[..., None], self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        if self.config["single_spec"]:
            return
        self._init_batch_size_and_step()
        batches = SharedBatches(
            self.sample_size,
            self.step,
            shuffle=self.shuffle,
            generator=self.generator,
            rank=dist.get_rank(),
            world_size=dist.get_world_size(),
        )
        # torch's loaders refuse another sampler once they are built
        vars(self).update(batch_sampler=batches, sampler=batches)

    for training_loader in (
        general_dataloader.TrainDataLoader,
        user_dataloader.UserDataLoader,
        knowledge_dataloader.KGDataLoader,
    ):
        wrap(training_loader, "__init__")(build)
