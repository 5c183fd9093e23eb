"""Search spaces in RecBole's ``.hyper`` format, parsed without executing them."""

from __future__ import annotations

import ast
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recbole_m3rec.config.layers import properties_folder
from recbole_m3rec.config.yaml_files import ConfigurationError

KINDS = ("choice", "uniform", "loguniform", "quniform")


@dataclass(frozen=True)
class Range:
    """The values that a setting may take.

    Attributes:
        kind: one of ``KINDS``.
        values: the choices; or lower and upper bound, and the step of ``quniform``, whose values
            are whole numbers where all three are. The bounds of ``loguniform`` are natural
            logarithms, as in RecBole.
    """

    kind: str
    values: tuple[Any, ...]

    @property
    def is_whole(self) -> bool:
        """Whether whole numbers alone are drawn."""
        return self.kind == "quniform" and all(isinstance(value, int) for value in self.values)

    def suggested(self, trial: Any, name: str) -> Any:
        """Return the value that an Optuna trial takes."""
        if self.kind == "choice":  # as JSON, for a choice may be a list
            return json.loads(trial.suggest_categorical(name, list(map(json.dumps, self.values))))
        low, high, *step = self.values
        if self.kind == "loguniform":
            return trial.suggest_float(name, math.exp(low), math.exp(high), log=True)
        if self.is_whole:
            return trial.suggest_int(name, low, high, step=step[0])
        return trial.suggest_float(name, low, high, step=step[0] if step else None)

    def __str__(self) -> str:
        if self.kind == "choice":
            return ", ".join(map(str, self.values))
        low, high, *step = self.values
        if self.kind == "loguniform":
            low, high = math.exp(low), math.exp(high)
        words = f"{low:g} to {high:g}"
        return words + (f" by {step[0]:g}" if step else "")


def space_of(model: str) -> dict[str, Range] | None:
    """Return a model's search space, None where it has none.

    A file ``properties/tuning/<Model>.hyper`` of the working directory wins over the plugin's.
    """
    for folder in (Path.cwd() / "properties", properties_folder()):
        file = folder / "tuning" / f"{model}.hyper"
        if file.is_file():
            return read_space(file)
    return None


def read_space(file: Path) -> dict[str, Range]:
    """Read lines of ``name kind values``, a comment after ``#``.

    Raises:
        ConfigurationError: a line that is none; names it.
    """
    space: dict[str, Range] = {}
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        text = line.split(" #")[0].strip()
        if not text or text.startswith("#"):
            continue
        name, _, rest = text.partition(" ")
        kind, _, values = rest.strip().partition(" ")
        space[name] = Range(kind, _values(f"{file}, line {number}", kind, values))
    return space


def _values(where: str, kind: str, text: str) -> tuple[Any, ...]:
    if kind not in KINDS:
        raise ConfigurationError(f"{where}: {kind!r} is no kind of range, one of {KINDS} is.")
    try:
        values = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        values = None
    if kind == "choice":
        if isinstance(values, list) and values:
            return tuple(values)
        raise ConfigurationError(f"{where}: expected a list such as [64,128], found {text!r}.")
    wanted = 3 if kind == "quniform" else 2
    numbers = isinstance(values, tuple) and all(isinstance(v, (int, float)) for v in values)
    if not numbers or len(values) != wanted or values[0] >= values[1]:
        raise ConfigurationError(
            f"{where}: expected {wanted} numbers such as 0.1,0.5{',0.1' * (wanted - 2)}, the lower "
            f"bound first, found {text!r}."
        )
    return values
