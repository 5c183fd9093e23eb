"""Processes that compare what they were started with: one model has one configuration and data."""

from __future__ import annotations

from collections.abc import Mapping

import torch.distributed as dist

from recbole_m3rec.processes.rendezvous import ProcessesError


class DifferingError(ProcessesError):
    """Processes of one training were started with different settings, data or checkpoints."""


def agree(own: Mapping[str, str]) -> None:
    """Compare what this process says with what all others say.

    Args:
        own: by name, what has to be the same everywhere.

    Raises:
        DifferingError: in every process; names what differs, and where.
    """
    told: list[Mapping[str, str]] = [{}] * dist.get_world_size()
    dist.all_gather_object(told, dict(own))
    differing = []
    for name in sorted({name for each in told for name in each}):
        values = [each.get(name, "not there") for each in told]
        others = [rank for rank, value in enumerate(values) if value != values[0]]
        if others:
            differing.append(
                f"{name} ({values[0]} in process 0, {values[others[0]]} in process {others[0]})"
            )
    if differing:
        raise DifferingError(
            f"The processes differ in {'; '.join(differing)}. Start every machine with the same "
            "settings and the same files."
        )
