"""Serving: all users, a session, the service under load and under kill -9, the index, the start.

python benchmarks/serving.py users --dataset beauty
python benchmarks/serving.py session | load | index | kill --minutes 10 | start
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from measure import arguments, report, rows_against, take_turns

from recbole_m3rec.features.align import ItemFeatures
from recbole_m3rec.network.m3rec import M3RecNetwork
from recbole_m3rec.serving.bundle.write import write_bundle
from recbole_m3rec.serving.recommender import Recommender
from recbole_m3rec.serving.scoring.exact import Edits, exact_top
from recbole_m3rec.serving.scoring.index import Index, build_index

HIDDEN = 64
CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}
IN_A_ROW = 50  # of session: runs of each competitor a round
HERE = Path(__file__).parent


def write_made_bundle(folder: Path, n_items: int, longest: int = 50) -> None:
    """A bundle of an untrained model of three modalities, features as wide as CLIP's and BERT's."""
    torch.manual_seed(0)
    every = torch.ones(n_items + 1, dtype=torch.bool)
    features = {
        name: ItemFeatures(name, 0.02 * torch.randn(n_items + 1, width), every, "", "")
        for name, width in (("image", 512), ("text", 768))
    }
    network = M3RecNetwork(n_items + 1, features, hidden_size=HIDDEN)
    counts = np.random.default_rng(0).zipf(1.5, n_items).clip(max=10**6)
    ids = [f"i{n}" for n in range(1, n_items + 1)]
    items = pa.table({"item_id": ids, "title": ids, "count": pa.array(counts, pa.int64())})
    about = {"max_history": longest, "features": {}}
    write_bundle(folder, network, {"hidden_size": HIDDEN}, items, about=about)


def users(args: Any) -> None:
    """The ten best items of every user of a dataset, beside RecBole's ``full_sort_topk``."""
    from competitors import configure, prepare
    from recbole.data import create_dataset
    from recbole.utils.case_study import full_sort_topk

    config, sasrec, _, test = prepare("SASRec", args.dataset, gpu_id="")
    sasrec.eval()
    dataset = create_dataset(configure("SASRec", args.dataset, gpu_id=""))
    rows = dataset.inter_feat.sort_values([dataset.uid_field, dataset.time_field], kind="stable")
    histories = {
        str(user): [f"i{item}" for item in items]
        for user, items in rows.groupby(dataset.uid_field)[dataset.iid_field]
    }
    ids = test.dataset.inter_feat[dataset.uid_field].numpy()

    @torch.no_grad()
    def theirs() -> None:
        for some in np.array_split(ids, max(1, len(ids) // config["eval_batch_size"])):
            full_sort_topk(some, sasrec, test, k=10, device="cpu")

    with tempfile.TemporaryDirectory() as folder:
        write_made_bundle(Path(folder) / "bundle", dataset.item_num - 1)
        shop = Recommender.load(Path(folder) / "bundle")
    ours = "Recommender, ID + image + text"
    competitors = {
        ours: lambda: shop.recommend(histories, 10),
        "RecBole's SASRec, full_sort_topk": theirs,
    }
    seconds = take_turns(competitors, args.rounds, clock=CLOCKS[args.clock])
    title = f"Ten items for {len(histories):,} users of {args.dataset}, {args.threads} threads"
    report(title, rows_against(ours, seconds), args, seconds=seconds)


def session(args: Any) -> None:
    """One more item and ten recommendations on a kept state, beside encoding the history anew."""
    with tempfile.TemporaryDirectory() as folder:
        write_made_bundle(Path(folder) / "bundle", args.items, args.length)
        shop = Recommender.load(Path(folder) / "bundle")
    draw = random.Random(0)
    history = [f"i{draw.randint(1, args.items)}" for _ in range(args.length)]
    numbers, _ = shop.items.numbers(history)
    kept, short = shop.session(history), shop.session(history[:10])

    def on_kept(one: Any) -> None:
        one.add(history[0])
        one.recommend(10)

    def in_a_row(run: Callable[[], Any]) -> Callable[[], None]:
        # As a busy service does: what runs once a round meets cold caches and is twice as slow.
        return lambda: [run() for _ in range(IN_A_ROW)] and None

    ours = "session.add and recommend(10)"
    competitors = {
        ours: lambda: on_kept(kept),
        "the same after 10 items": lambda: on_kept(short),
        "recommend(10), the history anew": lambda: shop.recommend([history], 10),
        "a session from the history anew": lambda: shop.session(history),
        "encoding the history anew alone": lambda: shop.ranker.encode([numbers]),
    }
    rows_of = {name: in_a_row(run) for name, run in competitors.items()}
    seconds = {
        name: [time / IN_A_ROW for time in times]
        for name, times in take_turns(rows_of, args.rounds, clock=CLOCKS[args.clock]).items()
    }
    title = f"One item after {args.length}, {args.items:,} items, {args.threads} threads"
    report(title, rows_against(ours, seconds), args, seconds=seconds)


@contextlib.contextmanager
def server(bundle: Path, *more: str) -> Iterator[tuple[subprocess.Popen[str], str, int]]:
    """Run the service as a process; yields it, its host and its port."""
    command = [sys.executable, "-m", "recbole_m3rec.serving", str(bundle)]
    process = subprocess.Popen([*command, "--port", "0", *more], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        host, port = process.stdout.readline().split()[2].removeprefix("http://").split(":")
        yield process, host, int(port)
    finally:
        process.kill()
        process.wait()


def processor_seconds(process: int) -> float:
    """Seconds of processor time that a process has used."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def load(args: Any) -> None:
    """Answers a second of the service, and how long they take."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        write_made_bundle(Path(folder) / "bundle", args.items)
        with server(Path(folder) / "bundle") as (process, host, port):
            numbers = [args.connections, args.seconds, args.items, 20]
            command = [sys.executable, str(HERE / "load.py"), host, str(port), *map(str, numbers)]
            for _ in range(args.rounds):
                before = processor_seconds(process.pid)
                found = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
                used = processor_seconds(process.pid) - before
                # On a busy machine the answers a second say less than what an answer takes.
                found["server ms of processor an answer"] = 1e3 * used / found.pop("answers")
                rows.append(found)
    title = f"Service, {args.items:,} items, histories of 20, {args.connections} connections"
    report(title, rows, args)


def kill(args: Any) -> None:
    """Events and questions from many threads while the server is killed at random."""
    import httpx

    acknowledged: list[str] = []
    asked, kills, address = [0], 0, [""]
    ending = threading.Event()

    def client(number: int) -> None:
        count = 0
        while not ending.is_set():
            try:
                with httpx.Client(base_url=address[0], timeout=5) as http:
                    while not ending.is_set():
                        count += 1
                        user = f"{number}-{count}"
                        body = {"user": user, "items": ["i7"]}
                        http.post("/events", json=body).raise_for_status()
                        acknowledged.append(user)
                        http.post("/recommend", json={"user": user}).raise_for_status()
                        asked[0] += 1
            except (httpx.HTTPError, httpx.InvalidURL):
                time.sleep(0.05)

    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "bundle"
        write_made_bundle(bundle, args.items)
        threads = [threading.Thread(target=client, args=(n,)) for n in range(8)]
        until = time.monotonic() + 60 * args.minutes
        while time.monotonic() < until:
            with server(bundle) as (process, host, port):
                address[0] = f"http://{host}:{port}"
                if kills == 0:
                    for thread in threads:
                        thread.start()
                time.sleep(random.uniform(2, 8))
                process.send_signal(signal.SIGKILL)
                kills += 1
        ending.set()
        for thread in threads:
            thread.join()
        events = sqlite3.connect(f"{bundle}.events.sqlite").execute("SELECT user FROM events")
        lost = set(acknowledged) - {row[0] for row in events}
    row = {
        "kills": kills,
        "acknowledged events": len(acknowledged),
        "recommendations": asked[0],
        "lost": len(lost),
    }
    report(f"{args.minutes} minutes of load, server killed at random", [row], args)


def index(args: Any) -> None:
    """faiss beside exact scoring, on made item vectors that lie in clusters."""
    torch.manual_seed(0)
    width, n = 3 * HIDDEN, args.items
    centres = torch.randn(4000, width)
    table = torch.empty(n, width)
    for first in range(0, n, 2**16):
        part = table[first : first + 2**16]
        part.copy_(centres[torch.randint(4000, (len(part),))] + 0.7 * torch.randn(len(part), width))
    queries = centres[torch.randint(4000, (args.queries,))] + 0.7 * torch.randn(args.queries, width)
    started = time.perf_counter()
    tensors, measured = build_index(table, queries[:256])
    built = time.perf_counter() - started
    searched = Index(tensors, table)
    nothing = torch.empty(0, dtype=torch.int64)
    none = [None] * args.queries
    edits = Edits((nothing, nothing), None, none, nothing, torch.zeros(n))
    exact = exact_top(queries, table, 10, edits)[0]
    found = searched.top(queries, table, 10, edits)[0]
    recall = np.mean([np.isin(a, b).mean() for a, b in zip(exact, found, strict=True)])
    ours = "faiss, candidates scored exactly"
    competitors = {
        ours: lambda: searched.top(queries, table, 10, edits),
        "exact": lambda: exact_top(queries, table, 10, edits),
    }
    seconds = take_turns(competitors, args.rounds, clock=CLOCKS[args.clock])
    title = (
        f"Ten of {n:,} items of width {width} for {args.queries} queries, {args.threads} threads: "
        f"recall@10 {recall:.4f}, {measured['probes']} of {measured['cells']} cells, "
        f"built in {built:.0f} s"
    )
    report(title, rows_against(ours, seconds), args, seconds=seconds)


def start(args: Any) -> None:
    """Seconds from a new process to its first answer."""
    program = (
        "import sys; from recbole_m3rec import Recommender; "
        "Recommender.load(sys.argv[1]).recommend([['i1', 'i2', 'i3']])"
    )
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "bundle"
        write_made_bundle(bundle, args.items)
        command = [sys.executable, "-c", program, str(bundle)]
        seconds = take_turns(
            {
                "import, load and first answer": lambda: subprocess.run(command, check=True),
                "Recommender.load": lambda: Recommender.load(bundle),
            },
            args.rounds,
        )
    ours = "import, load and first answer"
    report(f"Start, {args.items:,} items", rows_against(ours, seconds), args, seconds=seconds)


WHAT = {f.__name__: f for f in (users, session, load, kill, index, start)}


def main() -> None:
    parser = arguments(__doc__.splitlines()[0], rounds=5)
    parser.add_argument("what", choices=WHAT)
    parser.add_argument("--dataset", default="ml-100k", help="of users: any prepared dataset")
    parser.add_argument("--items", type=int, help="12,000, or a million of index")
    parser.add_argument("--length", type=int, default=500, help="of session: items of the history")
    parser.add_argument("--connections", type=int, default=32, help="of load")
    parser.add_argument("--seconds", type=float, default=10, help="of load: a round")
    parser.add_argument(
        "--clock", choices=CLOCKS, default="wall", help="of users, session, index; on a busy core"
    )
    parser.add_argument("--minutes", type=float, default=10, help="of kill")
    parser.add_argument("--queries", type=int, default=256, help="of index")
    args = parser.parse_args()
    args.items = args.items or (10**6 if args.what == "index" else 12_000)
    torch.set_num_threads(args.threads)
    os.environ.setdefault("PYTHONPATH", str(HERE.parent))
    WHAT[args.what](args)


if __name__ == "__main__":
    main()
