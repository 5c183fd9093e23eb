"""Files that appear whole or not at all."""

import os
import socket
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from recbole_m3rec.support import safe_write
from recbole_m3rec.support.safe_write import CannotWriteError, FileInUseError, new_files


def test_files_appear_together_when_all_is_written(tmp_path):
    a, b = tmp_path / "folder/a", tmp_path / "folder/b"
    with new_files(a, b) as files:
        files[0].file.write(b"1")
        files[1].file.write(b"2")
        assert not a.exists()
        assert not b.exists()
    assert (a.read_bytes(), b.read_bytes()) == (b"1", b"2")
    assert len(list(a.parent.iterdir())) == 2


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_old_files_and_nothing_else(error, tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"old")

    def fail():
        with new_files(path, tmp_path / "b") as files:
            files[0].file.write(b"new")
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_run_left_is_overwritten(tmp_path):
    (tmp_path / ".a.tmp").write_bytes(b"longer than what comes now")
    with new_files(tmp_path / "a") as files:
        files[0].file.write(b"now")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"now")]


def test_two_runs_at_once_do_not_mix(tmp_path):
    with new_files(tmp_path / "a") as files:
        files[0].file.write(b"first")
        with (
            pytest.raises(FileInUseError, match="another run is writing"),
            new_files(tmp_path / "a"),
        ):
            pass
    assert (tmp_path / "a").read_bytes() == b"first"


@pytest.mark.skipif(os.name != "posix", reason="Windows has neither these modes nor locks")
def test_a_library_that_writes_by_name_may_put_another_file_in_its_place(tmp_path):
    def write(path):
        other = tmp_path / "other"
        other.write_bytes(b"whole")
        other.chmod(0o600)  # as safetensors leaves what it writes
        other.replace(path)

    before = os.umask(0o027)
    try:
        with new_files(tmp_path / "a") as [new]:
            new.write_by_name(write)
            assert os.fstat(new.file.fileno()).st_size == 5  # what reaches the disk is that file
            with pytest.raises(FileInUseError), new_files(tmp_path / "a"):
                pass
    finally:
        os.umask(before)
    assert (tmp_path / "a").read_bytes() == b"whole"
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with new_files(tmp_path / "link") as files:
        files[0].file.write(b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"


def test_a_folder_that_cannot_be_made_is_an_error_that_names_the_file(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with (
        pytest.raises(CannotWriteError, match="write .*file/a: .*file is no folder; nothing was"),
        new_files(tmp_path / "file" / "a"),
    ):
        pass


def reading(path):
    """Read a pipe in a thread whose ``text`` is what came."""

    class Reader(threading.Thread):
        def run(self):
            self.text = path.read_bytes()

    reader = Reader(daemon=True)
    reader.start()
    return reader


@pytest.mark.skipif(os.name != "posix", reason="pipes in the file system are POSIX's")
def test_a_pipe_is_written_into_and_stays_a_pipe(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for place in (pipe, tmp_path / "link"):
        if place != pipe:
            place.symlink_to(pipe)
        reader = reading(pipe)
        with new_files(place) as files:
            files[0].file.write(b"rows")
        reader.join(10)
        assert reader.text == b"rows"
        assert pipe.is_fifo()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "pipe"]


def test_an_open_file_of_this_process_is_written_into(tmp_path):
    program = """
        import sys
        from pathlib import Path
        from recbole_m3rec.support.safe_write import new_files

        print("before", flush=True)
        with new_files(Path("/dev/stdout")) as [new]:
            new.file.write(b"written\\n")
        print("after")
    """
    with (tmp_path / "a").open("wb") as file:
        subprocess.run([sys.executable, "-c", textwrap.dedent(program)], stdout=file, check=True)
    assert (tmp_path / "a").read_text() == "before\nwritten\nafter\n"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no such device here")
def test_a_device_is_written_into_and_stays_a_device():
    with new_files(Path("/dev/null")) as files:
        files[0].file.write(b"rows")

    def fill():
        with new_files(Path("/dev/full")) as files, files[0].writing():
            files[0].file.write(b"rows")

    with pytest.raises(CannotWriteError, match=r"cannot write /dev/full: No space left"):
        fill()
    for device in ("/dev/null", "/dev/full"):
        assert Path(device).is_char_device()
    assert not [path for path in Path("/dev").iterdir() if path.name.endswith(".tmp")]


@pytest.mark.skipif(os.name != "posix", reason="sockets in the file system are POSIX's")
def test_folders_and_sockets_are_refused(tmp_path):
    (tmp_path / "folder").mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(tmp_path / "socket"))
        for name in ("folder", "socket"):
            with (
                pytest.raises(CannotWriteError, match=f"{name}: it is a {name}. Name a file"),
                new_files(tmp_path / name),
            ):
                pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "socket"]


@pytest.mark.skipif(os.name != "posix", reason="limits of file sizes are POSIX's")
def test_a_full_disk_is_an_error_and_the_old_file_stays(tmp_path):
    (tmp_path / "a").write_bytes(b"old")
    program = """
        import resource, signal, sys
        from pathlib import Path
        sys.modules["recbole_m3rec"] = type(sys)("recbole_m3rec")
        sys.modules["recbole_m3rec"].__path__ = [sys.argv[1]]
        from recbole_m3rec.support.safe_write import CannotWriteError, new_files
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
        try:
            with new_files(Path(sys.argv[2])) as files, files[0].writing():
                for _ in range(100):
                    files[0].file.write(b"x" * 1000)
        except CannotWriteError as error:
            print(error)
    """
    package = Path(__file__).parents[2] / "recbole_m3rec"
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), str(package), str(tmp_path / "a")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "the file that was there is unchanged. Make room" in result.stdout
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"old")]


def test_a_file_renamed_before_it_is_locked_is_not_the_one_that_is_opened(tmp_path, monkeypatch):
    path, lock, calls = tmp_path / "file.tmp", safe_write.fcntl.flock, []

    def rename_and_lock(*arguments):
        if not calls:
            path.rename(tmp_path / "another run's")
        calls.append(arguments)
        lock(*arguments)

    monkeypatch.setattr(safe_write.fcntl, "flock", rename_and_lock)
    with safe_write.open_alone(path) as file:
        file.write(b"ours")
    assert (path.read_bytes(), (tmp_path / "another run's").read_bytes()) == (b"ours", b"")
