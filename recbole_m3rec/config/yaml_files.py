"""Reads YAML files safely; ``1e-3`` is a number, and what no reader is sure of an error."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml


class ConfigurationError(ValueError):
    """An invalid configuration: says where, what, and what to write instead."""


_TEXT = "tag:yaml.org,2002:str"
_NUMBER = re.compile(r"[-+]?0(?=[0_]*[1-7])[0-7_]+$|[-+]?[0-9][0-9_]*:")  # octal and sexagesimal
_WORD = re.compile("(?:yes|no|on|off)$", re.IGNORECASE)  # true and false


class _Loader(yaml.SafeLoader):
    """YAML's safe loader that refuses a key given twice, ``010``, ``1:30`` and ``[de, no]``.

    ``use_gpu: no`` is false, as everywhere. By YAML 1.1, ``1e-3`` would be a text, and
    ``2024-01-01`` none.
    """

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        keys = set()
        for key, value in node.value:
            refuse(_NUMBER, value, f"{key.value}: " if isinstance(key, yaml.ScalarNode) else "")
            if isinstance(key, yaml.ScalarNode):
                refuse(_NUMBER, key)
                refuse(_WORD, key)
                if key.value in keys:
                    raise yaml.MarkedYAMLError(
                        problem=f"the key {key.value!r} is given twice",
                        problem_mark=key.start_mark,
                    )
                keys.add(key.value)
        return node

    def compose_sequence_node(self, anchor: Any) -> yaml.SequenceNode:
        node = super().compose_sequence_node(anchor)
        for each in node.value:
            refuse(_NUMBER, each)
            refuse(_WORD, each)
        return node


def refuse(kind: re.Pattern[str], node: yaml.Node, place: str = "") -> None:
    """Raise for a value that YAML 1.1 takes for something else than it looks."""
    if isinstance(node, yaml.ScalarNode) and node.tag != _TEXT and kind.match(node.value):
        meaning = json.dumps(yaml.safe_load(node.value))
        raise ConfigurationError(
            f"line {node.start_mark.line + 1}: {place}YAML 1.1 takes {node.value} for {meaning}. "
            f"Write {meaning} if you mean that, or '{node.value}' in quotes for a text."
        )


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d[\d_]*(\.[\d_]*)?|\.\d[\d_]*)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a file of ``key: value`` lines; an empty one has no keys.

    Raises:
        ConfigurationError: not YAML, a key given twice, a value such as ``010`` that is not what it
            looks like, or not a mapping of names to values.
    """
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}, {error}") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}," if mark else ""
        problem = error.problem or error.context
        raise ConfigurationError(f"{path}{line} is no valid YAML: {problem}.") from error
    except (yaml.YAMLError, ValueError, AttributeError, RecursionError) as error:
        problem = " ".join(str(error).split())  # PyYAML fails on `!!timestamp x` by itself
        raise ConfigurationError(f"{path} is no valid YAML: {problem}") from error
    if values is None:
        return {}
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise ConfigurationError(
            f"{path} must hold lines of `key: value`, but holds {type(values).__name__} "
            f"({str(values)[:60]!r})."
        )
    return values
