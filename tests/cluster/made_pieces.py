"""Functions that workers import by name."""

import errno
import os
import time
from pathlib import Path


def square(number):
    return number * number


def where(number):
    return os.getpid()


def slow_square(number, folder):
    """Note the process that begins, then take a moment."""
    (Path(folder) / f"{os.getpid()}").touch()
    time.sleep(0.3)
    return number * number


def refuse(number):
    raise ValueError(f"no {number}")


def read(path):
    return Path(path).read_bytes()


def fill():
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def total(*lists):
    return sum(map(sum, lists))
