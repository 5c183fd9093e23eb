"""The versions that decide whether two processes compute the same."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

OF_TRAINING = ("recbole", "torch", "numpy", "scipy", "scikit-learn", "pandas")
LIBRARIES = (
    *(*OF_TRAINING, "pyarrow", "pillow"),
    *("transformers", "sentence-transformers", "dask", "distributed"),
)


class OtherVersionError(ValueError):
    """A worker runs other code than the process that hands out the work."""


@lru_cache(maxsize=1)
def versions() -> dict[str, str]:
    """Return the versions in this process: Python, libraries, and this package's sources."""
    package = Path(__file__).parents[1]
    sources = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        name = path.relative_to(package).as_posix()
        if not name.startswith(".") and "/." not in name:  # what editors leave
            sources.update(name.encode() + path.read_bytes())
    found = {"recbole_m3rec": f"of sources {sources.hexdigest()[:12]}"}
    found["Python"] = ".".join(platform.python_version_tuple()[:2])
    for library in LIBRARIES:
        try:
            found[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            found[library] = "not installed"
    return found


def versions_of_training() -> dict[str, str]:
    """Return those that decide on a training, whose data and features are there already."""
    return {name: versions()[name] for name in ("recbole_m3rec", "Python", *OF_TRAINING)}


def check_versions(here: Mapping[str, str], there: Mapping[str, str], worker: str) -> None:
    """Compare the versions of a worker with those of the process that hands out the work.

    Raises:
        OtherVersionError: some differ; names them.
    """
    other = [
        f"{name} {there.get(name, 'unknown')} in place of {version}"
        for name, version in here.items()
        if there.get(name) != version
    ]
    if other:
        raise OtherVersionError(
            f"the worker {worker} has {', '.join(other)}. Results would not be the same: install"
            " the same versions in its environment and start it again"
        )
