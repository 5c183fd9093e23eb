"""The command that messages name is one that the shell knows."""

import importlib
import shutil

import pytest

from recbole_m3rec.support import command_names


@pytest.mark.parametrize(
    ("found", "expected"),
    [("/bin/recbole-m3rec", "recbole-m3rec train"), (None, "python -m recbole_m3rec train")],
)
def test_the_program_is_named_where_it_is_on_the_path(monkeypatch, found, expected):
    importlib.reload(command_names)  # past the stand-in of all tests
    monkeypatch.setattr(shutil, "which", lambda name: found)
    assert command_names.command("train") == expected
