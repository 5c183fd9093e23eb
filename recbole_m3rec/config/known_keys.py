"""Which configuration keys anything reads, and one error for those that nothing does."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from recbole_m3rec.config.keys import OF_PROCESSES
from recbole_m3rec.config.yaml_files import ConfigurationError, read_yaml
from recbole_m3rec.support.suggestions import did_you_mean, nearest

OWN_MODELS = ("M3Rec", "Mamba4Rec", "SASRecMM", "ContentKNN")

# Keys that say what to do and where, and are no settings of a model.
LAUNCHER_KEYS = frozenset(
    ("model", "dataset", "config_file", "config_files", "config_file_list", "saved", "verbose")
    + ("resume", "evaluate", "output", "feature_digests", "source_digests", "source", "download")
    + ("group_offset", *OF_PROCESSES)
)

# What the models of RecBole that read vectors of items know; the others say in the log that these
# have no say.
CONTENT_KEYS = frozenset(["modalities", "features", "feature_path", "feature_norm", "feature_rows"])

# The command line, the one place that is written for a single model.
COMMAND_LINE = "the command line"
DICT = "the configuration given as a dict"

# How many processes there are, which no file can say.
_COUNTS = ("nproc", "world_size")

# A user's key at least this alike to a known one is taken for a slip (0 to 1).
SLIP = 0.75

_READS = re.compile(
    r"""(?:config|_dict)(?:\.get\(|\[)\s*["'](\w+)["']|["'](\w+)["']\s+(?:not\s+)?in\s+(?:self\.)?\w*config"""
)


@cache
def keys_in(file: Path) -> frozenset[str]:
    """Return the keys that a Python file takes out of a configuration."""
    keys = _READS.findall(file.read_text(encoding="utf-8"))
    return frozenset(key for pair in keys for key in pair if key)


@cache
def keys_of_recbole(every_model: bool) -> frozenset[str]:
    """Return the keys that RecBole reads for any model, or what all models read beside them."""
    import recbole

    from recbole_m3rec.config.layers import properties_folder

    folder = Path(recbole.__file__).parent
    models = set(folder.glob("model/*/*.py"))
    files = models if every_model else set(folder.rglob("*.py")) - models
    keys = [keys_in(file) for file in files]
    if every_model:
        for place in (folder / "properties", properties_folder()):
            for file in (place / "model").glob("*.yaml"):
                text = file.read_text(encoding="utf-8")
                keys.append(frozenset(re.findall(r"^(\w+):", text, re.MULTILINE)))
    return frozenset().union(*keys)


def known_keys(config: Any) -> set[str]:
    """Return every key that some part of RecBole or of the plugin reads for this model."""
    from recbole_m3rec.config.layers import properties_folder

    known = {key for keys in config.parameters.values() for key in keys}
    known |= set(config.internal_config_dict) | LAUNCHER_KEYS | CONTENT_KEYS
    known |= keys_of_recbole(every_model=False)
    for cls in config.model_class.__mro__:
        file = None if cls.__module__.startswith(("torch", "builtins")) else source_of(cls)
        known |= keys_in(file) if file else set()
    if config.model in OWN_MODELS:
        # Mamba4Rec refuses modalities with a reason of its own, better than "unknown key".
        known |= set(read_yaml(properties_folder() / "model" / "M3Rec.yaml"))
    return known


def source_of(cls: type) -> Path | None:
    """Return the file that defines a class, None for one typed at a prompt."""
    try:
        file = inspect.getsourcefile(cls)
    except (TypeError, OSError):
        return None
    return Path(file) if file and Path(file).is_file() else None


def refuse_unknown(config: Any, layers: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the keys that nothing reads for this model and that may stand there all the same.

    Those are keys of other models, in a file or dict that several models share, and keys in a dict,
    for the program that made it may read them itself.

    Args:
        config: RecBole's, with its internal layers.
        layers: by its name, what the user has set in a place.

    Raises:
        ConfigurationError: any other key; names the nearest that is known.
    """
    unread: list[str] = []
    valid: set[str] = set()
    for where, values in layers.items():
        for key in values:
            if key in _COUNTS and values[key] not in (1, -1) and where not in (DICT, COMMAND_LINE):
                raise ConfigurationError(
                    f"`{key}` in {where} starts no process. Give --{key} on the command line."
                )
            valid = valid or known_keys(config)
            if key in valid:
                continue
            of_another = key in keys_of_recbole(every_model=True)
            shared = of_another and where != COMMAND_LINE and config.model not in OWN_MODELS
            meant = nearest(key, valid, likeness=SLIP)
            if (meant and not shared) or not (of_another or where == DICT):
                raise ConfigurationError(unknown(key, where, meant, valid, config.model))
            unread.append(key)
    return unread


def unknown(key: str, where: str, meant: list[str], known: Iterable[str], model: str) -> str:
    """Return the message of an unknown key."""
    message = f"Unknown configuration key `{key}` in {where}."
    if meant:
        return f"{message} Did you mean {' or '.join(f'`{name}`' for name in meant)}?"
    return f"{message} {model} reads none of this name.{did_you_mean(key, known)}"
