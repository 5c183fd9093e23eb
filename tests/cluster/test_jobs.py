"""Whole jobs on two workers, one of which is killed on the way: the same bytes as undisturbed."""

import json
import logging
import threading
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.cluster.workers import kill, wait_until, workers
from tests.datasets.http_server import serve_folder

pytest.importorskip("distributed")

import dask

from recbole_m3rec.atomic.inter_file import Filters
from recbole_m3rec.atomic.k_core import k_core
from recbole_m3rec.cli.commands import run_script
from recbole_m3rec.cli.prepare import encode_images
from recbole_m3rec.cluster.connect import connected
from recbole_m3rec.cluster.dask_cluster import ClusterError, DaskCluster, WorkerFileError
from recbole_m3rec.compare import on_cluster
from recbole_m3rec.compare.comparison import compare, job_of, plan
from recbole_m3rec.compare.on_cluster import run_on
from recbole_m3rec.compare.results import write_spec
from recbole_m3rec.compare.runs import Run
from recbole_m3rec.compare.scheduler import THREADS, Listed, Progress
from recbole_m3rec.compare.tuning import tune
from recbole_m3rec.datasets.amazon.prepare import Source, prepare
from recbole_m3rec.datasets.amazon.releases import RELEASES
from recbole_m3rec.datasets.images.download import fetch_images
from recbole_m3rec.datasets.io import raw_lines
from recbole_m3rec.features.from_images import make_image_features


@pytest.fixture(autouse=True)
def as_many_threads_here_as_there(monkeypatch):
    for name in THREADS:
        monkeypatch.setenv(name, "1")


def kill_when(condition, process):
    """Kill a process as soon as a condition holds, beside what the test does."""

    def watch():
        wait_until(condition, seconds=300)
        kill(process)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def trainings(process):
    return [child for child in psutil.Process(process.pid).children() if is_training(child)]


def is_training(process):
    try:
        return "recbole_m3rec.compare.worker" in process.cmdline()
    except psutil.Error:  # it has ended
        return False


def write_reviews(path, n_users=60, n_items=40, n=2000):
    """Reviews of which some users and items fall to the five-core, a line and an id bad."""
    random = np.random.default_rng(3)
    lines = [
        json.dumps(
            {
                "reviewerID": f"u{int(n_users * random.random() ** 3)}",
                "asin": f"i{int(n_items * random.random() ** 3)}",
                "overall": float(random.integers(1, 6)),
                "unixReviewTime": int(random.integers(10**9, 10**9 + 500)),
            }
        )
        for _ in range(n)
    ]
    lines[700] = "{broken"
    lines[900] = json.dumps({"reviewerID": "", "asin": "i1", "unixReviewTime": 10**9})
    path.write_text("\n".join(lines), encoding="utf-8")


def write_metadata(path, n_items=40):
    items = [{"asin": f"i{i}", "title": f"thing {i}", "price": i} for i in range(n_items + 9)]
    path.write_text("".join(f"{item}\n" for item in [*items, items[3]]), encoding="utf-8")


def test_amazon_preparation_outlives_a_worker(running, tmp_path, monkeypatch):
    reviews, metadata = tmp_path / "reviews.json", tmp_path / "meta.json"
    write_reviews(reviews)
    write_metadata(metadata)
    source = Source(RELEASES["2014"], "Beauty", reviews, metadata)
    columns = ("rating", "title", "price")
    expected = prepare(source, tmp_path / "here", "x", Filters(), columns)
    assert expected["problems"] == {
        "reviews_unparseable": 1,
        "reviews_without_user": 1,
        "items_repeated": 1,
    }

    monkeypatch.setattr(raw_lines, "BLOCK_SIZE", 4000)
    monkeypatch.setattr(raw_lines, "_READ_SIZE", 1000)
    calls = []

    def kill_at_the_third(cluster, *call):
        calls.append(call)
        if len(calls) == 3:  # two parts of the users are there
            kill(running.processes[0])
        return cluster.submit(*call)

    monkeypatch.setattr(DaskCluster, "keep", kill_at_the_third)
    with connected(str(running.file)) as cluster:
        told = prepare(source, tmp_path / "there", "x", Filters(), columns, cluster)
    assert running.processes[0].poll() is not None
    assert told == expected
    here, there = (sorted((tmp_path / name).iterdir()) for name in ("here", "there"))
    assert [path.name for path in here] == [path.name for path in there]
    assert [path.read_bytes() for path in here] == [path.read_bytes() for path in there]


def test_parts_of_a_k_core_come_to_the_fixed_point_of_one_process(cluster):
    random = np.random.default_rng(1)
    users, items = (np.int32(500 * random.random(3000) ** 2) for _ in range(2))
    kept = k_core(users, items, 5)
    assert 0 < len(kept) < 3000
    np.testing.assert_array_equal(k_core(users, items, 5, cluster), kept)


ENCODER = """
import os, time
import numpy as np
from pathlib import Path

def encode(images):
    Path("begun", str(os.getpid())).touch()
    time.sleep(0.2)
    return np.array([[np.asarray(image).mean(), image.width] for image in images])
"""


@pytest.mark.slow
def test_image_encoding_outlives_a_worker(running, tmp_path, capsys):
    from PIL import Image

    images = Path("dataset", "shop", "images")
    images.mkdir(parents=True)
    for number in range(30):
        Image.new("RGB", (8, 8), (number, number, 9)).save(images / f"i{number:02d}.png")
    (images / "broken.png").write_bytes(b"no picture")
    # Workers began in another folder; the encoder notes in theirs who has begun.
    Path("shades.py").write_text(ENCODER, encoding="utf-8")
    for folder in (Path("begun"), running.folder / "begun"):
        folder.mkdir()
    command = ["encode", "--dataset=shop", "--encoder=shades:encode", "--batch-size=2"]
    assert run_script(encode_images.encode_images, command) == 0
    made = Path("dataset", "shop", "shop.image.parquet")
    expected = made.read_bytes()
    made.unlink()

    [victim, _] = running.processes
    killed = kill_when((running.folder / "begun" / str(victim.pid)).is_file, victim)
    there = [*command, f"--cluster={running.file}"]
    assert run_script(encode_images.encode_images, there) == 0, capsys.readouterr().err
    killed.join()
    assert victim.poll() is not None
    assert made.read_bytes() == expected
    assert not list(made.parent.glob(".*.work"))


@pytest.mark.parametrize("there", ["nothing", "another"])
def test_a_file_that_a_worker_does_not_have_is_no_missing_image(
    cluster, monkeypatch, tmp_path, there
):
    """As on a machine without the files, or with other ones: the path that travels leads there."""
    from PIL import Image

    from recbole_m3rec.features.encoders.image_models import image_encoder

    code = "import numpy as np\ndef encode(images):\n    return np.ones((len(images), 2))\n"
    Path("ones.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend("")
    Image.new("RGB", (8, 8)).save("a.png")
    encoder = image_encoder("ones:encode")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    if there == "another":
        (elsewhere / "a.png").write_bytes(Path("a.png").read_bytes()[:-9])
    monkeypatch.setattr(Path, "resolve", lambda path: elsewhere / path)
    with pytest.raises(WorkerFileError, match=r"/elsewhere/a.png.* same paths"):
        make_image_features("image", encoder, {"a": Path("a.png")}, cluster=cluster)


def test_images_are_fetched_by_workers_and_stored_here(running, cluster, tmp_path):
    from PIL import Image

    shop = tmp_path / "shop"
    shop.mkdir()
    for number in range(6):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(shop / f"{number}.png")
    asked = []
    with serve_folder(shop, asked, running.host) as server:
        urls = {f"i{number}": f"{server}/{number}.png" for number in range(8)}
        urls["twin"] = urls["i0"]
        here = fetch_images(urls, tmp_path / "here", allow_private=True, show_progress=False)
        n_here = len(asked)
        there = fetch_images(
            urls, tmp_path / "there", allow_private=True, show_progress=False, cluster=cluster
        )
    assert there == here
    assert sorted(asked[n_here:]) == sorted(asked[:n_here])
    stored = [entry.file for entry in here if entry.file]
    assert len(stored) == 7
    for file in [*stored, "download.csv"]:
        assert (tmp_path / "there" / file).read_bytes() == (tmp_path / "here" / file).read_bytes()
    assert not (tmp_path / "there" / ".incoming").exists()


def essence(folder):
    """What of a run's result is no time or memory, and the bytes of its arrays."""
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    kept = {name: result[name] for name in ("hash", "test", "valid", "score", "best_epoch")}
    kept["losses"] = [epoch["loss"] for epoch in result["epochs"]]
    return kept, *((folder / name).read_bytes() for name in ("users.npz", "lists.npz"))


@pytest.mark.slow
def test_a_comparison_outlives_a_worker(running, write_dataset, small_settings, forked_workers):
    write_dataset()
    runs = [Run("SASRec", "SASRec", "tiny", seed, small_settings) for seed in (1, 2)]
    here = compare(runs, Path("here"), show_progress=False)
    victim = running.processes[0]
    killed = kill_when(lambda: trainings(victim), victim)
    with connected(str(running.file)) as cluster:
        there = compare(runs, Path("there"), cluster=cluster, show_progress=False)
    killed.join()
    assert victim.poll() is not None
    assert [outcome.failure for outcome in there] == [None] * 2
    assert [essence(each.folder) for each in here] == [essence(each.folder) for each in there]
    assert (there[0].folder / "log.txt").stat().st_size


@pytest.mark.slow
def test_a_training_on_a_worker_is_heard_and_stopped(
    running, cluster, write_dataset, small_settings
):
    write_dataset()
    settings = {**small_settings, "epochs": 10_000, "stopping_step": 10_000}
    [planned] = plan([Run("SASRec", "SASRec", "tiny", 1, settings)], Path("out"))
    write_spec(planned.folder, planned.run, planned.identity, tests=True)
    job = job_of(planned)
    epochs = []

    def stop(epoch):
        epochs.append(epoch["epoch"])
        return len(epochs) == 3

    job.on_epoch = stop
    run_on(cluster, Listed([job]), None, Progress(1, shown=False))
    assert epochs == [0, 1, 2]
    assert not (planned.folder / "failure.json").exists()
    wait_until(lambda: not any(map(trainings, running.processes)))


@pytest.mark.slow
def test_a_training_ends_with_the_scheduler(tmp_path, write_dataset, small_settings):
    write_dataset()
    settings = {**small_settings, "epochs": 10_000, "stopping_step": 10_000}
    runs = [Run("SASRec", "SASRec", "tiny", 1, settings)]
    with workers(tmp_path / "cluster", n=1) as running:
        [worker] = running.processes
        killed = kill_when(lambda: trainings(worker), running.scheduler)
        said = "the scheduler was lost"
        with (
            dask.config.set({"distributed.comm.timeouts.connect": "2s"}),
            pytest.raises(ClusterError, match=said),
            connected(str(running.file)) as cluster,
        ):
            compare(runs, Path("out"), cluster=cluster, show_progress=False)
        killed.join()
        wait_until(lambda: worker.poll() is not None or not trainings(worker), seconds=10)
    assert not logging.getLogger("distributed.client").isEnabledFor(logging.ERROR)


def test_an_interrupt_says_what_is_kept(monkeypatch):
    def interrupted(*given):
        raise KeyboardInterrupt

    monkeypatch.setattr(on_cluster, "run_all", interrupted)
    with pytest.raises(KeyboardInterrupt, match="finished runs are kept"):
        run_on(DaskCluster(None), Listed([]), None, Progress(0, shown=False))


@pytest.mark.slow
def test_trials_are_those_of_one_process(cluster, write_dataset, small_settings, forked_workers):
    pytest.importorskip("optuna")
    write_dataset()
    run = Run("SASRec", "SASRec", "tiny", 1, small_settings)
    [here] = tune([run], Path("here"), 1, show_progress=False)
    [there] = tune([run], Path("there"), 1, cluster=cluster, show_progress=False)
    assert (there.chosen, there.score, there.trials) == (here.chosen, here.score, here.trials)
