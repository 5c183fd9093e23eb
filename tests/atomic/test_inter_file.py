"""The order of interactions, and their lines."""

import io

import numpy as np
import pyarrow as pa
import pytest

from recbole_m3rec.atomic import inter_file
from recbole_m3rec.atomic.inter_file import Interactions, order_of, write_interactions


@pytest.mark.parametrize("unit", [1, 1000])
@pytest.mark.parametrize("n", [0, 1, 2, 1000])
@pytest.mark.parametrize("span", [1, 7, 10**9, 2**62 // 1000])
def test_equal_times_stay_in_their_order(n, span, unit):
    times = np.random.default_rng(n).integers(-span, span, n) * unit
    before = times.copy()
    assert (order_of(times) == np.argsort(times, kind="stable")).all()
    assert (times == before).all()


def test_lines_of_several_threads_are_in_the_order_of_the_rows(monkeypatch):
    monkeypatch.setattr(inter_file, "_ROWS_AT_ONCE", 3)
    monkeypatch.setattr(inter_file, "_THREADS", 2)
    codes = np.arange(20, dtype=np.int32)
    ids = pa.array([f"x{code}" for code in codes])
    ratings = np.where(codes % 2, codes, np.nan).astype(np.float32)
    file = io.BytesIO()
    log = Interactions(codes, codes[::-1], ratings, codes * np.int64(500) + 1000, ids, ids)
    assert write_interactions(log, file) == ids.to_pylist()[::-1]
    header, *lines = file.getvalue().decode().splitlines()
    assert header == "user_id:token\titem_id:token\trating:float\ttimestamp:float"
    rows = [line.split("\t") for line in lines]
    assert [row[:3] for row in rows] == [
        [f"x{code}", f"x{19 - code}", str(code) if code % 2 else ""] for code in codes
    ]
    assert [float(row[3]) for row in rows] == [1 + code / 2 for code in codes]
