"""What a process is told once, before it trains.

How threads wait, what becomes of freed memory, what the garbage collector leaves alone, and what
Ctrl-C does while much is imported.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator

# Numbers of glibc's mallopt().
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -2, -3, -8

_GLIBCS = (
    *(f"MALLOC_{name}_" for name in ("TRIM_THRESHOLD", "MMAP_THRESHOLD", "TOP_PAD")),
    *("MALLOC_ARENA_MAX", "GLIBC_TUNABLES"),
)

_logger = logging.getLogger(__name__)


def prepare_process() -> None:
    """Let threads wait without using a core, and let the allocator keep freed memory.

    What the user set in the environment stays as it is.
    """
    wait_passively()
    keep_freed_memory()


def wait_passively() -> None:
    """Have OpenMP's threads sleep while they wait, here and in every process started from here.

    Threads that wait actively take the cores from each other as soon as another program runs: one
    busy neighbour slows an epoch up to twentyfold. OpenMP reads ``OMP_WAIT_POLICY`` when torch
    loads it, so this comes too late for this process where torch is imported already.
    """
    if any(name in os.environ for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")):
        return
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    if "torch" in sys.modules:
        _logger.info(
            "torch was imported before recbole, so its threads wait actively, which is slow "
            "beside other busy programs. Import recbole_m3rec and recbole first, or set "
            "OMP_WAIT_POLICY=PASSIVE before Python starts."
        )


def keep_freed_memory() -> None:
    """Have glibc's allocator keep freed memory for the next step instead of returning it.

    Otherwise each step's large tensors are mapped and cleared anew, a fifth to two fifths of a step
    of SASRec. The price is a process that stays as large as it once was, up to a fifth larger at
    its peak. ``RECBOLE_M3REC_MALLOC=default`` leaves the allocator alone, and so does a setting of
    its own, such as ``MALLOC_TRIM_THRESHOLD_`` or ``GLIBC_TUNABLES``.
    """
    if os.environ.get("RECBOLE_M3REC_MALLOC") == "default" or any(n in os.environ for n in _GLIBCS):
        return
    if not sys.platform.startswith("linux"):
        return
    with contextlib.suppress(OSError, AttributeError):  # another C library, such as musl
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_THRESHOLD, 1 << 30)
        mallopt(_TRIM_THRESHOLD, (1 << 31) - 1)
        mallopt(_TOP_PAD, 64 << 20)
        # The backward pass has a thread of its own, whose arena would hold 64 MiB at most.
        mallopt(_ARENA_MAX, 1)


@contextlib.contextmanager
def importing_much() -> Iterator[None]:
    """Keep the garbage collector from what is imported, now and when the process ends.

    Imports leave next to no garbage, and the collector looks through all of them again and again:
    a third of the time that a command needs to start and to end. Objects made before
    are kept from it, too, and go with their last reference only.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()


@contextlib.contextmanager
def ending_at_interrupt() -> Iterator[None]:
    """Let Ctrl-C end the process inside, without a traceback.

    Where somebody ignores or handles it already, and in other threads than the main one, it does
    what it did.
    """
    is_pythons = (
        signal.getsignal(signal.SIGINT) is signal.default_int_handler
        and threading.current_thread() is threading.main_thread()
    )
    if is_pythons:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        if is_pythons:
            signal.signal(signal.SIGINT, signal.default_int_handler)
