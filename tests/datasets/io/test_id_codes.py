"""Ids of a stream and their codes."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recbole_m3rec.datasets.io import id_codes
from recbole_m3rec.datasets.io.id_codes import IdCodes

# Of one letter and of none, of several bytes, alike at their ends; few, so that many come again.
IDS = st.text("aé𝄞01", max_size=3)


def coded(blocks, sliced=False):
    codes = IdCodes()
    for block in blocks:
        array = pa.array(["first", *block], pa.string()).dictionary_encode()
        codes.add(array[1:] if sliced else pa.array(block, pa.string()).dictionary_encode())
    return codes.finish()


@given(st.lists(st.lists(IDS, max_size=12), max_size=6), st.integers(0, 9), st.booleans())
def test_each_id_has_one_code_and_comes_back(blocks, merge_at, sliced):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(id_codes, "_MERGE_AT", merge_at)
        patch.setattr(id_codes, "_SHARDS", 5)
        codes, ids = coded(blocks, sliced)
    rows = [word for block in blocks for word in block]
    assert codes.dtype == np.int32
    assert [ids[int(code)].as_py() for code in codes] == rows
    assert len(set(ids.to_pylist())) == len(ids)
    assert set(rows) <= set(ids.to_pylist())


def test_many_ids_are_the_codes_of_their_words():
    random = np.random.default_rng(0)
    words = np.array([f"user{number}" for number in range(5000)])
    rows = words[random.integers(0, len(words), 40_000)]
    codes, ids = coded(np.array_split(rows, 7))
    assert (np.array(ids.to_pylist())[codes] == rows).all()
    assert len(ids) == len(np.unique(rows))
