"""RecBole's saved datasets and loaders, reused only while their inputs are unchanged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from recbole_m3rec.baselines.item_columns import reads_vectors
from recbole_m3rec.config.layers import DATASET_KEYS, OWN_MODELS, announce


def install() -> None:
    """Extend what RecBole compares, and choose the training loader of ``train_positions: all``."""
    from recbole.data import utils

    from recbole_m3rec.hooks import wrap_everywhere

    utils.dataset_arguments = [*utils.dataset_arguments, *DATASET_KEYS]

    @wrap_everywhere(utils, "create_dataset")
    def create(original: Callable[..., Any], config: Any) -> Any:
        announce(config)
        config["feature_digests"] = feature_digests(config)
        dataset = original(config)
        # A saved dataset brings the configuration it was saved under, whose eval_args would split.
        dataset.config = config
        return dataset

    @wrap_everywhere(utils, "get_dataloader")
    def choose(original: Callable[..., Any], config: Any, phase: str) -> Any:
        windows = getattr(config.model_class, "supports_windows", False)
        if phase == "train" and windows and config["train_positions"] == "all":
            from recbole_m3rec.data.loader import WindowTrainDataLoader

            return WindowTrainDataLoader
        return original(config, phase)


def feature_digests(config: Any) -> dict[str, str] | None:
    """Return what identifies today's features by modality; None for a model without any."""
    if config["model"] not in OWN_MODELS and not reads_vectors(config):
        return None
    if not getattr(config.model_class, "content_modalities", True):
        return None
    from recbole_m3rec.data.dataset import modality_sources
    from recbole_m3rec.features.recipes import digest

    item_file = Path(config["data_path"]) / f"{config['dataset']}.item"
    return {
        source.modality: digest(source, item_file, config["seed"])
        for source in modality_sources(config)
    }
