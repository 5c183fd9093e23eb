"""Search spaces in RecBole's ``.hyper`` format, parsed without executing them."""

from __future__ import annotations

import ast
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recbole_m3rec.config.keys import PROTOCOL
from recbole_m3rec.config.layers import properties_folder
from recbole_m3rec.config.yaml_files import ConfigurationError

FIXED = {*PROTOCOL, "valid_metric", "seed"}  # what trials must share to be compared
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
        ConfigurationError: a line that is none, or a name given twice; names it.
    """
    space: dict[str, Range] = {}
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{file} is no UTF-8: save it as UTF-8.") from error
    for number, line in enumerate(lines, start=1):
        where = f"{file}, line {number}"
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, kind, values, *_ = [*line.split(maxsplit=2), "", ""]
        if name in space or name in FIXED:
            why = "is given twice" if name in space else "must be the same for all trials"
            raise ConfigurationError(f"{where}: {name} {why}. Take the line out.")
        space[name] = Range(kind, _values(where, kind, values))
    return space


def _values(where: str, kind: str, text: str) -> tuple[Any, ...]:
    if kind not in KINDS:
        raise ConfigurationError(f"{where}: {kind!r} is no kind of range, one of {KINDS} is.")
    expected = {
        "choice": "a list of numbers, texts and lists such as [64,128]",
        "uniform": "2 numbers such as 0.1,0.5, the lower bound first",
        "loguniform": "2 natural logarithms of bounds such as -8,0, the lower first",
        "quniform": "3 numbers such as 0.1,0.5,0.1, the lower bound first, and a step above 0",
    }[kind]
    try:
        values = ast.literal_eval(text)  # which passes over a comment
        if not _is_range(kind, values):
            raise ValueError(kind)
    except (ValueError, SyntaxError, TypeError, OverflowError, MemoryError, RecursionError) as no:
        raise ConfigurationError(f"{where}: expected {expected}, found {text!r}.") from no
    return tuple(values)


def _is_range(kind: str, values: Any) -> bool:
    """Tell whether values are those of a kind; some that are not raise an error."""
    if kind == "choice":
        json.dumps(values)  # as Optuna gets them
        return isinstance(values, list) and bool(values)
    low, high, *step = map(float, values)
    if kind == "loguniform":
        low, high = math.exp(low), math.exp(high)
    wanted = [high - low, *step, *[low] * (kind == "loguniform")]
    numbers = isinstance(values, tuple) and all(isinstance(each, (int, float)) for each in values)
    n = 3 if kind == "quniform" else 2
    return numbers and len(values) == n and all(0 < each < math.inf for each in wanted)
