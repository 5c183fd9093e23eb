"""Each room of the package imports only from those below it."""

import ast
from pathlib import Path

import pytest

import recbole_m3rec
from tests.fresh_python import fresh_python

PACKAGE = Path(recbole_m3rec.__file__).parent

# What the modules of a room may import of this package, beside their own room. The rooms of the
# first kind know no RecBole; those of the second kind are the plugin, under RecBole's own names.
FREE = {
    "support": set(),
    "cluster": {"support"},
    "ops": {"support"},
    "atomic": {"cluster", "support"},
    "features": {"atomic", "cluster", "support"},
    "datasets": {"features", "atomic", "cluster", "support"},
    "network": {"ops", "features", "support"},
    "serving": {"network", "ops", "features", "atomic", "support", "__version__"},
}
PLUGIN_ROOMS = {
    *("baselines", "config", "data", "evaluator", "model", "patches", "processes"),
    *("quick_start", "trainer"),
}
BELOW = {
    **FREE,
    **dict.fromkeys(PLUGIN_ROOMS, {*PLUGIN_ROOMS, *FREE, "hooks"}),
    "processes": {"config", "support", "hooks"},
    "compare": {*PLUGIN_ROOMS, *FREE, "cli", "hooks", "__version__"},
    "cli": {*PLUGIN_ROOMS, *FREE, "compare", "__version__"},
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


def wrong_imports(module):
    """What a module imports and may not."""
    room = module.split("/")[0]
    for name in imports((PACKAGE / module).read_text(encoding="utf-8"), module):
        top, _, rest = name.partition(".")
        below = rest.split(".")[0] in {*BELOW.get(room, ()), room} or room not in BELOW
        if (top == "recbole_m3rec" and not below) or (top == "recbole" and room in FREE):
            yield f"{module} imports {name}"


def test_imports_point_one_way():
    assert [wrong for module in MODULES for wrong in wrong_imports(module)] == []


def test_the_reader_of_imports_sees_all_kinds():
    source = "import a.b\nfrom c import d\ndef f():\n    from . import e\n    from ..g import h\n"
    found = list(imports(source, "data/windows.py"))
    assert found == ["a.b", "c.d", "recbole_m3rec.data.e", "recbole_m3rec.g.h"]


def test_every_folder_is_a_known_room():
    folders = {module.split("/")[0] for module in MODULES if "/" in module}
    assert folders == set(BELOW)


def test_files_stay_readable():
    # The network is on one page on purpose.
    bound = dict.fromkeys(MODULES, 330) | {"network/m3rec.py": 530}
    long = [m for m in MODULES if len((PACKAGE / m).read_text().splitlines()) > bound[m]]
    assert not long


@pytest.mark.slow
def test_rooms_of_the_first_kind_and_public_names_never_load_recbole():
    modules = [m[:-3].replace("/", ".") for m in MODULES if m.split("/")[0] in FREE]
    names = [f"recbole_m3rec.{m.removesuffix('.__init__')}" for m in modules if "triton" not in m]
    program = (
        "import importlib, sys\n"
        "from recbole_m3rec import M3RecNetwork, align, pack, read_features\n"
        f"for name in ['recbole_m3rec', *{names}]:\n"
        "    importlib.import_module(name)\n"
        "    assert 'recbole' not in sys.modules, f'{name} loads RecBole'\n"
    )
    fresh_python(program)
