"""Every random state that training draws from."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch

# Loaders inside RecBole's loader of knowledge graphs.
INNER_LOADERS = ("general_dataloader", "kg_dataloader")


def capture() -> dict[str, Any]:
    """Return the states of Python, NumPy and torch, on the CPU and on every CUDA device."""
    version, numbers, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state()
    return {
        "python": [version, list(numbers), gauss],
        "numpy": [kind, np.array(keys), position, has_gauss, cached],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
    }


def restore(states: dict[str, Any]) -> None:
    """Bring back what :func:`capture` returned; devices that are no longer there are left out."""
    version, numbers, gauss = states["python"]
    random.setstate((version, tuple(numbers), gauss))
    kind, keys, position, has_gauss, cached = states["numpy"]
    np.random.set_state((kind, keys, position, has_gauss, cached))
    torch.set_rng_state(states["torch"].cpu())
    if torch.cuda.is_available():
        for device, state in enumerate(states["cuda"][: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(state.cpu(), device)


def of_loader(loader: Any) -> list[torch.Tensor]:
    """Return the states of the generators that a loader's next epoch is drawn from."""
    states = []
    for part in _parts(loader):
        drawn_from = getattr(part.sampler, "state_before_epoch", lambda: None)()
        states.append(part.generator.get_state() if drawn_from is None else drawn_from)
    return states


def restore_loader(loader: Any, states: list[torch.Tensor]) -> None:
    """Let the next epoch of a loader be the one that :func:`of_loader` was asked before."""
    for part, state in zip(_parts(loader), states, strict=False):
        part.generator.set_state(state.cpu())
        getattr(part.sampler, "forget_epoch", lambda: None)()


def _parts(loader: Any) -> list[Any]:
    if loader is None:  # nothing is validated
        return []
    parts = [loader, *(getattr(loader, name, None) for name in INNER_LOADERS)]
    return [part for part in parts if getattr(part, "generator", None) is not None]
