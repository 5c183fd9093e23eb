"""Checks of single settings of a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from recbole_m3rec.support.suggestions import expected_one_of


class ModelConfigError(ValueError):
    """A setting of the model that has no meaning."""


def check_size(name: str, size: object) -> None:
    """Raise ModelConfigError unless ``size`` is a whole number of at least 1."""
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise ModelConfigError(f"{name} must be an integer of at least 1, found {size!r}")


def check_number(name: str, value: Any, is_valid: Callable[[float], bool], valid: str) -> None:
    """Raise ModelConfigError unless ``value`` is a number for which ``is_valid`` holds."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not is_valid(value):
        raise ModelConfigError(f"{name} must be {valid}, found {value!r}")


def check_choice(name: str, value: object, choices: tuple[object, ...]) -> None:
    """Raise ModelConfigError, naming the nearest choice, unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise ModelConfigError(expected_one_of(name, value, choices))
