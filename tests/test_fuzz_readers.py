"""Readers under a few hundred damaged files each; tests/fuzz_readers.py searches for hours."""

import random

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
