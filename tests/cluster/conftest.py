"""Clusters of two workers: one for all tests that kill none, and one for those that do."""

import pytest

from tests.cluster.workers import wait_for_workers, workers
from tests.compare.conftest import forked_workers, small_settings  # noqa: F401


@pytest.fixture(scope="session")
def two(tmp_path_factory):
    """Two workers that nobody kills."""
    pytest.importorskip("distributed")
    with workers(tmp_path_factory.mktemp("two")) as running:
        wait_for_workers(running)
        yield running


@pytest.fixture
def cluster(two):
    """A connection to the two."""
    from recbole_m3rec.cluster.connect import connected

    with connected(str(two.file)) as connection:
        yield connection


@pytest.fixture(scope="session")
def mortal(tmp_path_factory):
    """Two workers, in network namespaces of their own where the system allows it."""
    pytest.importorskip("distributed")
    with workers(tmp_path_factory.mktemp("mortal"), apart=True) as running:
        yield running


@pytest.fixture
def running(mortal):
    """Two workers to kill; who was killed before has a successor."""
    mortal.replace_lost()
    wait_for_workers(mortal)
    return mortal
