"""The selective scan and convolution of ``mamba-ssm`` and ``causal-conv1d``, on CUDA.

Both want padded batches ``[n_sequences, d_inner, length]``, contiguous along the tokens, and
``mamba-ssm`` one dtype for all that varies by token. Padding follows a sequence's tokens, so that
it reaches none of them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from recbole_m3rec.ops.checks import check_sequences
from recbole_m3rec.ops.scan_inputs import ScanInputs, check_scan

CONV_WIDTHS = (2, 3, 4)  # that causal-conv1d was compiled for
MAX_STATES = 256  # of mamba-ssm's kernel


@functools.cache
def available() -> tuple[bool, str]:
    """Tell whether mamba-ssm's compiled kernel can be used here.

    Returns:
        True and which packages do the work, or False and the reason.
    """
    if not torch.cuda.is_available():
        return False, "there is no CUDA device that this build of torch can use"
    try:
        import selective_scan_cuda  # noqa: F401

        _scan_function()
    except Exception as problem:  # compiled for another torch, for one
        return False, f"mamba-ssm cannot be imported ({type(problem).__name__}: {problem})"
    convolves = _conv_function() is not None
    return True, "mamba-ssm" + (" and causal-conv1d" if convolves else ", without causal-conv1d")


def _scan_function() -> Callable[..., Any]:
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    return selective_scan_fn  # type: ignore[no-any-return]


@functools.cache
def _conv_function() -> Callable[..., Any] | None:
    try:
        from causal_conv1d import causal_conv1d_fn  # which imports its compiled part
    except Exception:  # optional beside mamba-ssm, whatever ails it
        return None
    return causal_conv1d_fn  # type: ignore[no-any-return]


class _Padding:
    """Where each token of packed sequences lies in a batch padded to the longest one."""

    def __init__(self, cu_seqlens: Tensor, n_tokens: int) -> None:
        starts = cu_seqlens[:-1].long()
        lengths = cu_seqlens[1:].long() - starts
        self.n_sequences, self.length = lengths.shape[0], int(lengths.max())
        first_rows = torch.arange(self.n_sequences, device=starts.device) * self.length
        shift = torch.repeat_interleave(first_rows - starts, lengths, output_size=n_tokens)
        self.rows = torch.arange(n_tokens, device=starts.device) + shift
        self.last_rows = first_rows + lengths - 1

    def pad(self, packed: Tensor) -> Tensor:
        """``[n_tokens, k]`` to ``[n_sequences, k, length]``, zeros behind the last tokens."""
        padded = packed.new_zeros(self.n_sequences * self.length, packed.shape[1])
        padded = padded.index_copy(0, self.rows, packed)
        by_channel = padded.view(self.n_sequences, self.length, -1).transpose(1, 2)
        # Not contiguous(): with length 1 it leaves the strides, which the kernels look at.
        return by_channel.clone(memory_format=torch.contiguous_format)

    def unpad(self, padded: Tensor, only_last: bool = False) -> Tensor:
        """Back to ``[n_tokens, k]``, or the last tokens' rows ``[n_sequences, k]``."""
        rows = padded.transpose(1, 2).reshape(self.n_sequences * self.length, -1)
        return rows[self.last_rows if only_last else self.rows]


def selective_scan_mamba_ssm(inputs: ScanInputs) -> Tensor:
    """Run the selective scan over packed sequences, differentiable in its floating-point inputs.

    What varies by token is converted to the dtype of ``x``, what does not to float32.

    Raises:
        ValueError: shapes, dtypes or devices do not fit, or ``d_state`` is above 256.
    """
    x, dt, A, B, C, D, cu_seqlens, last_only, dt_bias, z = _checked(inputs)
    assert cu_seqlens is not None
    if x.shape[0] == 0:
        return x * 1.0
    padding = _Padding(cu_seqlens, x.shape[0])
    y = _scan_function()(
        *(padding.pad(x), padding.pad(dt.to(x.dtype)), A.float().contiguous()),
        *(padding.pad(B.to(x.dtype)), padding.pad(C.to(x.dtype)), D.float().contiguous()),
        z=None if z is None or last_only else padding.pad(z.to(x.dtype)),
        delta_bias=None if dt_bias is None else dt_bias.float().contiguous(),
        delta_softplus=dt_bias is not None,
    )
    y = padding.unpad(y, only_last=last_only)
    return y * F.silu(z).to(y.dtype) if z is not None and last_only else y


@torch.no_grad()
def selective_scan_states_mamba_ssm(inputs: ScanInputs) -> tuple[Tensor, Tensor]:
    """``scan_states`` of a ``ScanBackend``."""
    x, dt, A, B, C, D, cu_seqlens, last_only, dt_bias, z = _checked(inputs)
    assert cu_seqlens is not None
    if x.shape[0] == 0:
        return x.clone(), A.new_empty(0, *A.shape, dtype=torch.float32)
    padding = _Padding(cu_seqlens, x.shape[0])
    # The kernel returns the states after the padding. Steps of size 0 leave them as they are, so
    # softplus, which makes no zeros, comes before the padding.
    steps = dt if dt_bias is None else F.softplus(dt.float() + dt_bias.float())
    y, states = _scan_function()(
        *(padding.pad(x), padding.pad(steps.to(x.dtype)), A.float().contiguous()),
        *(padding.pad(B.to(x.dtype)), padding.pad(C.to(x.dtype)), D.float().contiguous()),
        return_last_state=True,
    )
    y = padding.unpad(y, only_last=last_only)
    return (y if z is None else y * F.silu(z).to(y.dtype)), states.float()


def convolves(weight: Tensor) -> bool:
    """Whether causal-conv1d is here and takes filters ``[d_inner, d_conv]`` of this width."""
    return weight.shape[1] in CONV_WIDTHS and _conv_function() is not None


def causal_conv1d_silu_mamba_ssm(
    x: Tensor, weight: Tensor, bias: Tensor, cu_seqlens: Tensor
) -> Tensor:
    """Convolve every channel of every sequence with its own causal filter, then apply SiLU.

    Args and result as in :func:`recbole_m3rec.ops.causal_conv1d_silu`, where :func:`convolves`.
    """
    check_sequences(cu_seqlens, x.device)
    function = _conv_function()
    assert function is not None  # the caller asked `convolves`
    if x.shape[0] == 0:
        return x * 1.0
    padding = _Padding(cu_seqlens, x.shape[0])
    taps, offset = weight.contiguous(), bias.to(weight.dtype).contiguous()
    y = function(padding.pad(x), taps, offset, activation="silu")
    return padding.unpad(y)


def _checked(inputs: ScanInputs) -> ScanInputs:
    check_scan(inputs, inputs.x.device)
    if inputs.A.shape[1] > MAX_STATES:
        raise ValueError(
            f"d_state: mamba-ssm takes {MAX_STATES} at most, found {inputs.A.shape[1]}"
        )
    return inputs
