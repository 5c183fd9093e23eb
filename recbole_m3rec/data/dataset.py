"""RecBole's sequential dataset with item features."""

from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from recbole_m3rec.baselines.item_columns import item_file
from recbole_m3rec.data.sequential_dataset import SequentialDataset
from recbole_m3rec.features.align import ItemFeatures, align
from recbole_m3rec.features.feature_file import features_digest
from recbole_m3rec.features.feature_map import is_large, map_key, mapped_features
from recbole_m3rec.features.feature_table import FeatureTable, NewValues
from recbole_m3rec.features.recipes import (
    ModalitySource,
    load_or_build,
    make_if_out_of_date,
    resolve_modalities,
)
from recbole_m3rec.support.suggestions import expected_one_of

TRAIN_POSITIONS = ("all", "last")


def feature_folder(config: Any) -> Path:
    """Folder of the feature files; not that of the data, which may lie in an installed package."""
    return Path(config["feature_path"] or Path("dataset") / config["dataset"])


# By configuration: modalities are resolved once, before anything of a dataset is read.
_resolved: WeakKeyDictionary[Any, tuple[ModalitySource, ...]] = WeakKeyDictionary()


def modality_sources(config: Any) -> tuple[ModalitySource, ...]:
    """Where the features of each content modality come from, in the configured order."""
    if not getattr(config.model_class, "content_modalities", True):
        return ()
    if config not in _resolved:
        _resolved[config] = resolve_modalities(
            config["modalities"], config["dataset"], feature_folder(config), config["features"]
        )
    return _resolved[config]


class M3RecDataset(SequentialDataset):
    """A sequential dataset with item features.

    Features are read once RecBole has settled its item ids, so that they never add or reorder an
    item.

    Attributes:
        item_features: ``ItemFeatures`` by content modality, in the configured order; the copies
            that ``build`` makes share them.

    Raises:
        ValueError: a setting or a history that no row can be made of; modalities that cannot be
            met.
    """

    def __init__(self, config: Any) -> None:
        _check_settings(config)
        super().__init__(config)
        self.load_features()

    # Item features

    def load_features(self) -> None:
        """Read the features of the items; a saved dataset holds none."""
        _check_settings(self.config)
        sources = modality_sources(self.config)
        if self.config["modalities"] == "auto" and sources:
            chosen = ", ".join(f"{source.modality} ({source})" for source in sources)
            self.logger.info(f"modalities: auto, every one with a file or a recipe: {chosen}")
        features = {source.modality: self._load_modality(source) for source in sources}
        for modality in features.values():
            self.logger.info(modality.description)
        self.item_features: dict[str, ItemFeatures] = features

    def _load_modality(self, source: ModalitySource) -> ItemFeatures:
        config, tokens = self.config, self.field2id_token[self.iid_field]
        file, show_progress = item_file(config), config["show_progress"]
        norm, rows, seed = config["feature_norm"], config["feature_rows"] or "own", config["seed"]

        def aligned(table: FeatureTable, new_values: NewValues = np.zeros) -> ItemFeatures:
            identity = source.modality, tokens, norm, str(source)
            return align(table, *identity, feature_rows=rows, seed=seed, new_values=new_values)

        if source.path is not None and is_large(source.path):
            make_if_out_of_date(source, file, show_progress)
            settings = source.modality, norm, rows, seed if rows != "own" else None, str(source)
            key = map_key(features_digest(source.path), tokens, *settings)
            return mapped_features(source.path, key, aligned)
        return aligned(
            load_or_build(source, file, tokens=tokens, seed=seed, show_progress=show_progress)
        )

    def _benchmark_presets(self) -> None:
        super()._benchmark_presets()
        lengths = self.inter_feat[self.item_list_length_field].to_numpy()
        row = 0
        for name, n_rows in zip(self.benchmark_filename_list, self.file_size_list, strict=True):
            empty = (lengths[row : row + n_rows] == 0).nonzero()[0]
            if len(empty):
                raise ValueError(
                    f"{self.dataset_name}.{name}.inter, line {empty[0] + 2}: "
                    f"{self.item_id_list_field} is empty, expected a history of at least 1 item "
                    f"({len(empty)} such lines): drop these lines"
                )
            row += n_rows


def _check_settings(config: Any) -> None:
    positions = config["train_positions"]
    if not getattr(config.model_class, "supports_windows", False):
        if positions not in (None, "last"):
            raise ValueError(
                f"train_positions: {positions!r}, but {config['model']} trains on one target "
                "a row: set train_positions: last"
            )
    elif positions not in TRAIN_POSITIONS:
        raise ValueError(expected_one_of("train_positions", positions, TRAIN_POSITIONS))
    if positions == "all" and config["benchmark_filename"] is not None:
        raise ValueError(
            "train_positions: all makes training rows of whole histories, but benchmark_filename: "
            f"{config['benchmark_filename']} brings rows of its own: set train_positions: last"
        )
    if not isinstance(config["MAX_ITEM_LIST_LENGTH"], int) or config["MAX_ITEM_LIST_LENGTH"] < 1:
        raise ValueError(
            f"MAX_ITEM_LIST_LENGTH: {config['MAX_ITEM_LIST_LENGTH']!r}, expected a whole number, "
            "at least 1: a history of length 0 has nothing to predict from"
        )
