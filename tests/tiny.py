"""The tiny dataset, a small configuration of every model, and what a run of it prints."""

import numpy as np

from recbole_m3rec.features.feature_file import write_features
from recbole_m3rec.features.feature_table import FeatureTable

N_USERS = 12
N_ITEMS = 12
HISTORY = 8

CODES = {"encoder": "random-codes", "dim": 6, "std": 0.5}
TWO_MODALITIES = {"modalities": ["image", "text"], "features": {"image": CODES, "text": CODES}}
ALL_USED = {"user_inter_num_interval": "[0,inf)", "item_inter_num_interval": "[0,inf)"}


def tiny_log():
    """Return (user, item, time): a dozen users, eight of a dozen items each, no item twice.

    Every item is used by eight users, so that nothing falls to a five-core filter.
    """
    return [
        (f"u{user:02d}", f"i{(5 * user + 7 * step) % N_ITEMS:02d}", float(100 * user + step))
        for user in range(N_USERS)
        for step in range(HISTORY)
    ]


def inter_file(rows):
    """Return the text of an ``.inter`` file of (user, item, time)."""
    lines = ["user_id:token\titem_id:token\ttimestamp:float"]
    return "\n".join([*lines, *("\t".join(map(str, row)) for row in rows), ""])


def write_tiny(folder):
    """Write the tiny dataset into ``dataset/`` of a new folder, and return that folder."""
    (folder / "dataset" / "tiny").mkdir(parents=True)
    (folder / "dataset" / "tiny" / "tiny.inter").write_text(inter_file(tiny_log()))
    return folder


def tiny_title(item):
    """Return a title of two words that depends on an item's token alone."""
    number = int("".join(filter(str.isdigit, item)) or 0)
    return f"{('red', 'green', 'blue')[number % 3]} {('hat', 'shoe', 'coat', 'scarf')[number % 4]}"


def write_vectors(folder, modality, tokens, values, name="tiny"):
    """Write a dataset's feature file, a row of values for each item token."""
    table = FeatureTable(np.array(tokens, dtype=object), np.array(values, dtype=np.float32))
    folder.mkdir(parents=True, exist_ok=True)
    write_features(folder / f"{name}.{modality}.parquet", table)


def small(model):
    """Return settings under which any model trains in a moment."""
    settings = {
        "epochs": 1,
        "train_batch_size": 32,
        "eval_batch_size": 32,
        "MAX_ITEM_LIST_LENGTH": 5,
        "topk": [3, 5],
        "valid_metric": "NDCG@5",
        "show_progress": False,
        "data_path": "dataset",
        "gpu_id": "",
    }
    if model in ("M3Rec", "Mamba4Rec"):
        settings |= {"hidden_size": 8, "num_layers": 2, "d_state": 4, "modalities": []}
        settings |= {"dropout_prob": 0.0}
    else:
        settings |= {"hidden_size": 8, "embedding_size": 8, "inner_size": 8, "n_heads": 2}
    if model in ("SASRecMM", "ContentKNN"):
        settings |= {"modalities": ["text"], "features": {"text": CODES}}
    return settings


def metrics_in(output):
    """Return a printed table of metrics: the values of each, as they are written."""
    rows = [line.split() for line in output.splitlines()]
    return {row[0]: row[1:] for row in rows if row and "@" in row[0]}
