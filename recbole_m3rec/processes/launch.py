"""How the processes of a training start and end: by RecBole's ``run``, or by torchrun."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple

import torch.distributed as dist
import torch.multiprocessing as mp
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException

from recbole_m3rec.processes.rendezvous import Options, ProcessesError
from recbole_m3rec.processes.watch import LOST, WHAT_TO_DO, first_line, is_of_another

# How long processes may take to end by themselves when one was lost, and when they are told to.
GRACE = 5.0


class LostError(ProcessesError):
    """A process of the training has gone; the others cannot go on."""


class Torchrun(NamedTuple):
    """What torchrun tells each process that it starts."""

    rank: int
    world_size: int
    local_rank: int
    local_world_size: int
    ip: str
    port: int
    restarts: int

    def settings(self) -> dict[str, Any]:
        """Return what RecBole's configuration has to say of this process."""
        if self.world_size == 1:
            return {}
        return {
            "world_size": self.world_size,
            "nproc": self.local_world_size,
            "ip": self.ip,
            "port": str(self.port),
            "offset": self.rank - self.local_rank,
            "local_rank": self.local_rank,
        }


def torchrun() -> Torchrun | None:
    """Return what torchrun told this process, None if something else has started it."""
    environment = os.environ
    needed = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    if any(name not in environment for name in needed):
        return None
    rank, world_size, local_rank = (int(environment[name]) for name in needed[:3])
    return Torchrun(
        rank,
        world_size,
        local_rank,
        int(environment.get("LOCAL_WORLD_SIZE", 1)),
        environment["MASTER_ADDR"],
        int(environment["MASTER_PORT"]),
        int(environment.get("TORCHELASTIC_RESTART_COUNT", 0)),
    )


def own_launch() -> str | None:
    """Return what processes of one machine have in common whenever torchrun restarts them.

    None without torchrun. Checkpoints carry it: a restarted run resumes its own.
    """
    if torchrun() is None:
        return None
    run = os.environ.get("TORCHELASTIC_RUN_ID", "none")
    return f"{run} {socket.gethostname()} {os.getppid()}"


@contextmanager
def explained() -> Iterator[None]:
    """Say in one message that another process was lost, where a collective fails for it.

    Raises:
        LostError: says what was seen of it, and what to do.
    """
    try:
        yield
    except RuntimeError as error:
        if not dist.is_initialized() or not is_of_another(error):
            raise
        raise LostError(
            f"Process {dist.get_rank()} of {dist.get_world_size()} lost another one "
            f"({first_line(error)}). {WHAT_TO_DO}."
        ) from error


def spawn(worker: Callable[..., None], options: Options, arguments: Mapping[str, Any]) -> Any:
    """Start the processes of this machine and return the first one's result when all have ended.

    Args:
        worker: called in each with its number on this machine, then RecBole's arguments.
        options: of the processes.
        arguments: of RecBole's ``run``.

    Raises:
        LostError: one was killed; the others were ended.
        ProcessRaisedException: one raised an error, whose traceback is in it.
    """
    queue = mp.get_context("spawn").SimpleQueue()
    settings = {
        **(arguments["config_dict"] or {}),
        "world_size": options.nproc if options.world_size == -1 else options.world_size,
        **{"ip": options.ip, "port": options.port, "nproc": options.nproc},
        "offset": options.group_offset,
    }
    common = [arguments[name] for name in ("model", "dataset", "config_file_list")]
    common.append({"config_dict": settings, "queue": queue})
    processes = {
        rank: mp.spawn(run_one, (worker, rank, *common), nprocs=1, join=False)
        for rank in range(options.nproc)
    }
    errors: dict[int, Exception] = {}
    collect(processes, errors, until_error=True)
    if errors:
        collect(processes, errors, GRACE)  # the others notice by themselves
        for stop in (BaseProcess.terminate, BaseProcess.kill):
            for context in processes.values():
                stop(context.processes[0])
            collect(processes, {}, GRACE)
        raise worst(errors, options)
    return None if queue.empty() else queue.get()


def run_one(_: int, worker: Callable[..., None], rank: int, *arguments: Any) -> None:
    """Run one process of this machine; each is started alone, so that each tells its own end."""
    with explained():
        worker(rank, *arguments)


def collect(
    processes: dict[int, Any],
    errors: dict[int, Exception],
    seconds: float = float("inf"),
    until_error: bool = False,
) -> None:
    """Take processes out that have ended, and note those that did not end well.

    Args:
        processes: by number; those that are left are still at work.
        errors: by number, filled.
        seconds: how long to wait for all.
        until_error: wait no longer than for the first error.
    """
    until = time.monotonic() + seconds
    while processes and time.monotonic() < until and not (until_error and errors):
        for rank, context in list(processes.items()):
            try:
                if context.join(0.05):
                    del processes[rank]
            except (ProcessRaisedException, ProcessExitedException) as error:
                errors[rank] = error
                del processes[rank]


def worst(errors: Mapping[int, Exception], options: Options) -> Exception:
    """Return the error that explains the others: what a process raised, then who was killed."""
    lost = []
    for error in errors.values():
        if isinstance(error, ProcessRaisedException):
            if LostError.__name__ not in str(error):
                return error
            lost.append(error)
    for rank, error in errors.items():
        if isinstance(error, ProcessExitedException) and error.exit_code != LOST:
            how = f"was killed by {error.signal_name}"
            if error.signal_name is None:
                how = f"ended with code {error.exit_code}"
            elif error.signal_name == "SIGKILL":
                how += ", perhaps for want of memory"
            rank += options.group_offset
            return LostError(f"Process {rank} {how}. {WHAT_TO_DO}.")
    return lost[0] if lost else LostError("Processes were lost, as said above.")
