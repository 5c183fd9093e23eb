"""Patches for RecBole's training run."""

from __future__ import annotations

import copy
import importlib
import logging
import secrets
import sys
import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from recbole_m3rec.hooks import Overlay, overlay, wrap, wrap_everywhere


def download_without_process_group() -> None:
    """Fix data/dataset/dataset.py:252, a ``dist.barrier()`` after a download, also when alone."""
    from recbole.data.dataset import dataset as dataset_module

    def barrier(*args: Any, **kwargs: Any) -> Any:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            return torch.distributed.barrier(*args, **kwargs)
        return None

    distributed = Overlay(torch.distributed, barrier=barrier)
    overlay(dataset_module, "torch", distributed=distributed)


def collect_plain_values() -> None:
    """Fix evaluator/collector.py:227, which calls ``.cpu()`` on counts that are no tensors.

    ItemCoverage, GiniIndex, AveragePopularity and TailPercentage need such counts. They are taken
    out while RecBole collects its tensors, and put back.
    """
    from recbole.evaluator.collector import Collector, DataStruct

    if not _collector_fails_on_counts(Collector, DataStruct):
        return

    @wrap(Collector, "get_data_struct")
    def get(original: Callable[..., Any], self: Any) -> Any:
        kept = self.data_struct._data_dict
        plain = {name: v for name, v in kept.items() if not isinstance(v, torch.Tensor)}
        for name in plain:
            del kept[name]
        try:
            collected = original(self)
        finally:
            kept.update(plain)
        for name, value in plain.items():
            collected.set(name, copy.deepcopy(value))
        return collected


def _collector_fails_on_counts(collector: Any, data_struct: Any) -> bool:
    struct = data_struct()
    struct.set("data.num_items", 1)
    try:
        collector.get_data_struct(SimpleNamespace(data_struct=struct))
    except AttributeError:
        return True
    return False


def report_plain_numbers() -> None:
    """Fix evaluator/evaluator.py:evaluate, whose metrics numpy 2 prints as ``np.float64(0.1)``."""
    if repr(np.float64(1.0)) == "1.0":
        return
    from recbole.evaluator.evaluator import Evaluator

    @wrap(Evaluator, "evaluate")
    def evaluate(original: Callable[..., Any], self: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(self, *args, **kwargs)
        for metric, value in result.items():
            result[metric] = float(value)
        return result


def look_up_items_once() -> None:
    """Fix evaluator/metrics.py:553 and 748, loops over every item of every list.

    The second searches a list of all rare items each time. Both depend on the item alone, so that
    each is looked up once.
    """
    from recbole.evaluator.metrics import AveragePopularity, TailPercentage

    def of_items(original: Callable[..., Any], self: Any, lists: Any, counts: Any) -> Any:
        items, place = np.unique(lists, return_inverse=True)
        return original(self, items[None], counts)[0][place].reshape(lists.shape)

    wrap(AveragePopularity, "get_pop")(of_items)
    wrap(TailPercentage, "get_tail")(of_items)


def tolerate_uncountable_flops() -> None:
    """Fix utils/utils.py:get_flops, called by quick_start.py before training.

    It runs ``predict`` on one interaction, which GRU4RecCPR and SASRecCPR refuse by an assertion.
    A number that is only logged must not end a run: it is reported as unknown, with the reason.
    """
    from recbole.quick_start import quick_start

    @wrap(quick_start, "get_flops")
    def count(
        original: Callable[..., Any], model: Any, dataset: Any, device: Any, logger: Any, *rest: Any
    ) -> Any:
        try:
            return original(model, dataset, device, logger, *rest)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}".rstrip(": ")
            logger.warning(f"FLOPs of {type(model).__name__} cannot be counted ({reason})")
            return "unknown"


def measure_without_waiting() -> None:
    """Fix utils/utils.py:430, which sleeps for a second of each run to see how busy the CPU is.

    What is logged is how busy it was since psutil was imported or last asked.
    """
    from recbole.quick_start import quick_start

    psutil = importlib.import_module("psutil")

    @wrap(quick_start, "get_environment")
    def environment(original: Callable[..., Any], config: Any) -> Any:
        measure = psutil.cpu_percent
        psutil.cpu_percent = lambda interval: measure()  # type: ignore[attr-defined]
        try:
            return original(config)
        finally:
            psutil.cpu_percent = measure  # type: ignore[attr-defined]


def silence_known_warnings() -> None:
    """Fix trainer/trainer.py:235 and data/dataset/dataset.py:2202, which warn in every run.

    A deprecated way to build an unused gradient scaler, and tensors made of pandas' read-only
    columns, which RecBole never writes to.
    """
    warnings.filterwarnings(
        "ignore", r"`torch\.cuda\.amp\.GradScaler", FutureWarning, r"recbole\.trainer\."
    )
    warnings.filterwarnings(
        "ignore", r"The given NumPy array is not writ", UserWarning, r"recbole\.data\."
    )


def ask_for_deterministic_algorithms() -> None:
    """Fix utils/utils.py:188, whose ``reproducibility`` reaches cuDNN alone.

    With several threads on a CPU, gradients of rows that a model indexes are added up in the order
    in which threads come. torch has one order where it is asked; where an operation has none, as on
    CUDA, it warns and goes on.
    """
    from recbole import utils

    @wrap_everywhere(utils, "init_seed")
    def seed(original: Callable[..., None], seed: int, reproducibility: bool) -> None:
        original(seed, reproducibility)
        torch.use_deterministic_algorithms(reproducibility, warn_only=True)
        if reproducibility:
            # That torch also fills new memory finds faults and costs time.
            torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def train_without_tracing() -> None:
    """Fix model/sequential_recommender/sine.py:25, which turns on torch's anomaly detection.

    RecBole imports every sequential model, so that line slows the training of all of them: torch
    then keeps a stack trace of each operation and searches each gradient for NaN.
    """
    was_on = torch.is_anomaly_enabled()
    sine = "recbole.model.sequential_recommender.sine"
    imported_before = sine in sys.modules
    importlib.import_module(sine)
    torch.autograd.set_detect_anomaly(was_on and not imported_before)


def name_checkpoints_uniquely() -> None:
    """Fix trainer/trainer.py:132, 902, 906 and 910, which name checkpoints to the second.

    Two runs of a model begun in the same second would write, and then test, the same file.
    """
    from recbole.trainer import trainer

    @wrap(trainer, "get_local_time")
    def moment(original: Callable[..., str]) -> str:
        return f"{original()}-{secrets.token_hex(3)}"


def train_in_bfloat16() -> None:
    """Fix trainer/trainer.py:244, whose ``enable_amp`` means float16 on CUDA.

    bfloat16 has the range of float32, so that no loss needs scaling. Where a GPU has none, float16
    stays. Evaluation is float32 anyway.
    """
    from recbole.trainer import trainer

    def autocast(device_type: str, **options: Any) -> torch.autocast:
        if device_type == "cpu" or torch.cuda.is_bf16_supported():
            options.setdefault("dtype", torch.bfloat16)
        return torch.autocast(device_type, **options)

    overlay(trainer, "torch", autocast=autocast)


def repair_log_of_ract() -> None:
    """Fix model/general_recommender/ract.py:76 and 86, which log a path without a place for it.

    Python's logging writes a traceback to the terminal instead of the line.
    """

    def give_it_a_place(record: logging.LogRecord) -> bool:
        if record.msg == "Load pretrained model from" and record.args:
            record.msg += " %s"
        return True

    logging.getLogger().addFilter(give_it_a_place)
