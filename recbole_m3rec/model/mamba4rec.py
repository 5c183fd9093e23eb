"""Mamba4Rec (Liu et al., arXiv 2403.03900): M3Rec without content modalities."""

from __future__ import annotations

from typing import Any

from recbole_m3rec.model.m3rec import M3Rec
from recbole_m3rec.network.settings import ModelConfigError


class Mamba4Rec(M3Rec):
    """The ID sequence alone through Mamba blocks, one expert a layer."""

    content_modalities = False

    def __init__(self, config: Any, dataset: Any) -> None:
        """Build the network.

        Raises:
            ModelConfigError: content modalities were asked for, or a setting is out of its range.
        """
        modalities = config["modalities"]
        if modalities and modalities != "auto":
            raise ModelConfigError(
                f"Mamba4Rec has no content modalities, found modalities: {modalities}. "
                "Use --model=M3Rec"
            )
        super().__init__(config, dataset)
