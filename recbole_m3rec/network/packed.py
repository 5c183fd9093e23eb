"""Packed sequences: histories of different lengths side by side, without padding."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class HistoryLengthError(ValueError):
    """A history is empty or longer than its row."""


class PackedSequences(NamedTuple):
    """Sequences laid one after the other.

    Attributes:
        values: item ids, ``[n_tokens]`` int64.
        cu_seqlens: where each sequence starts, the first at 0, and the total, ``[B + 1]`` int32.

    Example:
        >>> import torch
        >>> from recbole_m3rec import PackedSequences
        >>> packed = PackedSequences(torch.tensor([5, 6, 7, 8]), torch.tensor([0, 3, 4]))
        >>> packed.last  # the newest item of a history of three, and of a history of one
        tensor([2, 3])
    """

    values: Tensor
    cu_seqlens: Tensor

    @property
    def last(self) -> Tensor:
        """Index of every sequence's last token, ``[B]`` int64."""
        return self.cu_seqlens[1:].long() - 1


def pack(item_seq: Tensor, item_seq_len: Tensor) -> PackedSequences:
    """Drop the padding of a batch of right-padded histories.

    Args:
        item_seq: item ids, ``[B, L]`` int64, 0 is padding.
        item_seq_len: true lengths, ``[B]`` int64, each in ``1..L``.

    Returns:
        ``values [n_tokens]`` in sequence-major order and ``cu_seqlens [B + 1]`` int32.

    Raises:
        HistoryLengthError: a length is 0 or exceeds ``L``.

    Example:
        >>> import torch
        >>> from recbole_m3rec import pack
        >>> pack(torch.tensor([[5, 6, 7], [8, 0, 0]]), torch.tensor([3, 1]))
        PackedSequences(values=tensor([5, 6, 7, 8]), cu_seqlens=tensor([0, 3, 4],
        dtype=torch.int32))
    """
    width = item_seq.shape[1]
    wrong = (item_seq_len < 1) | (item_seq_len > width)
    if bool(wrong.any()):
        row = int(wrong.nonzero()[0, 0])
        raise HistoryLengthError(
            f"history {row} of the batch has length {int(item_seq_len[row])}, expected 1 to "
            f"{width}: leave out users without history, and cut longer ones to their newest items"
        )
    is_item = torch.arange(width, device=item_seq.device) < item_seq_len[:, None]
    cu_seqlens = item_seq_len.new_zeros(item_seq_len.numel() + 1, dtype=torch.int32)
    cu_seqlens[1:] = item_seq_len.cumsum(0)
    return PackedSequences(item_seq[is_item], cu_seqlens)


def check_targets(packed: PackedSequences, scored: Tensor | None, *targets: Tensor) -> None:
    """Raise ValueError unless each query has one target of each kind.

    Args:
        packed: histories, of which every last token is a query where ``scored`` is None.
        scored: tokens that are queries, ``[Q]``.
        targets: items, ``[Q]`` each.
    """
    n = len(packed.cu_seqlens) - 1 if scored is None else len(scored)
    for items in targets:
        if items.shape != (n,):
            raise ValueError(f"expected an item for each of {n} queries, found {list(items.shape)}")


def repeated(cu_seqlens: Tensor, n: int) -> Tensor:
    """Return the bounds of the same sequences laid out ``n`` times, one time after the other.

    Args:
        cu_seqlens: ``[B + 1]``, ending with the number of tokens ``T``.
        n: how often.

    Returns:
        ``[n B + 1]``, ending with ``n T``.
    """
    if n == 1:
        return cu_seqlens
    times = torch.arange(n, dtype=cu_seqlens.dtype, device=cu_seqlens.device)
    ends = cu_seqlens[1:] + times[:, None] * cu_seqlens[-1]
    return torch.cat([cu_seqlens[:1], ends.flatten()])
