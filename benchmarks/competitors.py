"""What is measured: models built as a run builds them, with real or made-up batches."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import yaml
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.data.interaction import Interaction
from recbole.utils import get_model, init_seed

import recbole_m3rec  # noqa: F401  (makes RecBole know M3Rec)
from recbole_m3rec.features.align import ItemFeatures

# As wide as CLIP's and BERT's.
CODES = {
    "image": {"encoder": "random-codes", "dim": 512, "std": 0.02},
    "text": {"encoder": "random-codes", "dim": 768, "std": 0.02},
}
PRESET = Path(__file__).parents[1] / "properties" / "presets" / "m3rec-published.yaml"
# M3Rec and Mamba4Rec as RecBole's models are: their published width, length and batch.
PUBLISHED = {
    **yaml.safe_load(PRESET.read_text(encoding="utf-8")),
    **{"modality_gradient": "frozen", "time_order": "exact", "features": CODES},
}
OF_CONTENT = ("modalities", "features", "feature_norm", "modality_gradient", "id_init")
PUBLISHED_WIDTH = {"GRU4Rec": {"hidden_size": 64}}  # the others are 64 wide already


def configure(model: str, dataset: str, shipped: bool = False, **settings: Any) -> Config:
    """A configuration as a run makes it, without a command line.

    Args:
        model: M3Rec, Mamba4Rec or a model of RecBole.
        dataset: its name.
        shipped: take M3Rec and Mamba4Rec as they are shipped, and not as published.
        settings: configuration keys.
    """
    given, sys.argv = sys.argv, sys.argv[:1]
    try:
        is_ours = model in ("M3Rec", "Mamba4Rec") and not shipped
        own = {**PUBLISHED, **settings} if is_ours else settings
        if model == "Mamba4Rec":
            own = {key: value for key, value in own.items() if key not in OF_CONTENT}
        quiet = {"show_progress": False, "state": "ERROR", **PUBLISHED_WIDTH.get(model, {})}
        config = Config(model=model, dataset=dataset, config_dict={**quiet, **own})
    finally:
        sys.argv = given
    logging.getLogger().setLevel(logging.ERROR)
    return config


def prepare(model: str, dataset: str, **settings: Any) -> tuple[Config, Any, Any, Any]:
    """Configuration, model, training data and test data of a run."""
    config = configure(model, dataset, **settings)
    init_seed(config["seed"], config["reproducibility"])
    train, _, test = data_preparation(config, create_dataset(config))
    return config, get_model(model)(config, train.dataset).to(config["device"]), train, test


def training_step(
    model: torch.nn.Module, batches: Iterator[Interaction], amp: bool = False
) -> Callable[[], float]:
    """A function that takes one step of Adam on the next batch, as RecBole's trainer does."""
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    device = next(model.parameters()).device
    model.train()

    def step() -> float:
        batch = next(batches).to(device)
        optimiser.zero_grad()
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=amp):
            loss = model.calculate_loss(batch)
        value = float(loss.item())
        loss.backward()
        optimiser.step()
        return value

    return step


def endless(loader: Any) -> Iterator[Interaction]:
    """The batches of a loader, again and again; only whole ones, which are alike in size."""
    whole = max(1, len(loader) - 1)
    while True:
        for number, batch in enumerate(loader):
            if number >= whole:
                break
            yield batch


def made_up(
    model: str, n_items: int, lengths: np.ndarray, longest: int, dtype: Any = None, **settings: Any
) -> tuple[torch.nn.Module, Iterator[Interaction]]:
    """A model for a catalogue that is in no file, and batches of random histories for it.

    Args:
        model: M3Rec or a model of RecBole that needs items and histories alone.
        n_items: items, padding included.
        lengths: length of each history of a batch, in items.
        longest: ``MAX_ITEM_LIST_LENGTH``.
        dtype: of the made-up features, ``torch.float16`` or (None) ``torch.float32``.
        settings: configuration keys.
    """
    config = configure(model, "ml-100k", MAX_ITEM_LIST_LENGTH=longest, **settings)
    init_seed(config["seed"], config["reproducibility"])
    features = {}
    if model == "M3Rec":
        for name in config["modalities"]:
            values = torch.empty(n_items, CODES[name]["dim"], dtype=dtype or torch.float32)
            present = torch.ones(n_items, dtype=torch.bool)
            features[name] = ItemFeatures(name, values.normal_(0, 0.02), present, "made up", name)
    dataset = made_up_dataset(n_items, features)
    built = get_model(model)(config, dataset).to(config["device"])
    return built, made_up_batches(n_items, lengths, longest)


def made_up_dataset(n_items: int, features: dict[str, ItemFeatures]) -> SimpleNamespace:
    """What a model reads of a dataset, with every item as often a target."""
    return SimpleNamespace(
        num=lambda field: n_items,
        item_features=features,
        inter_feat={"item_id": torch.arange(1, n_items)},
    )


def made_up_batches(n_items: int, lengths: np.ndarray, longest: int) -> Iterator[Interaction]:
    """Random histories, right-padded as RecBole's are; a target each."""
    random = torch.Generator().manual_seed(0)
    item_length = torch.as_tensor(lengths, dtype=torch.int64)
    is_item = torch.arange(longest) < item_length[:, None]
    while True:
        items = torch.randint(1, n_items, (len(lengths), longest), generator=random)
        yield Interaction(
            {
                "item_id_list": items * is_item,
                "item_length": item_length,
                "item_id": torch.randint(1, n_items, (len(lengths),), generator=random),
            }
        )
