"""Values written as text, on the command line or in a search space: read, never executed."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Callable
from typing import Any

import yaml

from recbole_m3rec.config.keys import stays_text
from recbole_m3rec.config.yaml_files import ConfigurationError
from recbole_m3rec.hooks import wrap

PLAIN = (bool, int, float, str, list, tuple, dict)


class _Loader(yaml.SafeLoader):
    """YAML of the command line: no dates, and no octal or sexagesimal numbers."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}


for _tag, _pattern, _first in (
    ("null", r"(?:~|null|Null|NULL|None)$", "~nN"),
    ("bool", r"(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)$", "-+0123456789"),
    (
        "float",
        r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?$",
        "-+.0123456789",
    ),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), list(_first))


def read_value(text: str) -> Any:
    """Return the Python literal that a text is, else the YAML value, else the text itself.

    ``[5, 10]``, ``'adam'``, ``None`` and ``0,1`` are literals; ``[text,image]``, ``{LS: valid}``
    and ``true`` are YAML.
    """
    if not text.strip():
        return text
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        pass
    else:
        return value if value is None or isinstance(value, PLAIN) else text
    try:
        value = yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError):
        return text
    # YAML takes more for a mapping than what stands in braces, and drops comments and quotes.
    if value is None or isinstance(value, bool) or text.lstrip()[:1] in ("[", "{"):
        return value
    return text


def read_choices(text: str) -> list[Any]:
    """Return the list that a ``choice`` of a search space names.

    Raises:
        ConfigurationError: it is no list.
    """
    values = read_value(text)
    if not isinstance(values, (list, tuple)) or not values:
        raise ConfigurationError(
            f"A choice of a search space must be a list such as [64,128], found {text!r}."
        )
    return list(values)


def class_in(module: Any) -> Callable[[str], type]:
    """Return a function that finds a network of a module by its name."""
    import torch

    def find(name: str) -> type:
        networks = {
            each.__name__: each
            for each in vars(module).values()
            if isinstance(each, type)
            and issubclass(each, torch.nn.Module)
            and each.__module__ == module.__name__
        }
        if name not in networks:
            raise ConfigurationError(
                f"teacher must be one of {', '.join(sorted(networks))}, found {name!r}."
            )
        return networks[name]

    return find


# The modules of RecBole that call ``eval``, and what reads the same text instead.
EVALUATING: dict[str, Callable[[Any], Callable[[str], Any]]] = {
    "recbole.config.configurator": lambda module: read_value,  # 131
    "recbole.trainer.hyper_tuning": lambda module: read_choices,  # 239
    "recbole.model.context_aware_recommender.kd_dagfm": class_in,  # 44
}


def install() -> None:
    """Let RecBole read what it would evaluate.

    A module looks ``eval`` up among its own names before Python's.
    """
    from recbole.config import Config

    for name, reader in EVALUATING.items():
        module = importlib.import_module(name)
        vars(module)["eval"] = reader(module)

    @wrap(Config, "_convert_config_dict")
    def convert(original: Callable[..., Any], self: Any, config_dict: dict[str, Any]) -> Any:
        written = {
            key: text
            for key, text in config_dict.items()
            if isinstance(text, str) and stays_text(key)
        }
        original(self, config_dict)
        for key, text in written.items():
            if config_dict[key] is not None and not isinstance(config_dict[key], str):
                config_dict[key] = text  # a folder named 2024, an interval [5,10]
        return config_dict
