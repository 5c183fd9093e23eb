"""``serve`` ends as every command does: with its exit code, and an error in one line."""

import signal
import socket
from urllib.request import urlopen

import pytest

from recbole_m3rec.serving.serve import main

pytest.importorskip("uvicorn")


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [(signal.SIGINT, 130, "\nInterrupted. The service has ended.\n"), (signal.SIGTERM, -15, "")],
)
def test_a_signal_ends_the_service_with_its_exit_code(start_server, write_made, number, code, said):
    process, address = start_server(write_made())
    with urlopen(f"{address}/"):  # it is up
        pass
    process.send_signal(number)
    assert process.wait(60) == code
    assert process.stderr.read() == said


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["--port", "taken"], "cannot listen at 127.0.0.1:{port}: Address already in use. Name"),
        (["--port", "99999"], "cannot listen at 127.0.0.1:99999: "),
        (["--port", "0", "--host", "no host"], "cannot listen at no host:0: "),
        (["--store", "{folder}"], "{folder}: cannot be used as a SQLite file"),
        (["--images", "{folder}/no"], "{folder}/no"),
    ],
)
def test_what_cannot_be_served_is_one_line(write_made, tmp_path, capsys, more, expected):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        given = [str(port) if each == "taken" else each.format(folder=tmp_path) for each in more]
        assert main([str(write_made()), *given]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {expected.format(port=port, folder=tmp_path)}")
    assert error.count("\n") == 1


def test_a_bundle_that_is_not_there_leaves_no_events(tmp_path, capsys):
    assert main([str(tmp_path / "none")]) == 2
    assert f"{tmp_path / 'none'}" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
