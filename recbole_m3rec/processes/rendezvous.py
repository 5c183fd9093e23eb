"""How the processes of a training find each other; who waits for long says for whom."""

from __future__ import annotations

import socket
import sys
import time
from datetime import timedelta
from typing import NamedTuple

import torch.distributed as dist

# How long a process waits for the others, how often it says so, and how long it waits for the
# answer of another machine, in seconds.
PATIENCE, EVERY, ANSWER = 600.0, 10.0, 2.0


class ProcessesError(ValueError):
    """Processes that cannot be started, or that do not find each other."""


class Options(NamedTuple):
    """The options of RecBole's ``run`` that are about processes."""

    nproc: int
    world_size: int
    ip: str
    port: str
    group_offset: int


def check(options: Options) -> None:
    """Raise for options that no training can be started with on this machine."""
    nproc, world, ip, port, offset = options
    counts = (("nproc", nproc, 1), ("world_size", world, -1), ("group_offset", offset, 0))
    for name, value, least in counts:
        if not isinstance(value, int) or value < least or (name == "world_size" and value == 0):
            expected = f"an integer from {0 if name == 'group_offset' else 1} on"
            raise ProcessesError(f"--{name} must be {expected}, found {value}.")
    if nproc == 1 and world <= 0:
        if offset:
            raise ProcessesError(f"--group_offset={offset} needs --world_size, of all machines.")
        return
    if world != -1 and world < nproc + offset:
        raise ProcessesError(
            f"--world_size={world} counts the processes of all machines, and must be at least "
            f"--nproc={nproc} and --group_offset={offset} together."
        )
    if not str(port).isdecimal() or not 0 < int(port) < 65536:
        raise ProcessesError(f"--port must be a number from 1 to 65535, found {port}.")
    refuse_nowhere(ip)
    if offset == 0:
        refuse_taken(ip, int(port))


def refuse_nowhere(ip: str) -> None:
    """Raise for a name of the first machine that has no address."""
    if not ip.strip():
        raise ProcessesError(
            "--ip is empty, expected the name or address of the first machine. On one machine "
            "leave it out."
        )
    try:
        socket.getaddrinfo(ip, None)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ProcessesError(
            f"--ip={ip} has no address ({reason}). Give the first machine's name as this machine "
            "knows it, or its address."
        ) from error


def refuse_taken(ip: str, port: int) -> None:
    """Raise where another program listens already where the first process will."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError as error:
            raise ProcessesError(
                f"--port={port} of {ip} cannot be used ({error.strerror}): another training may be "
                "at it. Name another port, the same on every machine."
            ) from error


def answers(ip: str, port: int) -> bool:
    """Tell whether a program listens there, which TCPStore asks with a stack trace per attempt."""
    try:
        with socket.create_connection((ip, port), timeout=ANSWER) as probe:
            # A connection to a free port of this machine may meet itself.
            return bool(probe.getsockname() != probe.getpeername())
    except OSError:
        return False


def join(backend: str, rank: int, world_size: int, ip: str, port: int) -> None:
    """Start torch's process group when all processes are there; say every so often who is not.

    Args:
        backend: ``gloo`` or ``nccl``.
        rank: number of this process, from 0, which others reach at ``ip`` and ``port``.
        world_size: number of processes on all machines.

    Raises:
        ProcessesError: they are not all there in time, or two have one number.
    """
    waiting = _Waiting(rank, world_size, f"{ip}:{port}")
    store = None
    while store is None:
        if rank > 0 and not answers(ip, port):
            waiting.say("the first process")
            time.sleep(0.2)
            continue
        try:
            store = dist.TCPStore(
                *(ip, port, world_size, rank == 0),
                timeout=timedelta(seconds=EVERY),
                wait_for_workers=False,
            )
        except (RuntimeError, ValueError) as error:
            if rank == 0:
                raise ProcessesError(f"--ip={ip} --port={port} cannot be used: {error}") from error
            waiting.say("the first process")
    try:
        if store.add(f"here {rank}", 1) > 1:
            raise ProcessesError(
                f"Process {rank} is there already. Give each machine a --group_offset of its own: "
                "the number of processes on the machines before it."
            )
        while missing := [each for each in range(world_size) if not store.add(f"here {each}", 0)]:
            waiting.say(f"{len(missing)} of {world_size} processes, the first of them {missing[0]}")
            time.sleep(0.05)
        store.set_timeout(timedelta(seconds=PATIENCE))
        dist.init_process_group(backend, store=store, rank=rank, world_size=world_size)
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise ProcessesError(f"Process {rank} lost the others at {ip}:{port}: {reason}") from error


def join_torchrun(backend: str, restarts: int) -> None:
    """Start torch's process group among the processes that torchrun has started.

    Each restart reads names of its own: the store may hold where those before it listened.

    Raises:
        ProcessesError: they do not find each other.
    """
    try:
        patience = timedelta(seconds=PATIENCE)
        store, rank, world_size = next(dist.rendezvous("env://", timeout=patience))
        store = dist.PrefixStore(f"restart {restarts}", store)
        dist.init_process_group(
            backend, store=store, rank=rank, world_size=world_size, timeout=patience
        )
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ProcessesError(f"The processes of torchrun do not meet: {reason}") from error


class _Waiting:
    """What a process says while it waits."""

    def __init__(self, rank: int, world_size: int, place: str) -> None:
        self.rank, self.world_size, self.place = rank, world_size, place
        self.started = self.said = time.monotonic()

    def say(self, whom: str) -> None:
        """Say for whom, if it is time again.

        Raises:
            ProcessesError: it has taken too long.
        """
        now = time.monotonic()
        waited = now - self.started
        if waited >= PATIENCE:
            raise ProcessesError(
                f"Process {self.rank} gave up after {PATIENCE:.0f} s of waiting for {whom} at "
                f"{self.place}. Start all machines with the same --ip, --port and --world_size="
                f"{self.world_size}, each with its --group_offset, and let the port be reachable."
            )
        if now - self.said >= EVERY:
            self.said = now - waited % EVERY
            print(
                f"process {self.rank} waits at {self.place} for {whom}: {waited:.0f} s, gives up "
                f"after {PATIENCE:.0f} s",
                file=sys.stderr,
                flush=True,
            )
