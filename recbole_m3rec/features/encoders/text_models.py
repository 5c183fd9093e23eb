"""Text encoders of transformers and sentence-transformers."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from recbole_m3rec.cluster.pieces import THIS_PROCESS, Cluster
from recbole_m3rec.features.encoders.batches import (
    EncoderError,
    check_counts,
    check_flags,
    encode_batches,
)
from recbole_m3rec.features.encoders.on_cluster import Encoder, encode_on
from recbole_m3rec.features.encoders.pretrained import (
    chosen_device,
    chosen_dtype,
    config_text,
    library,
    loading,
    name_or_folder,
    require_weights,
    weights_digest,
)

POOLINGS = ("cls", "mean")


def encode_transformers(
    model: str,
    texts: Sequence[str],
    *,
    pooling: str = "cls",
    max_tokens: int = 512,
    unit_rows: bool = False,
    batch_size: int = 32,
    precision: str = "auto",
    device: str = "auto",
    progress: Callable[[int], object] | None = None,
    note: Callable[[dict[str, str]], object] | None = None,
    work: Path | None = None,
    cluster: Cluster = THIS_PROCESS,
) -> np.ndarray:
    """Encode texts by the last hidden states of a language model.

    Args:
        model: a name on the Hugging Face hub, or a folder.
        texts: one per item.
        pooling: ``cls``, the state of the first token; ``mean``, of all tokens.
        max_tokens: longer texts are cut; at most what the model takes.
        unit_rows: scale each row to length 1.
        batch_size: texts at once.
        precision: ``auto`` (float16 on CUDA, else float32) or a type's name.
        device: ``auto`` or a device's name.
        progress: called with the number of texts done since the last call.
        note: called with the digest of the model's weights, ``weights_sha256``.
        work: a folder for finished batches, from which a killed run goes on.
        cluster: where the batches are encoded.

    Returns:
        ``[len(texts), d]`` float32; zeros for a text without any letter.

    Raises:
        EncoderError: transformers is not installed, the model cannot be loaded or gives no finite
            numbers, or an option is out of range.
    """
    encoder = f"transformers:{model}"
    if pooling not in POOLINGS:
        raise EncoderError(f"{encoder}: pooling must be {' or '.join(POOLINGS)}, found {pooling!r}")
    check_counts(encoder, max_tokens=max_tokens, batch_size=batch_size)
    check_flags(encoder, unit_rows=unit_rows)
    load = partial(
        _transformers, model, pooling, max_tokens, unit_rows, batch_size, precision, device
    )
    return _encode_sorted(encoder, texts, load, batch_size, work, progress, note, cluster)


def _transformers(
    model: str,
    pooling: str,
    max_tokens: int,
    unit_rows: bool,
    batch_size: int,
    precision: str,
    device: str,
) -> Encoder:
    encoder = f"transformers:{model}"
    transformers = library("transformers", encoder)
    place, dtype = _place(encoder, device, precision)
    with loading(encoder), torch.inference_mode():
        where = name_or_folder(model)
        tokenizer = transformers.AutoTokenizer.from_pretrained(where)
        network, info = transformers.AutoModel.from_pretrained(where, output_loading_info=True)
        require_weights(encoder, info)
        if network.config.is_encoder_decoder:
            network = network.get_encoder()
    weights = weights_digest(network)
    network.to(place, dtype).eval()
    tokenizer.padding_side = tokenizer.truncation_side = "right"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    most = int(tokenizer.model_max_length)
    if most > 10**9:  # the tokenizer does not know
        most = getattr(network.config, "max_position_embeddings", None) or most
    limit = min([max_tokens, most, *_position_limits(network)])

    @torch.inference_mode()
    def encode(batch: Sequence[str]) -> np.ndarray:
        tokens = tokenizer(
            list(batch), padding=True, truncation=True, max_length=limit, return_tensors="pt"
        ).to(place)
        states = getattr(network(**tokens), "last_hidden_state", None)
        if states is None:
            raise EncoderError(
                f"{encoder}: {type(network).__name__} has no hidden states for texts alone; give a"
                " language model"
            )
        rows = _pooled(states.float(), tokens["attention_mask"], pooling)
        return _as_rows(rows, unit_rows)

    key = {
        "encoder": "transformers",
        "weights": weights,
        "config": config_text(network.config),
        "tokenizer": repr(tokenizer),
        "pooling": pooling,
        "max_tokens": limit,
        "unit_rows": unit_rows,
        "batch_size": batch_size,
        "computed": f"{place.type} {dtype}",
    }
    return Encoder(key, encode)


def encode_sentence_transformers(
    model: str,
    texts: Sequence[str],
    *,
    max_tokens: int | None = None,
    unit_rows: bool = False,
    batch_size: int = 32,
    precision: str = "auto",
    device: str = "auto",
    progress: Callable[[int], object] | None = None,
    note: Callable[[dict[str, str]], object] | None = None,
    work: Path | None = None,
    cluster: Cluster = THIS_PROCESS,
) -> np.ndarray:
    """Encode texts by a model of sentence-transformers, pooled and scaled as the model says.

    All else is as in :func:`encode_transformers`.

    Args:
        model: a name on the Hugging Face hub, such as ``all-MiniLM-L6-v2``, or a folder.
        max_tokens: longer texts are cut; None leaves it to the model.
        unit_rows: scale each row to length 1, also where the model does not.
    """
    encoder = f"sentence-transformers:{model}"
    check_counts(encoder, batch_size=batch_size, max_tokens=1 if max_tokens is None else max_tokens)
    check_flags(encoder, unit_rows=unit_rows)
    load = partial(
        _sentence_transformers, model, max_tokens, unit_rows, batch_size, precision, device
    )
    return _encode_sorted(encoder, texts, load, batch_size, work, progress, note, cluster)


def _sentence_transformers(
    model: str,
    max_tokens: int | None,
    unit_rows: bool,
    batch_size: int,
    precision: str,
    device: str,
) -> Encoder:
    encoder = f"sentence-transformers:{model}"
    sentence_transformers = library("sentence_transformers", encoder)
    place, dtype = _place(encoder, device, precision)
    with loading(encoder):
        network = sentence_transformers.SentenceTransformer(name_or_folder(model), device="cpu")
    weights = weights_digest(network)
    network.to(place, dtype).eval()
    limits = _position_limits(network) + ([] if max_tokens is None else [max_tokens])
    if limits:
        network.max_seq_length = min([network.max_seq_length or limits[0], *limits])

    def encode(batch: Sequence[str]) -> np.ndarray:
        rows = network.encode(
            list(batch),
            batch_size=batch_size,
            show_progress_bar=False,
            convert_to_tensor=True,
            device=str(place),
        )
        return _as_rows(rows.float(), unit_rows)

    key = {
        "encoder": "sentence-transformers",
        "weights": weights,
        "modules": repr(network),
        "tokenizer": repr(network.tokenizer),
        "max_tokens": network.max_seq_length,
        "unit_rows": unit_rows,
        "batch_size": batch_size,
        "computed": f"{place.type} {dtype}",
    }
    return Encoder(key, encode)


def _encode_sorted(
    encoder: str,
    texts: Sequence[str],
    load: partial[Encoder],
    batch_size: int,
    work: Path | None,
    progress: Callable[[int], object] | None,
    note: Callable[[dict[str, str]], object] | None,
    cluster: Cluster,
) -> np.ndarray:
    """Encode each distinct text once, longest first, and lay the rows out in the texts' order.

    Texts of like length share a batch, so that little of it is padding; the longest come first, so
    that too little memory shows at once.
    """
    model = load()
    if note is not None:
        note({"weights_sha256": model.key["weights"]})
    items_of = Counter(text for text in texts if text.strip())
    ordered = sorted(items_of, key=lambda text: (-len(text), text))
    batches = [ordered[i : i + batch_size] for i in range(0, len(ordered), batch_size)]

    def each(left: Iterable[Sequence[str]]) -> Iterator[np.ndarray]:
        if cluster.is_remote:
            return encode_on(cluster, load, model.key, left)
        return map(model.encode, left)

    done = 0

    def report(n_texts: int) -> None:
        nonlocal done
        if progress is not None:
            progress(sum(items_of[text] for text in ordered[done : done + n_texts]))
        done += n_texts

    digest = hashlib.sha256("\0".join(ordered).encode(errors="surrogatepass")).hexdigest()
    key = {**model.key, "texts": digest}
    rows = encode_batches(batches, each, key=key, work=work, progress=report)
    if not np.isfinite(rows).all():
        bad = ordered[int(np.argmin(np.isfinite(rows).all(axis=1)))]
        raise EncoderError(
            f"{encoder}: gives numbers that are not finite, for one for the text {bad[:60]!r}. Set"
            " precision to float32"
        )
    values = np.zeros((len(texts), rows.shape[1]), dtype=np.float32)
    row_of = {text: row for row, text in enumerate(ordered)}
    for row, text in enumerate(texts):
        if text in row_of:
            values[row] = rows[row_of[text]]
    return values


def _position_limits(network: torch.nn.Module) -> list[int]:
    """Return how many tokens fit where positions begin behind that of padding, as in RoBERTa."""
    return [
        part.num_embeddings - 1 - part.padding_idx
        for name, part in network.named_modules()
        if name.endswith("position_embeddings") and getattr(part, "padding_idx", None) is not None
    ]


def _pooled(states: Tensor, mask: Tensor, pooling: str) -> Tensor:
    """Pool hidden states ``[n, t, d]`` under a mask ``[n, t]`` (1 at tokens) to ``[n, d]``."""
    if pooling == "cls":
        return states[:, 0]
    weights = mask.to(states.dtype).unsqueeze(-1)
    return (states * weights).sum(dim=1) / weights.sum(dim=1)


def _as_rows(rows: Tensor, unit_rows: bool) -> np.ndarray:
    if unit_rows:
        rows = torch.nn.functional.normalize(rows, dim=1)
    return rows.cpu().numpy()


def _place(encoder: str, device: str, precision: str) -> tuple[torch.device, torch.dtype]:
    try:
        place = chosen_device(device)
        return place, chosen_dtype(precision, place)
    except EncoderError as error:
        raise EncoderError(f"{encoder}: {error}") from error
