"""What the pages promise: rooms and dependencies that are there, and no file that is gone."""

import ast
import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
ARCHITECTURE = ROOT / "docs" / "architecture.md"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]

pytestmark = pytest.mark.skipif(not ARCHITECTURE.is_file(), reason="the tests run outside a clone")


def requirements():
    """Names of all packages that setup.py asks for, extras included."""
    tree = ast.parse((ROOT / "setup.py").read_text(encoding="utf-8"))
    assigned = {
        ast.unparse(node.targets[0]): node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
    }
    base = ast.literal_eval(assigned["INSTALL_REQUIRES"])
    extras = ast.literal_eval(assigned["EXTRAS_REQUIRE"]).values()
    texts = [*base, *(text for extra in extras for text in extra)]
    return {Requirement(text).name.lower() for text in texts}


def first_cells(heading):
    """The first column of the table under a heading of the architecture page."""
    section = ARCHITECTURE.read_text(encoding="utf-8").split(f"## {heading}\n")[1].split("\n## ")[0]
    return "\n".join(line.split("|")[1] for line in section.splitlines() if line.startswith("|"))


def test_every_dependency_has_a_line_that_says_why():
    names = set(re.findall(r"[\w-]+", first_cells("Dependencies").lower()))
    assert not requirements() - names, "add a line to docs/architecture.md, Dependencies"


def test_every_room_has_a_line_and_every_line_a_room():
    package = ROOT / "recbole_m3rec"
    rooms = {path.parent.name for path in package.glob("*/__init__.py")}
    assert set(re.findall(r"`(\w+)/`", first_cells("Rooms"))) == rooms


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_files_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in link]
    assert not [link for link in links if not (page.parent / link).exists()]
