"""One step of a whole network, for one new token of each modality, in one kernel call."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from itertools import chain

import torch
from torch import Tensor

from recbole_m3rec.ops.cpu import library


class NetworkStep:
    """A network's weights as the library takes them, and its step on kept states.

    Args:
        input_norms: of each modality weight and bias, ``[H]``.
        layers: of each layer, of each modality: a Mamba block's weights, ``in_proj [2 · d_inner,
            H]``, ``conv1d [d_inner, 1, d_conv]`` and bias, ``x_proj [dt_rank + 2 · d_state,
            d_inner]``, ``dt_proj [d_inner, dt_rank]`` and bias, ``A [d_inner, d_state]``,
            ``D [d_inner]``, ``out_proj [H, d_inner]``; its norm's two; the expert's
            ``w_1 [inner, H]`` and bias, ``w_2 [H, inner]`` and bias; its norm's two; the low-pass
            filter's weight and keep, ``[H]``, or two of no size.
        has_residual: whether a block's input is added to its output.
        low_pass: newest inputs that the filter sees, 0 for none.
        eps: of all norms.
    """

    def __init__(
        self,
        input_norms: Sequence[Sequence[Tensor]],
        layers: Sequence[Sequence[Sequence[Tensor]]],
        has_residual: bool,
        low_pass: int,
        eps: float,
    ) -> None:
        of_layers = [tensor.detach() for tensor in chain(*chain(*layers))]
        of_norms = [tensor.detach() for tensor in chain(*input_norms)]
        _, taps, _, _, dt_proj, _, A, *_ = layers[0][0]
        inner, width = layers[0][0][11].shape
        self.has_kernel = library.available()[0] and all(
            tensor.dtype == torch.float32 and tensor.is_contiguous() and tensor.is_cpu
            for tensor in of_layers + of_norms
        )
        self._rows = len(layers), len(input_norms)
        self._shapes = (
            (len(input_norms), width),
            (*self._rows, len(A), taps.shape[2] - 1),
            (*self._rows, *A.shape),
            (*self._rows, max(0, low_pass - 1), width + 1),
        )
        self._kept = of_layers, of_norms, _addresses(of_norms), _addresses(of_layers)
        self._network = library.Network(
            *(ctypes.addressof(addresses) for addresses in self._kept[2:]),
            *(*self._rows, width, inner, *A.shape, dt_proj.shape[1], taps.shape[2]),
            *(low_pass, has_residual, eps),
        )

    def __call__(
        self, x: Tensor, window: Tensor, ssm: Tensor, recent: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Take one token of each modality, without gradients.

        Args:
            x: ``[M + 1, H]`` float32, before the input norms.
            window: ``[layers, M + 1, d_inner, d_conv - 1]`` float32, the newest inputs of the
                convolutions.
            ssm: ``[layers, M + 1, d_inner, d_state]`` float32, the states of the scans.
            recent: ``[layers, M + 1, low_pass - 1, H + 1]`` float32, the newest inputs of the
                filters, a 1 behind each.

        Returns:
            What the last layer makes of the tokens, ``[M + 1, H]``, and the three states after it.

        Raises:
            ValueError: a shape or dtype does not fit.
        """
        names, given = ("x", "window", "ssm", "recent"), (x, window, ssm, recent)
        for each in zip(names, given, self._shapes, strict=True):
            library.check(*each)
        x, window, recent = x.contiguous(), window.contiguous(), recent.contiguous()
        y, new_window, new_recent = (torch.empty_like(each) for each in (x, window, recent))
        new_ssm = ssm.clone(memory_format=torch.contiguous_format)
        library.call_on_threads(
            "m3rec_network_step",
            ctypes.addressof(self._network),
            *(tensor.data_ptr() for tensor in (x, window, new_window, new_ssm)),
            *(tensor.data_ptr() for tensor in (recent, new_recent, y)),
        )
        return y, new_window, new_ssm, new_recent


def _addresses(tensors: Sequence[Tensor]) -> ctypes.Array[ctypes.c_void_p]:
    return (ctypes.c_void_p * len(tensors))(*(tensor.data_ptr() for tensor in tensors))
