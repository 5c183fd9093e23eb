"""Triton's kernels in Triton's interpreter, compiled for a GPU, and run on one where there is one.

Each in a process of its own: Triton decides at its import how it runs kernels.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from recbole_m3rec.ops.selective_scan import backends
from recbole_m3rec.ops.triton import device

FOLDER = Path(__file__).parent
DEVICES = os.environ.get("CUDA_VISIBLE_DEVICES")  # before the common fixture hides them
needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton is not installed"
)


def run(*command, **environment):
    merged = {**os.environ, "TRITON_INTERPRET": None, **environment}
    return subprocess.run(
        [sys.executable, *command],
        cwd=FOLDER.parents[2],
        env={name: value for name, value in merged.items() if value is not None},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def check(**environment):
    files = (str(FOLDER / "triton_checks.py"), str(FOLDER.parent / "test_scan_contract.py"))
    options = ("-q", "-rs", "-p", "no:cacheprovider", "--import-mode=importlib")
    result = run("-m", "pytest", *files, *options, SCAN_OF_TEST="triton", **environment)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@needs_triton
@pytest.mark.slow
def test_the_kernels_match_float64_loops_in_the_interpreter():
    report = check(TRITON_INTERPRET="1", OMP_NUM_THREADS="1")
    assert " passed" in report
    assert "skipped" not in report


@needs_triton
@pytest.mark.gpu
def test_the_kernels_match_float64_loops_on_a_gpu():
    probe = "import torch, sys; sys.exit(not torch.cuda.is_available())"
    if run("-c", probe, CUDA_VISIBLE_DEVICES=DEVICES).returncode != 0:
        pytest.skip("no CUDA device")
    devices = {} if DEVICES is None else {"DEVICES_OF_TEST": DEVICES}
    report = check(CUDA_VISIBLE_DEVICES=DEVICES, **devices)
    assert " passed" in report
    assert "skipped" not in report


COMPILE = """
import sys
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from recbole_m3rec.ops.triton import causal_conv1d_kernels as triton_convolution_kernels
from recbole_m3rec.ops.triton import selective_scan_kernels as triton_scan_kernels

SIZES = {"CHUNK": 16, "D_CONV": 4, "BLOCK_T": 16, "BLOCK_D": 16, "BLOCK_S": 32, "BLOCK_K": 4}
PARTS = {"A", "D", "dt_bias", "initial", "last", "checkpoints", "chunk_states"}

def compile_for_a_gpu(kernel, **flags):
    signature, constants = {}, {}
    for name in kernel.arg_names:
        if name in SIZES or name in flags or name.startswith(("HAS_", "READ_", "IS_")):
            signature[name] = "constexpr"
            constants[name] = flags.get(name, SIZES.get(name, True))
        elif name.endswith("_stride") or name in ("n_tokens", "d_inner", "d_state"):
            signature[name] = "i32"
        elif name in ("cu_seqlens", "groups"):
            signature[name] = "*i32" if name == "cu_seqlens" else "*i64"
        else:
            signature[name] = "*fp32" if name in PARTS or name.startswith("part") else "*bf16"
    source = ASTSource(kernel, signature, constants)
    return triton.compile(source, target=GPUTarget("cuda", 80, 32)).asm["cubin"]

for kernel in (triton_scan_kernels.backward, triton_convolution_kernels.forward,
               triton_convolution_kernels.backward):
    assert compile_for_a_gpu(kernel)
assert compile_for_a_gpu(triton_scan_kernels.backward, HAS_BIAS=False, HAS_Z=False,
                         READ_LAST=False, dt_bias=None, z=None)
assert compile_for_a_gpu(triton_scan_kernels.forward, IS_STEP=False)
assert compile_for_a_gpu(triton_scan_kernels.forward, READ_LAST=False, cu_seqlens=None)
"""


@needs_triton
@pytest.mark.slow
def test_the_kernels_compile_for_a_gpu_without_one(tmp_path):
    import triton

    if tuple(int(part) for part in triton.__version__.split(".")[:2]) < (3, 3):
        pytest.skip(f"triton {triton.__version__} is told of constants in another way")
    result = run("-c", COMPILE, TRITON_CACHE_DIR=str(tmp_path))
    assert result.returncode == 0, result.stderr


@pytest.mark.skipif(device.interpreted(), reason="TRITON_INTERPRET is set")
def test_without_a_gpu_triton_is_absent_and_says_so(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    device.available.cache_clear()
    try:
        assert backends()["triton"].startswith("absent: there is no CUDA device")
    finally:
        device.available.cache_clear()


@pytest.mark.parametrize(("version", "usable"), [("3.1.0", False), ("3.2.0", True)])
def test_versions_that_compute_other_numbers_are_refused(version, usable, monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", SimpleNamespace(__version__=version))
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    found, reason = device.available.__wrapped__()
    assert found == usable
    assert ("too old" in reason) != usable
