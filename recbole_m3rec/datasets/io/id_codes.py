"""Maps the ids of a stream to integers."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pyarrow as pa

from recbole_m3rec.atomic.inter_file import Interactions

# Ids go to shards by their last two bytes, for a hash table of one shard stays in a processor's
# cache: that of 3 million ids does not, and took twice as long or more.
_SHARDS = 256
# Words of blocks are merged when so many wait, or twice as many as are known.
_MERGE_AT = 2_000_000


class IdCodes:
    """Codes every id of a column that arrives in blocks; 4 bytes a row, each id kept about once."""

    def __init__(self) -> None:
        self._known = [pa.array([], pa.string()) for _ in range(_SHARDS)]
        self._codes: list[np.ndarray] = []  # of rows: place in the shard * _SHARDS + shard
        self._blocks: list[_Block] = []
        self._waiting = 0

    def add(self, block: pa.DictionaryArray) -> None:
        """Append a block of ids without nulls."""
        self._blocks.append(_Block(block))
        self._waiting += len(block.dictionary)
        if self._waiting > max(_MERGE_AT, 2 * sum(map(len, self._known))):
            self._merge()

    def finish(self) -> tuple[np.ndarray, pa.StringArray]:
        """Return the code of each row, ``[n]`` int32, and the ids, one per code."""
        self._merge()
        sizes = [len(words) for words in self._known]
        first = np.cumsum([0, *sizes[:-1]], dtype=np.int32)
        codes = [np.zeros(0, np.int32)]
        while self._codes:
            of_block = self._codes.pop(0)
            codes.append(first[of_block % _SHARDS] + of_block // _SHARDS)
        return np.concatenate(codes), pa.concat_arrays(self._known)

    def _merge(self) -> None:
        of_words = [np.empty(len(block.order), np.int32) for block in self._blocks]
        for shard in range(_SHARDS):
            known = self._known[shard]
            merged = pa.concat_arrays([known, *(block.words[shard] for block in self._blocks)])
            merged = merged.dictionary_encode()
            self._known[shard] = merged.dictionary
            places, start = merged.indices.to_numpy(), len(known)
            for block, of_word in zip(self._blocks, of_words, strict=True):
                here = block.order[block.bounds[shard] : block.bounds[shard + 1]]
                of_word[here] = places[start : start + len(here)] * _SHARDS + shard
                start += len(here)
        self._codes += [
            of_word[block.indices] for block, of_word in zip(self._blocks, of_words, strict=True)
        ]
        self._blocks, self._waiting = [], 0


class _Block:
    """A block whose words are sorted by shard.

    Attributes:
        indices: the word of each row, ``[n]``.
        order: places of the words in the block's dictionary, shard by shard.
        bounds: where each shard's words start in ``order``, and their number at last.
        words: those of each shard.
    """

    def __init__(self, block: pa.DictionaryArray) -> None:
        shard = _shards(block.dictionary)
        self.indices = block.indices.to_numpy()
        self.order = np.argsort(shard, kind="stable").astype(np.int32)
        self.bounds = np.searchsorted(shard[self.order], np.arange(_SHARDS + 1)).tolist()
        words = block.dictionary.take(pa.array(self.order))
        self.words = [words[start:stop] for start, stop in pairwise(self.bounds)]


def _shards(words: pa.StringArray) -> np.ndarray:
    """Return the shard of each word, ``[n]`` uint8; equal words have the same."""
    _, offsets, letters = words.buffers()
    if not len(words) or letters is None or not letters.size:
        return np.zeros(len(words), np.uint8)
    ends = np.frombuffer(offsets, np.int32)[words.offset : words.offset + len(words) + 1]
    lengths, ends = np.diff(ends), ends[1:]
    content = np.frombuffer(letters, np.uint8)
    last = np.where(lengths > 0, content[np.maximum(ends - 1, 0)], 0)
    before = np.where(lengths > 1, content[np.maximum(ends - 2, 0)], 0)
    return ((last * np.uint16(31) + before) % _SHARDS).astype(np.uint8)  # as many fit


def interactions_of(
    users: IdCodes, items: IdCodes, ratings: list[np.ndarray], times: list[np.ndarray]
) -> Interactions:
    """Return a log of columns that arrived in blocks; ``ratings`` may be NaN, or none."""
    (user_codes, user_ids), (item_codes, item_ids) = users.finish(), items.finish()
    rated = any(not np.isnan(part).all() for part in ratings)
    rating = np.concatenate(ratings) if rated else None
    time = np.concatenate([np.zeros(0, np.int64), *times])
    return Interactions(user_codes, item_codes, rating, time, user_ids, item_ids)
