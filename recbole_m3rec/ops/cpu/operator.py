"""A kernel as an operator of torch, which is called directly where nothing traces."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


class Operator:
    """``torch.library.custom_op`` for the CPU; the kernel itself where nobody watches.

    The first call of a custom operator imports torch's compiler, which takes a second, and every
    call passes through some twenty functions, which on small batches cost as much as the kernel.
    Only what traces, compiles or transforms needs the operator.
    """

    def __init__(self, name: str, schema: str, kernel: Callable[..., Any]) -> None:
        self.kernel = kernel
        self.registered = torch.library.custom_op(
            name, kernel, mutates_args=(), device_types="cpu", schema=schema
        )
        self.register_fake = self.registered.register_fake
        self.function: type[torch.autograd.Function] | None = None

    def register_autograd(
        self, gradients: Callable[..., Any], setup_context: Callable[..., None]
    ) -> None:
        """Say how to differentiate, as ``torch.library.register_autograd`` has it."""
        self.registered.register_autograd(gradients, setup_context=setup_context)
        methods = {
            "forward": staticmethod(self.kernel),
            "setup_context": staticmethod(setup_context),
            "backward": staticmethod(gradients),
        }
        self.function = type(self.kernel.__name__, (torch.autograd.Function,), methods)

    def __call__(self, *inputs: Any) -> Any:
        # In this order: torch's compiler cannot trace the later questions.
        if torch.compiler.is_compiling() or _is_watched():
            return self.registered(*inputs)
        if not torch.is_grad_enabled():
            return self.kernel(*inputs)
        return self.registered(*inputs) if self.function is None else self.function.apply(*inputs)


def _is_watched() -> bool:
    """Whether a mode (fake tensors, tracing, counting) or a transform (vmap, grad) is on."""
    return bool(torch._C._len_torch_dispatch_stack() or torch._C._are_functorch_transforms_active())


def operator(name: str, schema: str) -> Callable[[Callable[..., Any]], Operator]:
    """Decorate a kernel to be an :class:`Operator`."""
    return lambda kernel: Operator(name, schema, kernel)
