"""Records epochs and per-user values of a run of RecBole while it trains."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch

from recbole_m3rec.compare.user_values import (
    SEVERAL,
    Lists,
    UserValues,
    agreeing,
    counts,
    listed_before,
    target_keys,
)
from recbole_m3rec.evaluator import block_evaluation
from recbole_m3rec.evaluator.cold_items import COLD, WARM, cold_targets
from recbole_m3rec.quick_start.checkpoints import around
from recbole_m3rec.trainer.trainer_state import carry


@dataclass
class Recorder:
    """Listens to a run through RecBole's own methods; the run's numbers stay as they are.

    What it has heard is part of the run's checkpoints, so that a run that was cut off is heard
    whole.

    Attributes:
        tests: False keeps the test data from the run.
        on_epoch: called after each epoch that is validated, or trained where none is.
        epochs: an entry an epoch: ``epoch`` (from 0), ``loss``, ``seconds`` of training, and where
            it was validated ``score`` and ``valid``.
        seconds: from the start to the end, without those between a cut and the start after it.
    """

    tests: bool = True
    on_epoch: Callable[[dict[str, Any]], None] = lambda epoch: None
    epochs: list[dict[str, Any]] = field(default_factory=list)
    parameters: int | None = None
    seconds: float = 0.0
    _started: float = 0.0  # when this process began to listen
    _epoch_started: float | None = None  # when it began to train an epoch, None between two
    _trained_before: float = 0.0  # seconds that this epoch was trained before a cut
    _log: Any = None  # all interactions, (users, items) as internal ids
    _data: tuple[Any, Any, Any] | None = None  # dataset, validation and test loader
    _columns: dict[str, np.ndarray] = field(default_factory=dict)
    _rows: list[tuple[np.ndarray, ...] | None] = field(default_factory=list)
    _top: np.ndarray | None = None  # of the test
    _hits: np.ndarray | None = None  # 1 where a list has a target
    _before: torch.Tensor | None = None
    _targets: torch.Tensor | None = None  # of a batch, those out of reach included, see target_keys

    @contextlib.contextmanager
    def listening(self, folder: Path) -> Iterator[None]:
        """Listen to the run inside; what it would log beside the data goes into the folder."""
        from recbole.evaluator.base_metric import TopkMetric
        from recbole.evaluator.collector import Collector
        from recbole.quick_start import quick_start
        from recbole.trainer import trainer as trainers

        with contextlib.ExitStack() as stack:
            for owner, name, listener in (
                (quick_start, "init_logger", log_to_stderr),
                (quick_start, "create_dataset", self._created),
                (quick_start, "data_preparation", self._split),
                (quick_start, "get_trainer", self._chosen),
                (trainers, "get_tensorboard", tensorboard_in(folder)),
                (trainers.Trainer, "_train_epoch", self._training),
                (trainers.Trainer, "_generate_train_loss_output", self._trained),
                (trainers.Trainer, "_valid_epoch", self._validated),
                (trainers.Trainer, "evaluate", self._evaluated),
                (TopkMetric, "topk_result", self._averaged),
                (trainers.Trainer, "_full_sort_batch_eval", self._scored),
                (Collector, "eval_batch_collect", self._collected),
                (Collector, "get_data_struct", self._gathered),
                (block_evaluation, "rank_targets", self._ranked),
            ):
                stack.enter_context(around(owner, name, listener))
            self._started = perf_counter()
            yield
            self.seconds += perf_counter() - self._started

    def state_dict(self) -> dict[str, Any]:
        """Return what has been heard so far."""
        now = perf_counter()
        in_epoch = 0.0 if self._epoch_started is None else now - self._epoch_started
        return {
            "epochs": [dict(epoch) for epoch in self.epochs],
            "seconds": self.seconds + now - self._started,
            "in_epoch": self._trained_before + in_epoch,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what was heard before the run was cut off, and tell of its epochs again."""
        self.epochs = list(state["epochs"])
        self.seconds, self._trained_before = state["seconds"], state["in_epoch"]
        for epoch in self.epochs:
            self.on_epoch(epoch)

    def _chosen(self, original: Callable[..., Any], *names: Any) -> Callable[..., Any]:
        trainer_class = original(*names)

        def build(config: Any, model: Any) -> Any:
            trainer = trainer_class(config, model)
            carry(trainer, "recorder", self)
            return trainer

        return build

    def _created(self, original: Callable[..., Any], config: Any) -> Any:
        dataset = original(config)
        fields = (dataset.uid_field, dataset.iid_field)
        self._log = tuple(np.array(dataset.inter_feat[name], dtype=np.int64) for name in fields)
        return dataset

    def _split(self, original: Callable[..., Any], config: Any, dataset: Any) -> Any:
        train, valid, test = original(config, dataset)
        self._data = (dataset, valid, test)
        return train, valid, test if self.tests else None

    def _training(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self._epoch_started = perf_counter()
        try:
            return original(*args, **kwargs)
        finally:
            self._epoch_started = None

    def _trained(
        self, original: Callable[..., Any], trainer: Any, epoch: int, start: float, end: float,
        losses: Any,
    ) -> Any:  # fmt: skip
        loss = sum(losses) if isinstance(losses, tuple) else losses
        entry = {"epoch": epoch, "loss": None if loss is None else float(loss)}
        self.epochs.append({**entry, "seconds": self._trained_before + end - start})
        self._trained_before = 0.0
        if trainer.config["eval_step"] <= 0:
            self.on_epoch(self.epochs[-1])
        return original(trainer, epoch, start, end, losses)

    def _validated(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        score, result = original(*args, **kwargs)
        if self.epochs:
            numbers = {name: float(value) for name, value in result.items()}
            self.epochs[-1].update(score=float(score), valid=numbers)
            self.on_epoch(self.epochs[-1])
        return score, result

    def _evaluated(
        self, original: Callable[..., Any], trainer: Any, data: Any, *args: Any, **kwargs: Any
    ) -> Any:
        self.parameters = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
        self._columns, self._rows, self._top, self._hits = {}, [], None, None
        with self._lists_collected(trainer, data):
            return original(trainer, data, *args, **kwargs)

    @contextlib.contextmanager
    def _lists_collected(self, trainer: Any, data: Any) -> Iterator[None]:
        """Have RecBole's collector keep the best items of a test, asked for by a metric or not."""
        from recbole.data.dataloader.general_dataloader import FullSortEvalDataLoader

        wanted = vars(trainer.eval_collector.register)
        is_test = self._data is not None and data is self._data[2]
        if "rec.items" in wanted or not is_test or not isinstance(data, FullSortEvalDataLoader):
            yield
            return
        wanted["rec.items"] = True
        try:
            yield
        finally:
            del wanted["rec.items"]

    def _gathered(self, original: Callable[..., Any], collector: Any) -> Any:
        struct = original(collector)
        if "rec.topk" in struct:
            self._hits = struct.get("rec.topk").numpy()[:, :-1]
        if "rec.items" in struct:
            self._top = struct.get("rec.items").numpy().astype(np.int32)
        return struct

    def _averaged(
        self, original: Callable[..., Any], metric: Any, name: str, value: np.ndarray
    ) -> Any:
        for k in metric.topk:
            self._columns[f"{name}@{k}"] = np.asarray(value[:, k - 1], dtype=np.float64)
        return original(metric, name, value)

    def _scored(self, original: Callable[..., Any], trainer: Any, batch: Any) -> Any:
        _, _, positive_u, positive_i = batch  # mask_seen takes some out further in
        self._targets = target_keys(positive_u, positive_i, trainer.tot_item_num)
        return original(trainer, batch)

    def _ranked(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        ranking = original(*args, **kwargs)
        self._before = ranking.before
        return ranking

    def _collected(
        self,
        original: Callable[..., None],
        collector: Any,
        scores: Any,
        interaction: Any,
        positive_u: Any,
        positive_i: Any,
    ) -> None:
        self._before = None
        original(collector, scores, interaction, positive_u, positive_i)
        asked, self._targets = self._targets, None
        if positive_u is None or positive_i is None or self._data is None:
            return
        n_items = self._data[0].item_num
        ranked = target_keys(positive_u, positive_i, n_items)
        if self._before is None:
            if scores.dim() != 2:
                return
            here = ranked.to(scores.device)
            self._before = listed_before(scores, here // n_items, here % n_items)
        asked = ranked if asked is None else asked
        all_before = torch.full_like(asked, n_items - 1)  # out of reach: behind every candidate
        all_before[torch.searchsorted(asked, ranked)] = self._before.cpu()
        before, rows, targets = (t.numpy() for t in (all_before, asked // n_items, asked % n_items))
        # Of a row's targets the best one, which comes first in this order.
        order = np.lexsort((before, rows))
        _, first, n_targets = np.unique(rows[order], return_index=True, return_counts=True)
        first = order[first]
        users = interaction[self._data[0].uid_field].cpu()
        if len(users) != len(first):  # candidates were sampled, and each has a row
            users = torch.unique_consecutive(users)
        found = (users.numpy(), targets[first], before[first] + 1, n_targets)
        self._rows.append(found if len(users) == len(first) else None)

    def unrounded(self, result: dict[str, Any]) -> dict[str, float]:
        """Return RecBole's last result as it was before it was rounded, where that is known."""
        means: dict[str, float] = {}
        if self._columns:
            table = np.stack(list(self._columns.values()), axis=1)
            is_cold = cold_targets(self._data[2]) if self._data else None
            parts = {"": table}
            if is_cold is not None and len(is_cold) == len(table):
                parts |= {f"{WARM} ": table[~is_cold.numpy()], f"{COLD} ": table[is_cold.numpy()]}
            for part, rows in parts.items():
                names = [part + name for name in self._columns]
                means.update(zip(names, rows.mean(axis=0).tolist(), strict=True))
        return {name: float(means.get(name, value)) for name, value in result.items()}

    def user_values(self) -> UserValues | None:
        """Return the last evaluation by users; None where it has no such values."""
        rows = [row for row in self._rows if row is not None]
        if self._data is None or self._hits is None or not rows or len(rows) < len(self._rows):
            return None
        users, targets, rank, n = (np.concatenate(parts) for parts in zip(*rows, strict=True))
        values = np.stack(list(self._columns.values()), axis=1)
        if len(values) != len(users):
            return None
        dataset, valid, test = self._data
        history, popularity = counts(dataset, self._log, valid, test)
        cold_items = getattr(dataset, "cold_items", None)
        nothing = np.zeros(len(targets), dtype=bool)
        return UserValues(
            users=dataset.id2token(dataset.uid_field, users).astype(str),
            targets=dataset.id2token(dataset.iid_field, targets).astype(str),
            history=history[users],
            popularity=np.where(n > 1, SEVERAL, popularity[targets]),
            cold=nothing if cold_items is None else cold_items.numpy()[targets],
            rank=agreeing(rank, self._hits),
            metrics=tuple(self._columns),
            values=values,
        )

    def lists(self) -> Lists | None:
        """Return what the test recommended; None where not all items were ranked."""
        if self._data is None or self._top is None:
            return None
        dataset, valid, test = self._data
        return Lists(
            top=self._top,
            items=np.asarray(dataset.field2id_token[dataset.iid_field]).astype(str),
            popularity=counts(dataset, self._log, valid, test)[1],
        )


def log_to_stderr(original: Callable[..., Any], config: Any) -> None:
    """Log what RecBole logs to this process's stderr alone."""
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(message)s",
        handlers=[logging.StreamHandler(sys.stderr)],
    )


def tensorboard_in(folder: Path) -> Callable[..., Any]:
    """Return a ``get_tensorboard`` that writes below a folder instead of the working directory."""

    def open_writer(original: Callable[..., Any], logger: Any) -> Any:
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(str(folder / "tensorboard"))

    return open_writer
