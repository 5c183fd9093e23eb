"""Which implementation of the scan is taken, and the errors where there is none."""

from __future__ import annotations

import pytest
import torch

from recbole_m3rec.mamba import BACKENDS, ScanBackendError, backends, check_backend, cpu, scan
from recbole_m3rec.mamba.scan import choose_backend, selective_scan


@pytest.fixture
def _absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "available", lambda: (False, "not built, says the test"))


@pytest.fixture
def _present(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "available", lambda: (True, "some kernels"))


def test_an_unknown_backend_is_an_error_that_names_the_nearest() -> None:
    with pytest.raises(ScanBackendError, match="found 'refrence'. Did you mean reference\\?"):
        check_backend("refrence")


def test_a_name_like_no_backend_gets_no_guess() -> None:
    with pytest.raises(ScanBackendError, match="one of auto, reference, cpu") as caught:
        check_backend("zzz")
    assert "Did you mean" not in str(caught.value)


@pytest.mark.usefixtures("_absent")
def test_the_cpu_backend_where_it_was_not_built_is_an_error_with_the_reason() -> None:
    with pytest.raises(ScanBackendError, match=r"cpu is not available.*not built, says the test"):
        check_backend("cpu")


@pytest.mark.usefixtures("_absent")
def test_selective_scan_refuses_an_absent_backend_too() -> None:
    one = torch.ones(1, 1)
    with pytest.raises(ScanBackendError, match="cpu is not available"):
        selective_scan(
            *(one, one, -one, one, one, one[0]),
            torch.tensor([0, 1], dtype=torch.int32),
            backend="cpu",
        )


@pytest.mark.usefixtures("_absent")
def test_auto_without_kernels_is_the_reference() -> None:
    assert choose_backend("auto", torch.zeros(1)) == "reference"
    check_backend("auto")


@pytest.mark.usefixtures("_present")
def test_auto_takes_the_kernels_where_they_fit() -> None:
    assert choose_backend("auto", torch.zeros(1)) == "cpu"
    assert choose_backend("auto", torch.zeros(1, dtype=torch.float64)) == "reference"
    assert choose_backend("reference", torch.zeros(1)) == "reference"


@pytest.mark.usefixtures("_present")
def test_backends_names_all_but_auto() -> None:
    assert set(backends()) == set(BACKENDS) - {"auto"}
    assert all(text.startswith("available") for text in backends().values())


@pytest.mark.usefixtures("_absent")
def test_backends_says_why_one_is_absent() -> None:
    assert backends()["cpu"] == "absent: not built, says the test"
    assert backends()["reference"].startswith("available")


@pytest.mark.parametrize("read_last", [False, True])
@pytest.mark.parametrize("gated", [False, True])
def test_options_of_the_reference_are_softplus_gate_and_last_rows(
    read_last: bool, gated: bool
) -> None:
    random = torch.Generator().manual_seed(0)
    cu_seqlens = torch.tensor([0, 2, 5], dtype=torch.int32)
    x, dt, z = torch.randn(3, 5, 4, generator=random)
    B, C = torch.randn(2, 5, 3, generator=random)
    A, (D, dt_bias) = -torch.rand(4, 3, generator=random), torch.randn(2, 4, generator=random)
    step = torch.nn.functional.softplus(dt + dt_bias)
    expected, _ = scan.selective_scan_reference(x, step, A, B, C, D, cu_seqlens)
    if gated:
        expected = expected * torch.nn.functional.silu(z)
    rows = [1, 4] if read_last else [0, 1, 2, 3, 4]
    y = selective_scan(
        *(x, dt, A, B, C, D, cu_seqlens),
        read_last=read_last,
        dt_bias=dt_bias,
        z=z[rows] if gated else None,
        backend="reference",
    )
    torch.testing.assert_close(y, expected[rows])
