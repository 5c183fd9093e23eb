"""Data as one pipeline, from a configuration to RecBole's loaders.

RecBole's functions stay in charge. What this package adds stands here once, in the order in which
it happens:

    create_dataset      absent data are fetched, files checked, a model's requirements chosen; the
                        first of several processes makes features that are out of date;
                        features and files are identified, and a saved dataset is read if it is of
                        today's; else RecBole reads the files, or a pickle that the user names
    build               the three parts, in the order of exact times, held-out items apart
    data_preparation    lists fit the catalogue; saved splits are read; samplers and loaders are
                        chosen; loaders know the histories of their users
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.distributed as dist

from recbole_m3rec.baselines import item_columns, item_vectors, requirements
from recbole_m3rec.config import data_checks, layers
from recbole_m3rec.config.values import DROPPED_ITEMS, check_catalogue
from recbole_m3rec.data import sources, splits, time_order
from recbole_m3rec.data.saved import cache, digests
from recbole_m3rec.evaluator.mask_seen import give_histories
from recbole_m3rec.features.recipes import make_if_out_of_date
from recbole_m3rec.hooks import wrap, wrap_everywhere


def install() -> None:
    """Put the steps under RecBole's functions and datasets."""
    from recbole.data import utils
    from recbole.data.dataset import Dataset

    wrap_everywhere(utils, "create_dataset")(create_dataset)
    wrap(Dataset, "_get_illegal_ids_by_inter_num")(ids_to_drop)
    wrap(Dataset, "build")(build)
    wrap_everywhere(utils, "data_preparation")(data_preparation)
    wrap_everywhere(utils, "load_split_dataloaders")(load_split_dataloaders)
    wrap_everywhere(utils, "create_samplers")(create_samplers)
    wrap_everywhere(utils, "get_dataloader")(get_dataloader)


def create_dataset(original: Callable[..., Any], config: Any) -> Any:
    """Around RecBole's ``create_dataset``."""
    several = dist.is_available() and dist.is_initialized()
    if not several or dist.get_rank() == 0:
        sources.fetch_if_absent(config)
    if several:
        dist.barrier()
    data_checks.check_files(config)
    requirements.choose(config)
    layers.announce(config)
    if several:
        make_features_once(config)
    config["feature_digests"] = digests.feature_digests(config)
    config["source_digests"] = digests.source_digests(config)
    dataset = cache.saved_dataset(config)
    if dataset is None:
        with cache.pickle_named_by(config, cache.DATASET):
            dataset = original(config)
        config["source_digests"] = digests.source_digests(config)  # it may have been downloaded
        dataset.config = config  # a pickle brings that of its day, whose eval_args would split
    if item_columns.reads_vectors(config):
        item_vectors.announce_fields(dataset)
    return dataset


def make_features_once(config: Any) -> None:
    """Let the first of several processes make the files of recipes, which all others then find."""
    try:
        if dist.get_rank() == 0:
            for source in digests.feature_sources(config) or ():
                show_progress = config["show_progress"]
                make_if_out_of_date(source, item_columns.item_file(config), show_progress)
    finally:
        dist.barrier()


def ids_to_drop(
    original: Callable[..., set[Any]], self: Any, field: str, *args: Any, **kwargs: Any
) -> set[Any]:
    """Around ``Dataset._get_illegal_ids_by_inter_num``, which each round of the filter calls."""
    ids = original(self, field, *args, **kwargs)
    if field == self.iid_field:
        setattr(self, DROPPED_ITEMS, getattr(self, DROPPED_ITEMS, 0) + len(ids))
    return ids


def build(original: Callable[..., Any], self: Any) -> Any:
    """Around ``Dataset.build``."""
    return time_order.build(lambda dataset: splits.build(original, dataset), self)


def data_preparation(original: Callable[..., Any], config: Any, dataset: Any) -> Any:
    """Around RecBole's ``data_preparation``."""
    check_catalogue(config, dataset)
    requirements.check_clusters(config, dataset)
    requirements.check_reranker(config, dataset)
    requirements.check_towers(config, dataset)
    with cache.saved_splits(config, dataset):
        loaders = original(config, dataset)
    give_histories(config, *loaders)
    return loaders


def load_split_dataloaders(original: Callable[..., Any], config: Any) -> Any:
    """Around RecBole's ``load_split_dataloaders``."""
    with cache.pickle_named_by(config, cache.SPLITS):
        return original(config)


def create_samplers(original: Callable[..., Any], config: Any, dataset: Any, built: Any) -> Any:
    """Around RecBole's ``create_samplers``."""
    cache.save_splits(config, dataset, built)
    samplers = original(config, dataset, built)
    splits.leave_cold_items_out(samplers, dataset)
    return samplers


def get_dataloader(original: Callable[..., Any], config: Any, phase: str) -> Any:
    """Around RecBole's ``get_dataloader``: rows of windows, and a row for each target."""
    from recbole.data.dataloader.general_dataloader import FullSortEvalDataLoader
    from recbole.utils import ModelType

    from recbole_m3rec.data.loader import WindowTrainDataLoader
    from recbole_m3rec.evaluator.target_loader import TargetDataLoader

    windows = getattr(config.model_class, "supports_windows", False)
    if phase == "train" and windows and config["train_positions"] == "all":
        return WindowTrainDataLoader
    loader = original(config, phase)
    is_general = config["MODEL_TYPE"] != ModelType.SEQUENTIAL
    if loader is FullSortEvalDataLoader and is_general and splits.splits_apart(config):
        return TargetDataLoader
    return loader
