"""The site: ``sphinx-build -W --keep-going -b html docs docs/_build/html``."""

import os
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import recbole_m3rec  # noqa: E402
from recbole_m3rec.compare import compare  # noqa: E402

PUBLIC = [compare, *(getattr(recbole_m3rec, name) for name in recbole_m3rec.__all__)]

project = "recbole_m3rec"
author = "the authors of recbole_m3rec"
version = release = recbole_m3rec.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.apidoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "rooms/modules.rst", "rooms/recbole_m3rec.rst"]

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

os.environ["SPHINX_APIDOC_OPTIONS"] = "members"  # what has no docstring is left out
# Every module of the rooms that a program may use; the pages are written anew at each build.
PACKAGE = ROOT / "recbole_m3rec"
ROOMS = {"__init__", "atomic", "cluster", "compare", "datasets", "features"}
ROOMS |= {"network", "ops", "serving"}
OTHERS = [str(path) for path in PACKAGE.iterdir() if path.stem not in ROOMS]
KERNELS = [str(path) for path in PACKAGE.rglob("*_kernels.py")]  # need triton
MAINS = [str(path) for path in PACKAGE.rglob("__main__.py")]
apidoc_modules = [
    {
        "path": str(PACKAGE),
        "destination": "rooms",
        "exclude_patterns": [*OTHERS, *KERNELS, *MAINS],
    }
]
apidoc_module_first = True
apidoc_max_depth = 1
autodoc_default_options = {"ignore-module-all": True}  # each object in the module that defines it
autoclass_content = "both"
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # docstrings say shapes, which types cannot
napoleon_google_docstring = True
napoleon_use_ivar = True
napoleon_use_rtype = False

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_title = f"recbole_m3rec {release}"
html_show_sphinx = False
html_show_copyright = False


def links_from_docs(app, relative_path, parent, content):
    """Make links to files of the clone right for the page that includes what stands above it."""
    text = re.sub(r"\]\((?=properties/)", "](../", content[0])
    # CONTRIBUTING.md and CHANGELOG.md stand on the site as pages of the same name, written small.
    content[0] = re.sub(r"\]\(([A-Z]+\.md)", lambda link: link[0].lower(), text)


def on_the_api_page(app, what, name, obj, skip, options):
    """Leave public names out of the pages of rooms: they stand on the API page."""
    return True if what == "module" and obj in PUBLIC else None


def setup(app):
    app.connect("include-read", links_from_docs)
    app.connect("autodoc-skip-member", on_the_api_page)
