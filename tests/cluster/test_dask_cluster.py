"""Pieces on two worker processes: the same results in the same order, whoever dies."""

import importlib
import os
import signal
from concurrent.futures import CancelledError
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.cluster import made_pieces
from tests.cluster.workers import kill, wait_for_workers, wait_until, workers

pytest.importorskip("distributed")

from distributed import Client, KilledWorker

from recbole_m3rec.cli.main import main
from recbole_m3rec.cluster import dask_cluster
from recbole_m3rec.cluster.connect import ClusterError, connected
from recbole_m3rec.cluster.dask_cluster import DaskCluster, WorkerFileError
from recbole_m3rec.cluster.pieces import THIS_PROCESS
from recbole_m3rec.support import versions
from recbole_m3rec.support.versions import OtherVersionError, check_versions


def test_results_come_in_the_order_of_the_pieces_from_several_processes(running):
    pieces = [(number,) for number in range(40)]
    with connected(str(running.file)) as cluster:
        assert cluster.n_workers == 2
        assert list(cluster.map(made_pieces.square, pieces)) == list(
            THIS_PROCESS.map(made_pieces.square, pieces)
        )
        processes = set(cluster.map(made_pieces.where, pieces))
    assert processes == {process.pid for process in running.processes}


def test_pieces_are_taken_as_workers_get_free(running):
    taken = []

    def pieces():
        for number in range(100):
            taken.append(number)
            yield (number,)

    with connected(str(running.file)) as cluster:
        results = cluster.map(made_pieces.square, pieces())
        next(results)
        assert len(taken) < 20
        results.close()


def test_what_is_kept_stays_on_a_worker_and_serves_pieces(running):
    with connected(str(running.file)) as cluster:
        kept = cluster.keep(list, range(5))
        again = cluster.keep(sorted, kept)
        assert list(cluster.map(made_pieces.total, [(kept, again), (again,)])) == [20, 10]


def test_an_error_of_a_piece_is_the_jobs_and_a_file_that_is_not_there_names_the_worker(running):
    with connected(str(running.file)) as cluster:
        with pytest.raises(ValueError, match="no 3"):
            list(cluster.map(made_pieces.refuse, [(3,)]))
        with pytest.raises(WorkerFileError, match=r"/no/file.*worker tcp://.*same files"):
            list(cluster.map(made_pieces.read, [("/no/file",)]))
        with pytest.raises(WorkerFileError, match=r"worker tcp://.* cannot write /.*make room"):
            list(cluster.map(made_pieces.fill, [()]))


def test_pieces_of_a_worker_that_is_killed_run_again(running, tmp_path):
    begun = tmp_path / "begun"
    begun.mkdir()
    with connected(str(running.file)) as cluster:
        kept = cluster.keep(list, range(5))
        pieces = [(number, str(begun)) for number in range(8)]
        results = cluster.map(made_pieces.slow_square, pieces)
        assert next(results) == 0
        wait_until(lambda: len(list(begun.iterdir())) == 2)
        kill(running.processes[0])
        assert list(results) == [number**2 for number in range(1, 8)]
        assert list(cluster.map(made_pieces.total, [(kept,)])) == [10]


def test_a_worker_with_another_version_is_refused_at_once_and_when_it_joins_late(
    running, tmp_path, monkeypatch
):
    other = tmp_path / "recbole_m3rec"
    (other / "support").mkdir(parents=True)
    (other / "__init__.py").touch()
    without = "raise ImportError('a version without this room')"  # else the installed one is found
    (other / "support" / "__init__.py").write_text(without, encoding="utf-8")
    with workers(tmp_path / "cluster", n=0) as other_version:
        other_version.add(PYTHONPATH=str(tmp_path))
        said = r"worker tcp://.* another version"
        with pytest.raises(OtherVersionError, match=said), connected(str(other_version.file)):
            pass
    with connected(str(running.file)) as cluster:
        late = {"recbole_m3rec": "of sources 0"}
        monkeypatch.setattr(dask_cluster, "versions", lambda: late)
        with pytest.raises(OtherVersionError, match="of sources 0"):
            list(cluster.map(made_pieces.square, [(1,)]))


def test_what_editors_leave_in_the_package_is_no_source(tmp_path, monkeypatch):
    package = tmp_path / "package"
    (package / "support").mkdir(parents=True)
    (package / "model.py").write_text("1")
    monkeypatch.setattr(versions, "__file__", str(package / "support" / "versions.py"))
    before = versions.versions.__wrapped__()
    (package / ".ipynb_checkpoints").mkdir()
    (package / ".ipynb_checkpoints" / "model.py").write_text("2")
    (package / ".#model.py").symlink_to("nowhere")
    assert versions.versions.__wrapped__() == before
    (package / "model.py").write_text("3")
    assert versions.versions.__wrapped__() != before


def test_versions_that_differ_are_named():
    with pytest.raises(OtherVersionError, match=r"worker w has numpy 1 in place of 2\. "):
        check_versions({"numpy": "2", "torch": "1"}, {"numpy": "1", "torch": "1"}, "w")


class Lost:
    """A future that has no result."""

    key = "parse-1"

    def __init__(self, error):
        self.error = error

    def result(self):
        raise self.error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (KilledWorker("parse-1", Lost, 3), "4 workers were lost at the same piece, parse-1, .*tcp"),
        (CancelledError(), "the scheduler was lost"),
    ],
    ids=["workers", "scheduler"],
)
def test_what_cannot_be_retried_is_one_message(error, said):
    Lost.address = "tcp://w"
    cluster = DaskCluster(SimpleNamespace(nthreads=dict))
    with pytest.raises(ClusterError, match=said):
        cluster.result(Lost(error))


def test_workers_that_nobody_counts_are_one_message():
    cluster = DaskCluster(SimpleNamespace(nthreads=partial(open, "/no/scheduler")))
    with pytest.raises(ClusterError, match="the scheduler was lost"):
        assert cluster.n_workers


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("tcp://127.0.0.1:9", "no scheduler answers at tcp://127.0.0.1:9 within 1 seconds"),
        ("tls://127.0.0.1:9", "tls://127.0.0.1:9 needs certificates"),
        ("nowhere.json", "no such file; expected local, tcp://HOST:PORT"),
        ("other.json", "is no scheduler file"),
        ("list.json", "is no scheduler file"),
        ("other.txt", "is no scheduler file"),
    ],
)
def test_a_place_that_is_no_cluster_is_one_message(place, said, tmp_path, monkeypatch):
    (tmp_path / "other.json").write_text('{"id": 3}', encoding="utf-8")
    (tmp_path / "list.json").write_text("[1]", encoding="utf-8")
    (tmp_path / "other.txt").write_text("tcp", encoding="utf-8")
    monkeypatch.setattr("recbole_m3rec.cluster.connect.SECONDS_TO_CONNECT", 1)
    with pytest.raises(ClusterError, match=said), connected(place):
        pass


def test_a_client_that_cannot_connect_is_closed_before_another_starts(monkeypatch):
    """Dask's, collected while another one takes its lock, would wait for itself."""
    made, original = [], Client.start
    monkeypatch.setattr(
        Client, "start", lambda self, **kw: made.append(self) or original(self, **kw)
    )
    monkeypatch.setattr("recbole_m3rec.cluster.connect.SECONDS_TO_CONNECT", 1)
    with pytest.raises(ClusterError), connected("tls://127.0.0.1:9"):
        pass
    assert [client.status for client in made] == ["closed"]


def test_a_scheduler_without_workers_is_one_message(tmp_path, monkeypatch):
    monkeypatch.setattr("recbole_m3rec.cluster.connect.SECONDS_FOR_A_WORKER", 1)
    said = "no worker after 1 seconds"
    with (
        workers(tmp_path / "cluster", n=0) as running,
        pytest.raises(ClusterError, match=said),
        connected(str(running.file)),
    ):
        pass


def test_a_worker_that_stands_still_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("recbole_m3rec.cluster.connect.SECONDS_TO_ANSWER", 1)
    with workers(tmp_path / "cluster", n=1) as running:
        wait_for_workers(running)
        running.processes[0].send_signal(signal.SIGSTOP)
        said = r"tcp://.* did not answer within 1 seconds"
        with pytest.raises(ClusterError, match=said), connected(str(running.file)):
            pass


def test_dask_that_is_not_installed_names_the_extra(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ClusterError, match=r"recbole_m3rec\[cluster\]"), connected("local"):
        pass


def test_local_starts_workers_of_its_own():
    with connected("local") as cluster:
        assert os.getpid() not in set(cluster.map(made_pieces.where, [(1,), (2,)]))


@pytest.mark.slow
def test_without_the_option_dask_is_not_imported(first_run):
    assert first_run["mapped"] == [2]
    assert first_run["dask"] == []


CODES = "--features={'text': {'encoder': 'random-codes', 'dim': 6}}"


@pytest.mark.parametrize(
    ("command", "job"),
    [
        (["compare", "--models=Pop", "--datasets=tiny", "--tune=1"], "compare.tune"),
        (["compare", "--models=Pop", "--datasets=tiny"], "compare.compare"),
        (["ablate", "--dataset=tiny", "--modalities=[text]", CODES], "ablate.compare"),
        (["prepare", "amazon", "--category=beauty", "--raw-dir=raw"], "prepare.amazon.prepare"),
        (["prepare", "images", "--dataset=tiny"], "prepare.encode_images.fetch_images"),
        (
            ["encode", "images", "--dataset=tiny", "--encoder=numpy:ones"],
            "prepare.encode_images.make_image_features",
        ),
        (["encode", "text", "--dataset=tiny"], "prepare.encode_text.make_text_features"),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_every_command_hands_its_cluster_to_its_job(command, job, write_dataset, monkeypatch):
    folder = write_dataset()
    items = folder / "tiny.item"
    items.write_text("item_id:token\timage_url:token\ttitle:token_seq\ni01\thttp://x/1.png\that\n")
    (folder / "images").mkdir()
    (folder / "images" / "i01.png").touch()
    Path("raw").mkdir()
    for name in ("reviews_Beauty_5.json.gz", "meta_Beauty.json.gz"):
        (Path("raw") / name).touch()
    place = object()

    class Handed(Exception):
        pass

    def take(*given, cluster, **others):
        assert cluster is place
        raise Handed

    module, _, name = f"recbole_m3rec.cli.{job}".rpartition(".")
    module = importlib.import_module(module)
    monkeypatch.setattr(module, "connected", lambda option: nullcontext({"there": place}[option]))
    monkeypatch.setattr(module, name, take)
    with pytest.raises(Handed):
        main([*command, "--cluster=there"])
