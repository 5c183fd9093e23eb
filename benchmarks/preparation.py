"""Amazon preparation by workers of a cluster: time against the number of workers.

    python benchmarks/preparation.py                          # 2 million reviews
    python benchmarks/preparation.py --reviews 20000000       # 8.4 GB of them

Reviews are generated, with a text each as in release 2014, a sixth as many users and a fortieth as
many items. Each worker has a processor of its own where there are enough; the scheduler and this
process take what is left. All ways must write the same bytes.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from measure import arguments, ratios, report

from recbole_m3rec.atomic.inter_file import Filters
from recbole_m3rec.cluster.connect import connected
from recbole_m3rec.datasets.amazon.prepare import Source, prepare
from recbole_m3rec.datasets.amazon.releases import RELEASES

AT_ONCE = 100_000
TEXT = b"the quick brown fox likes this product and jumps over it every day " * 20
LINE = (
    b'{"reviewerID": "A%013d", "asin": "B%09d", "reviewText": "%s", "overall": %d.0,'
    b' "unixReviewTime": %d}\n'
)


def generate(path: Path, n: int) -> None:
    """Write ``n`` reviews as lines of JSON; few users and items have most of them."""
    random = np.random.default_rng(0)
    with open(path, "wb") as file:
        for start in range(0, n, AT_ONCE):
            size = min(AT_ONCE, n - start)
            users = n / 6 * random.random(size) ** 1.7
            items = n / 40 * random.random(size) ** 2
            letters = random.integers(150, 450, size)
            stars = random.integers(1, 6, size)
            times = random.integers(946_684_800, 1_406_073_600, size)
            columns = (users.astype(int), items.astype(int), letters, stars, times)
            rows = zip(*(column.tolist() for column in columns), strict=True)
            file.writelines(LINE % (u, i, TEXT[:length], s, t) for u, i, length, s, t in rows)


@contextmanager
def cluster(n_workers: int, folder: Path) -> Iterator[tuple[str | None, list[psutil.Process]]]:
    """Start a scheduler and workers; yield its file and their processes. None for 0 workers."""
    if not n_workers:
        yield None, []
        return
    file, started = folder / "scheduler.json", []
    file.unlink(missing_ok=True)

    def start(what: str, *options: str) -> psutil.Process:
        command = [sys.executable, "-m", f"distributed.cli.dask_{what}", "--no-dashboard"]
        command += [f"--scheduler-file={file}", "--host=127.0.0.1", *options]
        started.append(subprocess.Popen(command, stderr=subprocess.DEVNULL))
        return psutil.Process(started[-1].pid)

    try:
        processes = [start("scheduler", "--port=0")]
        while not file.is_file():
            time.sleep(0.1)
        processors = sorted(os.sched_getaffinity(0))
        for number in range(n_workers):
            processes.append(start("worker", "--nthreads=1", "--no-nanny"))
            processes[-1].cpu_affinity([processors[number % len(processors)]])
        with connected(str(file)) as running:
            while len(running.client.nthreads()) < n_workers:  # type: ignore[attr-defined]
                time.sleep(0.1)
        yield str(file), processes
    finally:
        for process in started:
            process.kill()
            process.wait()


def prepared(reviews: Path, n_workers: int, folder: Path) -> dict[str, Any]:
    """Prepare once: seconds, processor seconds here, at the scheduler, at the workers; digest."""
    source = Source(RELEASES["2014"], "Beauty", reviews, None)
    output = folder / f"prepared{n_workers}"
    with cluster(n_workers, folder) as (place, others), connected(place) as running:
        processes = [psutil.Process(), *others]
        before = [sum(process.cpu_times()[:2]) for process in processes]
        started = time.perf_counter()
        prepare(source, output, "generated", Filters(), ("rating",), running)
        seconds = time.perf_counter() - started
        spent = [
            sum(process.cpu_times()[:2]) - earlier
            for process, earlier in zip(processes, before, strict=True)
        ]
    digest = hashlib.sha256((output / "generated.inter").read_bytes()).hexdigest()
    return {
        "workers": n_workers,
        "seconds": seconds,
        "here": spent[0],
        "scheduler": sum(spent[1:2]),
        "at workers": sum(spent[2:]),
        "digest": digest,
    }


def main() -> None:
    parser = arguments((__doc__ or "").splitlines()[0], rounds=3)
    parser.add_argument("--reviews", type=int, default=2_000_000)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="0: no cluster")
    parser.add_argument(
        "--folder", type=Path, help="for the generated file, some 420 bytes a review"
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        reviews = Path(folder) / "reviews.json"
        generate(reviews, args.reviews)
        rows = [
            prepared(reviews, n_workers, Path(folder))
            for _ in range(args.rounds)
            for n_workers in args.workers
        ]
    if len({row.pop("digest") for row in rows}) > 1:
        raise SystemExit("the files differ")
    of = {n: [row["seconds"] for row in rows if row["workers"] == n] for n in args.workers}
    first = args.workers[0]
    for n in args.workers[1:]:
        found = ratios(of[first], of[n])
        print(f"{n} workers against {first}: {found['median']:.2f} ({found['low']:.2f} to"
              f" {found['high']:.2f}) times as fast")  # fmt: skip
    report("amazon preparation", rows, args)


if __name__ == "__main__":
    main()
