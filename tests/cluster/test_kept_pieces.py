"""Finished pieces are kept: a job that was cancelled goes on, and gives the same bytes."""

import gzip
import os
import subprocess
import sys
from pathlib import Path

import pytest

from recbole_m3rec.cluster import kept_pieces
from recbole_m3rec.cluster.kept_pieces import KeptPieces, identity
from recbole_m3rec.cluster.pieces import THIS_PROCESS
from recbole_m3rec.support.safe_write import CannotWriteError
from tests.cluster.test_jobs import write_metadata, write_reviews
from tests.fresh_python import PATHS

pytest.importorskip("distributed")

from recbole_m3rec.cli.main import main
from recbole_m3rec.datasets.io import raw_lines


def run(kept, numbers, fails_at=None):
    """Run pieces of a number each; return results and the numbers of those that were run."""
    called = []

    def piece(number):
        if number == fails_at:
            raise KeyboardInterrupt
        called.append(number)
        return bytes([number])

    results = []
    try:
        for result in kept.map(THIS_PROCESS, piece, ((f"{n}", (n,)) for n in numbers)):
            results.append(result[0])
    except KeyboardInterrupt:
        pass
    return results, called


def test_only_pieces_that_are_not_there_run_and_results_keep_their_order(tmp_path):
    kept = KeptPieces(tmp_path, of="x")
    assert run(kept, range(9), fails_at=4) == ([0, 1, 2, 3], [0, 1, 2, 3])
    assert run(kept, [6, 7]) == ([6, 7], [6, 7])
    assert run(KeptPieces(tmp_path, of="x"), range(9)) == (list(range(9)), [4, 5, 8])
    assert run(KeptPieces(tmp_path, of="y"), [1]) == ([1], [1])


@pytest.mark.parametrize("damage", [lambda found: found[:-1], lambda found: found[:-1] + b"?"])
def test_a_piece_that_is_cut_off_or_damaged_runs_again(tmp_path, damage):
    kept = KeptPieces(tmp_path, of="x")
    run(kept, [1, 2])
    [path] = tmp_path.glob("*/2")
    path.write_bytes(damage(path.read_bytes()))
    assert run(kept, [1, 2]) == ([1, 2], [2])


def test_a_disk_that_is_full_is_one_message(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CannotWriteError, match=r"cannot write .*file.*; finished pieces.*resumes"):
        run(KeptPieces(tmp_path / "file", of="x"), [1])


def test_a_file_that_is_written_anew_is_another(tmp_path):
    path = tmp_path / "a"
    path.write_text("one", encoding="utf-8")
    before = identity(path)
    assert identity(path) == before
    times = path.stat().st_mtime_ns
    path.write_text("two", encoding="utf-8")
    os.utime(path, ns=(times, times))  # which the other time tells
    assert identity(path) != before


CANCELLED = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background ignores
from recbole_m3rec.cli.main import main
from recbole_m3rec.cluster import kept_pieces
from recbole_m3rec.datasets.io import raw_lines

raw_lines.BLOCK_SIZE, raw_lines._READ_SIZE = 4000, 1000
write, written = kept_pieces._write, []

def write_and_stop(path, content):
    write(path, content)
    written.append(path)
    if len(written) == {n}:
        os.kill(os.getpid(), signal.{signal})

kept_pieces._write = write_and_stop
sys.exit(main({command}))
"""


@pytest.mark.parametrize(
    ("stop", "n", "packed", "code"),
    [("SIGKILL", 5, True, -9), ("SIGINT", 5, False, 130), ("SIGINT", 40, False, 130)],
    ids=["killed", "stopped", "stopped-in-items"],
)
def test_a_cancelled_amazon_preparation_goes_on(
    running, tmp_path, monkeypatch, stop, n, packed, code
):
    raw = tmp_path / "raw"
    raw.mkdir()
    reviews, metadata = raw / "reviews_Beauty_5.json", raw / "meta_Beauty.json"
    write_reviews(reviews)
    write_metadata(metadata, 400)
    if packed:
        Path(f"{reviews}.gz").write_bytes(gzip.compress(reviews.read_bytes()))
        reviews.unlink()
    command = ["prepare", "amazon", "--category=beauty", f"--raw-dir={raw.resolve()}"]
    assert main([*command, "--output=here"]) == 0
    command += ["--output=there", f"--cluster={running.file}"]
    done = subprocess.run(
        [sys.executable, "-c", CANCELLED.format(n=n, signal=stop, command=command)],
        env={**os.environ, "PYTHONPATH": PATHS},
        capture_output=True,
        text=True,
    )
    assert done.returncode == code, done.stderr
    there = Path("there", "beauty")
    kept = set(there.glob(".beauty.work/*/*"))
    assert len(kept) == n

    write, made = kept_pieces._write, set()
    monkeypatch.setattr(
        kept_pieces, "_write", lambda path, content: (made.add(path), write(path, content))
    )
    monkeypatch.setattr(raw_lines, "BLOCK_SIZE", 4000)
    monkeypatch.setattr(raw_lines, "_READ_SIZE", 1000)
    assert main(command) == 0
    assert made
    assert not made & kept
    names = sorted(path.name for path in Path("here", "beauty").iterdir())
    assert sorted(path.name for path in there.iterdir()) == names
    for name in names:
        assert (there / name).read_bytes() == Path("here", "beauty", name).read_bytes()
