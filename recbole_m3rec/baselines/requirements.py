"""Per-model requirements: chosen automatically and logged, or a clear error."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from logging import getLogger
from pathlib import Path
from typing import Any

from recbole_m3rec.atomic.atomic_file import read_header
from recbole_m3rec.baselines import item_columns, item_vectors
from recbole_m3rec.config.layers import OWN_MODELS
from recbole_m3rec.config.yaml_files import ConfigurationError
from recbole_m3rec.hooks import wrap
from recbole_m3rec.trainer import pretraining

# What a knowledge graph of RecBole is made of.
GRAPH_FILES = ("ent", "kg", "link")

# Libraries that RecBole imports in the middle of a training, and what pip calls them.
LIBRARIES = {
    "NCL": ("faiss", "'recbole_m3rec[faiss]'"),
    "KGAT": ("dgl", "dgl"),
    "KGIN": ("torch_scatter", "torch_scatter"),
    "MCCLK": ("torch_scatter", "torch_scatter"),
}

# FEARec gives each layer its share of the frequencies, and divides by the layers less one.
FEAREC_LAYERS = 2


def install() -> None:
    """Give models that read item features this package's dataset, and loaders their batches."""
    from recbole.data import dataset as datasets
    from recbole.data.dataloader.general_dataloader import FullSortEvalDataLoader

    from recbole_m3rec.data.dataset import M3RecDataset

    for model in models_of_item_features():
        setattr(datasets, f"{model}Dataset", M3RecDataset)
    item_vectors.install()

    @wrap(FullSortEvalDataLoader, "_init_batch_size_and_step")
    def size(original: Callable[..., None], self: Any) -> None:
        original(self)
        if self.is_sequential and scores_pair_by_pair(self.config.model_class):
            # Each user is a row for every item: as many users as such rows make a batch.
            self.step = max(1, self.config["eval_batch_size"] // self._dataset.item_num)
            self.set_batch_size(self.step)


def choose(config: Any) -> None:
    """Choose for a model what it needs before RecBole reads its data, and log it."""
    chosen = [*describe_training(config), *set_chosen(config)]
    if pretraining.all_stages(config):
        chosen.append(f"stages: {', then '.join(pretraining.all_stages(config))}")
    if config["model"] == "FEARec":
        chosen.append(f"{config['n_layers']} layers, of at least {FEAREC_LAYERS}")
    if chosen:
        getLogger().info(f"Chosen for {config['model']}: {'; '.join(chosen)}")
    warn_of_modalities(config)


def set_chosen(config: Any) -> list[str]:
    """Set what a model needs and the user leaves open; returns what to say of it."""
    check_model(config)
    named = getattr(config, "_named_keys", ())
    return [*item_columns.choose_features(config, named), *graph(config)]


def models_of_item_features() -> list[str]:
    """Return the models of RecBole that embed the item columns they are told."""
    import recbole
    import yaml

    folder = Path(recbole.__file__).parent / "properties" / "model"
    return [
        file.stem
        for file in sorted(folder.glob("*.yaml"))
        if "selected_features" in (yaml.safe_load(file.read_text(encoding="utf-8")) or {})
    ]


def check_model(config: Any) -> None:
    """Raise for a model that RecBole cannot run, or not on this dataset or with these settings."""
    model = config["model"]
    if model == "KSR":
        raise ConfigurationError(
            "KSR cannot be run: it needs a knowledge graph, and RecBole's own program of it fails "
            "on any (it multiplies numbers of different precision); GRU4Rec is the model it "
            "extends."
        )
    if model == "GRU4RecKG":
        files = [item_columns.atomic_file(config, suffix) for suffix in GRAPH_FILES]
        missing = [file for file in files if not file.is_file()]
        if missing:
            raise ConfigurationError(
                f"GRU4RecKG needs a knowledge graph, but {missing[0]} does not exist; it reads "
                f"{', '.join('.' + suffix for suffix in GRAPH_FILES)} files, as RecBole's "
                "documentation describes them."
            )
    if needs_labels(config):
        file, label = item_columns.atomic_file(config, "inter"), config["LABEL_FIELD"]
        columns = [*(config[f"{name}_FIELD"] for name in ("USER_ID", "ITEM_ID", "TIME")), "rating"]
        if file.is_file() and label not in read_header(file, config["field_separator"]):
            raise ConfigurationError(
                f"{model} learns from labels, but {file} has no column {label}:float. Add it, or "
                "make labels of ratings, such as \"--threshold={'rating': 4}\" "
                f"\"--load_col={{'inter': {columns}}}\"."
            )
    if needs_negatives(config):
        raise ConfigurationError(
            f"{model} learns from negatives, but train_neg_sample_args is "
            f"{config['train_neg_sample_args']}: leave it out, or set "
            "--train_neg_sample_args={'distribution':'uniform','sample_num':1}."
        )
    library, package = LIBRARIES.get(model, (None, None))
    if library and importlib.util.find_spec(library) is None:
        raise ConfigurationError(
            f"{model} needs the library {library}, which is not installed: pip install {package}."
        )
    if model == "FEARec" and config["n_layers"] < FEAREC_LAYERS:
        raise ConfigurationError(
            f"n_layers: {config['n_layers']}, but FEARec gives every layer frequencies of its own "
            f"and needs at least {FEAREC_LAYERS}."
        )


def check_clusters(config: Any, dataset: Any) -> None:
    """Raise where NCL is to make more clusters than there are users or items to put into them."""
    clusters, fewest = config["num_clusters"], min(dataset.user_num, dataset.item_num)
    if config["model"] == "NCL" and clusters > fewest:
        raise ConfigurationError(
            f"num_clusters: {clusters:,}, but `{dataset.dataset_name}` has "
            f"{dataset.user_num - 1:,} users and {dataset.item_num - 1:,} items, and NCL clusters "
            "each. Set "
            f"--num_clusters={max(1, fewest // 10)}."
        )


def check_reranker(config: Any, dataset: Any) -> None:
    """Raise where a model with Softmax-CPR is to choose more items again than there are."""
    chosen, n_items = config["reranker_CAN_NUM"], dataset.item_num - 1  # without padding
    if not config["n_facet_reranker"] or chosen is None:
        return
    if not isinstance(chosen, int) or not 1 <= chosen <= n_items:
        raise ConfigurationError(
            f"reranker_CAN_NUM: {chosen}, but `{dataset.dataset_name}` has {n_items:,} items after "
            f"filtering, and {config['model']} scores that many of them anew. Set an integer from "
            f"1 to {n_items}, such as --reranker_CAN_NUM={max(1, n_items // 10)}, or loosen "
            "item_inter_num_interval."
        )


def check_towers(config: Any, dataset: Any) -> None:
    """Raise where a model of two towers (DSSM) has numbers that it counts and does not read."""
    from recbole.utils import FeatureSource, FeatureType

    fields = dataset.fields(
        ftype=[FeatureType.FLOAT, FeatureType.FLOAT_SEQ],
        source=[FeatureSource.USER, FeatureSource.ITEM],
    )
    read = config["numerical_features"] or []
    unread = [field for field in fields if field not in read]
    if config["double_tower"] and unread:
        raise ConfigurationError(
            f"{config['model']} reads numbers of users and items that are named alone: set "
            f"--numerical_features=[{','.join([*read, *unread])}], or leave {', '.join(unread)} "
            "out of load_col."
        )


def needs_labels(config: Any) -> bool:
    """Tell whether a model reads labels that neither a threshold nor negatives make."""
    from recbole.utils import ModelType

    kinds = (ModelType.CONTEXT, ModelType.DECISIONTREE)
    negatives = (config["train_neg_sample_args"] or {}).get("distribution", "none")
    return config["MODEL_TYPE"] in kinds and not config["threshold"] and negatives == "none"


def needs_negatives(config: Any) -> bool:
    """Tell whether a general model compares pairs of items and is given one of each alone."""
    from recbole.data.utils import get_dataloader
    from recbole.utils import InputType, ModelType

    pairs = (ModelType.GENERAL, InputType.PAIRWISE)
    negatives = (config["train_neg_sample_args"] or {}).get("distribution", "none")
    return (
        (config["MODEL_TYPE"], config["MODEL_INPUT_TYPE"]) == pairs
        and negatives == "none"
        and get_dataloader(config, "train").__name__ == "TrainDataLoader"
    )


def warn_of_modalities(config: Any) -> None:
    """Log where a model is given modalities that it cannot read."""
    if not config["modalities"] or config["model"] in OWN_MODELS:
        return
    if not item_columns.reads_vectors(config):
        getLogger().warning(
            f"{config['model']} reads no vectors of items: modalities is ignored. The models of "
            f"RecBole that do are {', '.join(models_of_item_features())}."
        )


def graph(config: Any) -> list[str]:
    """Have a knowledge graph, and the vectors of its entities, loaded for GRU4RecKG."""
    if config["model"] != "GRU4RecKG":
        return []
    triple = [config[f"{name}_ID_FIELD"] for name in ("RELATION", "TAIL_ENTITY")]
    item_columns.load_columns(config, "kg", config["HEAD_ENTITY_ID_FIELD"], triple)
    link = [config["ENTITY_ID_FIELD"]]
    item_columns.load_columns(config, "link", config["ITEM_ID_FIELD"], link)
    if not config["preload_weight"]:
        item_columns.set_value(config, "preload_weight", {"ent_id": "ent_emb"})
        item_columns.set_value(config, "alias_of_item_id", ["ent_id"])
    return ["vectors of .ent, whose ent_id are items"]


def describe_training(config: Any) -> list[str]:
    """Say which negatives and labels a model is trained with."""
    from recbole.data.utils import get_dataloader
    from recbole.utils import InputType, ModelType

    if config["MODEL_TYPE"] == ModelType.TRADITIONAL:
        return ["one pass over the interactions"]
    if config["MODEL_TYPE"] not in (ModelType.SEQUENTIAL, ModelType.GENERAL):
        return []
    if get_dataloader(config, "train").__name__ == "UserDataLoader":
        return ["whole histories, no sampled negatives"]
    arguments = config["train_neg_sample_args"] or {}
    distribution = arguments.get("distribution", "none")
    if distribution == "none":
        return ["no sampled negatives"]
    negatives = f"{arguments['sample_num']} {distribution} negative a target"
    if config["MODEL_INPUT_TYPE"] == InputType.POINTWISE:
        return [f"{negatives}, labelled 0 and targets 1"]
    return [negatives]


def scores_pair_by_pair(model_class: type) -> bool:
    """Tell whether a model is asked for each user and item, for it cannot score a catalogue."""
    from recbole.model.abstract_recommender import AbstractRecommender

    method = getattr(model_class, "full_sort_predict", None)
    return method is AbstractRecommender.full_sort_predict
