"""From the option ``--cluster`` to the place where pieces run."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import logging
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from recbole_m3rec.cluster.dask_cluster import ClusterError, DaskCluster
from recbole_m3rec.cluster.pieces import THIS_PROCESS, Cluster
from recbole_m3rec.support.versions import OtherVersionError, check_versions, versions

LOCAL = "local"
SECONDS_TO_CONNECT = 15
SECONDS_FOR_A_WORKER = 300  # a queue of jobs takes its time
SECONDS_TO_ANSWER = 60

_ADDRESS = re.compile(r"(tcp|tls)://[^\s/]+:\d+")


@contextmanager
def connected(place: str | None) -> Iterator[Cluster]:
    """Connect to a cluster and check its workers.

    Args:
        place: ``local`` starts a worker for each processor of this machine; ``tcp://HOST:PORT`` or
            ``tls://HOST:PORT`` is a scheduler; anything else a scheduler file. None is this
            process, and Dask is not imported.

    Raises:
        ClusterError: Dask is not installed, or there is no such scheduler, none that answers, or
            none with a worker.
        OtherVersionError: a worker has other versions than this process.
    """
    if place is None:
        yield THIS_PROCESS
        return
    if importlib.util.find_spec("distributed") is None:
        raise ClusterError("--cluster needs Dask: pip install 'recbole_m3rec[cluster]'")
    import dask
    from distributed import Client

    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)  # errors are raised, too
    quiet = {"distributed.admin.large-graph-warning-threshold": "1GB"}
    with dask.config.set(quiet):
        if place == LOCAL:
            with _workers_of_this_machine() as local, Client(local) as client:
                yield _checked(client, place)
            return
        address = _address(place)
        try:
            client = _client(address)
        except (OSError, ValueError) as error:
            raise ClusterError(
                f"--cluster {place}: no scheduler answers at {address} within"
                f" {SECONDS_TO_CONNECT} seconds. Check that it runs and that this machine reaches"
                " it"
            ) from error
        except TypeError as error:  # Dask's, where it has no certificates
            raise ClusterError(
                f"--cluster {place}: {address} needs certificates. Name their files in Dask's"
                " configuration, distributed.comm.tls"
            ) from error
        with client:
            yield _checked(client, place)


def _client(address: str) -> Any:
    """Connect, and close a client that cannot, at once.

    Dask closes it when Python collects it, which may happen while another one starts and holds
    the lock that closing waits for.
    """
    from distributed import Client

    client = Client.__new__(Client)
    try:
        Client.__init__(client, address, timeout=SECONDS_TO_CONNECT, direct_to_workers=True)
    except BaseException:
        with suppress(AttributeError):  # it failed before it had anything to close
            client.close()
        raise
    return client


def _workers_of_this_machine() -> Any:
    """Start them deaf to Ctrl-C, which is for this process: it ends them."""
    from distributed import LocalCluster

    is_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, signal.SIG_IGN) if is_main else None
    try:
        return LocalCluster(
            threads_per_worker=1, dashboard_address="127.0.0.1:0", silence_logs=logging.ERROR
        )
    finally:
        if is_main:
            signal.signal(signal.SIGINT, before)


def _address(place: str) -> str:
    """Return the address of a scheduler, read from a file where the place is none itself."""
    if _ADDRESS.fullmatch(place):
        return place
    expected = "expected local, tcp://HOST:PORT, tls://HOST:PORT or a scheduler file"
    if not Path(place).is_file():
        raise ClusterError(f"--cluster {place}: there is no such file; {expected}")
    try:
        found = json.loads(Path(place).read_text(encoding="utf-8"))
        address = found["address"]
        if not _ADDRESS.fullmatch(address):
            raise ValueError(address)
    except (ValueError, KeyError, TypeError) as error:
        raise ClusterError(
            f"--cluster {place}: is no scheduler file, it holds no address tcp://HOST:PORT;"
            f" {expected}, as `dask scheduler --scheduler-file FILE` writes it"
        ) from error
    return str(address)


def _checked(client: Any, place: str) -> DaskCluster:
    try:
        client.wait_for_workers(1, timeout=SECONDS_FOR_A_WORKER)
    except TimeoutError as error:
        raise ClusterError(
            f"--cluster {place}: the scheduler has no worker after {SECONDS_FOR_A_WORKER} seconds."
            " Start some: dask worker ADDRESS"
        ) from error
    answers = client.sync(_ask, client)
    if silent := [worker for worker, found in answers.items() if found is None]:
        raise ClusterError(
            f"--cluster {place}: {', '.join(silent)} did not answer within {SECONDS_TO_ANSWER}"
            " seconds. End these workers, or start them again"
        )
    for worker, found in answers.items():
        if isinstance(found, Exception):
            raise OtherVersionError(
                f"the worker {worker} has no recbole_m3rec, or another version of it"
                f" ({type(found).__name__}: {found}). Install the same version in its environment"
                " and start it again"
            )
        check_versions(versions(), found, worker)
    return DaskCluster(client)


async def _ask(client: Any) -> dict[str, Any]:
    """Return the versions of each worker, or its error; None where it does not answer."""

    async def ask(worker: str) -> Any:
        answer = client.run(versions, workers=[worker], on_error="return")
        try:
            return (await asyncio.wait_for(answer, SECONDS_TO_ANSWER))[worker]
        except asyncio.TimeoutError:
            return None

    workers = list(await client.nthreads())
    return dict(zip(workers, await asyncio.gather(*map(ask, workers)), strict=True))
