"""A cluster of two workers; who is killed has a successor."""

import pytest

from tests.cluster.workers import wait_for_workers, workers
from tests.compare.conftest import forked_workers, small_settings  # noqa: F401


@pytest.fixture(scope="session")
def both(tmp_path_factory):
    """Two workers, in network namespaces of their own where the system allows it."""
    pytest.importorskip("distributed")
    with workers(tmp_path_factory.mktemp("both"), apart=True) as started:
        yield started


@pytest.fixture
def running(both):
    """Two workers that a test may kill."""
    both.replace_lost()
    wait_for_workers(both)
    return both


@pytest.fixture
def cluster(running):
    """A connection to the two."""
    from recbole_m3rec.cluster.connect import connected

    with connected(str(running.file)) as connection:
        yield connection
