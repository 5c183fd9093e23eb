"""The keys of the configuration: type, range and meaning of each, RecBole's and the plugin's.

``keys.yaml`` is the one table of them; where a model has other choices, it has a line of its own,
``key of Model``. It serves the checks of values, the comments in
``properties/`` and ``docs/keys.md``. ``keys_of_models.yaml`` has the ranges of what single models
of RecBole read beside them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from recbole_m3rec.config.yaml_files import read_yaml
from recbole_m3rec.support.suggestions import expected_one_of

TYPES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "int": ("an integer", lambda value: isinstance(value, int) and not isinstance(value, bool)),
    "float": (
        "a number",
        lambda value: (
            isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        ),
    ),
    # 0 and 1 are switches to RecBole, too.
    "bool": ("true or false", lambda value: isinstance(value, int) and value in (0, 1)),
    "str": ("a string", lambda value: isinstance(value, str)),
    "list": ("a list", lambda value: isinstance(value, (list, tuple))),
    "list of int": ("a list of integers,", lambda value: isinstance(value, list)),
    "list of float": ("a list of numbers,", lambda value: isinstance(value, list)),
    "dict": ("a mapping such as {a: b}", lambda value: isinstance(value, dict)),
}

_POINT = r"\s*([-+]?(?:inf|\d+\.?\d*(?:e[-+]?\d+)?|\.\d+))\s*"
_INTERVAL = re.compile(rf"\s*([\[(]){_POINT},{_POINT}([\])])\s*", re.IGNORECASE)
_BOUND = re.compile(r"(>=?) ([\d.]+)")
_CHOICE = re.compile(r"one of ([\w-]+(?:, [\w-]+)*)")
INTERVAL = "interval of integers"
SOME = "at least one"

# Settings under which results may stand side by side only if they are the same for all.
PROTOCOL = (
    *("mask_seen", "cold_items", "eval_args", "user_inter_num_interval", "item_inter_num_interval"),
    *("val_interval", "rm_dup_inter", "filter_inter_by_user_or_item", "benchmark_filename"),
    "time_order",
)

# Which processes there are.
OF_PROCESSES = frozenset(["ip", "local_rank", "nproc", "offset", "port", "world_size"])

# Where things lie, what they run on, and what is shown: none of it is meant to change a result.
# Another device changes last digits, another number of workers what they draw (negatives, masks).
OF_A_MACHINE = frozenset(
    ["checkpoint_dir", "dataset_save_path", "dataloaders_save_path", "save_dataset"]
    + ["save_dataloaders", "download", "source", "gpu_id", "use_gpu", "worker"]
    + ["checkpoint_minutes", "show_progress", "state", "verbose", "log_wandb", "wandb_project"]
)

# Choices of which RecBole takes capitals and small letters alike.
ANY_CASE = ("learner", "state")


@dataclass(frozen=True)
class Key:
    """One key of the configuration.

    Attributes:
        type: one of ``TYPES``, or several with "or" between.
        range: ``>= 1``, ``> 0``, ``in [0, 1)``, ``one of a, b`` are checked, of the elements of a
            list likewise, of which ``at least one`` asks for some; anything else is for people.
        meaning: what it is, and its unit.
        optional: whether it may be ``~``.
    """

    type: str
    range: str
    meaning: str
    optional: bool = False

    def complaint(self, name: str, value: Any) -> str | None:
        """Return what is wrong with a value in one sentence, None if nothing is."""
        if value is None and self.optional:
            return None
        kinds = self.type.split(" or ")
        choice = _CHOICE.search(self.range)
        if choice and isinstance(value, str):
            choices = choice[1].split(", ")
            if value in choices or (name in ANY_CASE and value.lower() in choices):
                return None
            if kinds == ["str"]:
                return expected_one_of(name, value, choices)
            return f"{name} must be {self._expected()}, found {value!r}."
        numeric = "int" in self.type or "float" in self.type
        inside = value if isinstance(value, (list, tuple)) and numeric else [value]
        enough = bool(inside) or not self.range.startswith(SOME)
        if enough and any(TYPES[kind][1](value) for kind in kinds) and all(map(self._fits, inside)):
            return None
        none = ", or ~" if self.optional else ""
        return f"{name} must be {self._expected()}{none}, found {value!r}."

    def _expected(self) -> str:
        """Return what a value must be, in words: ``an integer >= 1 or a list of such``."""
        if self.range == INTERVAL:
            return "an interval such as [5,inf)"
        words = {kind: TYPES[kind][0] for kind in self.type.split(" or ")}
        choice = _CHOICE.search(self.range)
        bound = _BOUND.search(self.range)
        interval = None if bound else _INTERVAL.search(self.range)
        if choice and "str" in words:
            words["str"] = choice[1] if "," not in choice[1] else choice[0]
        for number in {"int", "float"} & words.keys():
            words[number] += f" {bound[0]}" if bound else ""
            words[number] += f" in {interval[0].strip()}" if interval else ""
        for of_numbers in {"list of int", "list of float"} & words.keys():
            words[of_numbers] += f" {self.range}"
        if (bound or interval) and "list" in words:
            del words["list"]
            words["list"] = "a list of such"
        return " or ".join(words.values())

    @property
    def _bounds(self) -> re.Match[str] | None:
        """The range as an interval, None where it bounds no number."""
        bound = _BOUND.search(self.range)
        if bound:
            return _INTERVAL.fullmatch(f"{'[' if bound[1] == '>=' else '('}{bound[2]},inf)")
        return _INTERVAL.search(self.range)

    def _fits(self, value: Any) -> bool:
        if self.range == INTERVAL:
            return isinstance(value, str) and is_interval(value)
        if self._bounds is None:
            return True
        number = "float" if "float" in self.type else "int"
        return TYPES[number][1](value) and _within(value, self._bounds)


def _within(value: float, interval: re.Match[str]) -> bool:
    left, low, high, right = interval.groups()
    above = value >= float(low) if left == "[" else value > float(low)
    return above and (value <= float(high) if right == "]" else value < float(high))


def is_interval(text: str) -> bool:
    """Tell whether a text is an interval such as ``[5,inf)``, or several with ``;`` between."""
    matches = [_INTERVAL.fullmatch(part) for part in text.split(";")]
    return all(each is not None and float(each[2]) <= float(each[3]) for each in matches)


def stays_text(name: str) -> bool:
    """Tell whether a key holds a string, however much like a number it looks."""
    return name in KEYS and KEYS[name].type == "str"


def as_markdown(defaults: Mapping[str, Any]) -> str:
    """Return the table of ``docs/keys.md``; a key without a default has a dash."""
    lines = ["| key | type | meaning | range | default |", "|---|---|---|---|---|"]
    for name, key in KEYS.items():
        range_ = f"{key.range} (or `~`)" if key.optional and "~" not in key.range else key.range
        default = f"`{_as_yaml(defaults[name])}`" if name in defaults else "–"
        lines.append(f"| `{name}` | {key.type} | {key.meaning} | {range_} | {default} |")
    return "\n".join(lines) + "\n"


def _as_yaml(value: Any) -> str:
    if value is None:
        return "~"
    text: str = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=math.inf)
    return text.removesuffix("\n...\n").strip()


def _read() -> dict[str, Key]:
    """Read ``keys.yaml``."""
    keys = {}
    for name, line in read_yaml(Path(__file__).with_name("keys.yaml")).items():
        kinds, range_, meaning = line.split(" | ")
        keys[name] = Key(kinds.removesuffix(" or ~"), range_, meaning, kinds.endswith(" or ~"))
    return keys


def _read_of_models() -> dict[str, Key]:
    """Read ``keys_of_models.yaml``."""
    keys = {}
    for line, names in read_yaml(Path(__file__).with_name("keys_of_models.yaml")).items():
        kinds, range_ = line.split(" | ")
        for name, models in names.items():
            for model in models.split(", "):
                keys[f"{name} of {model}"] = Key(kinds, range_, "")
    return keys


KEYS = _read()
KEYS_OF_MODELS = _read_of_models()
