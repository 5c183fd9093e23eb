"""Encodes batches on the workers of a cluster, each of which loads the encoder once."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch

from recbole_m3rec.cluster.pieces import Cluster
from recbole_m3rec.features.encoders.batches import EncoderError


class Encoder(NamedTuple):
    """What a worker loads.

    Attributes:
        key: what tells it from any other, as JSON can hold it.
        encode: gives ``[len(batch), d]`` numbers for a batch.
    """

    key: Mapping[str, Any]
    encode: Callable[[Any], np.ndarray]


def encode_on(
    cluster: Cluster, load: partial[Any], key: Mapping[str, Any], batches: Iterable[Any]
) -> Iterator[np.ndarray]:
    """Yield the rows of batches, encoded by as many threads a worker as here.

    Args:
        load: a function of a module with its arguments; returns an ``Encoder``.
        key: of the encoder in this process.

    Raises:
        EncoderError: a worker loads another encoder by the same name.
    """
    settings = (load, dict(key), torch.get_num_threads(), os.getcwd())
    return cluster.map(encode_batch, ((*settings, batch) for batch in batches))


_loading = threading.Lock()
_loaded: dict[str, Encoder] = {}


def encode_batch(
    load: partial[Any], key: Mapping[str, Any], threads: int, folder: str, batch: Any
) -> np.ndarray:
    """Encode a batch on a worker, which imports modules from a folder of this machine, too."""
    with _loading:
        name = repr((load.func.__qualname__, load.args, load.keywords))
        if name not in _loaded:
            if folder not in sys.path:
                sys.path.insert(0, folder)
            _loaded.clear()
            _loaded[name] = load()
        encoder = _loaded[name]
    other = [each for each in key if encoder.key.get(each) != key[each]]
    if other:
        raise EncoderError(
            f"{load.args[0]}: a worker of the cluster has other {', '.join(other)} than this"
            " process. Workers need the same model, libraries and kind of device"
        )
    torch.set_num_threads(threads)  # sums come out alike
    return encoder.encode(batch)
