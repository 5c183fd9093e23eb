"""Readers under a few hundred damaged files each; tests/fuzz_readers.py searches for hours."""

import random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.fuzz_mutations import mutate
from tests.fuzz_readers import READERS, try_bytes


def damaged(data, chance):
    """Return a file that was cut, patched, repeated or partly overwritten."""
    data = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        start, length = chance.randrange(len(data) + 1), chance.randint(0, 9)
        piece = chance.choice(
            [b"", chance.randbytes(length), bytes(data[:length]), b"\0" * length, b"\n\t", b"'\""]
        )
        data[start : start + chance.choice([0, length])] = piece
        if chance.random() < 0.1:
            del data[start:]
    return bytes(data)


@pytest.mark.parametrize("name", READERS)
def test_a_damaged_file_is_read_rightly_or_is_a_documented_error(name, tmp_path):
    chance = random.Random(1)
    seeds = READERS[name].seeds()
    for data in (*seeds, *(damaged(chance.choice(seeds), chance) for _ in range(300))):
        try_bytes(name, data, tmp_path)
    for seed in range(300):  # half of them damaged behind checksums and lengths
        whole = chance.choice(seeds)
        data = mutate(whole, 2**16, seed, lambda part, most: damaged(part, chance)[:most])
        try_bytes(name, data, tmp_path)


@pytest.mark.parametrize("name", ["features.parquet", "vectors.parquet", "parquet"])
def test_letters_that_are_none_are_a_documented_error(name, tmp_path):
    ends = pa.py_buffer(np.array([0, 1, 2], np.int32))
    ids = pa.StringArray.from_buffers(2, ends, pa.py_buffer(b"a\xa3"))
    vectors = pa.array([[1.0], [2.0]], pa.list_(pa.float32(), 1))
    columns = {"item_id": ids, "embedding": vectors, "lists": pa.array([["x"], ["y"]])}
    if name == "parquet":
        columns["lists"] = pa.ListArray.from_arrays(pa.array([0, 1, 2], pa.int32()), ids)
    pq.write_table(pa.table(columns), tmp_path / "made.parquet")
    reader = READERS[name]
    with pytest.raises(reader.errors, match="UTF8|UTF-8"):
        reader.read(tmp_path / "made.parquet")
