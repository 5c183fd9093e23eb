"""Processes that cannot meet are refused at once or given up aloud; nothing waits for ever."""

import socket
import threading

import pytest
import torch.distributed as dist

from recbole_m3rec.processes import rendezvous
from recbole_m3rec.processes.rendezvous import Options, ProcessesError, check, join
from tests.processes.worlds import free_port

ALONE = Options(nproc=1, world_size=-1, ip="localhost", port="5678", group_offset=0)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"nproc": 0}, "--nproc must be an integer from 1 on, found 0"),
        ({"nproc": -1}, "--nproc must be an integer from 1 on, found -1"),
        ({"world_size": 0}, "--world_size must be an integer from 1 on, found 0"),
        ({"world_size": -2}, "--world_size must be"),
        ({"group_offset": -1}, "--group_offset must be an integer from 0 on"),
        ({"group_offset": 2}, "needs --world_size"),
        ({"nproc": 2, "world_size": 1}, "at least --nproc=2"),
        ({"nproc": 2, "world_size": 3, "group_offset": 2}, "--group_offset=2 together"),
        ({"nproc": 2, "port": "0"}, "from 1 to 65535"),
        ({"nproc": 2, "port": "65536"}, "from 1 to 65535"),
        ({"nproc": 2, "ip": ""}, "--ip is empty, expected the name or address"),
        (
            {"nproc": 2, "ip": "no.such.host.invalid"},
            r"--ip=no.such.host.invalid has no address \(",
        ),
        ({"world_size": 2, "group_offset": 1, "ip": "x" * 64}, "has no address"),
        ({"world_size": 2, "group_offset": 1, "ip": ".x"}, "has no address"),
    ],
)
def test_options_without_meaning_are_told(options, says):
    with pytest.raises(ProcessesError, match=says):
        check(ALONE._replace(**options))


def test_options_with_a_meaning_pass(port):
    check(ALONE)
    check(ALONE._replace(nproc=2, port=str(port)))
    check(ALONE._replace(nproc=2, world_size=4, group_offset=2, ip="192.0.2.1", port=port))


def test_recboles_run_checks_them_too():
    from recbole.quick_start import run

    with pytest.raises(ProcessesError, match="--nproc must be"):
        run("SASRec", "ml-100k", nproc=0)


def test_a_taken_port_is_told():
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        taken = other.getsockname()[1]
        with pytest.raises(ProcessesError, match=f"--port={taken} of localhost cannot be used"):
            check(ALONE._replace(nproc=2, port=str(taken)))


def told(*given):
    """Join at once as each of (rank, port), in worlds of three; return the errors of all."""
    errors = []

    def enter(rank, port):
        try:
            join("gloo", rank, 3, "localhost", port)
        except ProcessesError as error:
            errors.append(str(error))

    threads = [threading.Thread(target=enter, args=one) for one in given]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return errors


def test_absent_peers_are_waited_for_aloud_and_given_up(monkeypatch, capfd):
    monkeypatch.setattr(rendezvous, "PATIENCE", 4.0)
    monkeypatch.setattr(rendezvous, "EVERY", 0.5)
    ports = [free_port(), free_port()]
    errors = sorted(told(*enumerate(ports)))
    said = capfd.readouterr().err.splitlines()
    whom = ["2 of 3 processes, the first of them 1", "the first process"]
    for rank in (0, 1):
        begin = f"process {rank} waits at localhost:{ports[rank]} for {whom[rank]}: "
        assert any(line.startswith(begin) for line in said), said
        assert errors[rank].startswith(f"Process {rank} gave up after 4 s of waiting for")
        assert sum(line.startswith(begin) for line in said) >= 5, said
    assert all(line.startswith("process ") for line in said), "torch's stack traces"
    assert not dist.is_initialized()


def test_a_number_given_twice_is_told(port, monkeypatch):
    monkeypatch.setattr(rendezvous, "PATIENCE", 3.0)
    errors = told((0, port), (1, port), (1, port))
    assert any("Process 1 is there already" in text for text in errors)
    assert len(errors) == 3
