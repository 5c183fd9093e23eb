"""What the files and features of a dataset are known by: are they those of another moment?"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recbole_m3rec.baselines.item_columns import atomic_file, reads_vectors
from recbole_m3rec.config.layers import OWN_MODELS
from recbole_m3rec.features.recipes import ModalitySource, digest
from recbole_m3rec.support.hashing import sha256_of

# Endings of RecBole's atomic files, parts of ready-made splits (x.train.inter) included.
SUFFIXES = ("inter", "item", "user", "kg", "link", "net", "ent")
DIGEST_KEYS = ("source_digests", "feature_digests")


def feature_sources(config: Any) -> tuple[ModalitySource, ...] | None:
    """Return where the features of a model come from; None for a model without any."""
    if config["model"] not in OWN_MODELS and not reads_vectors(config):
        return None
    if not getattr(config.model_class, "content_modalities", True):
        return None
    from recbole_m3rec.data.dataset import modality_sources

    return modality_sources(config)


def feature_digests(config: Any) -> dict[str, str] | None:
    """Return what identifies today's features by modality; None for a model without any."""
    sources = feature_sources(config)
    if sources is None:
        return None
    item_file = atomic_file(config, "item")
    return {source.modality: digest(source, item_file, config["seed"]) for source in sources}


def source_digests(config: Any) -> dict[str, str]:
    """Return the SHA-256 of each atomic file of a configuration's dataset by its name."""
    suffixes = {*SUFFIXES, *(config["additional_feat_suffix"] or ())}
    files = sorted(Path(config["data_path"]).glob(f"{config['dataset']}.*"))
    return {
        file.name: sha256_of(file)
        for file in files
        if file.suffix.lstrip(".") in suffixes and file.is_file()
    }


def changed(before: Mapping[str, Any] | None, now: Mapping[str, Any] | None) -> list[str]:
    """Return the names whose digests differ between two moments; [] if one is not known."""
    if before is None or now is None:
        return []
    return sorted(name for name in {*before, *now} if before.get(name) != now.get(name))


def warn_of_changes(checkpoint: str | Path, digests: Mapping[str, Any] | None, config: Any) -> None:
    """Warn where the data of today are not those that a checkpoint was trained on.

    Args:
        checkpoint: named by the warning.
        digests: what the checkpoint says, by the names of :data:`DIGEST_KEYS`.
        config: RecBole's configuration, whose dataset has been read.
    """
    names = [name for key in DIGEST_KEYS for name in changed((digests or {}).get(key), config[key])]
    before = (digests or {}).get("feature_digests") or {}
    for source in (feature_sources(config) or ()) if names else ():
        # Earlier checkpoints did not count the ids beside an .npy.
        array = source.path if source.path and source.path.suffix == ".npy" else None
        if source.modality in names and array and sha256_of(array) == before.get(source.modality):
            names.remove(source.modality)
    if names:
        logging.getLogger().warning(
            f"DATA CHANGED: {checkpoint} was trained with another {', '.join(names)} than lies in "
            f"{config['data_path']} today. Ids, splits and metrics are not those of its training."
        )
