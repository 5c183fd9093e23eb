"""RecBole's sequential dataset, built without Python loops over rows; histories take room late."""

from collections.abc import Sequence
from typing import Any

import torch
from recbole.data.dataset import sequential_dataset as recboles
from recbole.utils import FeatureType
from torch import Tensor

from recbole_m3rec.data import augmentation
from recbole_m3rec.data.history_rows import HistoryRows


class SequentialDataset(recboles.SequentialDataset):
    """RecBole's ``SequentialDataset`` with the same rows and splits, to the bit.

    It is made wherever RecBole makes its own.
    """

    inter_feat: Any  # a pandas frame while RecBole filters, an Interaction from build() on

    def data_augmentation(self) -> None:
        """Replace interactions by prefix rows; equal timestamps keep their order in the file."""
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

    def leave_one_out(self, group_by: str | None, leave_one_mode: str) -> list["SequentialDataset"]:
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
    ) -> list["SequentialDataset"]:
        """Split each user's rows by ratios; see ``Dataset.split_by_ratio``."""
        if group_by is None:
            return super().split_by_ratio(ratios, group_by)
        total = sum(ratios)
        shares = [ratio / total for ratio in ratios]

        def cuts(size: int) -> list[int]:
            return self._calcu_split_ids(tot=size, ratios=shares)

        return self._split(augmentation.split_at(self.inter_feat[group_by], cuts, len(shares)))

    def _split(self, parts: Sequence[Tensor]) -> list["SequentialDataset"]:
        self._drop_unused_col()
        return [self.copy(self.inter_feat[rows]) for rows in parts]
