"""The compiled kernels are found however the package was installed, or compiled at first use."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from recbole_m3rec.ops.cpu import compile as compiling
from recbole_m3rec.ops.cpu import find_library, library
from tests.fresh_python import PATHS

SOURCE = 'extern "C" __attribute__((visibility("default"))) int m3rec_interface() { return 7; }\n'


def has_compiler():
    try:
        return bool(compiling.compiler())
    except compiling.CompileError:
        return False


needs_compiler = pytest.mark.skipif(not has_compiler(), reason="there is no C++ compiler")


@pytest.fixture
def small_source(tmp_path, monkeypatch):
    """Put a source of one line in the kernels' place, and the cache into the test's folder."""
    folder = tmp_path / "csrc"
    folder.mkdir()
    (folder / "one.cpp").write_text(SOURCE)
    monkeypatch.setattr(compiling, "SOURCES", folder)
    monkeypatch.setattr(find_library, "built_libraries", list)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


@needs_compiler
def test_it_is_compiled_once_and_again_when_a_source_changes(small_source, caplog):
    caplog.set_level(logging.INFO)
    first = find_library.compiled_library()
    assert caplog.text.count("Compiling the CPU kernels") == 1
    assert find_library.compiled_library() == first
    assert caplog.text.count("Compiling the CPU kernels") == 1
    (small_source / "one.cpp").write_text(SOURCE + "// changed\n")
    second = find_library.compiled_library()
    assert second != first
    left = {path.suffix for path in second.parent.iterdir()}
    assert left == {".so", ".lock"}  # nothing half-made


@needs_compiler
def test_a_library_of_another_source_is_named_with_the_compilers_reason(small_source, monkeypatch):
    old = find_library.compiled_library()
    monkeypatch.setattr(library, "built_libraries", lambda: [old])
    (small_source / "one.cpp").write_text("int broken( {\n")
    with pytest.raises(library.LibraryError, match="another version of the source, and .*error"):
        library._open_any()


@pytest.mark.parametrize(
    ("name", "expected"), [("no-such-compiler", "no program"), ("false", "false failed")]
)
def test_without_a_usable_compiler_one_warning_says_why_and_what_it_costs(
    small_source, monkeypatch, caplog, name, expected
):
    monkeypatch.setenv("CXX", name)
    monkeypatch.setattr(library, "built_libraries", list)
    library.load.cache_clear()
    try:
        assert library.load()[0] is None
        assert library.load()[0] is None
    finally:
        library.load.cache_clear()
    [record] = caplog.records
    assert record.levelname == "WARNING"
    assert expected in record.getMessage()
    assert "10 to 50 times slower" in record.getMessage()
    assert not list(find_library.cache_folder().glob("*.so"))


def test_a_cache_that_cannot_be_written_is_the_reason(small_source, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(compiling.CompileError, match="file"):
        find_library.compiled_library()


def test_a_library_of_an_installation_elsewhere_on_the_path_is_found(tmp_path, monkeypatch):
    there = tmp_path / "site" / "recbole_m3rec" / "ops"
    there.mkdir(parents=True)
    installed = there / f"_m3rec_ops{find_library.EXTENSION_SUFFIXES[-1]}"
    installed.write_bytes(b"")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "site")])
    assert find_library.built_libraries()[-1] == installed


@needs_compiler
def test_two_processes_that_start_with_an_empty_cache_compile_once(small_source):
    code = (
        "import logging, pathlib, sys\nlogging.basicConfig(level='INFO')\n"
        "from recbole_m3rec.ops.cpu import compile as compiling, find_library\n"
        f"compiling.SOURCES = pathlib.Path({str(small_source)!r})\n"
        "sys.stdin.readline()\nprint(find_library.compiled_library())"
    )
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    environment = {**os.environ, "PYTHONPATH": PATHS}
    command = [sys.executable, "-c", code]
    both = [subprocess.Popen(command, env=environment, text=True, **pipes) for _ in range(2)]
    for process in both:  # both have imported all they need and go at once
        process.stdin.write("\n")
        process.stdin.flush()
    printed = [process.communicate() for process in both]
    [library] = {out.strip() for out, _ in printed}
    assert Path(library).is_file()
    assert sum("Compiling the CPU kernels" in err for _, err in printed) == 1
    assert len(list(find_library.cache_folder().rglob("*.so"))) == 1
