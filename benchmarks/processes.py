"""A training in one and in several processes: losses side by side, starts that end well, speed.

    python benchmarks/processes.py losses            # 20 steps of 1, 2 and 4 processes, 2 machines
    python benchmarks/processes.py starts --n 50     # two processes started again and again
    python benchmarks/processes.py speed --dataset beauty --steps 20

Processes are started as torchrun starts them. ``losses`` trains an epoch in one process first, and
all go on from its checkpoint. Machines are network namespaces joined by a virtual cable where the
system allows them (root, ``ip``), else folders on the loopback interface.
"""

from __future__ import annotations

import argparse
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

STEPS = "M3REC_BENCHMARK_STEPS"  # a worker ends after so many steps
CABLE = "cable0"  # the name of both ends
SMALL = [
    *("--dataset=generated", "--model=M3Rec", "--modalities=[]", "--hidden_size=16"),
    *("--d_state=4", "--dropout_prob=0.0", "--train_batch_size=256", "--epochs=1", "--gpu_id="),
    *("--MAX_ITEM_LIST_LENGTH=20", "--show_progress=False", "--valid_metric=NDCG@10"),
]


def worker(arguments: Sequence[str]) -> int:
    """Train as the command line does; print the time and loss of each step."""
    from recbole_m3rec.cli.train import main
    from recbole_m3rec.trainer.progress import Progress

    original, n_steps, done = Progress._add_loss, int(os.environ.get(STEPS, 0)), 0

    def noted(self: Progress) -> None:
        nonlocal done
        before = self.loss or 0.0
        original(self)
        done += 1
        if os.environ["RANK"] == "0" and n_steps:
            print(f"step {time.perf_counter()} {self.loss - before!r}", flush=True)
        if done == n_steps:
            sys.stdout.flush()
            time.sleep(0.5)  # the others are at this step, too
            os._exit(0)

    Progress._add_loss = noted  # type: ignore[method-assign]
    return main(arguments)


class World:
    """Processes of one training; ``machines`` is how many each has, and where it runs."""

    def __init__(
        self, arguments: Sequence[str], machines: Sequence[int], folders: Sequence[Path],
        before: Sequence[Sequence[str]] = (), address: str = "127.0.0.1",
        cores: Callable[[int], Sequence[str]] = lambda rank: (), **variables: str,
    ) -> None:  # fmt: skip
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = str(free.getsockname()[1])
        self.processes = []
        for machine, n_local in enumerate(machines):
            for local in range(n_local):
                rank = len(self.processes)
                told = {"RANK": rank, "WORLD_SIZE": sum(machines), "LOCAL_RANK": local}
                told |= {"LOCAL_WORLD_SIZE": n_local, "MASTER_ADDR": address, "MASTER_PORT": port}
                prefix = [*(before[machine] if before else ()), *cores(rank)]
                environment = os.environ | {k: str(v) for k, v in told.items()} | variables
                self.processes.append(
                    subprocess.Popen(
                        [*prefix, sys.executable, str(Path(__file__).resolve()), "worker"]
                        + list(arguments),
                        cwd=folders[machine], env=environment, text=True,
                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                    )
                )  # fmt: skip

    def end(self) -> tuple[list[int], str]:
        """Return exit codes and what the first process printed."""
        try:
            texts = [process.communicate(timeout=300)[0] for process in self.processes]
        except subprocess.TimeoutExpired:
            texts = ["no end within 300 s"]
            for process in self.processes:
                process.kill()
                process.wait()
        codes = [process.returncode for process in self.processes]
        return codes, texts[0] if not any(codes) else "\n".join(texts)


def steps_of(ended: tuple[list[int], str]) -> list[tuple[float, float]]:
    """Return time and loss of each step that a world printed."""
    codes, text = ended
    if any(codes):
        raise RuntimeError(f"exit codes {codes}:\n{text}")
    lines = [line.split()[1:] for line in text.splitlines() if line.startswith("step ")]
    return [(float(when), float(loss)) for when, loss in lines]


def write_generated(folder: Path, n_users: int = 1000, n_items: int = 300) -> None:
    """Write a data set of random histories."""
    chance = random.Random(1)
    lines = ["user_id:token\titem_id:token\ttimestamp:float"]
    for user in range(n_users):
        items = chance.sample(range(n_items), chance.randint(5, 15))
        lines += [f"u{user}\ti{item}\t{time}" for time, item in enumerate(items)]
    (folder / "dataset" / "generated").mkdir(parents=True, exist_ok=True)
    (folder / "dataset/generated/generated.inter").write_text("\n".join(lines) + "\n")


def namespaces() -> list[list[str]]:
    """Make two network namespaces joined by a cable and return how to run inside; [] if refused."""
    names = [f"m3rec{os.getpid()}{side}" for side in "ab"]
    commands = [f"ip netns add {name}" for name in names]
    commands.append(f"ip link add v{names[0]} type veth peer name v{names[1]}")
    for number, name in enumerate(names, 1):
        commands.append(f"ip link set v{name} netns {name}")
        commands.append(f"ip -n {name} addr add 10.99.0.{number}/24 dev v{name}")
        commands.append(f"ip -n {name} link set v{name} name {CABLE}")
        commands += [f"ip -n {name} link set {link} up" for link in (CABLE, "lo")]
    try:
        for command in commands:
            subprocess.run(command.split(), check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"no network namespaces here ({error}): loopback instead", file=sys.stderr)
        return []
    return [["ip", "netns", "exec", name] for name in names]


def remove(spaces: Sequence[Sequence[str]]) -> None:
    """Remove namespaces, and with them their cable."""
    for space in spaces:
        subprocess.run(["ip", "netns", "del", space[-1]], check=False)


def losses(folder: Path, n_steps: int) -> None:
    """Print the losses of the same steps in several worlds."""
    write_generated(folder)
    codes, text = World(SMALL, [1], [folder]).end()
    if any(codes):
        raise RuntimeError(text)
    [last] = (folder / "saved").glob("*-last.ckpt")
    given = ["--resume", str(last), "--epochs=9"]
    found = {}
    for n in (1, 2, 4):
        world = World(given, [n], [folder], **{STEPS: str(n_steps)})
        found[f"{n} process" + "es" * (n > 1)] = steps_of(world.end())
        print(f"{n} done", file=sys.stderr)
    spaces = namespaces()
    try:
        where = "2 namespaces" if spaces else "2 machines"
        more = {"before": spaces, "address": "10.99.0.1"} if spaces else {}
        told = {STEPS: str(n_steps)} | ({"GLOO_SOCKET_IFNAME": CABLE} if spaces else {})
        world = World(given, [1, 1], [folder] * 2, **more, **told)  # type: ignore[arg-type]
        found[where] = steps_of(world.end())
    finally:
        remove(spaces)
    print("step  " + "  ".join(f"{name:>12}" for name in found))
    for step, row in enumerate(zip(*found.values(), strict=True), 1):
        print(f"{step:>4}  " + "  ".join(f"{loss:12.7f}" for _, loss in row))
    columns = [[loss for _, loss in each] for each in found.values()]
    worst = max(abs(a - b) for other in columns for a, b in zip(columns[0], other, strict=True))
    print(f"largest difference from 1 process: {worst:.1e}")


def starts(folder: Path, n: int) -> None:
    """Start two processes again and again and count how many end well."""
    write_generated(folder, 60, 30)
    well = 0
    for number in range(1, n + 1):
        codes, text = World(SMALL, [2], [folder]).end()
        well += not any(codes)
        print(f"{well} of {number} ended well", flush=True)
        if any(codes):
            print(text, flush=True)


def speed(arguments: Sequence[str], n_steps: int, rounds: int, cores: Sequence[str]) -> None:
    """Print how long a step of one and of two processes takes, each on a core, in turns."""
    seconds: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(rounds):
        for n in seconds:
            world = World(
                arguments, [n], [Path.cwd()], OMP_NUM_THREADS="1", **{STEPS: str(n_steps)},
                cores=lambda rank: ("taskset", "-c", cores[-1 - rank]),
            )  # fmt: skip
            times = [when for when, _ in steps_of(world.end())]
            seconds[n] += [b - a for a, b in zip(times[2:], times[3:], strict=False)]
    one, two = (statistics.median(each) for each in seconds.values())
    print(f"median step: 1 process {one * 1000:.0f} ms, 2 processes {two * 1000:.0f} ms")
    print(f"2 processes are {one / two:.2f} times faster")


def main() -> int:
    if sys.argv[1:2] == ["worker"]:
        return worker(sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=("losses", "starts", "speed"))
    parser.add_argument("--n", type=int, default=50, help="starts (50)")
    parser.add_argument("--steps", type=int, default=20, help="steps of a run (20)")
    parser.add_argument("--rounds", type=int, default=2, help="turns of speed (2)")
    parser.add_argument("--cores", default="0,1", help="cores of speed (0,1)")
    options, given = parser.parse_known_args()
    if options.what == "speed":
        speed(["--model=M3Rec", *given], options.steps, options.rounds, options.cores.split(","))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        if options.what == "losses":
            losses(Path(folder), options.steps)
        else:
            starts(Path(folder), options.n)
    return 0


if __name__ == "__main__":
    sys.exit(main())
