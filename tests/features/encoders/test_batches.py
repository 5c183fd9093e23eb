"""Encoding in batches: order, checks, and going on after a run was killed."""

import os
import signal
import time
from contextlib import suppress

import numpy as np
import pytest

from recbole_m3rec.features.encoders import batches as batches_module
from recbole_m3rec.features.encoders.batches import EncoderError, encode_batches

BATCHES = [[1, 2], [3, 4], [5]]
EXPECTED = np.float32([[1, 1], [2, 4], [3, 9], [4, 16], [5, 25]])


class Squares:
    """An encoder that notes what it was asked for, and stops before the batch ``stop_at``."""

    def __init__(self, stop_at=None):
        self.seen = []
        self.stop_at = stop_at

    def __call__(self, left):
        for batch in left:
            if len(self.seen) == self.stop_at:
                raise KeyboardInterrupt
            self.seen.append(batch)
            yield np.array([[number, number**2] for number in batch])


def stopped(work, after, key=None):
    with pytest.raises(KeyboardInterrupt):
        encode_batches(BATCHES, Squares(after), key=key or {"model": 1}, work=work)


def test_rows_follow_the_batches():
    rows = encode_batches(BATCHES, Squares(), key={})
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows, EXPECTED)


def test_no_batches_give_no_rows():
    assert encode_batches([], Squares(), key={}).shape[0] == 0


def test_an_interrupted_run_goes_on_with_what_is_left(tmp_path):
    stopped(tmp_path / "work", after=2)
    rest, done = Squares(), list[int]()
    rows = encode_batches(
        BATCHES, rest, key={"model": 1}, work=tmp_path / "work", progress=done.append
    )
    assert rest.seen == [[5]]
    assert done == [4, 1]
    np.testing.assert_array_equal(rows, EXPECTED)


def test_batches_of_another_key_are_not_used(tmp_path):
    stopped(tmp_path, after=2)
    again = Squares()
    encode_batches(BATCHES, again, key={"model": 2}, work=tmp_path)
    assert again.seen == BATCHES


@pytest.mark.parametrize("damage", ["cut", "empty", "garbled"])
def test_a_damaged_file_is_done_again(tmp_path, damage):
    stopped(tmp_path, after=2)
    [path] = tmp_path.rglob("*.npz")
    content = path.read_bytes()
    half = len(content) // 2
    changed = bytes(byte ^ 255 for byte in content[half - 200 : half + 200])
    damaged = {"cut": content[:half], "empty": b"", "garbled": content[: half - 200] + changed}
    path.write_bytes(damaged[damage])
    again = Squares()
    rows = encode_batches(BATCHES, again, key={"model": 1}, work=tmp_path)
    assert again.seen == BATCHES
    np.testing.assert_array_equal(rows, EXPECTED)


@pytest.mark.parametrize("seconds", [0.0, float("inf")])
def test_files_hold_one_batch_or_many_by_the_time_they_take(tmp_path, monkeypatch, seconds):
    monkeypatch.setattr(batches_module, "_longest_wait", lambda elapsed: seconds)
    encode_batches(BATCHES, Squares(), key={}, work=tmp_path)
    assert len(list(tmp_path.rglob("*.npz"))) == (3 if seconds == 0 else 1)
    assert not list(tmp_path.rglob("*.tmp"))
    again = Squares()
    rows = encode_batches(BATCHES, again, key={}, work=tmp_path)
    assert again.seen == []
    np.testing.assert_array_equal(rows, EXPECTED)


@pytest.mark.parametrize("made", [np.ones((1, 2)), np.ones(2), np.ones((3, 2))])
def test_rows_of_the_wrong_shape_are_refused(made):
    with pytest.raises(EncoderError, match=r"expected \[2, dimensions\]"):
        encode_batches([[1, 2]], lambda left: (made for _ in left), key={})


def test_a_change_of_width_is_refused():
    widths = iter([2, 3])
    with pytest.raises(EncoderError, match=r"shape \[1, 3\] for a batch, expected \[1, 2\]"):
        encode_batches([[1], [2]], lambda left: (np.ones((1, next(widths))) for _ in left), key={})


def test_an_encoder_that_gives_too_few_batches_is_an_error():
    with pytest.raises(ValueError, match="shorter"):
        encode_batches(BATCHES, lambda left: iter([np.ones((2, 1))]), key={})


def test_a_work_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "work").write_text("a file")
    with pytest.raises(OSError, match="cannot write .*work"):
        encode_batches(BATCHES, Squares(), key={}, work=tmp_path / "work")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the process is forked")
def test_a_killed_process_loses_no_finished_file(tmp_path, monkeypatch):
    monkeypatch.setattr(batches_module, "_longest_wait", lambda elapsed: 0.0)
    reading, writing = os.pipe()
    child = os.fork()
    if not child:

        def encode(left):
            yield next(squares := Squares()(left))
            yield next(squares)
            os.write(writing, b"two are done")
            time.sleep(60)

        with suppress(BaseException):
            encode_batches(BATCHES, encode, key={"model": 1}, work=tmp_path)
        os._exit(1)
    os.close(writing)
    assert os.read(reading, 100) == b"two are done"
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    rest = Squares()
    rows = encode_batches(BATCHES, rest, key={"model": 1}, work=tmp_path)
    assert rest.seen == [[5]]
    np.testing.assert_array_equal(rows, EXPECTED)
