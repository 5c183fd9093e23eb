"""Maps the ids of a stream to integers, in order of first appearance."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from recbole_m3rec.atomic.inter_file import Interactions

# Dictionaries of blocks are merged when they hold this many ids, or as many as are known.
_MERGE_AT = 2_000_000


class IdCodes:
    """Codes every id of a column that arrives in blocks; 4 bytes a row, each id kept about once."""

    def __init__(self) -> None:
        self._ids = pa.array([], pa.string())
        self._codes: list[np.ndarray] = []
        self._blocks: list[pa.DictionaryArray] = []
        self._waiting = 0

    def add(self, block: pa.DictionaryArray) -> None:
        """Append a block of ids without nulls."""
        self._blocks.append(block)
        self._waiting += len(block.dictionary)
        if self._waiting > max(_MERGE_AT, len(self._ids)):
            self._merge()

    def finish(self) -> tuple[np.ndarray, pa.StringArray]:
        """Return the code of each row, ``[n]`` int32, and the ids, one per code."""
        self._merge()
        codes, self._codes = self._codes, []
        return np.concatenate(codes) if codes else np.zeros(0, np.int32), self._ids

    def _merge(self) -> None:
        # The known ids come first, so that codes given before stay what they are.
        vocabulary = pa.DictionaryArray.from_arrays(pa.array([], pa.int32()), self._ids)
        merged = pa.chunked_array([vocabulary, *self._blocks]).unify_dictionaries()
        for chunk in merged.chunks[1:]:
            self._codes.append(chunk.indices.to_numpy())
        self._ids = merged.chunk(merged.num_chunks - 1).dictionary
        self._blocks, self._waiting = [], 0


def interactions_of(
    users: IdCodes, items: IdCodes, ratings: list[np.ndarray], times: list[np.ndarray]
) -> Interactions:
    """Return a log of columns that arrived in blocks; ``ratings`` may be NaN, or none."""
    (user_codes, user_ids), (item_codes, item_ids) = users.finish(), items.finish()
    rated = any(not np.isnan(part).all() for part in ratings)
    rating = np.concatenate(ratings) if rated else None
    time = np.concatenate([np.zeros(0, np.int64), *times])
    return Interactions(user_codes, item_codes, rating, time, user_ids, item_ids)
