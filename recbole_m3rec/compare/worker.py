"""One run in a process of its own: ``python -m recbole_m3rec.compare.worker FOLDER``.

The folder holds ``spec.json``. What is shown goes into its ``log.txt`` by way of the parent; lines
of JSON on stdout tell the parent of each epoch. The process ends when its parent does, which it
learns from the end of its stdin.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import sys
import threading
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recbole_m3rec import __version__
from recbole_m3rec.compare import results
from recbole_m3rec.compare.recorder import Recorder
from recbole_m3rec.compare.runs import Run, configuration, identify
from recbole_m3rec.config.yaml_files import ConfigurationError
from recbole_m3rec.quick_start.resuming import RESUME_KEY, install_resuming
from recbole_m3rec.support import written_here
from recbole_m3rec.support.exit_codes import one_line, users_error
from recbole_m3rec.trainer.checkpoint_file import LAST
from recbole_m3rec.trainer.safe_format import is_safe_file

LIBRARIES = ("recbole", "torch", "numpy", "pandas", "scipy")


def main(arguments: list[str]) -> int:
    """Do the run of a folder and return 0, or 1 where it failed and says so in the folder."""
    folder = Path(arguments[0])
    told = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)  # what libraries print belongs to the log
    threading.Thread(target=end_with_parent, daemon=True).start()
    sys.argv = sys.argv[:1]

    def tell(epoch: dict[str, Any]) -> None:
        told.write(json.dumps(epoch) + "\n")

    try:
        work(folder, tell)
    except Exception as error:
        traceback.print_exc()
        said = users_error(error) or f"{type(error).__name__}: {one_line(str(error))}"
        results.write_failure(folder, said)
        return 1
    return 0


def end_with_parent() -> None:
    """End this process at once when the parent's end of stdin is closed."""
    # Not by sys.stdin, whose lock a waiting thread would hold when Python ends.
    while os.read(0, 4096):
        pass
    os._exit(1)


def work(folder: Path, tell: Any) -> None:
    """Train by RecBole's ``run_recbole``, test unless the spec says no, and write the result.

    A run that was cut off goes on from its latest state.
    """
    from recbole.quick_start import quick_start

    spec = results.read_spec(folder)
    checkpoints = folder / results.CHECKPOINTS
    latest = latest_state(checkpoints)
    install_resuming()
    refuse_what_changed(spec)
    recorder = Recorder(tests=spec["tests"], on_epoch=tell)
    with recorder.listening(folder):
        outcome = quick_start.run_recbole(
            model=spec["model"],
            dataset=spec["dataset"],
            config_dict={
                **spec["settings"],
                **({RESUME_KEY: latest} if latest else {}),
                "checkpoint_dir": str(checkpoints),
                "show_progress": False,
            },
        )
    tested = recorder.unrounded(outcome["test_result"] or {}) if spec["tests"] else {}
    valid = {name: float(value) for name, value in (outcome["best_valid_result"] or {}).items()}
    scored = [epoch for epoch in recorder.epochs if "score" in epoch]
    best = (max if outcome["valid_score_bigger"] else min)(
        scored, key=lambda epoch: epoch["score"], default=None
    )
    seconds = [epoch["seconds"] for epoch in recorder.epochs]
    results.write_result(
        folder,
        {
            **{key: spec[key] for key in ("model", "dataset", "hash", "config", "data")},
            "test": tested,
            "valid": valid,
            "score": float(outcome["best_valid_score"]) if scored else None,
            "epochs": recorder.epochs,
            "best_epoch": best["epoch"] if best else None,
            "training_seconds": sum(seconds),
            "seconds_per_epoch": sum(seconds) / len(seconds) if seconds else None,
            "seconds": recorder.seconds,
            "parameters": recorder.parameters,
            **memory(),
            "versions": versions(),
        },
        recorder.user_values() if spec["tests"] else None,
        recorder.lists() if spec["tests"] else None,
    )


def latest_state(checkpoints: Path) -> Path | None:
    """Return the latest state of a run that was cut off; None where there is none to be trusted.

    A comparison's folder may come from somebody else, and RecBole's checkpoints are pickles.
    """
    files = [path for path in checkpoints.glob("*") if not path.name.startswith(".")]
    if not all(is_safe_file(path) or written_here.is_own(path) for path in files):
        return None
    return next((path.resolve() for path in files if path.name.endswith(LAST)), None)


def refuse_what_changed(spec: Mapping[str, Any]) -> None:
    """Raise where a file of settings or data is not what it was when the comparison began.

    Raises:
        ConfigurationError: the result would be kept as that of another configuration.
    """
    settings = spec["settings"]
    run = Run(spec["model"], spec["model"], spec["dataset"], settings["seed"], settings)
    found = identify(configuration(run))
    gone = [name for name in spec["data"] if name not in found.data]
    if gone:
        raise ConfigurationError(
            f"{gone[0]} is not in {settings.get('data_path', 'the data folder')} on"
            f" {platform.node()}, in {Path.cwd()}. Workers of a cluster need the same files under"
            " the same paths."
        )
    changed = [key for key in found.config if found.config[key] != spec["config"].get(key)]
    changed += [name for name in found.data if found.data[name] != spec["data"].get(name)]
    if found.hash != spec["hash"]:
        raise ConfigurationError(
            f"{', '.join(changed) or 'The configuration'} changed while the comparison was at "
            "work; run it again."
        )


def memory() -> dict[str, float | None]:
    """Return this process's peak use of memory and of a CUDA device, in MiB; None if unknown."""
    import torch

    on_device = torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else None
    if os.name != "posix":
        return {"peak_memory_mib": None, "peak_gpu_memory_mib": on_device}
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
    return {"peak_memory_mib": peak, "peak_gpu_memory_mib": on_device}


def versions() -> dict[str, str]:
    """Return the versions of Python, of this package and of the libraries that decide numbers."""
    return {
        "python": platform.python_version(),
        "recbole_m3rec": __version__,
        **{name: importlib.metadata.version(name) for name in LIBRARIES},
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
