"""Processes that watch each other: one that is lost ends the others, whatever they wait for.

A process that dies closes its connections, and a collective with it fails at once. A machine that
is cut off or a process that hangs closes none, and gloo would wait for half an hour. Each process
therefore counts up in the store through which all met, and looks whether the others do.

A signal reaches Python when the main thread leaves a collective, and never if that hangs: a thread
sees it by itself, and whether the program that started this process is still there.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import socket
import sys
import threading
import time
from datetime import timedelta
from typing import Any

import torch.distributed as dist

# How often a process counts up, and how long another may not, in seconds.
EVERY, LIMIT = 3.0, 40.0
# How long one that was told to end may wait, for another that still saves or evaluates.
PATIENCE = 300.0
# The exit code of a process that ends because another one was lost.
LOST = 75

WHAT_TO_DO = "Every process ends. --resume continues from the latest state that was saved"


class Watch:
    """Threads that count up for this process and look at the others, until it is left.

    Args:
        ip, port: of the store through which the processes met.
        run: sets the counters of one start apart from those of another.
    """

    def __init__(self, ip: str, port: int, run: str, rank: int, world_size: int) -> None:
        self.store = dist.TCPStore(
            ip, port, is_master=False, wait_for_workers=False, timeout=timedelta(seconds=LIMIT)
        )
        self.run, self.rank = run, rank
        self.others = [other for other in range(world_size) if other != rank]
        self.left = threading.Event()
        self.signals = _Signals()
        self.answered = time.monotonic()  # the store, last
        works = (self._look, self._look_at_store, self._look_at_main_thread)
        self.threads = [threading.Thread(target=work, daemon=True) for work in works]
        for thread in self.threads:
            thread.start()

    def leave(self) -> None:
        """Stop; the others no longer expect this process."""
        self.left.set()
        for thread in self.threads:
            thread.join(EVERY)
        self.signals.leave()
        self.store.add(self._key("left", self.rank), 1)

    def _key(self, what: str, rank: int) -> str:
        return f"{what} {self.run} {rank}"

    def _look(self) -> None:
        last_change: dict[int, tuple[int, float]] = {}
        while not self.left.wait(EVERY):
            try:
                self.store.add(self._key("alive", self.rank), 1)
                for other in self.others:
                    count = self.store.add(self._key("alive", other), 0)
                    before, since = last_change.get(other, (-1, 0.0))
                    if count != before:
                        last_change[other] = count, time.monotonic()
                    elif time.monotonic() - since > LIMIT:
                        if self.store.add(self._key("left", other), 0):
                            continue
                        end(f"Process {other} gave no sign for {LIMIT:.0f} s")
                self.answered = time.monotonic()
            except RuntimeError as error:
                if not self.left.is_set():
                    end(f"Process {self.rank} lost the first process ({first_line(error)})")

    def _look_at_store(self) -> None:
        """End where the first process, which holds the store, never answers."""
        while not self.left.wait(EVERY):
            if time.monotonic() - self.answered > LIMIT:
                end(f"The first process gave no sign for {LIMIT:.0f} s")

    def _look_at_main_thread(self) -> None:
        """End where this process was told to end, or its parent has gone, and it stands still."""
        parent, main = multiprocessing.parent_process(), threading.main_thread().ident
        told, place, since, used, limit = "", None, 0.0, 0.0, PATIENCE
        while not self.left.wait(EVERY):
            told = told or self.signals.received()
            if limit > LIMIT and parent is not None and not parent.is_alive():
                told, limit = "lost the program that started it", LIMIT
            frame = sys._current_frames().get(main or 0) if told else None
            if frame is None:
                continue
            now = frame, frame.f_lasti  # the frame is held: another call's is another one
            cpu = time.clock_gettime(time.pthread_getcpuclockid(main or 0))
            if now != place or cpu > used + EVERY / 2:  # as one call that computes for long
                place, since, used = now, time.monotonic(), cpu
            elif time.monotonic() - since > limit:
                end(f"Process {self.rank} {told} and stood still for {limit:.0f} s")


class _Signals:
    """SIGTERM and Ctrl-C as they arrive, whatever the main thread does."""

    def __init__(self) -> None:
        self.inner, self.outer = socket.socketpair()
        self.inner.setblocking(False)
        self.outer.setblocking(False)
        self.is_main = threading.current_thread() is threading.main_thread()
        if self.is_main:
            self.before = signal.set_wakeup_fd(self.outer.fileno(), warn_on_full_buffer=False)

    def received(self) -> str:
        """Return what this process was told since the last call, empty if nothing."""
        try:
            numbers = set(self.inner.recv(4096)) & {signal.SIGTERM, signal.SIGINT}
        except BlockingIOError:
            return ""
        return f"was told to end by {signal.Signals(min(numbers)).name}" if numbers else ""

    def leave(self) -> None:
        """Hear no more."""
        if self.is_main:
            signal.set_wakeup_fd(self.before)
        self.inner.close()
        self.outer.close()


def end(reason: str) -> None:
    """End this process at once: its main thread may wait for one that never answers."""
    print(f"error: {reason}. {WHAT_TO_DO}.", file=sys.stderr, flush=True)
    os._exit(LOST)


def first_line(error: BaseException) -> str:
    """Return what an error of torch says first, without the place in its source and its advice.

    >>> first_line(RuntimeError("[/gloo/pair.cc:5] Connection closed by peer [::1]:9. This is …"))
    'Connection closed by peer [::1]:9'
    """
    line = next(iter(str(error).splitlines()), type(error).__name__)
    return re.sub(r"^\[[^\]]*:\d+\] ", "", line).partition(". This is")[0]


def is_of_another(error: BaseException) -> bool:
    """Tell whether an error arose because another process has gone."""
    texts = ("gloo", "NCCL", "Connection closed by peer", "Connection reset by peer")
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and any(text in str(error) for text in texts)
    )


_watches: list[Any] = []


def start(config: Any) -> None:
    """Watch the others from here on, if there are any and nobody watches yet."""
    if config["single_spec"] or _watches:
        return
    run = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    place = str(config["ip"]), int(config["port"])
    _watches.append(Watch(*place, run, dist.get_rank(), dist.get_world_size()))


def stop() -> None:
    """Stop watching, and wait until all have: the first process holds the store of all."""
    for watch in _watches:
        watch.leave()
    _watches.clear()
    dist.barrier()
