"""Statistics of an ``.inter`` file, before and after filtering."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recbole_m3rec.atomic.inter_file import Interactions
from recbole_m3rec.atomic.k_core import k_core, n_identical, n_repeated


@dataclass(frozen=True)
class LogSummary:
    """Interactions in numbers.

    Attributes:
        lengths: of the histories, ascending, int64.
        popularity: interactions of each item, ascending, int64.
    """

    lengths: np.ndarray
    popularity: np.ndarray
    n_repeated: int
    n_identical: int

    @property
    def n_interactions(self) -> int:
        return int(self.lengths.sum())

    @property
    def sparsity(self) -> float:
        """Return which share of all pairs of user and item has no interaction."""
        pairs = len(self.lengths) * len(self.popularity)
        return 1 - (self.n_interactions - self.n_repeated) / pairs if pairs else 1.0


def core_of(log: Interactions, k: int) -> Interactions:
    """Return the k-core of a log."""
    return log.rows(k_core(log.users, log.items, k))


def summarize(log: Interactions) -> LogSummary:
    """Count users, items and interactions."""
    lengths, popularity = (np.sort(np.bincount(codes)) for codes in (log.users, log.items))
    return LogSummary(
        lengths[lengths > 0],
        popularity[popularity > 0],
        n_repeated(log.users, log.items),
        n_identical(log.users, log.items, log.times),
    )


def successive_items(log: Interactions) -> np.ndarray:
    """Return each pair of different items that follow one another in a history, ``[n, 2]``."""
    order = np.lexsort((log.times, log.users))
    users, items = log.users[order], log.items[order]
    follow = (users[1:] == users[:-1]) & (items[1:] != items[:-1])
    return np.stack([items[:-1][follow], items[1:][follow]], axis=1)


def summary_rows(whole: LogSummary, core: LogSummary) -> list[tuple[str, str, str]]:
    """Return the lines of a table: a name, the number in the file and that after the filter."""

    def line(name: str, *numbers: float, form: str = ",") -> tuple[str, str, str]:
        first, second = (format(number, form) for number in numbers)
        return name, first, second

    def quantile(lengths: np.ndarray, share: float) -> int:
        return int(np.quantile(lengths, share)) if len(lengths) else 0

    both = (whole, core)
    return [
        line("users", *(len(each.lengths) for each in both)),
        line("items", *(len(each.popularity) for each in both)),
        line("interactions", *(each.n_interactions for each in both)),
        line("sparsity, %", *(100 * each.sparsity for each in both), form=".4f"),
        line("history, mean", *(_mean(each.lengths) for each in both), form=".1f"),
        *(
            line(f"history, {name}", *(quantile(each.lengths, share) for each in both))
            for name, share in (("shortest", 0), ("half", 0.5), ("95 %", 0.95), ("longest", 1))
        ),
        line("interactions of an item, half", *(quantile(each.popularity, 0.5) for each in both)),
        line("repeated by the same user", *(each.n_repeated for each in both)),
        line("of these at the same time", *(each.n_identical for each in both)),
    ]


def _mean(numbers: np.ndarray) -> float:
    return float(numbers.mean()) if len(numbers) else 0.0
