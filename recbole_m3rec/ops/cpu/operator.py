"""A kernel as an operator of torch, which is called directly where nothing learns or traces."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


class Operator:
    """``torch.library.custom_op`` for the CPU; in inference mode the kernel itself.

    The first call of a custom operator imports torch's compiler, which takes a second, and every
    call passes through some twenty functions, where a single history computes for microseconds.
    """

    def __init__(self, name: str, schema: str, kernel: Callable[..., Any]) -> None:
        self.kernel = kernel
        self.registered = torch.library.custom_op(
            name, kernel, mutates_args=(), device_types="cpu", schema=schema
        )
        self.register_fake = self.registered.register_fake
        self.register_autograd = self.registered.register_autograd

    def __call__(self, *inputs: Any) -> Any:
        if torch.is_inference_mode_enabled() and not torch.compiler.is_compiling():
            return self.kernel(*inputs)
        return self.registered(*inputs)


def operator(name: str, schema: str) -> Callable[[Callable[..., Any]], Operator]:
    """Decorate a kernel to be an :class:`Operator`."""
    return lambda kernel: Operator(name, schema, kernel)
