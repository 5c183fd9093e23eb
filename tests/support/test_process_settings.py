"""A process waits passively and keeps freed memory unless the user says otherwise."""

import ctypes
import gc
import logging
import os
import sys

import pytest

from recbole_m3rec.support import process_settings
from tests.fresh_python import fresh_python

WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("imported", "given", "expected"),
    [
        ("recbole_m3rec.cli", {}, "PASSIVE"),
        ("recbole_m3rec.cli", {"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE"),
        ("recbole_m3rec.cli", {"GOMP_SPINCOUNT": "9"}, "None"),
        ("recbole_m3rec", {}, "None"),
    ],
)
def test_the_command_line_sets_the_policy_before_torch_unless_the_user_has(
    imported, given, expected, monkeypatch
):
    for name in WAITING:
        monkeypatch.delenv(name, raising=False)
    code = (
        f"import {imported}, os, sys\n"
        "print(os.environ.get('OMP_WAIT_POLICY'), 'torch' in sys.modules)"
    )
    assert fresh_python(code, **given).stdout.split() == [expected, "False"]


def test_a_torch_that_was_there_first_is_said(monkeypatch, caplog):
    for name in WAITING:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setitem(sys.modules, "torch", sys)
    caplog.set_level(logging.INFO)
    process_settings.wait_passively()
    assert "torch was imported before recbole," in caplog.text
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"  # for the processes it starts


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, 4), ({"RECBOLE_M3REC_MALLOC": "default"}, 0), ({"MALLOC_ARENA_MAX": "2"}, 0)],
)
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_the_allocator_is_set_unless_the_user_has(monkeypatch, given, expected):
    calls = []

    class Library:
        def __init__(self, name):
            pass

        def mallopt(self, *arguments):
            calls.append(arguments)
            return 1

    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    for name in [name for name in os.environ if name.startswith("MALLOC_")]:  # Dask sets one
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(ctypes, "CDLL", Library)
    process_settings.keep_freed_memory()
    assert len(calls) == expected


@pytest.mark.slow
def test_the_collector_leaves_what_was_imported_alone(first_run):
    assert first_run["collects"]
    assert first_run["frozen"] > 10
    gc.disable()
    try:
        with process_settings.importing_much():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
        gc.unfreeze()
