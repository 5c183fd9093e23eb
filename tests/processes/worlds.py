"""Worlds of several processes, forked from the test's, with torchrun's variables."""

import os
import socket
from pathlib import Path

import torch

from recbole_m3rec.trainer.progress import Progress
from tests.trainer.killed_runs import start, wait


def free_port():
    """Return a port that nobody listens at."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return int(free.getsockname()[1])


def start_world(
    folders,
    given,
    world_size,
    *,
    local_world_size=None,
    prepare=lambda rank: None,
    **variables,
):
    """Start all processes of a world and return their numbers.

    Args:
        folders: where they work, one for all or one each.
        given: the command's arguments.
        local_world_size: processes of a machine; all of them.
        prepare: called in each process with its rank.
        variables: of the environment.
    """
    port, here = str(free_port()), local_world_size or world_size
    places = [folders] * world_size if isinstance(folders, Path) else list(folders)

    def become(rank):
        def act():
            os.environ |= {
                **{"RANK": str(rank), "WORLD_SIZE": str(world_size)},
                **{"LOCAL_RANK": str(rank % here), "LOCAL_WORLD_SIZE": str(here)},
                **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port},
                **variables,
            }
            note_losses(rank)
            prepare(rank)

        return act

    return [start(places[rank], list(given), become(rank)) for rank in range(world_size)]


def run_world(*args, **kwargs):
    """Run a world to its end and return the exit codes of its processes."""
    return [wait(process) for process in start_world(*args, **kwargs)]


def note_losses(rank):
    """Let the first process write the loss of each step, as it adds them up, into a file."""
    original = Progress._add_loss

    def noted(self):
        before = self.loss or 0.0
        original(self)
        if rank == 0:
            with open("losses.txt", "a", encoding="utf-8") as file:
                file.write(f"{self.loss - before!r}\n")

    Progress._add_loss = noted


def losses_of(folder):
    """Return the losses that a world wrote."""
    return [float(line) for line in (folder / "losses.txt").read_text().split()]


def parameters_of(checkpoint):
    """Return a checkpoint's weights."""
    from recbole_m3rec.trainer import checkpoint_file

    weights = checkpoint_file.load(checkpoint, map_location="cpu")["state_dict"]
    return {name: value for name, value in weights.items() if isinstance(value, torch.Tensor)}
