"""The selective scan on the CPU: the compiled library, as differentiable PyTorch operators.

The library is plain C (``csrc/scan.cpp``) called through ctypes, which gives up the interpreter's
lock meanwhile. :func:`available` tells whether it was built. ``RECBOLE_M3REC_VECTORS`` set to
``generic``, ``avx2`` or ``avx512`` makes it use these kernels, not the best the processor has.
"""

from __future__ import annotations

import ctypes
import functools
import os
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

INTERFACE = 2  # of the library; m3rec_interface() in csrc/scan.cpp
INSTRUCTION_SETS = {"auto": -1, "generic": 0, "avx2": 1, "avx512": 2}

_POINTER, _SIZE, _INT = ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int
_MATRIX = [_POINTER, _SIZE]  # a matrix and the distance of its rows
_INPUTS = [*_MATRIX, *_MATRIX, _POINTER, *_MATRIX, *_MATRIX, _POINTER]  # x, dt, A, B, C, D
_SIZES = [_SIZE, _SIZE, _SIZE, _SIZE, _INT]  # sequences, tokens, channels, states, read_last
_FUNCTIONS = {
    "m3rec_scan_forward": [*_INPUTS, _POINTER, _POINTER, *_SIZES, _POINTER, _POINTER, _INT, _INT],
    "m3rec_scan_backward": [
        *_MATRIX,
        *_INPUTS,
        _POINTER,
        _POINTER,
        *_SIZES,
        *[_POINTER] * 6,
        _INT,
        _INT,
    ],
    "m3rec_scan_step": [*_INPUTS, _POINTER, _SIZE, _SIZE, _SIZE, _POINTER, _INT, _INT],
}


@functools.cache
def _load() -> tuple[Any, str]:
    """Load the library: it and the name of its kernels, or None and the reason why not."""
    folder = Path(__file__).parent
    found = [folder / f"_selective_scan{suffix}" for suffix in EXTENSION_SUFFIXES]
    path = next((candidate for candidate in found if candidate.exists()), None)
    again = "install a C++17 compiler (gcc or clang) and then recbole_m3rec again"
    if path is None:
        return None, f"the compiled CPU scan was not built: {again}"
    try:
        library = ctypes.CDLL(str(path))
        if library.m3rec_interface() != INTERFACE:
            return None, f"{path} was built from another version of the source: {again}"
        for name, arguments in _FUNCTIONS.items():
            function = getattr(library, name)
            function.argtypes, function.restype = arguments, _INT
        library.m3rec_kernels.argtypes, library.m3rec_kernels.restype = [_INT], ctypes.c_char_p
        library.m3rec_use_openmp.argtypes, library.m3rec_use_openmp.restype = [_POINTER], None
    except (OSError, AttributeError) as problem:
        return None, f"{path} cannot be loaded ({problem}): {again}"
    name = os.environ.get("RECBOLE_M3REC_VECTORS", "auto")
    if name not in INSTRUCTION_SETS:
        names = ", ".join(INSTRUCTION_SETS)
        return None, f"RECBOLE_M3REC_VECTORS is {name!r}, expected one of {names}"
    kernels = library.m3rec_kernels(INSTRUCTION_SETS[name])
    if kernels is None:
        return None, f"RECBOLE_M3REC_VECTORS is {name!r}, which this processor does not have"
    library.m3rec_use_openmp(_openmp_of_torch())
    return library, f"{kernels.decode()} kernels"


def _openmp_of_torch() -> int | None:
    """The way into torch's own OpenMP threads, if it has some: the library shares them with torch."""
    path = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    try:
        # Looked up among the libraries that torch has loaded already, so it is torch's runtime.
        return ctypes.cast(ctypes.CDLL(str(path)).GOMP_parallel, ctypes.c_void_p).value
    except (OSError, AttributeError):
        return None


def available() -> tuple[bool, str]:
    """Tell whether the compiled scan can be used here.

    Returns:
        True and which kernels it uses, or False and the reason.
    """
    library, description = _load()
    return library is not None, description


def _library() -> Any:
    library, reason = _load()
    if library is None:
        raise RuntimeError(reason)
    return library


def _instruction_set() -> int:
    return INSTRUCTION_SETS[os.environ.get("RECBOLE_M3REC_VECTORS", "auto")]


def _check_status(status: int) -> None:
    if status == 1:
        raise ValueError(
            "cu_seqlens: expected 0, then each sequence's end, increasing, up to n_tokens"
        )
    if status == 2:
        raise MemoryError("the selective scan found no memory for its work space")
    if status != 0:
        raise RuntimeError("this processor does not have what RECBOLE_M3REC_VECTORS asks for")


def _rows(matrix: Tensor) -> Tensor:
    """The matrix itself where each of its rows is contiguous, else a contiguous copy."""
    return matrix if matrix.stride(-1) == 1 else matrix.contiguous()


def _pointers(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> list[int]:
    row = [x.data_ptr(), x.stride(0), dt.data_ptr(), dt.stride(0), A.data_ptr()]
    return [*row, B.data_ptr(), B.stride(0), C.data_ptr(), C.stride(0), D.data_ptr()]


def _forward(
    inputs: tuple[Tensor, ...],
    cu_seqlens: Tensor,
    initial_state: Tensor | None,
    read_last: bool,
    last_state: Tensor | None,
) -> Tensor:
    # These names keep possible copies alive during the call.
    x, dt, B, C = (_rows(inputs[i]) for i in (0, 1, 3, 4))
    A, D, ends = inputs[2].contiguous(), inputs[5].contiguous(), cu_seqlens.contiguous()
    n_sequences = ends.numel() - 1
    y = x.new_empty(n_sequences if read_last else x.shape[0], x.shape[1])
    status = _library().m3rec_scan_forward(
        *_pointers(x, dt, A, B, C, D),
        ends.data_ptr(),
        None if initial_state is None else initial_state.data_ptr(),
        n_sequences,
        *x.shape,
        A.shape[1],
        read_last,
        y.data_ptr(),
        None if last_state is None else last_state.data_ptr(),
        torch.get_num_threads(),
        _instruction_set(),
    )
    _check_status(status)
    return y


@torch.library.custom_op("recbole_m3rec::selective_scan", mutates_args=(), device_types="cpu")
def _scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    cu_seqlens: Tensor,
    read_last: bool,
) -> Tensor:
    return _forward((x, dt, A, B, C, D), cu_seqlens, None, read_last, None)


@_scan.register_fake
def _(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    cu_seqlens: Tensor,
    read_last: bool,
) -> Tensor:
    return x.new_empty(cu_seqlens.shape[0] - 1 if read_last else x.shape[0], x.shape[1])


@torch.library.custom_op(
    "recbole_m3rec::selective_scan_backward", mutates_args=(), device_types="cpu"
)
def _scan_backward(
    grad_y: Tensor,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    cu_seqlens: Tensor,
    read_last: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    grad_y, x, dt, B, C = (_rows(matrix) for matrix in (grad_y, x, dt, B, C))
    A, D, ends = A.contiguous(), D.contiguous(), cu_seqlens.contiguous()
    gradients = _empty_gradients(x, A, D)
    status = _library().m3rec_scan_backward(
        grad_y.data_ptr(),
        grad_y.stride(0),
        *_pointers(x, dt, A, B, C, D),
        ends.data_ptr(),
        None,
        ends.numel() - 1,
        *x.shape,
        A.shape[1],
        read_last,
        *(gradient.data_ptr() for gradient in gradients),
        torch.get_num_threads(),
        _instruction_set(),
    )
    _check_status(status)
    return gradients


def _empty_gradients(
    x: Tensor, A: Tensor, D: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    (n_tokens, d_inner), d_state = x.shape, A.shape[1]
    grad_x, grad_dt = x.new_empty(n_tokens, d_inner), x.new_empty(n_tokens, d_inner)
    grad_B, grad_C = x.new_empty(n_tokens, d_state), x.new_empty(n_tokens, d_state)
    return grad_x, grad_dt, x.new_empty(d_inner, d_state), grad_B, grad_C, x.new_empty(d_inner)


@_scan_backward.register_fake
def _(
    grad_y: Tensor,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    cu_seqlens: Tensor,
    read_last: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    return _empty_gradients(x, A, D)


def _save_inputs(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.read_last = inputs
    ctx.save_for_backward(*tensors)


def _gradients(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
    return *_scan_backward(grad_y, *ctx.saved_tensors, ctx.read_last), None, None


_scan.register_autograd(_gradients, setup_context=_save_inputs)


def _check(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, n_rows: int | None = None
) -> None:
    """Raise ValueError unless shapes and dtypes fit together."""
    if x.dim() != 2 or A.dim() != 2 or A.shape[1] == 0:
        raise ValueError(
            "x and A: expected [n, d_inner] and [d_inner, d_state], "
            f"found {list(x.shape)} and {list(A.shape)}"
        )
    (n, d_inner), d_state = x.shape, A.shape[1]
    expected: dict[str, tuple[Tensor, tuple[int, ...]]] = {
        "dt": (dt, (n, d_inner)),
        "A": (A, (d_inner, d_state)),
        "B": (B, (n, d_state)),
        "C": (C, (n, d_state)),
        "D": (D, (d_inner,)),
    }
    for name, (tensor, shape) in expected.items():
        if tensor.shape != shape:
            raise ValueError(
                f"{name}: expected shape {list(shape)} beside x {list(x.shape)} "
                f"and A {list(A.shape)}, found {list(tensor.shape)}"
            )
    for name, tensor in {"x": x, "dt": dt, "A": A, "B": B, "C": C, "D": D}.items():
        if tensor.dtype not in (torch.float32, torch.bfloat16, torch.float16):
            raise ValueError(f"{name}: expected float32, bfloat16 or float16, found {tensor.dtype}")
        if tensor.device.type != "cpu":
            raise ValueError(f"{name}: expected a tensor on the CPU, found it on {tensor.device}")


def _check_sequences(cu_seqlens: Tensor) -> None:
    if cu_seqlens.dim() != 1 or cu_seqlens.dtype != torch.int32 or cu_seqlens.shape[0] == 0:
        raise ValueError(
            "cu_seqlens: expected [n_sequences + 1] int32, "
            f"found {list(cu_seqlens.shape)} {cu_seqlens.dtype}"
        )


def selective_scan_cpu(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    cu_seqlens: Tensor,
    read_last: bool = False,
) -> Tensor:
    """Run the selective scan over packed sequences, differentiable in its floating-point inputs.

    float32 throughout; bfloat16 and float16 inputs are converted, and the result is converted back.

    Args:
        x: ``[n_tokens, d_inner]``; like ``dt``, ``B`` and ``C`` it may be a slice of the columns of
            a wider matrix, which is read in place.
        dt: step sizes after softplus, ``[n_tokens, d_inner]``.
        A: decay rates, ``[d_inner, d_state]``, usually negative.
        B: ``[n_tokens, d_state]``.
        C: ``[n_tokens, d_state]``.
        D: ``[d_inner]``.
        cu_seqlens: first token of each sequence and the total, ``[n_sequences + 1]`` int32; every
            sequence has at least one token.
        read_last: compute the result for the last token of each sequence only, which is cheaper.

    Returns:
        ``[n_tokens, d_inner]``, or ``[n_sequences, d_inner]`` with ``read_last``; dtype of ``x``.

    Raises:
        ValueError: shapes, dtypes or ``cu_seqlens`` do not fit.
        RuntimeError: the library was not built; the message says why.
    """
    _check(x, dt, A, B, C, D)
    _check_sequences(cu_seqlens)
    inputs = (tensor.float() for tensor in (x, dt, A, B, C, D))
    y: Tensor = _scan(*inputs, cu_seqlens, read_last)
    return y.to(x.dtype)


@torch.no_grad()
def selective_scan_states_cpu(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    cu_seqlens: Tensor,
    read_last: bool = False,
    initial_state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Like :func:`selective_scan_cpu`, without gradients, but return the last states as well.

    Args:
        initial_state: states before the first tokens, ``[n_sequences, d_inner, d_state]`` float32;
            None is zeros.

    Returns:
        The result, and the states after the sequences' last tokens,
        ``[n_sequences, d_inner, d_state]`` float32.
    """
    _check(x, dt, A, B, C, D)
    _check_sequences(cu_seqlens)
    shape = (cu_seqlens.numel() - 1, *A.shape)
    if initial_state is not None:
        if initial_state.shape != shape or initial_state.dtype != torch.float32:
            raise ValueError(
                f"initial_state: expected {list(shape)} float32, "
                f"found {list(initial_state.shape)} {initial_state.dtype}"
            )
        initial_state = initial_state.contiguous()
    last_state = torch.empty(shape)
    inputs = tuple(tensor.float() for tensor in (x, dt, A, B, C, D))
    y = _forward(inputs, cu_seqlens, initial_state, read_last, last_state)
    return y.to(x.dtype), last_state


@torch.no_grad()
def selective_step_cpu(
    state: Tensor, x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor
) -> Tensor:
    """Take one token per sequence on kept states, without gradients.

    Args:
        state: ``[n, d_inner, d_state]`` float32, contiguous; changed in place.
        x: ``[n, d_inner]``, and so on as in :func:`selective_scan_cpu`, a row a sequence.

    Returns:
        ``[n, d_inner]`` in the dtype of ``x``.
    """
    _check(x, dt, A, B, C, D)
    shape = (x.shape[0], *A.shape)
    if state.shape != shape or state.dtype != torch.float32 or not state.is_contiguous():
        raise ValueError(
            f"state: expected a contiguous float32 tensor {list(shape)}, "
            f"found {list(state.shape)} {state.dtype}, strides {list(state.stride())}"
        )
    x_, dt_, B_, C_ = (_rows(tensor.float()) for tensor in (x, dt, B, C))
    A_, D_ = A.float().contiguous(), D.float().contiguous()
    y = torch.empty(x.shape)
    status = _library().m3rec_scan_step(
        *_pointers(x_, dt_, A_, B_, C_, D_),
        state.data_ptr(),
        *x.shape,
        A.shape[1],
        y.data_ptr(),
        torch.get_num_threads(),
        _instruction_set(),
    )
    _check_status(status)
    return y.to(x.dtype)
