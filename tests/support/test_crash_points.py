"""The one writer of whole files, killed at every point where it can be: old files or new ones."""

import os
import sys

import pytest

from recbole_m3rec.support import safe_write
from recbole_m3rec.support.safe_write import clear_leftovers, new_files
from tests.fresh_python import fresh_python

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="writers are forked")

OLD, NEW = b"old" * 10_000, b"new!" * 20_000


def write(a, b):
    """Write two files that appear together, piece by piece."""
    with new_files(a, b) as files:
        for file in files:
            with file.writing():
                for start in range(0, len(NEW), 30_000):
                    file.file.write(NEW[start : start + 30_000])
                    file.file.flush()


def killed_at(point, a, b):
    """Write in a process that ends at the n-th line of the writer; tell whether it ended there."""
    process = os.fork()
    if not process:
        left = point
        files = {safe_write.__file__, __file__}

        def trace(frame, event, argument):
            nonlocal left
            if frame.f_code.co_filename not in files:
                return None
            if event in ("line", "return"):
                left -= 1
                if left == 0:
                    os._exit(9)
            return trace

        sys.settrace(trace)
        write(a, b)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 9


@pytest.mark.parametrize("there_before", [True, False])
def test_at_every_crash_point_files_are_old_or_new(tmp_path, there_before):
    """In a process that is small, and forks in no time."""
    fresh_python(
        "from pathlib import Path; from tests.support.test_crash_points import crash; "
        f"crash(Path({str(tmp_path)!r}), {there_before})"
    )


def crash(folder, there_before):
    """Kill writers at one point after the other until one comes to its end."""
    a, b = folder / "a", folder / "b"
    old = OLD if there_before else None
    seen = set()
    point = 0
    while True:
        point += 1
        for path in (a, b):
            path.unlink(missing_ok=True)
            if there_before:
                path.write_bytes(OLD)
        ended = killed_at(point, a, b)
        found = tuple(path.read_bytes() if path.exists() else None for path in (a, b))
        seen.add(found)
        if not ended:
            break
        assert found in {(old, old), (NEW, old), (NEW, NEW)}, f"crash point {point}"
    assert point > 100
    assert seen == {(old, old), (NEW, old), (NEW, NEW)}
    write(a, b)  # what the dead ones left disturbs nobody
    assert sorted(path.name for path in folder.iterdir()) == ["a", "b"]


def test_content_is_on_the_disk_before_a_file_takes_its_place(tmp_path, monkeypatch):
    """A power cut after the renaming finds the content."""
    calls = []
    fsync, replace = os.fsync, os.replace

    def noted_fsync(number):
        fsync(number)
        calls.append(("fsync", os.fstat(number).st_ino))

    def noted_replace(source, target):
        calls.append(("replace", os.stat(source).st_ino))
        assert os.stat(source).st_size == len(NEW)
        replace(source, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    write(tmp_path / "a", tmp_path / "b")
    replaced = [place for place, (name, _) in enumerate(calls) if name == "replace"]
    assert len(replaced) == 2
    for place in replaced:
        assert ("fsync", calls[place][1]) in calls[: replaced[0]]


def test_leftovers_of_dead_programs_are_cleared_and_no_others(tmp_path):
    dead, young, legacy = (
        tmp_path / name for name in (".x.pth.tmp", ".y.pth.tmp", "z.pth.123.unfinished")
    )
    for path in (dead, young, legacy):
        path.write_bytes(b"half")
    os.utime(dead, (1, 1))
    os.utime(legacy, (4e9, 4e9))  # by a clock that has been set back since
    with new_files(tmp_path / "alive.pth") as [new]:
        os.utime(new.temporary, (1, 1))
        assert sorted(clear_leftovers(tmp_path)) == sorted([dead, legacy])
        assert new.temporary.exists()
        assert young.exists()


def test_a_jumping_clock_removes_nothing_that_is_alive(tmp_path):
    with new_files(tmp_path / "alive.pth") as [new]:
        os.utime(new.temporary, (4e9, 4e9))
        assert clear_leftovers(tmp_path) == []
        new.file.write(b"whole")
    assert (tmp_path / "alive.pth").read_bytes() == b"whole"


def test_a_shared_file_is_written_by_several_at_once_and_what_dead_ones_left_of_it_goes(tmp_path):
    left, others = tmp_path / ".a[1].0123.tmp", tmp_path / ".ab.0123.tmp"
    for path in (left, others):
        path.write_bytes(b"half")
        os.utime(path, (1, 1))
    with new_files(tmp_path / "a[1]", shared=True) as [first]:
        os.utime(first.temporary, (1, 1))
        with new_files(tmp_path / "a[1]", shared=True) as [second]:
            second.write(OLD)
        first.write(NEW)
    assert (tmp_path / "a[1]").read_bytes() == NEW
    assert sorted(tmp_path.iterdir()) == [others, tmp_path / "a[1]"]
