"""Whether Triton works here, and what all kernel launches share.

With ``TRITON_INTERPRET=1`` in the environment from the start, Triton's interpreter runs the
kernels on the CPU, slowly: that is how they are tested where there is no GPU.
"""

from __future__ import annotations

import functools
import os
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

OLDEST = (3, 2)  # 3.0 and 3.1 compute other numbers, in their interpreter at least
NEEDED = f"triton>={OLDEST[0]}.{OLDEST[1]}"
MAX_GROUPS = 256  # of sequences in a backward pass: parts to sum, programs a block of channels


def interpreted() -> bool:
    """Whether Triton's interpreter runs the kernels, on the CPU."""
    return os.environ.get("TRITON_INTERPRET") == "1"


@functools.cache
def available() -> tuple[bool, str]:
    """Tell whether Triton's kernels can be used here, by using them once.

    Returns:
        True and what runs them, or False and the reason.
    """
    if not (interpreted() or torch.cuda.is_available()):
        return False, "there is no CUDA device that this build of torch can use"
    try:
        import triton
    except ImportError as problem:
        return False, f"triton cannot be imported ({problem}): pip install triton (Linux)"
    name = f"Triton {triton.__version__}"
    if tuple(int(part) for part in triton.__version__.split(".")[:2]) < OLDEST:
        return False, f"{name} is too old: pip install -U '{NEEDED}'"
    if interpreted():
        return True, f"{name}, interpreted on the CPU: slow, for tests"
    device = torch.cuda.get_device_name()
    try:
        _scan_one_token()
    except Exception as problem:  # no C compiler, too old a device, a broken installation, ...
        return False, f"{name} fails on {device}: {problem}"
    return True, f"{name} on {device}"


def _scan_one_token() -> None:
    from recbole_m3rec.ops.scan_inputs import ScanInputs
    from recbole_m3rec.ops.triton.selective_scan import selective_scan_triton

    one = torch.ones(1, 1, device="cuda")
    ends = torch.tensor([0, 1], dtype=torch.int32, device="cuda")
    y = selective_scan_triton(ScanInputs(one, one, -one, one, one, one[0], ends)).item()
    if y != 2:  # 1 · 1 · 1 + 1
        raise RuntimeError(f"a scan of one token that returns 2 returned {y}")


def on_device(tensor: Tensor) -> AbstractContextManager[Any]:
    """Triton launches on the current device: make it the tensor's."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


def next_power_of_2(n: int) -> int:
    return 1 << (n - 1).bit_length()


def groups_of(cu_seqlens: Tensor, n_tokens: int) -> Tensor:
    """Split sequences into runs of about as many tokens each, ``[n_groups + 1]`` int64.

    The split depends on the sequences alone, so sums over it are made in the same order each time.
    """
    n_groups = min(cu_seqlens.shape[0] - 1, MAX_GROUPS)
    ends = torch.arange(n_groups + 1, device=cu_seqlens.device) * n_tokens // n_groups
    return torch.searchsorted(cu_seqlens, ends.to(cu_seqlens.dtype))
