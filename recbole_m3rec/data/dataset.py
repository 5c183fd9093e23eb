"""RecBole's sequential dataset with item features, built without Python loops over rows."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from recbole.data.dataset import SequentialDataset
from recbole.utils import FeatureType
from torch import Tensor

from recbole_m3rec.baselines.item_columns import item_file
from recbole_m3rec.data import augmentation
from recbole_m3rec.data.history_rows import HistoryRows
from recbole_m3rec.features.align import ItemFeatures, align
from recbole_m3rec.features.feature_map import is_large, map_key, mapped_features
from recbole_m3rec.features.feature_table import FeatureTable, NewValues
from recbole_m3rec.features.recipes import (
    ModalitySource,
    load_or_build,
    make_if_out_of_date,
    resolve_modalities,
)
from recbole_m3rec.support.hashing import sha256_of
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
    """RecBole's ``SequentialDataset`` with the same splits, to the bit, and item features.

    Features are read once RecBole has settled its item ids, so that they never add or reorder an
    item.

    Attributes:
        item_features: ``ItemFeatures`` by content modality, in the configured order; the copies
            that ``build`` makes share them.

    Raises:
        ValueError: a setting or a history that no row can be made of; modalities that cannot be
            met.
    """

    inter_feat: Any  # a pandas frame while RecBole filters, an Interaction from build() on

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
            key = map_key(sha256_of(source.path), tokens, *settings)
            return mapped_features(source.path, key, aligned)
        return aligned(
            load_or_build(source, file, tokens=tokens, seed=seed, show_progress=show_progress)
        )

    # Augmentation and splits, as RecBole's but on whole columns

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

    def data_augmentation(self) -> None:
        """Replace interactions by prefix rows; equal timestamps keep their order in the file.

        Rows come in the order of their targets' times, into which RecBole sorts them next.
        """
        self._aug_presets()
        self._check_field("uid_field", "time_field")
        self.sort(by=[self.uid_field, self.time_field], ascending=True)
        log = self.inter_feat
        rows = augmentation.prefix_rows(log[self.uid_field], self.max_item_list_len)
        if len(rows.target) == 0:
            raise ValueError(
                f"{self.dataset_name}: no user has two interactions, so nothing has a next item: "
                "check the .inter file and the filters (user_inter_num_interval, val_interval)"
            )
        rows = rows.taken(torch.argsort(self._times()[rows.target], stable=True))
        fields = {field: log[field][rows.target] for field in log}
        fields[self.item_list_length_field] = rows.length
        lists = {
            getattr(self, f"{field}_list_field"): self._lists_of(field, rows)
            for field in log
            if field != self.uid_field
        }
        self.inter_feat = HistoryRows(fields, lists)

    def _lists_of(self, field: str, rows: augmentation.PrefixRows) -> augmentation.PrefixLists:
        width = self.field2seqlen[getattr(self, f"{field}_list_field")]
        shape: tuple[int, ...] = (width,) if isinstance(width, int) else tuple(width)
        is_float = self.field2type[field] in (FeatureType.FLOAT, FeatureType.FLOAT_SEQ)
        if is_float and field in self.config["numerical_features"]:
            shape += (2,)  # RecBole's pair of a number and its bucket
        try:
            return augmentation.PrefixLists(self.inter_feat[field], rows, shape)
        except ValueError as error:
            raise ValueError(
                f"field {field}: {error}; set seq_len: {{{field}: n}} to the longest kept value"
            ) from error

    def sort(self, by: str | list[str], ascending: bool | list[bool] = True) -> None:
        """Sort interactions or rows stably; rows in the order of time already are left alone."""
        if by == self.time_field and ascending is True:
            times = self._times()
            if bool((times[1:] >= times[:-1]).all()):
                return
        super().sort(by=by, ascending=ascending)

    def _times(self) -> Tensor:
        times = self.inter_feat[self.time_field]
        return times[..., 0] if times.dim() > 1 else times  # a number and its bucket

    def leave_one_out(self, group_by: str | None, leave_one_mode: str) -> list["M3RecDataset"]:
        """Split by leaving each user's last one or two rows out; see ``Dataset.leave_one_out``."""
        modes = ("valid_and_test", "valid_only", "test_only")
        if group_by is None or leave_one_mode not in modes:
            return super().leave_one_out(group_by, leave_one_mode)  # RecBole's error
        n_out = 2 if leave_one_mode == "valid_and_test" else 1
        parts = augmentation.split_last_out(self.inter_feat[group_by], n_out)
        if n_out == 1:
            nothing = torch.empty(0, dtype=torch.int64)
            parts.insert(2 if leave_one_mode == "valid_only" else 1, nothing)
        return self._split(parts)

    def split_by_ratio(
        self, ratios: Sequence[float], group_by: str | None = None
    ) -> list["M3RecDataset"]:
        """Split each user's rows by ratios; see ``Dataset.split_by_ratio``."""
        if group_by is None:
            return super().split_by_ratio(ratios, group_by)
        total = sum(ratios)
        shares = [ratio / total for ratio in ratios]

        def cuts(size: int) -> list[int]:
            return self._calcu_split_ids(tot=size, ratios=shares)

        return self._split(augmentation.split_at(self.inter_feat[group_by], cuts, len(shares)))

    def _split(self, parts: Sequence[Tensor]) -> list["M3RecDataset"]:
        self._drop_unused_col()
        return [self.copy(self.inter_feat[rows]) for rows in parts]


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
