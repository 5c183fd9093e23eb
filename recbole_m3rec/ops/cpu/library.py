"""The compiled CPU kernels: finding, loading and calling the library.

The library is plain C (``csrc/``), called through ctypes, which gives up the interpreter's lock
meanwhile. ``RECBOLE_M3REC_VECTORS`` set to ``generic``, ``avx2`` or ``avx512`` makes it use these
kernels, not the best the processor has.
"""

from __future__ import annotations

import ctypes
import functools
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from recbole_m3rec.ops.checks import UNSOUND
from recbole_m3rec.ops.cpu.compile import CompileError
from recbole_m3rec.ops.cpu.find_library import built_libraries, compiled_library

_logger = logging.getLogger(__name__)

INTERFACE = 13  # of the library; m3rec_interface() in csrc/dispatch.cpp
INSTRUCTION_SETS = {"auto": -1, "generic": 0, "avx2": 1, "avx512": 2}

_POINTER, _SIZE, _INT = ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int
_LAST = [_POINTER, _INT, _INT]  # a result, threads, instruction set
_CONVOLUTION = [_POINTER, _SIZE, _POINTER, _POINTER, _POINTER, _SIZE, _SIZE, _SIZE, _SIZE]


class ScanArguments(ctypes.Structure):
    """``ScanArguments`` of csrc/scan.cpp."""

    _fields_ = [
        *((name, _POINTER) for name in ("x", "dt", "A", "B", "C", "D", "dt_bias", "z")),
        *((name, _POINTER) for name in ("initial_state", "cu_seqlens")),
        *((name, _SIZE) for name in ("x_stride", "dt_stride", "B_stride", "C_stride", "z_stride")),
        *((name, _SIZE) for name in ("sequences", "tokens", "channels", "states")),
        *((name, _INT) for name in ("last_only", "threads", "instruction_set")),
    ]


class Network(ctypes.Structure):
    """``Network`` of csrc/kernels.h."""

    _fields_ = [
        *((name, _POINTER) for name in ("input_norms", "layers")),
        *((name, _SIZE) for name in ("layer_count", "modalities", "width", "inner")),
        *((name, _SIZE) for name in ("channels", "states", "rank", "taps", "low_pass")),
        ("has_residual", _INT),
        ("eps", ctypes.c_float),
    ]


class ByteTable(ctypes.Structure):
    """``ByteTable`` of csrc/byte_table.cpp."""

    _fields_ = [
        *((name, _POINTER) for name in ("bytes", "unit", "exact")),
        *((name, _SIZE) for name in ("rows", "depth")),
        *((name, ctypes.c_double) for name in ("error", "length")),
        ("is_half", _INT),
    ]


class Pairs(ctypes.Structure):
    """``Pairs`` of csrc/byte_table.cpp."""

    _fields_ = [*((name, _POINTER) for name in ("queries", "rows", "values")), ("count", _SIZE)]


_FUNCTIONS = {
    "m3rec_scan_forward": [_POINTER, _POINTER, _POINTER],
    "m3rec_scan_backward": [_POINTER, _POINTER, _SIZE, *[_POINTER] * 8],
    "m3rec_scan_step": [_POINTER, _POINTER, _POINTER],
    "m3rec_network_step": [*[_POINTER] * 8, _INT, _INT],
    "m3rec_convolve": [*_CONVOLUTION, _POINTER, _INT, _INT],
    "m3rec_convolve_backward": [_POINTER, _SIZE, *_CONVOLUTION, *[_POINTER] * 3, _INT, _INT],
    "m3rec_matmul_pays": [_INT],
    "m3rec_matmul": [_POINTER, _SIZE, _POINTER, _SIZE, _SIZE, _POINTER, *[_SIZE] * 3, *_LAST],
    "m3rec_matmul_backward": [_POINTER, _POINTER, *[_SIZE] * 4, _POINTER, *_LAST],
    "m3rec_byte_best": [
        *(_POINTER, _POINTER, _SIZE, _POINTER, _POINTER, _SIZE, _SIZE, _POINTER, _POINTER, *_LAST),
    ],
    "m3rec_dropout": [_POINTER, _SIZE, ctypes.c_uint64, _INT, *_LAST],
}


class LibraryError(RuntimeError):
    """A file that is no library of these kernels; says why."""


@functools.cache
def load() -> tuple[Any, str]:
    """Load the library: it and the name of its kernels, or None and the reason why not.

    It is compiled first where installing did not build it and there is a compiler.
    """
    name = os.environ.get("RECBOLE_M3REC_VECTORS", "auto")
    if name not in INSTRUCTION_SETS:
        names = ", ".join(INSTRUCTION_SETS)
        return None, f"RECBOLE_M3REC_VECTORS is {name!r}, expected one of {names}"
    try:
        library = _open_any()
    except LibraryError as error:
        _logger.warning(
            "The compiled CPU kernels are not used: %s. Plain PyTorch does the same, and trains "
            "M3Rec on a CPU 10 to 50 times slower.",
            error,
        )
        return None, f"no compiled CPU kernels: {error}"
    kernels = library.m3rec_kernels(INSTRUCTION_SETS[name])
    if kernels is None:
        return None, f"RECBOLE_M3REC_VECTORS is {name!r}, which this processor does not have"
    library.m3rec_use_openmp(openmp_of_torch())
    return library, f"{kernels.decode()} kernels"


def _open_any() -> Any:
    """Open the first library that fits: one that was built, or else one compiled at first use."""
    problems = []
    for path in built_libraries():
        try:
            return _open(path)
        except LibraryError as error:
            problems.append(str(error))
    try:
        return _open(compiled_library())
    except CompileError as error:
        built = "; ".join(problems) or "installing built none"
        raise LibraryError(
            f"{built}, and they cannot be compiled now: {error}. Install gcc or clang (C++17), or "
            "name one by the environment variable CXX"
        ) from error


def _open(path: Path) -> Any:
    try:
        library = ctypes.CDLL(str(path))
        if library.m3rec_interface() != INTERFACE:
            raise LibraryError(f"{path} was built from another version of the source")
        for name, arguments in _FUNCTIONS.items():
            function = getattr(library, name)
            function.argtypes, function.restype = arguments, _INT
        library.m3rec_kernels.argtypes, library.m3rec_kernels.restype = [_INT], ctypes.c_char_p
        library.m3rec_use_openmp.argtypes, library.m3rec_use_openmp.restype = [_POINTER], None
    except (OSError, AttributeError) as problem:
        raise LibraryError(f"{path} cannot be loaded ({problem})") from problem
    return library


def openmp_of_torch() -> int | None:
    """The way into torch's own OpenMP threads, if it has some: the library shares them with it."""
    path = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    try:
        # Looked up among what that library has loaded, so it is torch's runtime and no other.
        return ctypes.cast(ctypes.CDLL(str(path)).GOMP_parallel, ctypes.c_void_p).value
    except (OSError, AttributeError):
        return None


def assume_constant_result(function: Any) -> Any:
    """Mark a function that torch.compile need not look into.

    As ``torch.compiler.assume_constant_result``, which first imports torch's compiler for a second.
    """
    function._dynamo_marked_constant = True
    return function


@assume_constant_result
def available() -> tuple[bool, str]:
    """Tell whether the compiled kernels can be used here.

    Returns:
        True and which kernels they are, or False and the reason.
    """
    library, description = load()
    return library is not None, description


@contextmanager
def without_kernels() -> Iterator[None]:
    """Run in plain PyTorch inside, so that what runs can be traced; not for several threads."""
    global available
    original = available
    available = assume_constant_result(lambda: (False, "switched off"))
    try:
        yield
    finally:
        available = original


def check(name: str, tensor: torch.Tensor, shape: tuple[int, ...]) -> None:
    """Raise ValueError unless a tensor is float32 on the CPU and has its shape."""
    if tensor.shape != shape or tensor.dtype != torch.float32 or not tensor.is_cpu:
        raise ValueError(
            f"{name}: expected {list(shape)} float32 on the CPU, "
            f"found {list(tensor.shape)} {tensor.dtype} on {tensor.device}"
        )


def call_on_threads(function: str, *arguments: Any) -> None:
    """Call a function that takes torch's number of threads and the instruction set last."""
    call(function, *arguments, torch.get_num_threads(), instruction_set())


def call(function: str, *arguments: Any) -> None:
    """Call a function of the library and turn what it returns into an exception.

    Raises:
        RuntimeError: the library was not built; the message says why.
        ValueError: ``cu_seqlens`` does not describe the tokens, or rows are named that are none.
    """
    library, reason = load()
    if library is None:
        raise RuntimeError(reason)
    status = getattr(library, function)(*arguments)
    if status == 1:
        raise ValueError(UNSOUND)
    if status == 2:
        raise MemoryError(f"{function} found no memory for its work space")
    if status == 4:
        raise ValueError("a query or row is named that is not there")
    if status != 0:
        raise RuntimeError("this processor does not have what RECBOLE_M3REC_VECTORS asks for")


def instruction_set() -> int:
    return INSTRUCTION_SETS[os.environ.get("RECBOLE_M3REC_VECTORS", "auto")]
