"""What the compiled CPU scan refuses, beside what every scan does."""

from recbole_m3rec.ops.cpu import library
from tests.ops.kernel_cases import needs_kernels

pytestmark = needs_kernels


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
