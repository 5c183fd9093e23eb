"""SIGTERM and Ctrl-C: training saves where it is, then ends."""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any

# Signals that a worker gets within so many seconds are one.
AT_ONCE = 1.0


class Stopped(KeyboardInterrupt):
    """The program was asked to end by a signal.

    Attributes:
        number: the signal's.
        saved: the checkpoint from which the run goes on, None if there is none.
    """

    def __init__(self, number: int, saved: str | None = None) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number
        self.saved = saved


class Signals:
    """Signals of this process since training began.

    Attributes:
        pending: the first one that waits for the end of a training step, None if there is none.
        since: when it came.
        deferring: whether a signal waits for the end of a step, or ends the program at once.
    """

    def __init__(self) -> None:
        self.since = 0.0
        self.pending: int | None = None
        self.deferring = False

    def receive(self, number: int, frame: Any = None) -> None:
        """Let a first signal wait if it may; a second one never waits.

        One Ctrl-C reaches a worker twice, as such and passed on, and so may its parent's death.
        """
        is_worker = multiprocessing.parent_process() is not None
        if self.deferring and self.pending is None:
            self.pending, self.since = number, monotonic()
            return
        if self.deferring and is_worker and monotonic() - self.since < AT_ONCE:
            return
        raise Stopped(number)

    def pass_on(self, number: int, frame: Any = None) -> None:
        """Pass a signal on to the workers of this process, which end by themselves."""
        self.pending = self.pending or number
        for worker in multiprocessing.active_children():
            worker.terminate()

    @contextmanager
    def caught(self, *, by_workers: bool = False) -> Iterator[Signals]:
        """Catch SIGTERM and Ctrl-C inside, in the main thread of a program.

        Args:
            by_workers: the training runs in processes of its own.
        """
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        numbers = (signal.SIGTERM, signal.SIGINT)
        handler = self.pass_on if by_workers else self.receive
        before = {number: signal.signal(number, handler) for number in numbers}
        self.pending, self.deferring = None, False
        try:
            yield self
        finally:
            for number, old in before.items():
                signal.signal(number, old)
            self.pending, self.deferring = None, False


SIGNALS = Signals()
