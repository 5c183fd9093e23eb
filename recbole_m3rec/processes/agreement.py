"""Processes that compare what they were started with: one model has one configuration and data."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import torch.distributed as dist

from recbole_m3rec.processes.rendezvous import ProcessesError


class DifferingError(ProcessesError):
    """Processes of one training were started with different settings, data or checkpoints."""


def agree(own: Mapping[str, str], where_there: Mapping[str, str] = MappingProxyType({})) -> None:
    """Compare what this process says with what all others say.

    Args:
        own: by name, what has to be the same everywhere.
        where_there: by name, what has to be the same wherever it is, such as files.

    Raises:
        DifferingError: in every process; names what differs, and where.
    """
    told: list[tuple[dict[str, str], dict[str, str]]] = [({}, {})] * dist.get_world_size()
    dist.all_gather_object(told, (dict(own), dict(where_there)))
    everywhere = [name for name in where_there if all(name in files for _, files in told)]
    differing = []
    # Settings first: features may follow from them.
    for name in [*sorted({name for settings, _ in told for name in settings}), *sorted(everywhere)]:
        values = [(settings | files).get(name, "not there") for settings, files in told]
        others = [rank for rank, value in enumerate(values) if value != values[0]]
        if others:
            differing.append(
                f"{name} ({values[0]} in process 0, {values[others[0]]} in process {others[0]})"
            )
    if differing:
        raise DifferingError(
            f"The processes differ in {'; '.join(differing)}. Start every machine with the same "
            "settings, the same versions and the same files."
        )
