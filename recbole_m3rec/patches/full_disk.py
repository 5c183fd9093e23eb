"""A full disk costs a log, not a training: one line says which file, and the rest goes on."""

from __future__ import annotations

import functools
import logging
import sys
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
    """Fix trainer/trainer.py:118, whose writer of TensorBoard's files ends the training."""
    from recbole.trainer import trainer as trainers

    @wrap(trainers, "get_tensorboard")
    def get_tensorboard(original: Callable[..., Any], logger: Any) -> Any:
        return WhileThereIsRoom(original(logger))


class WhileThereIsRoom:
    """A writer of TensorBoard's files that ends with one line where they cannot be written."""

    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.__dict__["_writer"], name)
        if not name.startswith("add_"):
            return method

        def add(*args: Any, **kwargs: Any) -> None:
            if self._writer is None:
                return
            try:
                method(*args, **kwargs)
            except OSError as error:
                folder = self._writer.log_dir
                self._writer = None
                logging.getLogger().warning(
                    f"cannot write {folder}: {error.strerror}; TensorBoard's files end there"
                )

        return add
