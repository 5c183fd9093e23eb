"""What changes slowly in a history: a running mean of its latest vectors, beside the scan."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FIRST_WEIGHT = 0.3


class LowPass(nn.Module):
    """A causal low-pass filter: ``weight * (mean + keep * (x - mean))``, both learned by channel.

    The mean is that of the ``n_latest`` newest vectors of a history, or of all where there are
    fewer. Recommenders have such filters over whole histories (FMLP-Rec, BSARec); this one sees the
    past alone, as a target at every position asks for.
    """

    def __init__(self, hidden_size: int, n_latest: int) -> None:
        super().__init__()
        self.n_latest = n_latest
        self.weight = nn.Parameter(torch.full((hidden_size,), FIRST_WEIGHT))
        self.keep = nn.Parameter(torch.zeros(hidden_size))

    def forward(self, x: Tensor, cu_seqlens: Tensor, last_only: bool = False) -> Tensor:
        """Filter packed histories.

        Args:
            x: ``[n_tokens, hidden_size]``.
            cu_seqlens: ``[n_sequences + 1]`` int32.
            last_only: filter at the last token of each history alone.

        Returns:
            ``[n_tokens, hidden_size]``, or ``[n_sequences, hidden_size]`` with ``last_only``.
        """
        bounds = cu_seqlens.long()
        if last_only:
            starts, at = bounds[:-1], bounds[1:] - 1
        else:
            starts = bounds[:-1].repeat_interleave(bounds.diff())
            at = torch.arange(len(x), device=x.device)
        counts = (at - starts + 1).clamp(max=self.n_latest)
        ends = counts.cumsum(0)
        # The tokens of each mean, one mean after the other.
        first = (at + 1 - ends).repeat_interleave(counts)
        tokens = first + torch.arange(len(first), device=x.device)
        mean = F.embedding_bag(tokens, x, ends - counts, mode="mean")
        return self._of(x[at] if last_only else x, mean)

    def step(self, x: Tensor, recent: Tensor) -> tuple[Tensor, Tensor]:
        """Filter one new vector of each history.

        Args:
            x: ``[n, hidden_size]``.
            recent: from :func:`none_yet` or an earlier step.

        Returns:
            ``[n, hidden_size]``, and ``recent`` after it.
        """
        filled = torch.cat([recent, with_one(x)[:, None]], dim=1)
        total = filled.sum(1)
        return self._of(x, total[:, :-1] / total[:, -1:]), filled[:, 1:]

    def _of(self, x: Tensor, mean: Tensor) -> Tensor:
        return self.weight * (mean + self.keep * (x - mean))


def with_one(x: Tensor) -> Tensor:
    """Return rows with a 1 behind each, which counts them where others are zeros."""
    return F.pad(x, (0, 1), value=1.0)


def none_yet(like: Tensor, n_sequences: int, hidden_size: int, n_latest: int) -> Tensor:
    """Return what is kept of histories without an item: ``[n, n_latest - 1, hidden_size + 1]``.

    Rows are vectors as :func:`with_one` makes them, oldest first; zeros where there is none.
    """
    return like.new_zeros(n_sequences, max(0, n_latest - 1), hidden_size + 1)
