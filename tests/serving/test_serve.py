"""``serve`` ends as every command does: with its exit code, and an error in one line."""

import signal
import socket
import time
from urllib.request import urlopen

import pytest

from recbole_m3rec.serving.serve import main

uvicorn = pytest.importorskip("uvicorn")


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


def test_a_client_that_does_not_read_is_left_in_the_end(start_server, write_made):
    process, address = start_server(write_made(), first="serve.GRACE = 1")
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as client:
        client.sendall(b"GET /page/app.js HTTP/1.1\r\nhost: x\r\n\r\n" * 1000)
        time.sleep(1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == -signal.SIGTERM
    assert "Cancel 1 running task(s)" in process.stderr.read()


def test_it_says_once_that_no_connection_can_be_taken(start_server, write_made):
    few = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))"
    process, address = start_server(write_made(), first=few)
    host, port = address.removeprefix("http://").split(":")
    clients = [socket.create_connection((host, int(port))) for _ in range(80)]
    time.sleep(3)
    for client in clients:
        client.close()
    with urlopen(f"{address}/healthz", timeout=30):
        pass
    process.kill()
    [line] = process.stderr.read().splitlines()
    assert line.endswith("no connection can be taken: Too many open files. Raise ulimit -n")


def test_it_listens_at_ipv6_and_starts_through_a_hangup(start_server, write_made):
    hangup = "serve.check_installed = lambda: signal.raise_signal(signal.SIGHUP)"
    _, address = start_server(write_made(), "--host", "::1", first=hangup)
    assert address.startswith("http://[::1]:")
    with urlopen(f"{address}/healthz"):
        pass


def test_ctrl_c_between_the_address_and_the_start_ends_quietly(
    write_made, monkeypatch, capsys, recwarn
):
    choose, before = uvicorn.Config.get_loop_factory, signal.getsignal(signal.SIGINT)

    def interrupted(self):  # where the service imports most
        signal.raise_signal(signal.SIGINT)
        return choose(self)

    monkeypatch.setattr(uvicorn.Config, "get_loop_factory", interrupted)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background ignores
    try:
        assert main([str(write_made()), "--port", "0"]) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    said = capsys.readouterr()
    assert said.out.startswith("Recommendations at http://127.0.0.1:")
    assert said.err == "\nInterrupted. The service has ended.\n"
    assert not [each for each in recwarn if "never awaited" in str(each.message)]


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


@pytest.mark.parametrize(
    ("option", "value"),
    [("--threads", "-1"), ("--max-batch", "0"), ("--max-wait-ms", "nan"), ("--max-wait-ms", "-1")],
)
def test_a_number_out_of_range_is_a_usage_error(tmp_path, capsys, option, value):
    with pytest.raises(SystemExit, match="2"):
        main([str(tmp_path), option, value])
    error = capsys.readouterr().err
    assert f"argument {option}: expected a " in error
    assert f"found '{value}'" in error


def test_a_bundle_that_is_not_there_leaves_no_events(tmp_path, capsys):
    assert main([str(tmp_path / "none")]) == 2
    assert f"{tmp_path / 'none'}" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
