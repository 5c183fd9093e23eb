"""One checkpoint for all ranks of a training: rank 0 writes it, the others wait until it is whole.

Fixes trainer/trainer.py:133 and 308: the name holds the time at which each process got there.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch.distributed as dist


def share_name(trainer: Any) -> None:
    """Give the checkpoint of every process the name that rank 0 chose."""
    if not trainer.config["single_spec"]:
        names = [trainer.saved_model_file]
        dist.broadcast_object_list(names, src=0)
        trainer.saved_model_file = names[0]


def save_once(original: Callable[..., None], self: Any, *args: Any, **kwargs: Any) -> None:
    """Save as RecBole does; every process returns when the file is whole."""
    if self.config["single_spec"]:
        return original(self, *args, **kwargs)
    path = Path(kwargs.get("saved_model_file", self.saved_model_file))
    try:
        if dist.get_rank() == 0:
            original(self, *args, **kwargs)
    finally:  # a process that cannot save must not keep the others waiting
        written = [stamp(path)]
        dist.broadcast_object_list(written, src=0)
    try:  # other machines, unless they share the first one's disk
        if dist.get_rank() != 0 and stamp(path) != written[0]:
            original(self, *args, **kwargs)
    finally:
        dist.barrier()


def stamp(path: Path) -> tuple[int, int] | None:
    """Return what tells one content of a file from another, None if there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size
