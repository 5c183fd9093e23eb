"""Hooks: the few ways in which this package changes RecBole without copying its code.

A hook is a name that RecBole looks up while it runs: a method of a class, a function or a module in
a module's namespace. What is put there calls what was there before, which stays reachable as
``__wrapped__``.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any


class Overlay(ModuleType):
    """A module with some of its names replaced; every other name is the module's own."""

    def __init__(self, beneath: ModuleType, **replaced: Any) -> None:
        super().__init__(beneath.__name__)
        self.__dict__["_beneath"] = beneath
        self.__dict__.update(replaced)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_beneath"], name)


def overlay(owner: ModuleType, name: str, **replaced: Any) -> None:
    """Let ``owner`` alone see the module that it knows as ``name`` with some names replaced."""
    module = getattr(owner, name)
    if isinstance(module, Overlay):
        module.__dict__.update(replaced)
    else:
        setattr(owner, name, Overlay(module, **replaced))


def wrap(owner: Any, name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Put the decorated function around ``owner.name``; it gets the original as first argument."""

    def decorate(around: Callable[..., Any]) -> Callable[..., Any]:
        original = getattr(owner, name)

        @functools.wraps(original)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            return around(original, *args, **kwargs)

        setattr(owner, name, wrapped)
        return wrapped

    return decorate


def wrap_everywhere(
    owner: ModuleType, name: str
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Like ``wrap``, and also in every loaded module that imported the function.

    RecBole's own modules do, and a program that imports from RecBole before this package.
    """

    def decorate(around: Callable[..., Any]) -> Callable[..., Any]:
        original = getattr(owner, name)
        wrapped = wrap(owner, name)(around)
        for module in list(sys.modules.values()):
            names = getattr(module, "__dict__", {})
            for alias in [key for key, value in list(names.items()) if value is original]:
                names[alias] = wrapped
        return wrapped

    return decorate
