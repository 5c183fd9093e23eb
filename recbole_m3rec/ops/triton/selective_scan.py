"""The selective scan on a GPU, as differentiable operators.

As on the CPU, the same pass can take the step sizes before their softplus (``dt_bias``) and
multiply the result by the gate (``z``). Inputs may be float32, bfloat16 or float16, each its own;
states and sums are float32. Two runs give the same bits: sums over sequences and channels are
made in two passes, parts in the kernel and their sum in a fixed order, and never with atomics.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from recbole_m3rec.ops.checks import rows
from recbole_m3rec.ops.scan_inputs import (
    BACKWARD_SCHEMA,
    SCHEMA,
    ScanInputs,
    check_scan,
    check_state,
    register,
)
from recbole_m3rec.ops.triton.device import groups_of, next_power_of_2, on_device

CHUNK = 16  # tokens between two states that the backward pass keeps
# States of a program and its warps. More states a thread would not fit into registers; fewer
# channels a program make more parts of the gradients of B and C.
FORWARD_TILE, BACKWARD_TILE = (256, 1), (512, 2)


class _Call:
    """The operator's inputs as the kernels take them."""

    def __init__(self, inputs: ScanInputs) -> None:
        x, dt, A, B, C, D, cu_seqlens, self.last_only, dt_bias, z = inputs
        self.x, self.dt, self.B, self.C = rows(x), rows(dt), rows(B), rows(C)
        self.A, self.D = A.contiguous(), D.contiguous()
        self.dt_bias = None if dt_bias is None else dt_bias.contiguous()
        self.z = None if z is None else rows(z)
        self.cu_seqlens = None if cu_seqlens is None else cu_seqlens.contiguous()
        (self.n_tokens, self.d_inner), self.d_state = x.shape, A.shape[1]
        self.n_sequences = inputs.n_sequences()

    def inputs(self) -> tuple[Tensor | None, ...]:
        return (self.x, self.dt, self.A, self.B, self.C, self.D, self.dt_bias, self.z)

    def strides(self) -> tuple[int, ...]:
        matrices = (self.x, self.dt, self.B, self.C)
        z_stride = 0 if self.z is None else self.z.stride(0)
        return (*(matrix.stride(0) for matrix in matrices), z_stride)

    def blocks(self, n_states: int) -> tuple[int, int]:
        """Channels and states of a program; two at least, as Triton's blocks of one are special."""
        block_s = max(2, next_power_of_2(self.d_state))
        block_d = min(max(2, next_power_of_2(self.d_inner)), max(4, n_states // block_s), 64)
        return block_d, block_s

    def options(self, blocks: tuple[int, int], n_warps: int) -> dict[str, Any]:
        return {
            "HAS_BIAS": self.dt_bias is not None,
            "HAS_Z": self.z is not None,
            "READ_LAST": self.last_only,
            "BLOCK_D": blocks[0],
            "BLOCK_S": blocks[1],
            "num_warps": n_warps,
        }

    def forward(self, initial: Tensor | None, y: Tensor, last: Tensor | None) -> None:
        """Write ``y`` and ``last``; without ``cu_seqlens`` every token is a sequence."""
        if self.n_sequences == 0 or self.d_inner == 0:
            return
        from recbole_m3rec.ops.triton.selective_scan_kernels import forward

        n_states, n_warps = FORWARD_TILE
        blocks = self.blocks(n_states)
        with on_device(self.x):
            forward[(self.n_sequences, -(-self.d_inner // blocks[0]))](
                *(*self.inputs(), initial, self.cu_seqlens, y, last),
                *(*self.strides(), self.d_inner, self.d_state),
                HAS_INITIAL=initial is not None,
                HAS_LAST=last is not None,
                IS_STEP=self.cu_seqlens is None,
                **self.options(blocks, n_warps),
            )

    def backward(self, grad_y: Tensor) -> tuple[Tensor, ...]:
        """Gradients of x, dt, A, B, C, D, dt_bias and z; an empty tensor for a missing one."""
        if self.n_sequences == 0 or self.d_inner == 0:
            return tuple(
                self.x.new_empty(0) if t is None else torch.zeros_like(t) for t in self.inputs()
            )
        from recbole_m3rec.ops.triton.selective_scan_kernels import backward

        assert self.cu_seqlens is not None  # a step has no gradient
        groups = groups_of(self.cu_seqlens, self.n_tokens)
        n_groups, (n_states, n_warps) = groups.shape[0] - 1, BACKWARD_TILE
        blocks = self.blocks(n_states)
        n_blocks = -(-self.d_inner // blocks[0])

        def new(*shape: int) -> Tensor:
            return torch.empty(shape, dtype=torch.float32, device=self.x.device)

        grad_x, grad_dt, grad_z = (
            self.x.new_empty(0) if tensor is None else tensor.new_empty(tensor.shape)
            for tensor in (self.x, self.dt, self.z)
        )
        part_A = new(n_groups, self.d_inner, self.d_state)
        part_B, part_C = new(2, n_blocks, self.n_tokens, self.d_state)
        part_D, part_bias = new(2, n_groups, self.d_inner)
        with on_device(self.x):
            backward[(n_groups, n_blocks)](
                *(rows(grad_y), *self.inputs(), self.cu_seqlens, groups),
                new(self.n_tokens // CHUNK + 1, self.d_inner, self.d_state),
                new(n_groups, n_blocks, CHUNK, *blocks),
                *(grad_x, grad_dt, grad_z, part_A, part_B, part_C, part_D, part_bias),
                *(rows(grad_y).stride(0), *self.strides()),
                *(self.n_tokens, self.d_inner, self.d_state),
                CHUNK=CHUNK,
                **self.options(blocks, n_warps),
            )
        sums = [(part_A, self.A), (part_B, self.B), (part_C, self.C), (part_D, self.D)]
        grad_A, grad_B, grad_C, grad_D = (part.sum(0).to(like.dtype) for part, like in sums)
        grad_bias = self.x.new_empty(0)
        if self.dt_bias is not None:
            grad_bias = part_bias.sum(0).to(self.dt_bias.dtype)
        return grad_x, grad_dt, grad_A, grad_B, grad_C, grad_D, grad_bias, grad_z


@torch.library.custom_op("recbole_m3rec::selective_scan_triton", mutates_args=(), schema=SCHEMA)
def _scan(*arguments: Any) -> Tensor:
    inputs = ScanInputs(*arguments)
    y = inputs.new_result()
    _Call(inputs).forward(None, y, None)
    return y


@torch.library.custom_op(
    "recbole_m3rec::selective_scan_triton_backward",
    mutates_args=(),
    schema=BACKWARD_SCHEMA,
)
def _scan_backward(grad_y: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    return _Call(ScanInputs(*arguments)).backward(grad_y)


register(_scan, _scan_backward)


def selective_scan_triton(inputs: ScanInputs) -> Tensor:
    """Run the selective scan over packed sequences, differentiable in its floating-point inputs.

    float32, bfloat16 or float16. The values of ``cu_seqlens`` are not checked.

    Raises:
        ValueError: shapes, dtypes or devices do not fit.
    """
    check_scan(inputs, inputs.x.device)
    y: Tensor = _scan(*inputs)
    return y


@torch.no_grad()
def selective_scan_states_triton(
    inputs: ScanInputs, initial_state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """``scan_states`` of a ``ScanBackend``; ``initial_state`` is shaped like its last states."""
    check_scan(inputs, inputs.x.device)
    if initial_state is not None:
        check_state("initial_state", initial_state, inputs.A, inputs.n_sequences())
    y = inputs.new_result()
    last = y.new_empty(inputs.n_sequences(), *inputs.A.shape, dtype=torch.float32)
    _Call(inputs).forward(initial_state, y, last)
    return y, last


@torch.no_grad()
def selective_step_triton(state: Tensor, inputs: ScanInputs) -> Tensor:
    """``step`` of a ``ScanBackend``."""
    check_scan(inputs, inputs.x.device)
    check_state("state", state, inputs.A, inputs.n_sequences())
    y = inputs.new_result()
    _Call(inputs).forward(state, y, state)
    return y
