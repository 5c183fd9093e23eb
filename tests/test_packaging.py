"""What is installed: dependencies with tested bounds, and a package that is whole."""

import ast
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
PROPERTIES = {
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / "properties").rglob("*")
    if path.suffix in (".yaml", ".hyper")
}
BUILT = shutil.ignore_patterns("__pycache__", "*.so", "*.egg-info")
PYTHONS = ("3.10", "3.11", "3.12", "3.13")

pytestmark = pytest.mark.skipif(
    not (ROOT / "setup.py").is_file(), reason="the tests run outside a clone"
)


def declared():
    """Read ``INSTALL_REQUIRES`` of setup.py."""
    tree = ast.parse((ROOT / "setup.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "INSTALL_REQUIRES":
            return [Requirement(text) for text in ast.literal_eval(node.value)]
    raise AssertionError("setup.py declares no INSTALL_REQUIRES")


def pins(name, python):
    """Read the versions that a constraints file pins for a version of Python."""
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    found = [Requirement(line) for line in lines if line.strip() and not line.startswith("#")]
    return {
        each.name.lower(): Version(str(each.specifier).removeprefix("=="))
        for each in found
        if each.marker is None or each.marker.evaluate({"python_version": python})
    }


def test_each_lower_bound_is_what_the_oldest_environment_tests():
    tested = pins("constraints-oldest.txt", "3.11")
    for requirement in declared():
        if requirement.marker is not None or requirement.name in ("recbole", "torch"):
            continue
        assert str(requirement.specifier) == f">={tested[requirement.name.lower()]}"


@pytest.mark.parametrize("python", PYTHONS)
def test_constraints_allow_what_setup_asks_for(python):
    pinned = pins("constraints.txt", python)
    for requirement in declared():
        if requirement.name.lower() in pinned:
            assert requirement.specifier.contains(pinned[requirement.name.lower()])
    assert {"torch", "recbole", "numpy", "pandas", "scipy"} <= set(pinned)


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Return a copy of what a clone holds, without anything that was built."""
    copy = tmp_path_factory.mktemp("clone") / "recbole_m3rec"
    copy.mkdir()
    for entry in ROOT.iterdir():
        if entry.is_file() and not entry.name.startswith("."):
            shutil.copy(entry, copy)
    for name in ("recbole_m3rec", "properties", "tests", "docs"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=BUILT)
    return copy


def run(*command, cwd, **environment):
    """Run a command without a compiler at hand; return what it printed."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, "CC": "false", "CXX": "false", **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def build(kind, sources, target):
    """Build a ``wheel`` or ``sdist`` as pip does, in this environment."""
    target.mkdir(exist_ok=True)
    code = f"from setuptools import build_meta; build_meta.build_{kind}({str(target)!r})"
    run(sys.executable, "-c", code, cwd=sources)
    return next(path for path in target.iterdir() if path.suffix in (".whl", ".gz"))


@pytest.mark.slow
def test_a_wheel_from_an_sdist_works_without_a_compiler(sources, tmp_path):
    """It holds the package and the configuration, which is found from a folder elsewhere."""
    sdist = build("sdist", sources, tmp_path / "sdist")
    shutil.unpack_archive(sdist, tmp_path / "unpacked")
    unpacked = next((tmp_path / "unpacked").iterdir())
    for name in ("LICENSE", "run_recbole.py", "setup_kernels.py", "constraints.txt"):
        assert (unpacked / name).is_file()
    assert list(unpacked.rglob("recbole_m3rec/ops/csrc/*.cpp"))

    wheel = build("wheel", unpacked, tmp_path / "wheel")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(tmp_path / "site")
    modules = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("recbole_m3rec/**/*.py")}
    assert modules <= names
    assert {f"recbole_m3rec/{name}" for name in PROPERTIES} <= names
    assert "recbole_m3rec/py.typed" in names
    assert not {name.split("/")[0] for name in names} & {"tests", "properties", "docs"}

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    code = (
        "import recbole_m3rec\n"
        "from recbole_m3rec.config.layers import properties_folder\n"
        "print(properties_folder())"
    )
    printed = run(
        sys.executable, "-c", code, cwd=elsewhere, PYTHONPATH=str(tmp_path / "site")
    ).splitlines()
    assert str(tmp_path / "site" / "recbole_m3rec" / "properties") in printed
