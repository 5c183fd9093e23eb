"""What ``recbole_m3rec.__all__`` promises: every name is documented, and its example runs."""

import doctest
import sys

import pytest

import recbole_m3rec
from recbole_m3rec.compare import compare
from tests.compare.forked_workers import forked_workers  # noqa: F401  (a fixture)

OPTIONS = doctest.NORMALIZE_WHITESPACE
PUBLIC = {
    **{name: getattr(recbole_m3rec, name) for name in recbole_m3rec.__all__ if name[0] != "_"},
    "compare": compare,
}


def examples_of(name, public):
    module = sys.modules[public.__module__]
    return [test for test in doctest.DocTestFinder().find(public, name, module) if test.examples]


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] if n == "compare" else []) for n in PUBLIC]
)
def test_every_public_name_has_an_example_that_runs(name, forked_workers):  # noqa: F811
    runner = doctest.DocTestRunner(optionflags=OPTIONS)
    tests = examples_of(name, PUBLIC[name])
    assert tests, f"{name} has no example"
    report = []
    for test in tests:
        runner.run(test, out=report.append)
    assert not runner.failures, "".join(report)


def test_public_names_are_sorted_and_listed_by_dir():
    assert recbole_m3rec.__all__ == sorted(recbole_m3rec.__all__)
    assert set(recbole_m3rec.__all__) <= set(dir(recbole_m3rec))


def test_a_name_that_is_not_public_is_an_error():
    for module in (recbole_m3rec, recbole_m3rec.compare):
        with pytest.raises(AttributeError, match="has no attribute 'recommend_magically'"):
            _ = module.recommend_magically
