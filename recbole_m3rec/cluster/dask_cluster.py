"""Runs pieces on the workers of a Dask cluster; pieces of lost workers run again."""

from __future__ import annotations

import errno
import tempfile
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import CancelledError
from typing import Any, TypeVar

from recbole_m3rec.support.versions import check_versions, versions

R = TypeVar("R")

# More pieces wait at the scheduler than run, so that no worker waits for this process.
_WAITING_PER_WORKER = 3


_LOST = "--cluster: the scheduler was lost. Start it again; the same command resumes"
_CANNOT_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


class ClusterError(ValueError):
    """A cluster cannot be used, or was lost."""


class WorkerFileError(ValueError):
    """A worker cannot read a file that this process can, or has no room for its own."""


class DaskCluster:
    """Pieces on a cluster, by its ``distributed.Client``."""

    is_remote = True

    def __init__(self, client: Any) -> None:
        self.client = client

    @property
    def n_workers(self) -> int:
        """The threads of all workers that are there now, at least 1.

        Raises:
            ClusterError: the scheduler was lost.
        """
        try:
            return max(1, sum(self.client.nthreads().values()))
        except (OSError, AttributeError) as error:  # a closed client has no scheduler
            raise ClusterError(_LOST) from error

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return the future of a call; Dask calls again what a lost worker had or made."""
        return self.client.submit(
            *(_run, function, versions(), *arguments),
            key=f"{function.__name__}-{uuid.uuid4().hex}",
            pure=False,
        )

    def result(self, future: Any) -> Any:
        """Wait for a future.

        Raises:
            ClusterError: the scheduler was lost, or worker after worker at this piece.
        """
        from distributed import KilledWorker

        try:
            return future.result()
        except KilledWorker as error:
            raise ClusterError(
                f"--cluster: {error.allowed_failures + 1} workers were lost at the same piece,"
                f" {future.key}, the last of them {error.last_worker.address}. Their logs say why;"
                " often memory ran out. The same command resumes"
            ) from error
        except CancelledError as error:
            raise ClusterError(_LOST) from error

    def map(self, function: Callable[..., R], pieces: Iterable[tuple[Any, ...]]) -> Iterator[R]:
        """Yield the results in the order of the pieces, which are taken as workers get free."""
        waiting: deque[Any] = deque()
        try:
            for piece in pieces:
                waiting.append(self.submit(function, *piece))
                while len(waiting) > _WAITING_PER_WORKER * self.n_workers:
                    yield self.result(waiting.popleft())
            while waiting:
                yield self.result(waiting.popleft())
        finally:
            self.client.cancel(list(waiting))

    keep = submit  # the result stays on its worker


def _run(function: Callable[..., R], expected: Mapping[str, str], *arguments: Any) -> R:
    """Run a piece on a worker, which may have joined after the others were checked."""
    from distributed import get_worker

    worker = get_worker().address
    check_versions(expected, versions(), worker)
    try:
        return function(*arguments)
    except OSError as error:
        if error.errno in _CANNOT_WRITE:
            raise WorkerFileError(
                f"the worker {worker} cannot write {error.filename or tempfile.gettempdir()}"
                f" ({error.strerror}): make room there, or start it with another TMPDIR"
            ) from None
        if error.filename is None:
            raise
        raise WorkerFileError(
            f"{error.filename}: the worker {worker} cannot read it ({error.strerror}). Workers need"
            " the same files under the same paths"
        ) from None
