"""The training loader of ``train_positions: all``: batches of windows, counted in targets."""

from collections.abc import Iterator
from functools import partial
from logging import getLogger
from typing import Any

import torch
from recbole.data.dataloader.abstract_dataloader import AbstractDataLoader
from recbole.data.interaction import Interaction
from recbole.data.transform import construct_transform
from recbole.utils import InputType, ModelType
from torch import Tensor

from recbole_m3rec.data.history_rows import entries
from recbole_m3rec.data.shared_batches import deal_by_size
from recbole_m3rec.data.windows import (
    TARGET_LIST,
    WindowTable,
    group_by_targets,
    sequences_of_prefix_rows,
)


class WindowBatchSampler(torch.utils.data.Sampler[Tensor]):
    """Row numbers of the batches of an epoch, shuffled anew for each.

    A batch holds at most ``max_targets`` targets (a longer row is a batch of its own), so that how
    many batches an epoch has depends on its order. The order of the coming epoch is therefore
    drawn when its length is asked for, and ``len()`` is exact.

    With several processes each gets rows of every batch, dealt so that all have about as many
    tokens; see :mod:`recbole_m3rec.data.shared_batches`. Where a batch has fewer rows than there
    are processes, one without a row gets the first one: its share of the batch is 0.

    Args:
        n_targets: targets of each row, ``[R]`` int64, each at least 1.
        n_tokens: inputs of each row, likewise.
        max_targets: targets of a batch of all processes, at least 1.
        shuffle: draw an order; otherwise rows keep theirs.
        generator: source of the orders, in the same state in all processes; None is torch's global
            one.
    """

    def __init__(
        self,
        n_targets: Tensor,
        n_tokens: Tensor,
        max_targets: int,
        *,
        shuffle: bool,
        generator: torch.Generator | None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.n_targets, self.n_tokens = n_targets, n_tokens
        self.max_targets = max_targets
        self.shuffle = shuffle
        self.generator = generator
        self.rank = rank
        self.world_size = world_size
        self._coming: list[Tensor] | None = None
        self._state: Tensor | None = None  # the generator's, before the coming epoch was drawn

    def __len__(self) -> int:
        return len(self._coming_batches())

    def __iter__(self) -> Iterator[Tensor]:
        # An epoch begins with its first batch: torch's loader makes iterators that it never asks.
        batches = self._coming_batches()
        self._coming = None
        for batch in batches:
            own = batch[self._part_of(batch)]
            yield own if len(own) else batch[:1]

    def shares(self) -> list[float]:
        """Return which share of each batch's targets is this process's, for the coming epoch."""
        return [
            int(self.n_targets[batch[self._part_of(batch)]].sum())
            / int(self.n_targets[batch].sum())
            for batch in self._coming_batches()
        ]

    def _part_of(self, batch: Tensor) -> Tensor:
        """Return where in a batch this process's rows are."""
        if self.world_size == 1:
            return torch.arange(len(batch))
        parts = deal_by_size(self.n_tokens[batch].tolist(), self.world_size)
        return torch.tensor(parts[self.rank], dtype=torch.int64)

    def set_epoch(self, epoch: int) -> None:
        """Do nothing: RecBole numbers epochs for samplers that draw by number."""

    def set_batching(self, max_targets: int, rank: int, world_size: int) -> None:
        """Change the batch size and the processes that share batches, from the next epoch on."""
        if (max_targets, rank, world_size) != (self.max_targets, self.rank, self.world_size):
            self._coming = None
        self.max_targets, self.rank, self.world_size = max_targets, rank, world_size

    def state_before_epoch(self) -> Tensor | None:
        """Return the generator's state before the coming epoch was drawn, None if it was not."""
        return None if self._coming is None else self._state

    def forget_epoch(self) -> None:
        """Draw the coming epoch anew, since the generator was put back."""
        self._coming = None

    def _coming_batches(self) -> list[Tensor]:
        if self._coming is None:
            self._state = None if self.generator is None else self.generator.get_state()
            order = torch.arange(len(self.n_targets))
            if self.shuffle:
                order = torch.randperm(len(self.n_targets), generator=self.generator)
            self._coming = group_by_targets(self.n_targets, order, self.max_targets)
        return self._coming


class _RowNumbers(torch.utils.data.Dataset[Tensor]):
    """What torch's loader reads: a batch's row numbers, of which ``collate_fn`` makes the batch."""

    def __init__(self, n_rows: int) -> None:
        self.n_rows = n_rows

    def __len__(self) -> int:
        return self.n_rows

    def __getitem__(self, rows: Tensor) -> Tensor:
        return rows


class WindowTrainDataLoader(AbstractDataLoader):
    """RecBole's training loader over windows instead of prefix rows.

    A batch is an Interaction of the user's id ``[R]``, item list ``[R, L']``, item list length
    ``[R]`` and ``target_item_list [R, L']``, all int64; 0 is padding, or a position that is not
    scored. ``L'`` is the longest row of the batch. With negative sampling, ``neg_target_item_list
    [R, L']`` has one negative for every target. ``dataset`` stays the split of prefix rows, so
    that what RecBole counts in it is the same with and without windows.

    Args:
        dataset: the training split, a sequential dataset of prefix rows.
        sampler: RecBole's sampler of negatives, None where the loss needs none.

    Raises:
        ValueError: a setting that windows have no meaning for; it is named, with what to set
            instead.
    """

    def __init__(self, config: Any, dataset: Any, sampler: Any, shuffle: bool = False) -> None:
        self.config = config
        self._dataset = dataset
        self._sampler = sampler
        self.shuffle = shuffle
        self.logger = getLogger()
        self.model = None
        self.is_sequential = config["MODEL_TYPE"] == ModelType.SEQUENTIAL
        self._read_fields(config)
        feat = dataset.inter_feat
        self._table = WindowTable(
            sequences_of_prefix_rows(
                feat[self.uid_field],
                feat[self.iid_field],
                partial(entries, feat, self.list_field),
                feat[self.length_field],
                config["MAX_ITEM_LIST_LENGTH"],
            ),
            config["MAX_ITEM_LIST_LENGTH"],
        )
        self.sample_size = len(self._table)
        self.generator = torch.Generator()
        self.generator.manual_seed(config["seed"])
        self.transform = construct_transform(config)
        batches = WindowBatchSampler(
            self._table.n_targets,
            self._table.n_inputs,
            config["train_batch_size"],
            shuffle=shuffle,
            generator=self.generator,
        )
        # AbstractDataLoader's own start would batch by rows; torch's does what is left of it.
        torch.utils.data.DataLoader.__init__(
            self,
            dataset=_RowNumbers(self.sample_size),
            batch_size=None,
            sampler=batches,
            collate_fn=self.collate_fn,  # type: ignore[arg-type]  # takes what _RowNumbers gives
            num_workers=config["worker"],
            generator=self.generator,
        )
        self._init_batch_size_and_step()
        self.logger.info(
            f"train_positions: all, {self.sample_size:,} training rows "
            f"with {int(self._table.n_targets.sum()):,} targets"
        )

    def _read_fields(self, config: Any) -> None:
        self.uid_field = config["USER_ID_FIELD"]
        self.iid_field = config["ITEM_ID_FIELD"]
        self.list_field = self.iid_field + config["LIST_SUFFIX"]
        self.length_field = config["ITEM_LIST_LENGTH_FIELD"]
        self.neg_field = config["NEG_PREFIX"] + TARGET_LIST
        self.neg_sample_args = config["train_neg_sample_args"]
        self._draws_negatives = self.neg_sample_args["distribution"] != "none"
        if self._draws_negatives:
            self._check_negatives(config)
        if config["transform"] not in (None, "user_defined"):
            raise ValueError(
                f"transform: {config['transform']} makes a second view of histories and knows no "
                "target at every position: set train_positions: last, or leave transform out"
            )

    def _check_negatives(self, config: Any) -> None:
        if config["MODEL_INPUT_TYPE"] != InputType.PAIRWISE:
            raise ValueError(
                f"loss_type: {config['loss_type']} takes no negatives with train_positions: "
                "all: set train_neg_sample_args: ~, or loss_type: BPR"
            )
        n_negatives = self.neg_sample_args["sample_num"]
        if n_negatives != 1 or self.neg_sample_args.get("dynamic", False):
            raise ValueError(
                "train_positions: all draws one negative a target, got train_neg_sample_args: "
                f"{dict(self.neg_sample_args)}: set sample_num: 1 and dynamic: false, or "
                "train_positions: last"
            )

    def _init_batch_size_and_step(self) -> None:
        batch_size = self.config["train_batch_size"]
        rank, world_size = 0, 1
        if not self.config["single_spec"]:
            rank = torch.distributed.get_rank()
            world_size = torch.distributed.get_world_size()
        self.step = max(1, batch_size // world_size)
        self.set_batch_size(batch_size)
        self.sampler.set_batching(batch_size, rank, world_size)

    def update_config(self, config: Any) -> None:
        """Take over another configuration, as RecBole asks of loaders that it has read."""
        self._read_fields(config)
        super().update_config(config)

    def __iter__(self) -> Iterator[Interaction]:
        # The order first, then torch's own draw of a seed for its workers from the same generator:
        # epochs are the same whether or not their lengths were asked for.
        len(self.sampler)
        return super().__iter__()

    def collate_fn(self, rows: Tensor) -> Interaction:
        """Make the batch of these rows, ``[R]`` int64."""
        inputs, targets = self._table.rows(rows)
        users = self._table.user[rows]
        batch = Interaction(
            {
                self.uid_field: users,
                self.list_field: inputs,
                self.length_field: self._table.n_inputs[rows],
                TARGET_LIST: targets,
            }
        )
        batch = self.transform(self._dataset, batch)
        if self._draws_negatives:
            row, column = targets.nonzero(as_tuple=True)
            negatives = torch.zeros_like(targets)
            negatives[row, column] = self._sampler.sample_by_user_ids(
                users[row].numpy(), targets[row, column].numpy(), 1
            )
            batch.update(Interaction({self.neg_field: negatives}))
        return batch
