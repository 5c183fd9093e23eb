"""The compiled CPU scan on any threads: torch's, its own, Python's, and those of a forked child."""

import multiprocessing
import os
import threading

import pytest
import torch

from recbole_m3rec.ops.cpu import library as cpu_library
from tests.fresh_python import fresh_python
from tests.ops.kernel_cases import RAGGED, compiled_scan, needs_kernels, scan_inputs, with_gradients

pytestmark = needs_kernels


def found(tensors, ends):
    return with_gradients(lambda *leaves: compiled_scan(leaves, ends), tensors)


@pytest.fixture
def own_threads():
    """Have the library use its own threads instead of torch's."""
    library = cpu_library.load()[0]
    library.m3rec_use_openmp(None)
    yield
    library.m3rec_use_openmp(cpu_library.openmp_of_torch())


def test_own_threads_give_the_same_bits_as_those_of_torch(threads, own_threads):
    tensors, ends = scan_inputs(RAGGED * 6, 70, 6)
    results = []
    for n_threads in (1, 4):
        torch.set_num_threads(n_threads)
        results += [found(tensors, ends) for _ in range(20)]
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("of_torch", [True, False])
def test_python_threads_may_call_at_once(request, threads, of_torch):
    if not of_torch:
        request.getfixturevalue("own_threads")
    torch.set_num_threads(2)
    problems = [scan_inputs(RAGGED * 3, 40, 6, seed) for seed in range(4)]
    expected = [found(*problem) for problem in problems]
    wrong = []

    def work(i):
        for _ in range(10):
            got = found(*problems[i])
            if not all(torch.equal(a, b) for a, b in zip(got, expected[i], strict=True)):
                wrong.append(i)

    workers = [threading.Thread(target=work, args=(i,)) for i in range(len(problems))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=60)
        assert not worker.is_alive()
    assert not wrong


def _forward_in_child(tensors, ends, results):
    results.put(
        compiled_scan(tensors, ends).tolist()
    )  # and nothing else: torch may hang after a fork


@pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="this system cannot fork"
)
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("of_torch", [True, False])
def test_a_forked_child_can_call_too(request, threads, of_torch):
    if not of_torch:
        request.getfixturevalue("own_threads")
    torch.set_num_threads(2)
    tensors, ends = scan_inputs(RAGGED * 6, 70, 6)
    expected = compiled_scan(tensors, ends).tolist()
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    child = context.Process(target=_forward_in_child, args=(tensors, ends, results))
    child.start()
    try:
        assert results.get(timeout=60) == expected
        child.join(timeout=60)
        assert child.exitcode == 0
    finally:
        child.kill()
    assert compiled_scan(tensors, ends).tolist() == expected


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_child_can_call_whose_parent_has_not():
    fresh_python(
        """
import os, signal, torch
from tests.ops.kernel_cases import RAGGED, compiled_scan, scan_inputs
tensors, ends = scan_inputs(RAGGED * 6, 70, 6)
torch.set_num_threads(2)
torch.zeros(4_000_000).sin()  # starts torch's threads
from recbole_m3rec.ops.cpu import library
library.load()
child = os.fork()
if not child:
    signal.alarm(20)
    compiled_scan(tensors, ends)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""
    )
