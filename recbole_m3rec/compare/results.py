"""Results of runs as files, each written whole or not at all."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from recbole_m3rec.compare.runs import Identity, Run
from recbole_m3rec.compare.user_values import Lists, UserValues
from recbole_m3rec.config.yaml_files import ConfigurationError
from recbole_m3rec.support.safe_write import new_files, write_whole

SPEC, RESULT, FAILURE = "spec.json", "result.json", "failure.json"
USERS, LISTS = "users.npz", "lists.npz"
CHECKPOINTS = "checkpoint"  # folder of a run at work or cut off, gone when it has ended


@dataclass(frozen=True)
class Outcome:
    """What became of a run.

    Attributes:
        run: what was asked for.
        identity: what its result depends on.
        folder: where its result, its failure and its log are.
        result: the worker's result, None where it failed.
        failure: why it failed, None where it did not.

    Example:
        >>> from pathlib import Path
        >>> from recbole_m3rec import Outcome, Run
        >>> from recbole_m3rec.compare.runs import Identity
        >>> run = Run("GRU4Rec", "GRU4Rec", "ml-100k", seed=1)
        >>> outcome = Outcome(run, Identity({}, {}), Path("runs"), None, "out of memory")
        >>> dict(outcome.measured), outcome.failure
        ({}, 'out of memory')
    """

    run: Run
    identity: Identity
    folder: Path
    result: Mapping[str, Any] | None
    failure: str | None

    @property
    def measured(self) -> Mapping[str, Any]:
        """The result; empty where the run failed."""
        return self.result or {}

    @cached_property
    def users(self) -> UserValues | None:
        """The test by users, read from disk when first asked for; None where there is none."""
        found = self._arrays(USERS)
        return found and UserValues(**{**found, "metrics": tuple(found["metrics"].tolist())})

    @cached_property
    def lists(self) -> Lists | None:
        """What was recommended, read likewise; None where not all items were ranked."""
        found = self._arrays(LISTS)
        return found and Lists(**found)

    def _arrays(self, name: str) -> Any:
        if self.result is None or not (self.folder / name).is_file():
            return None
        with np.load(self.folder / name, allow_pickle=False) as file:
            return dict(file)


def write_spec(folder: Path, run: Run, identity: Identity, tests: bool) -> None:
    """Write what a worker is to do; what an earlier try left is forgotten.

    Raises:
        ConfigurationError: a setting is nothing that JSON can hold.
    """
    spec = {
        "model": run.model,
        "dataset": run.dataset,
        "settings": run.overrides,
        "tests": tests,
        "hash": identity.hash,
        "config": identity.config,
        "data": identity.data,
    }
    try:
        text = json.dumps(spec, indent=1)
    except TypeError as error:
        raise ConfigurationError(
            f"The settings of {run} must be numbers, texts, lists and mappings ({error})."
        ) from error
    write_whole(folder / SPEC, text.encode())
    for name in (FAILURE, RESULT):
        (folder / name).unlink(missing_ok=True)


def read_spec(folder: Path) -> dict[str, Any]:
    """Return what a worker is to do."""
    spec: dict[str, Any] = json.loads((folder / SPEC).read_text(encoding="utf-8"))
    return spec


def write_result(
    folder: Path, result: Mapping[str, Any], users: UserValues | None, lists: Lists | None = None
) -> None:
    """Write a result, the values of users and their lists, where there are any, all or nothing."""
    arrays = {name: vars(each) for name, each in ((USERS, users), (LISTS, lists)) if each}
    result = {**result, "arrays": list(arrays)}
    with new_files(*(folder / name for name in (*arrays, RESULT))) as files:
        for file, of_file in zip(files, arrays.values(), strict=False):
            np.savez_compressed(file.file, **of_file)
        files[-1].write(json.dumps(result, indent=1).encode())


def write_failure(folder: Path, message: str) -> None:
    """Write why a run failed."""
    write_whole(folder / FAILURE, json.dumps({"message": message}).encode())


def read_outcome(run: Run, identity: Identity, folder: Path) -> Outcome | None:
    """Return the outcome of a run, None where it is still to be had or was damaged since."""
    result = _mapping(folder / RESULT)
    if result.get("hash") == identity.hash and _is_whole(folder, result):
        return Outcome(run, identity, folder, result, None)
    failure = _mapping(folder / FAILURE).get("message")
    return None if failure is None else Outcome(run, identity, folder, None, failure)


def _mapping(file: Path) -> dict[str, Any]:
    """Return what a JSON file holds, nothing where it is missing or damaged."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _is_whole(folder: Path, result: Mapping[str, Any]) -> bool:
    """Tell whether a result has its parts, and the arrays that were written with it."""
    arrays = (folder / name for name in (USERS, LISTS))
    known = result.get("arrays", ())  # not counted before
    return {"test", "epochs"} <= result.keys() and all(
        zipfile.is_zipfile(file) for file in arrays if file.exists() or file.name in known
    )


def drop_checkpoints(folder: Path) -> None:
    """Remove the checkpoints of a run that has ended."""
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
