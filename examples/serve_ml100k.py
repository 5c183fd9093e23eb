"""From MovieLens 100K to a page with recommendations, in two commands from a fresh clone.

python3 -m venv .venv && . .venv/bin/activate && pip install -c constraints.txt -e '.[serving]'
python examples/serve_ml100k.py

It trains M3Rec by the preset quick and serves the page at http://127.0.0.1:8000.
Arguments are settings of the training: python examples/serve_ml100k.py --epochs=30
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

RUN = [sys.executable, str(Path(__file__).resolve().parent.parent / "run_recbole.py")]
TRAIN = ["--model=M3Rec", "--dataset=ml-100k", "--config_files=quick"]


def main(settings: list[str]) -> int:
    """Train, then show the checkpoint until interrupted."""
    done = subprocess.run([*RUN, *TRAIN, *settings])
    if done.returncode:
        return done.returncode
    if {"-h", "--help"} & set(settings):
        return 0
    newest = max(Path("saved").glob("M3Rec-*.pth"), key=lambda path: path.stat().st_mtime)
    return subprocess.run([*RUN, "--show", str(newest)]).returncode


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(0)
