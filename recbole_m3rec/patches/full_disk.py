"""A full disk costs a log, not a training: one line says which file, and the rest goes on."""

from __future__ import annotations

import functools
import logging
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from recbole_m3rec.hooks import wrap, wrap_everywhere


def end_logs_quietly() -> None:
    """Fix utils/logger.py:108, whose handler prints a traceback for every line it cannot write."""
    from recbole.utils import logger

    @wrap_everywhere(logger, "init_logger")
    def init_logger(original: Callable[..., None], config: Any) -> None:
        original(config)
        for handler in logging.getLogger().handlers:
            if isinstance(handler, logging.FileHandler):
                handler.handleError = functools.partial(end_log, handler)  # type: ignore[method-assign]


def end_log(handler: logging.FileHandler, record: logging.LogRecord) -> None:
    """Take a log file that cannot be written out of the logger, and say so once."""
    error = sys.exc_info()[1]
    if not isinstance(error, OSError):
        logging.Handler.handleError(handler, record)
        return
    logging.getLogger().removeHandler(handler)
    stream: Any = handler.stream
    handler.stream = None  # type: ignore[assignment]
    with suppress(OSError):  # what is left in its buffer does not fit either
        stream.close()
    print(
        f"cannot write {handler.baseFilename}: {error.strerror}; the log ends there",
        file=sys.stderr,
    )


def end_tensorboard_quietly() -> None:
    """Fix trainer/trainer.py:118, whose writer of TensorBoard's files ends the training.

    TensorBoard's own thread prints a traceback beside the error that the writer raises.
    """
    from recbole.trainer import trainer as trainers

    @wrap(trainers, "get_tensorboard")
    def get_tensorboard(original: Callable[..., Any], logger: Any) -> Any:
        try:
            return WhileThereIsRoom(original(logger))
        except OSError as error:
            warn_of_tensorboard("log_tensorboard", error)
            return WhileThereIsRoom(None)

    wrap(threading, "excepthook")(leave_out_tensorboard)


def leave_out_tensorboard(original: Callable[..., None], failed: Any) -> None:
    """Show how a thread failed, unless it is TensorBoard's, which cannot write."""
    is_its = type(failed.thread).__module__.startswith("tensorboard.")
    if not (is_its and isinstance(failed.exc_value, OSError)):
        original(failed)


def warn_of_tensorboard(folder: Any, error: OSError) -> None:
    """Say that TensorBoard's files cannot be written."""
    logging.getLogger().warning(
        f"cannot write {os.path.abspath(folder)}: {error.strerror or error}; TensorBoard's files"
        " end there, training goes on"
    )


class WhileThereIsRoom:
    """A writer of TensorBoard's files that ends with one line where they cannot be written.

    From then on, and without a writer, its methods do nothing.
    """

    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def __getattr__(self, name: str) -> Any:
        writer = self.__dict__["_writer"]
        found = None if writer is None else getattr(writer, name)
        if found is not None and not callable(found):
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            if found is None or self._writer is None:
                return None
            try:
                return found(*args, **kwargs)
            except OSError as error:
                self._writer = None
                warn_of_tensorboard(writer.log_dir, error)
                return None

        return call
