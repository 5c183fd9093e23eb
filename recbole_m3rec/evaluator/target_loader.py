"""Full ranking of a general model with a row for each target, as sequential models have it."""

from __future__ import annotations

from logging import getLogger
from typing import Any

import torch
from recbole.data.dataloader.abstract_dataloader import AbstractDataLoader
from recbole.data.dataloader.general_dataloader import FullSortEvalDataLoader
from recbole.data.interaction import Interaction

from recbole_m3rec.evaluator.mask_seen import history_of


class TargetDataLoader(FullSortEvalDataLoader):  # type: ignore[misc]
    """RecBole's full-ranking loader, where RecBole ranks all targets of a user together.

    Then a metric is a mean over targets for every model, and so of the same things.
    """

    def __init__(self, config: Any, dataset: Any, sampler: Any, shuffle: bool = False) -> None:
        self.logger = getLogger()
        self.uid_field, self.iid_field = dataset.uid_field, dataset.iid_field
        self.is_sequential = False
        self.uid_list = dataset.inter_feat[self.uid_field]
        self.user_df = dataset.join(Interaction({self.uid_field: self.uid_list}))
        self.sample_size = len(self.uid_list)
        AbstractDataLoader.__init__(self, config, dataset, sampler, shuffle=False)

    def collate_fn(self, index: Any) -> tuple[Any, Any, torch.Tensor, torch.Tensor]:
        """Return users, what they cannot be recommended, and the target of each row."""
        rows = torch.as_tensor(index)
        items = self._dataset.inter_feat[self.iid_field][rows]
        return self.user_df[rows], history_of(self, index), torch.arange(len(rows)), items
