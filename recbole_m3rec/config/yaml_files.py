"""Reads the plugin's YAML files safely; numbers such as ``1e-3`` stay numbers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml


class ConfigurationError(ValueError):
    """An invalid configuration: says where, what, and what to write instead."""


class _Loader(yaml.SafeLoader):
    """YAML's safe loader that refuses a key given twice; by YAML 1.1, ``1e-3`` would be a text."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        keys = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in keys:
                    raise yaml.MarkedYAMLError(
                        problem=f"the key {key.value!r} is given twice",
                        problem_mark=key.start_mark,
                    )
                keys.add(key.value)
        return node


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d[\d_]*(\.[\d_]*)?|\.\d[\d_]*)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a file of ``key: value`` lines; an empty one has no keys.

    Raises:
        ConfigurationError: not YAML, a key given twice, or not a mapping of names to values.
    """
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigurationError(f"{path} is no valid YAML file: {error}") from error
    if values is None:
        return {}
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise ConfigurationError(
            f"{path} must hold lines of `key: value`, but holds {type(values).__name__} "
            f"({str(values)[:60]!r})."
        )
    return values
