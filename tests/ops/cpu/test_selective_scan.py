"""What the compiled CPU scan refuses, beside what every scan does."""

import pytest
import torch

from recbole_m3rec.ops.cpu import library
from tests.ops.kernel_cases import compiled_scan, needs_kernels, scan_inputs

pytestmark = needs_kernels


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
