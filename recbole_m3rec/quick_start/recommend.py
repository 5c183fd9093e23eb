"""Top items of every user after their whole history, as a CSV file."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from recbole_m3rec.baselines.requirements import scores_pair_by_pair
from recbole_m3rec.evaluator.block_evaluation import cached_items, offers_products, products_of
from recbole_m3rec.evaluator.nan_checks import NotANumberError
from recbole_m3rec.evaluator.ranking import top_items
from recbole_m3rec.ops.scores.best import best
from recbole_m3rec.support.safe_write import is_stream, new_files

COLUMNS = ("user", "rank", "item", "score")
HEADER = ",".join(COLUMNS).encode()

# Scores held at once, in numbers: 128 MiB of float32.
SCORES_PER_BATCH = 2**25
# Where these are the scores of fewer users, blocks of the item table are scored one by one for more
# users: reading the table would take the time.
FEWEST_USERS, USERS_IN_BLOCKS = 64, 1024


class RecommendationError(ValueError):
    """Recommendations cannot be made as asked."""


class Histories:
    """Every user's interactions in the order in which the model has learnt them.

    Args:
        interactions: data frame of internal ids, one row per interaction, in the order of time.
        dataset: RecBole's dataset, for the names of its fields.
    """

    def __init__(self, interactions: Any, dataset: Any) -> None:
        by_user = interactions.sort_values(dataset.uid_field, kind="stable")
        self.rows = by_user.reset_index(drop=True)
        self.item_field = dataset.iid_field
        users = self.rows[dataset.uid_field].to_numpy()
        self.users, self.starts, self.counts = np.unique(
            users, return_index=True, return_counts=True
        )

    def seen(self, batch: slice) -> tuple[torch.Tensor, torch.Tensor]:
        """Return for every interaction of a batch of users its row in the batch and its item."""
        counts = self.counts[batch]
        first = self.starts[batch][0]
        items = self.rows[self.item_field].to_numpy()[first : first + counts.sum()]
        rows = np.repeat(np.arange(len(counts)), counts)
        return torch.from_numpy(rows), torch.from_numpy(items).long()

    def latest(self, batch: slice, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the row numbers of each user's latest interactions.

        Returns:
            Row numbers ``[B, length]``, oldest first and padded on the right with -1, and how many
            are no padding, ``[B]``, each in ``1..length``.
        """
        lengths = np.minimum(self.counts[batch], length)
        place = np.arange(length)
        first = self.starts[batch] + self.counts[batch] - lengths
        return np.where(place < lengths[:, None], first[:, None] + place, -1), lengths


def write_recommendations(
    output: Path,
    *,
    config: Any,
    model: Any,
    dataset: Any,
    interactions: Any,
    k: int,
    keep_seen: bool,
) -> int:
    """Write each user's ``k`` best items, under a temporary name until the file is whole.

    Args:
        output: CSV file with the columns ``user, rank, item, score``, in original tokens.
        interactions: all interactions, a data frame of internal ids.
        k: items per user, >= 1; fewer are written where fewer are left to recommend.
        keep_seen: whether items of the user's own history may be recommended.

    Returns:
        The number of users.

    Raises:
        RecommendationError: the data come as ready-made sequences.
        NotANumberError: a score is NaN.
        CannotWriteError: the file cannot be written, e.g. for a full disk; the old one stays.
    """
    if config["benchmark_filename"]:
        raise RecommendationError(
            "The dataset is given as ready-made splits (benchmark_filename), from which a user's "
            "whole history cannot be read."
        )
    histories = Histories(interactions, dataset)
    with new_files(output) as [new], new.writing():
        file = io.TextIOWrapper(new.file, encoding="utf-8", newline="")
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for rows in recommend(config, model, dataset, histories, k, keep_seen):
            writer.writerows(rows)
        file.detach()  # written through; what is below stays open
    return len(histories.users)


def refuse_to_replace(output: Path) -> None:
    """Raise where a file that is none of recommendations, such as a checkpoint, would be lost."""
    if is_stream(output) or not output.is_file() or output.stat().st_size == 0:
        return
    with output.open("rb") as file:
        start = file.read(len(HEADER))
    if start != HEADER:
        raise RecommendationError(
            f"{output} exists and is no file of recommendations: it does not begin with "
            f"{HEADER.decode()}. It stays as it is; name another file, or remove it."
        )


def recommend(
    config: Any, model: Any, dataset: Any, histories: Histories, k: int, keep_seen: bool
) -> Iterator[list[tuple[str, int, str, str]]]:
    """Yield rows of user, rank, item and score, a batch of users at a time."""
    from tqdm import tqdm

    size = users_per_batch(config, model, dataset)
    count = len(histories.users)
    quiet = not config["show_progress"]
    bar = tqdm(total=count, unit="user", desc="Recommend", disable=quiet)
    with bar as progress, cached_items(model):
        for start in range(0, count, size):
            batch = slice(start, min(start + size, count))
            users = histories.users[batch]
            questions = as_test_data(config, model, dataset, histories, batch)
            seen = None if keep_seen else histories.seen(batch)
            choose = best_in_blocks if in_blocks(model, dataset) else best_of_all
            values, items = choose(config, model, users, questions, k, seen)
            if torch.isnan(values[:, 0]).any():
                raise NotANumberError(
                    f"{type(model).__name__} gives NaN scores to users {start} to {batch.stop - 1} "
                    "(counted from 0). Nothing was written."
                )
            yield list(as_rows(dataset, users, items.cpu().numpy(), values.cpu().numpy()))
            progress.update(len(users))


Seen = tuple[torch.Tensor, torch.Tensor]


def best_of_all(
    config: Any, model: Any, users: np.ndarray, questions: Any, k: int, seen: Seen | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return scores and ids of the ``k`` best items, ``[B, k]`` each, from a row of all scores."""
    from recbole.utils.case_study import full_sort_scores

    scores = full_sort_scores(users, model, questions, config["device"])
    is_nan = torch.isnan(scores.amax(1))
    if seen is not None:
        scores[seen] = -torch.inf
    values, items = best(scores, k)  # ties as in evaluation
    values[is_nan] = torch.nan
    return values, items


@torch.no_grad()
def best_in_blocks(
    config: Any, model: Any, users: np.ndarray, questions: Any, k: int, seen: Seen | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the same from blocks of the item table, each read once for all users."""
    model.eval()
    interaction = questions.dataset[torch.arange(len(users))].to(config["device"])
    products = products_of(model, interaction, seen, questions.dataset.item_num)
    return top_items(products.queries, products.table, k, terms=products.terms, seen=products.seen)


def in_blocks(model: Any, dataset: Any) -> bool:
    """Tell whether the catalogue is so large that blocks of the item table are scored."""
    return offers_products(model) and SCORES_PER_BATCH // dataset.item_num < FEWEST_USERS


def users_per_batch(config: Any, model: Any, dataset: Any) -> int:
    """Return how many users are scored at once: each costs a score per item of the catalogue.

    RecBole asks models that cannot score a catalogue item by item, a row for each, and then bounds
    the rows by ``eval_batch_size``.
    """
    if scores_pair_by_pair(type(model)):
        return max(1, config["eval_batch_size"] // dataset.item_num)
    if in_blocks(model, dataset):
        return min(config["eval_batch_size"], USERS_IN_BLOCKS)
    return max(1, min(config["eval_batch_size"], SCORES_PER_BATCH // dataset.item_num))


def as_test_data(
    config: Any, model: Any, dataset: Any, histories: Histories, batch: slice
) -> SimpleNamespace:
    """Return what ``full_sort_scores`` reads of a test loader, for a batch of users.

    Sequential models get a row per user that ends with the user's latest interaction. No history is
    named to RecBole, so that seen items are left out in one place for every kind of model.
    """
    from recbole.data.interaction import Interaction
    from recbole.utils import ModelType

    if config["MODEL_TYPE"] != ModelType.SEQUENTIAL:
        nothing = np.empty(dataset.user_num, dtype=object)
        nothing[:] = [torch.empty(0, dtype=torch.int64)] * dataset.user_num
        return SimpleNamespace(dataset=dataset, is_sequential=False, uid2history_item=nothing)

    row_numbers, lengths = histories.latest(batch, config["MAX_ITEM_LIST_LENGTH"])
    fields: dict[str, torch.Tensor] = {
        dataset.uid_field: torch.from_numpy(histories.users[batch]).long(),
        config["ITEM_LIST_LENGTH_FIELD"]: torch.from_numpy(lengths).long(),
    }
    for field in histories.rows.columns:
        values = histories.rows[field].to_numpy()
        if field == dataset.uid_field or values.dtype.kind not in "iuf":
            continue
        rows = np.where(row_numbers >= 0, values[row_numbers], 0)
        tensor = torch.from_numpy(rows)
        tensor = tensor.float() if values.dtype.kind == "f" else tensor.long()
        fields[field + config["LIST_SUFFIX"]] = tensor
    return SimpleNamespace(dataset=dataset.copy(Interaction(fields)), is_sequential=True)


def as_rows(
    dataset: Any, users: np.ndarray, items: np.ndarray, scores: np.ndarray
) -> Iterator[tuple[str, int, str, str]]:
    """Yield user, rank, item and score as texts; items scored -inf are not recommended.

    Args:
        users: internal ids ``[B]``.
        items: internal ids ``[B, k]``, best first.
        scores: ``[B, k]``.
    """
    user_tokens = dataset.id2token(dataset.uid_field, users)
    item_tokens = dataset.id2token(dataset.iid_field, items)
    for user, its_items, its_scores in zip(user_tokens, item_tokens, scores, strict=True):
        for rank, (item, score) in enumerate(zip(its_items, its_scores, strict=True), start=1):
            if score == -np.inf:
                break
            yield str(user), rank, str(item), f"{score:.6g}"
