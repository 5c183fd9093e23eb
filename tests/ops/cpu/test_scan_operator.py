"""The compiled CPU scan as an operator of torch: its rules, and what it refuses."""

import pytest
import torch

from recbole_m3rec.ops.cpu import library, selective_scan
from recbole_m3rec.ops.scan_inputs import ScanInputs
from tests.ops.kernel_cases import NAMES, compiled_scan, needs_kernels, scan_inputs

pytestmark = needs_kernels


def test_torch_compile_takes_it_whole():
    tensors, ends = scan_inputs([5, 2, 9], 4, 3)
    leaves = [tensor.requires_grad_() for tensor in tensors]
    whole = torch.compile(compiled_scan, backend="aot_eager", fullgraph=True)
    results = []
    for function in (whole, compiled_scan):
        y = function(leaves, ends)
        results.append([y, *torch.autograd.grad(y.square().sum(), leaves)])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_unsound_sequences_are_refused():
    tensors, _ = scan_inputs([17])
    early, beyond, late, empty, back = (
        [0, 5, 16],
        [0, 5, 18],
        [1, 5, 17],
        [0, 5, 5, 17],
        [0, 9, 5, 17],
    )
    for ends in (early, beyond, late, empty, back):
        with pytest.raises(ValueError, match="cu_seqlens"):
            compiled_scan(tensors, torch.tensor(ends, dtype=torch.int32))


def test_wrong_shapes_and_dtypes_are_refused_by_name():
    tensors, ends = scan_inputs([17])
    for i, name in enumerate(NAMES):
        cut = [tensor[:-1] if j == i else tensor for j, tensor in enumerate(tensors)]
        with pytest.raises(ValueError, match="expected" if name == "x" else f"^{name}: expected"):
            compiled_scan(cut, ends)
        whole = [tensor.double() if j == i else tensor for j, tensor in enumerate(tensors)]
        with pytest.raises(ValueError, match=f"^{name}: expected float32"):
            compiled_scan(whole, ends)
    with pytest.raises(ValueError, match="^cu_seqlens: expected .* int32"):
        compiled_scan(tensors, ends.long())
    with pytest.raises(ValueError, match="^dt_bias: expected"):
        selective_scan.selective_scan_cpu(ScanInputs(*tensors, ends, dt_bias=torch.zeros(3)))
    with pytest.raises(ValueError, match="^z: expected"):
        selective_scan.selective_scan_cpu(ScanInputs(*tensors, ends, True, z=tensors[0]))
    with pytest.raises(ValueError, match="^state: expected"):
        selective_scan.selective_step_cpu(torch.zeros(17, 8, 37), ScanInputs(*tensors))
    with pytest.raises(ValueError, match="^initial_state: expected"):
        selective_scan.selective_scan_states_cpu(
            ScanInputs(*tensors, ends), initial_state=torch.zeros(2, 37, 8)
        )


def test_an_unknown_instruction_set_is_named(monkeypatch):
    monkeypatch.setenv("RECBOLE_M3REC_VECTORS", "mmx")
    library.load.cache_clear()
    try:
        usable, reason = library.available()
    finally:
        library.load.cache_clear()
    assert not usable
    assert "'mmx'" in reason
    assert "avx2" in reason
