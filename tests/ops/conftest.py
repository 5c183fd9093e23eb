"""What the tests of compiled kernels share: every set of kernels, any number of threads."""

import os

import pytest
import torch

from recbole_m3rec.ops.cpu import library


@pytest.fixture(params=["generic", "avx2", "avx512"])
def kernels(request, monkeypatch):
    """Have the library use the kernels of one instruction set, and say which."""
    monkeypatch.setenv("RECBOLE_M3REC_VECTORS", request.param)
    library.load.cache_clear()
    usable, reason = library.available()
    monkeypatch.undo()
    library.load.cache_clear()
    if not usable:
        pytest.skip(reason)
    monkeypatch.setenv("RECBOLE_M3REC_VECTORS", request.param)
    return str(request.param)


@pytest.fixture
def threads():
    """Give torch its number of threads back afterwards."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _visible(monkeypatch):
    if "DEVICES_OF_TEST" in os.environ:  # the common fixture hides them
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", os.environ["DEVICES_OF_TEST"])
