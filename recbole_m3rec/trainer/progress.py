"""Where a training is: everything that a later process needs to go on to the last bit."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from logging import getLogger
from pathlib import Path
from time import monotonic
from typing import Any

import torch
import torch.distributed as dist

from recbole_m3rec.processes.global_batch import mean_over_processes
from recbole_m3rec.processes.launch import own_launch
from recbole_m3rec.support.safe_write import CannotWriteError, FileInUseError
from recbole_m3rec.trainer import checkpoint_file, random_states
from recbole_m3rec.trainer.interruption import SIGNALS, Stopped
from recbole_m3rec.trainer.trainer_state import (
    changes,
    environment,
    other_optimizers,
    plain_attributes,
)

# Beside RecBole's own entries of a checkpoint.
KEY = "progress"

# RecBole's entries that ``Trainer.evaluate`` reads.
OF_A_TEST = ("state_dict", "other_parameter")


def last_checkpoint(best: str | Path) -> Path:
    """Return where a run keeps its latest state, beside its best epoch."""
    best = Path(best)
    return best.with_name(best.stem + checkpoint_file.LAST)


def best_checkpoint(path: str | Path, config: Any) -> Path:
    """Return where a run keeps its best epoch, given either of its two checkpoints."""
    path = Path(path)
    if not path.name.endswith(checkpoint_file.LAST):
        return path
    suffix = checkpoint_file.SAFE if config["checkpoint_format"] == "safe" else ".pth"
    return path.with_name(path.name.removesuffix(checkpoint_file.LAST) + suffix)


class Progress:
    """One call of ``Trainer.fit``, followed from outside.

    Args:
        trainer: RecBole's trainer; one that resumes has ``resumed_from``.
    """

    def __init__(self, trainer: Any, train_data: Any, valid_data: Any, saves: bool) -> None:
        self.trainer, self.train_data, self.valid_data = trainer, train_data, valid_data
        self.saves = saves
        self.resumed: dict[str, Any] | None = vars(trainer).get("resumed_from")
        self.alone = bool(trainer.config["single_spec"])
        self.epoch = self.saved_epoch = trainer.start_epoch - 1
        self.latest_result: Any = None
        self.in_epoch = False
        self.unsaved_best: Any = None  # a best epoch's checkpoint that the disk had no room for
        self.warned_of: set[Path] = set()  # what could not be written when it was last tried
        self.at_epoch_start: list[Any] = []
        self.loss: Any = None  # of the epoch's batches so far, as RecBole adds them up
        self.trained: dict[str, Any] | None = None  # the state before an epoch is validated
        self.saved_at = monotonic()
        minutes = trainer.config["checkpoint_minutes"]
        self.seconds = None if minutes is None else 60 * minutes

    # Into a checkpoint

    def state(self, epoch: int, position: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the state after ``epoch``, or inside the next one at a position.

        With several processes all have to call this; each has random states of its own.
        """
        trainer = self.trainer
        own = random_states.capture(), random_states.of_loader(self.valid_data), own_launch()
        states: list[Any] = [own]
        if not self.alone:
            states = [None] * dist.get_world_size()
            dist.all_gather_object(states, own)
        loader = self.at_epoch_start if position else random_states.of_loader(self.train_data)
        built = vars(trainer).get("model_as_built", {})
        return {
            "epoch": epoch,
            "position": position,
            "cur_step": trainer.cur_step,
            "best_valid_score": float(trainer.best_valid_score),
            "best_valid_result": trainer.best_valid_result,
            "train_loss": dict(trainer.train_loss_dict),
            "train_loader": loader,
            "random": [list(each[:2]) for each in states],
            "launch": states[0][2],
            "optimizers": {k: v.state_dict() for k, v in other_optimizers(trainer).items()},
            "optimizer_is": [
                name for name, v in other_optimizers(trainer).items() if v is trainer.optimizer
            ],
            "parts": {k: v.state_dict() for k, v in vars(trainer).get("carried_parts", {}).items()},
            "model": {
                module: changed
                for module, values in plain_attributes(trainer.model).items()
                if (changed := changes(built.get(module, {}), values))
            },
            "environment": environment(trainer),
        }

    def save(self, epoch: int, state: dict[str, Any]) -> None:
        """Write the latest state; a full disk costs this checkpoint, not the training."""
        if not self.saves or not self._best_is_saved():
            return
        path = last_checkpoint(self.trainer.saved_model_file)
        try:
            self.trainer.state_to_save = state
            self.trainer._save_checkpoint(epoch, verbose=False, saved_model_file=str(path))
        except (CannotWriteError, FileInUseError) as error:
            self._warn(path, f"{error}. Training goes on; the next checkpoint is tried again.")
        else:
            self.warned_of.discard(path)
        self.saved_at = monotonic()

    def keep_best(self, content: Any, error: Exception) -> None:
        """Keep a best epoch's checkpoint that could not be written until there is room."""
        path = Path(self.trainer.saved_model_file)
        self._warn(path, f"{error}. Training goes on; the checkpoint is kept and tried again.")
        self.unsaved_best = copy.deepcopy({**content, "config": None})
        self.unsaved_best["config"] = content["config"]

    def unsaved_weights(self) -> dict[str, Any] | None:
        """Return what tests the best epoch where no disk had room for it, None where it is saved.

        With several processes all have to call this; the first one gives its own to all.
        """
        is_saved, best = self._best_is_saved(), self.unsaved_best
        weights = [None if best is None else {key: best.get(key) for key in OF_A_TEST}]
        if not is_saved and not self.alone:
            dist.broadcast_object_list(weights, src=0)
        if weights[0] is not None:
            getLogger().warning(
                f"{self.trainer.saved_model_file}: there is still no room for the best epoch. It is"
                " tested from memory and lost when the run ends; a file there is of an earlier one."
                " Make room and train again"
            )
        return weights[0]

    def best_was_saved(self) -> None:
        """Forget the best epoch that was kept: it, or a better one, is on the disk."""
        self.unsaved_best = None
        self.warned_of.discard(Path(self.trainer.saved_model_file))

    def _warn(self, path: Path, text: str) -> None:
        """Say that a file cannot be written, once until it can be."""
        if path not in self.warned_of:
            self.warned_of.add(path)
            getLogger().warning(text)

    def _best_is_saved(self) -> bool:
        """Save a best epoch that is still kept: no latest state may lie beside an older one."""
        saved = [self._saved_own_best()]
        if not self.trainer.config["single_spec"]:  # the first process keeps it for all
            dist.broadcast_object_list(saved, src=0)
        return saved[0]

    def _saved_own_best(self) -> bool:
        if self.unsaved_best is None:
            return True
        try:
            checkpoint_file.save(self.unsaved_best, self.trainer.saved_model_file)
        except CannotWriteError:
            return False
        self.best_was_saved()
        return True

    # Epochs

    def begin_epoch(self, epoch: int) -> None:
        """Note where an epoch starts; one before that nobody validated is saved now."""
        self.end_epoch(self.epoch)
        if self.resumed is not None:
            random_states.restore_loader(self.train_data, self.resumed["train_loader"])
            if self.resumed["position"] is None:
                self.restore_random()
        self.epoch, self.trained, self.loss = epoch, None, None
        self.at_epoch_start = random_states.of_loader(self.train_data)

    def end_epoch(self, epoch: int) -> None:
        """Save what an epoch, trained and perhaps validated, left; once."""
        if epoch > self.saved_epoch:
            SIGNALS.deferring = True  # an epoch that is done is saved
            try:
                self.save(epoch, self.state(epoch))
                self.saved_epoch, self.trained = epoch, None
            finally:
                SIGNALS.deferring = not self.alone
            self._stop_if_asked(saved=True)

    def restore_random(self) -> None:
        """Put every random state back to where the checkpoint was written."""
        resumed, self.resumed = self.resumed, None
        if resumed is None:
            return
        rank, world_size = (0, 1) if self.alone else (dist.get_rank(), dist.get_world_size())
        if len(resumed["random"]) != world_size:
            getLogger().warning(
                f"The checkpoint is of {len(resumed['random'])} processes and goes on in "
                f"{world_size}: training goes on from it, but not as it would have."
            )
            return
        states, loader = resumed["random"][rank]
        random_states.restore_loader(self.valid_data, loader)
        random_states.restore(states)

    # Batches

    def follow(self, loss_function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a loss function that adds its losses up as RecBole does."""

        def calculate(interaction: Any) -> Any:
            losses = loss_function(interaction)
            parts = losses if isinstance(losses, tuple) else (losses,)
            self._new = tuple(part.detach() for part in parts), isinstance(losses, tuple)
            return losses

        return calculate

    def batches(self, loader: Any) -> Iterator[Any]:
        """Yield an epoch's batches, without those before the position that is resumed."""
        self.n_batches = len(loader)  # before it begins: windows then draw the next epoch's
        iterator = iter(loader)
        done = 0
        if self.resumed is not None:
            done = self._skip(iterator, self.resumed["position"])
            self.restore_random()
        SIGNALS.deferring = True
        try:
            for batch in iterator:
                yield batch
                done += 1  # the trainer asks for the next one, so it has made its step
                self._add_loss()
                self._after_step(done)
        finally:
            SIGNALS.deferring = not self.alone
        if self.saves:
            self.trained = self.state(self.epoch - 1, self._position(done))
        self._stop_if_asked(saved=False)

    def _skip(self, batches: Iterator[Any], position: dict[str, Any]) -> int:
        if position["of"] != self.n_batches:
            getLogger().warning(
                f"The checkpoint was written after {position['batches']} of {position['of']} "
                f"batches of epoch {self.epoch}, which has {self.n_batches} now: it starts anew."
            )
            return 0
        for _ in range(position["batches"]):
            next(batches)
        self.loss = position["loss"]
        self.trainer._batch = position["batches"]  # a NaN names it
        return int(position["batches"])

    def _position(self, done: int) -> dict[str, Any]:
        return {"batches": done, "of": self.n_batches, "loss": self.loss}

    def _add_loss(self) -> None:
        parts, is_tuple = self._new
        values = tuple(part.item() for part in parts)
        if not self.alone:
            values = mean_over_processes(values, self.trainer.device)
        if not is_tuple:
            self.loss = values[0] if self.loss is None else self.loss + values[0]
        else:
            self.loss = values if self.loss is None else tuple(map(sum, zip(self.loss, values)))  # noqa: B905

    def _after_step(self, done: int) -> None:
        late = self.seconds is not None and monotonic() - self.saved_at > self.seconds
        signal, late = self._highest(SIGNALS.pending or 0, int(late))
        if not signal and not late:
            return
        exact = not self.trainer.enable_scaler  # RecBole keeps the scale of a step to itself
        if self.saves and exact:
            self.save(self.epoch - 1, self.state(self.epoch - 1, self._position(done)))
        if signal:
            self._stop(signal)

    def _stop_if_asked(self, *, saved: bool) -> None:
        (signal,) = self._highest(SIGNALS.pending or 0)
        if signal:
            if not saved:
                self.save_trained()
            self._stop(signal)

    def _highest(self, *requests: int) -> list[int]:
        """Return the highest of all processes' requests, each by itself."""
        if self.alone:
            return list(requests)
        highest = torch.tensor(requests, device=self.trainer.device)
        dist.all_reduce(highest, op=dist.ReduceOp.MAX)
        return highest.tolist()

    def _stop(self, number: int) -> None:
        SIGNALS.pending = None
        raise Stopped(number)

    def save_trained(self) -> None:
        """Save an epoch whose training is done and whose validation was interrupted."""
        if self.trained is not None:
            self.save(self.epoch - 1, self.trained)
            self.trained = None
