"""Reads YAML files safely; ``1e-3`` is a number, and what no reader is sure of an error."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml


class ConfigurationError(ValueError):
    """An invalid configuration: says where, what, and what to write instead."""


_TEXT, _MAPPING = "tag:yaml.org,2002:str", "tag:yaml.org,2002:map"
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
    text = ""
    try:
        text = path.read_text(encoding="utf-8")
        loader = _Loader(text)
        node = loader.get_single_node()
        values = None if node is None else loader.construct_document(node)
        if node is not None and values is not None:
            check_names(node)
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}, {error}") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}," if mark else ""
        problem = error.problem or error.context
        if problem == "but found another document":
            raise ConfigurationError(
                f"{path}{line} begins a second document, expected one: write it into a file of its"
                " own, or remove the line ---."
            ) from error
        raise ConfigurationError(f"{path}{line} is no valid YAML: {problem}.") from error
    except UnicodeDecodeError as error:
        line_of_byte = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigurationError(
            f"{path}, line {line_of_byte}, is no UTF-8 (byte 0x{error.object[error.start]:02x}): "
            "save the file as UTF-8."
        ) from error
    except yaml.reader.ReaderError as error:
        line_of_character = text.count("\n", 0, error.position) + 1
        raise ConfigurationError(
            f"{path}, line {line_of_character}, is no valid YAML: it holds the control character "
            f"{chr(error.character)!r}."
        ) from error
    except (yaml.YAMLError, ValueError, AttributeError, RecursionError) as error:
        problem = " ".join(str(error).split())  # PyYAML fails on `!!timestamp x` by itself
        raise ConfigurationError(f"{path} is no valid YAML: {problem}") from error
    return values or {}


def check_names(node: yaml.Node) -> None:
    """Raise for a document that is no mapping of names, by its nodes, which know their lines."""
    found, at = "", node
    if isinstance(node, yaml.SequenceNode):
        found = "a list"
    elif isinstance(node, yaml.ScalarNode):
        found = f"{node.value[:60]!r} alone"
    elif node.tag != _MAPPING:
        found = f"a {node.tag.rpartition(':')[2]}"
    else:
        for key, _ in node.value:
            if key.tag != _TEXT:
                found, at = f"the key {key.value}, which is no text", key
                break
    if found:
        raise ConfigurationError(
            f"line {at.start_mark.line + 1}: the file must hold lines of `key: value`, but holds "
            f"{found}."
        )
