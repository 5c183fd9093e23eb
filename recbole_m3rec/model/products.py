"""Products of matrices, computed by whichever of torch's libraries is fast here."""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return ``x @ weight.T + bias``; ``[n, D]`` and ``[m, D]`` to ``[n, m]``.

    Where no gradient is recorded, float32 on the CPU goes to oneDNN, which uses a processor's
    widest vectors whoever made it; the library behind ``torch.mm`` does so on some makes alone, and
    is two and a half times slower on others. oneDNN prepares itself for each shape anew, so shapes
    should recur.
    """
    is_float = x.dtype == weight.dtype == torch.float32
    if is_float and x.is_cpu and not torch.is_grad_enabled() and _onednn_multiplies():
        result: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
        return result
    return F.linear(x, weight, bias)


class LinearByProduct(TorchFunctionMode):
    """Context in which every linear layer runs through :func:`product`."""

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        return (product if function is F.linear else function)(*args, **(kwargs or {}))


@functools.cache
def _onednn_multiplies() -> bool:
    """Tell whether this torch has oneDNN's product, which is no part of its public interface."""
    x = torch.arange(6.0).view(3, 2)
    try:
        found = torch.ops.mkldnn._linear_pointwise(x, x, None, "none", [], "")
    except (AttributeError, RuntimeError, TypeError):
        return False
    return torch.equal(found, x @ x.T)
