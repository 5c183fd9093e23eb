"""Python in a process of its own, where nothing is imported yet."""

import os
import subprocess
import sys
from pathlib import Path

import recbole_m3rec

CLONE = Path(recbole_m3rec.__file__).parents[1]
PATHS = os.pathsep.join([str(CLONE), *filter(None, sys.path)])


def fresh_python(code, *first_paths, ends_with=0, **environment):
    """Run code; its ``stdout`` and ``stderr`` are texts.

    Args:
        code: what to run.
        first_paths: folders from which modules are imported before all others.
        ends_with: the exit code that it must have.
        environment: variables besides those of this process.
    """
    paths = os.pathsep.join([*first_paths, PATHS])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": paths, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == ends_with, done.stdout + done.stderr
    return done
