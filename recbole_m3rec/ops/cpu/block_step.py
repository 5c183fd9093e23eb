"""One step of a whole Mamba block, for one new token per sequence, in one kernel call.

Where a user waits for the answer to a single interaction, thirty calls of PyTorch cost more than
what they compute.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from recbole_m3rec.ops.cpu import library

# Of the sequences that step together; for more, products of matrices are faster than this.
MOST_ROWS = 16


def supports_step(h: Tensor, weights: tuple[Tensor, ...]) -> bool:
    """Whether the kernel is here, and made for these tokens ``[n, hidden_size]`` and weights."""
    return (
        h.is_cpu
        and h.shape[0] <= MOST_ROWS
        and library.available()[0]
        and all(
            tensor.dtype == torch.float32 and tensor.is_contiguous() for tensor in (h, *weights)
        )
    )


def block_step_cpu(
    h: Tensor, window: Tensor, ssm: Tensor, weights: tuple[Tensor, ...]
) -> tuple[Tensor, Tensor, Tensor]:
    """Take one token of every sequence on kept states, without gradients.

    Args:
        h: ``[n_sequences, hidden_size]`` float32.
        window: newest inputs of the convolution, ``[n_sequences, d_inner, d_conv - 1]`` float32.
        ssm: states of the scan, ``[n_sequences, d_inner, d_state]`` float32.
        weights: a block's, contiguous float32: ``in_proj [2 · d_inner, hidden_size]``,
            ``conv1d [d_inner, 1, d_conv]`` and its bias, ``x_proj [dt_rank + 2 · d_state,
            d_inner]``, ``dt_proj [d_inner, dt_rank]`` and its bias, ``A_log``, ``D``, ``out_proj``.

    Returns:
        The block's output ``[n_sequences, hidden_size]``, the new window and the new states.

    Raises:
        ValueError: a shape or dtype of the tokens or the states does not fit.
    """
    in_proj, taps, _, _, dt_proj, _, A_log, _, _ = weights
    (n, width), (channels, states), d_conv = h.shape, A_log.shape, taps.shape[2]
    library.check("h", h, (n, in_proj.shape[1]))
    library.check("state.window", window, (n, channels, d_conv - 1))
    library.check("state.ssm", ssm, (n, channels, states))
    window = window.contiguous()
    new_window, y = torch.empty_like(window), torch.empty_like(h)
    new_ssm = ssm.clone(memory_format=torch.contiguous_format)
    arguments = library.BlockStepArguments(
        h.data_ptr(),
        *[weight.data_ptr() for weight in weights],
        window.data_ptr(),
        *(n, width, channels, states, dt_proj.shape[1], d_conv),
        torch.get_num_threads(),
        library.instruction_set(),
    )
    library.call(
        "m3rec_block_step",
        ctypes.byref(arguments),
        *(new_window.data_ptr(), new_ssm.data_ptr(), y.data_ptr()),
    )
    return y, new_window, new_ssm
