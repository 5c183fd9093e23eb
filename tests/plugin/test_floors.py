"""Each floor of the package imports only from those below it."""

import ast
from pathlib import Path

import pytest

import recbole_m3rec

PACKAGE = Path(recbole_m3rec.__file__).parent

# What the modules of a floor may import of this package.
BELOW = {
    "encoders": {"encoders"},
    "mamba": {"mamba"},
    "data": {"data", "encoders"},
    "model": {"model", "data", "mamba"},
    "plugin": {"plugin", "model", "data", "mamba", "encoders"},
    "compare": {"compare", "plugin", "data", "__version__"},
}

# Outside plugin/, the only modules that know RecBole.
ADAPTERS = {
    "data/dataset.py",
    "data/loader.py",
    "model/m3rec.py",
    "model/sasrecmm.py",
    "model/mamba4rec.py",
    "compare/measurements.py",
    "compare/runs.py",
    "compare/worker.py",
}

MODULES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))


def imports(source, module):
    """Yield the full name of everything that a source file imports, at any depth."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = ["recbole_m3rec", *module.split("/")][: -node.level]
                base = ".".join([*parts, base]).rstrip(".")
            yield from (f"{base}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_one_way(module):
    floor = module.split("/")[0]
    for name in imports((PACKAGE / module).read_text(encoding="utf-8"), module):
        top, *rest = name.split(".")
        if top == "recbole_m3rec" and floor in BELOW:
            assert rest, f"{module} imports the package itself"
            assert rest[0] in BELOW[floor], f"{module} imports {name}"
        if top == "recbole" and floor != "plugin":
            assert module in ADAPTERS, f"{module} knows RecBole: {name}"


def test_the_reader_of_imports_sees_all_kinds():
    source = "import a.b\nfrom c import d\ndef f():\n    from . import e\n    from ..g import h\n"
    found = list(imports(source, "data/windows.py"))
    assert found == ["a.b", "c.d", "recbole_m3rec.data.e", "recbole_m3rec.g.h"]


def test_every_folder_is_a_known_floor():
    folders = {module.split("/")[0] for module in MODULES if "/" in module}
    assert folders <= set(BELOW)


def test_files_stay_readable():
    long = [m for m in MODULES if len((PACKAGE / m).read_text().splitlines()) > 330]
    assert not long
