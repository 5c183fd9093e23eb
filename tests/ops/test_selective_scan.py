"""Which implementation of the scan is taken, and the errors where there is none."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest
import torch

from recbole_m3rec.ops import selective_scan as scan
from recbole_m3rec.ops.selective_scan import (
    BACKENDS,
    ScanBackendError,
    backends,
    check_backend,
    choose_backend,
    selective_scan,
    selective_scan_states,
    selective_step,
)

COMPILED = ("cpu", "triton", "mamba_ssm")


def _set_available(monkeypatch: pytest.MonkeyPatch, here: bool, what: str) -> None:
    for name in COMPILED:
        backend = replace(scan.SCAN_BACKENDS[name], available=lambda: (here, what))
        monkeypatch.setitem(scan.SCAN_BACKENDS, name, backend)


@pytest.fixture
def _absent(monkeypatch: pytest.MonkeyPatch) -> None:
    _set_available(monkeypatch, False, "not built, says the test")


@pytest.fixture
def _present(monkeypatch: pytest.MonkeyPatch) -> None:
    _set_available(monkeypatch, True, "some kernels")


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
@pytest.mark.parametrize(
    ("name", "way"),
    [
        ("cpu", "C\\+\\+ compiler"),
        ("triton", "triton>=3.2"),
        ("mamba_ssm", "pip install --no-build-isolation"),
    ],
)
def test_the_error_on_an_absent_backend_says_how_to_get_it(name: str, way: str) -> None:
    with pytest.raises(ScanBackendError, match=f"{name} is not available: not built.*{way}"):
        check_backend(name)


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
    assert scan._choose("cuda", False) == "triton"
    assert scan._choose("cuda", True) == "reference"
    assert choose_backend("auto", torch.zeros(1, device="meta")) == "reference"


@pytest.mark.usefixtures("_present")
@pytest.mark.parametrize("name", ["cpu", "triton", "mamba_ssm"])
def test_a_backend_of_another_device_is_an_error_that_names_both(name: str) -> None:
    elsewhere = torch.zeros(1, device="meta")
    home = "cpu" if name == "cpu" else "cuda"
    with pytest.raises(ScanBackendError, match=f"{name} runs on {home} tensors, found one on meta"):
        choose_backend(name, elsewhere)


@pytest.mark.usefixtures("_present")
def test_auto_logs_its_choice_once(caplog: pytest.LogCaptureFixture) -> None:
    scan._tell_once.cache_clear()
    with caplog.at_level(logging.INFO, logger="recbole_m3rec"):
        for _ in range(3):
            choose_backend("auto", torch.zeros(1))
            choose_backend("cpu", torch.zeros(1))
    assert [record.message for record in caplog.records] == [
        "scan_backend auto: cpu for tensors on cpu (some kernels)"
    ]


@pytest.mark.usefixtures("_absent")
def test_auto_logs_why_it_is_the_reference(caplog: pytest.LogCaptureFixture) -> None:
    scan._tell_once.cache_clear()
    with caplog.at_level(logging.INFO, logger="recbole_m3rec"):
        scan._choose("cuda", False)
    assert [record.message for record in caplog.records] == [
        "scan_backend auto: reference for tensors on cuda "
        "(triton is absent: not built, says the test)"
    ]


@pytest.mark.usefixtures("_present")
def test_backends_names_all_but_auto() -> None:
    assert set(backends()) == set(BACKENDS) - {"auto"}
    assert all(text.startswith("available") for text in backends().values())


@pytest.mark.usefixtures("_absent")
def test_backends_says_why_one_is_absent() -> None:
    for name in ("cpu", "triton", "mamba_ssm"):
        assert backends()[name] == "absent: not built, says the test"
    assert backends()["reference"].startswith("available")


@pytest.mark.parametrize("last_only", [False, True])
@pytest.mark.parametrize("gated", [False, True])
def test_options_of_the_reference_are_softplus_gate_and_last_rows(
    last_only: bool, gated: bool
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
    rows = [1, 4] if last_only else [0, 1, 2, 3, 4]
    y = selective_scan(
        *(x, dt, A, B, C, D, cu_seqlens),
        last_only=last_only,
        dt_bias=dt_bias,
        z=z[rows] if gated else None,
        backend="reference",
    )
    torch.testing.assert_close(y, expected[rows])


def inputs(n: int) -> list[torch.Tensor]:
    """x, dt, A, B, C, D, dt_bias, z of ``n`` tokens."""
    random = torch.Generator().manual_seed(0)
    x, dt, z = torch.randn(3, n, 4, generator=random)
    B, C = torch.randn(2, n, 3, generator=random)
    A, (D, bias) = -torch.rand(4, 3, generator=random), torch.randn(2, 4, generator=random)
    return [x, dt, A, B, C, D, bias, z]


@pytest.mark.parametrize("mixed", [False, True])
def test_the_reference_computes_short_floats_in_float32_even_under_autocast(mixed: bool) -> None:
    tensors = [tensor.bfloat16() for tensor in inputs(5)]
    if mixed:  # as autocast leaves them: parameters and what they alone make stay float32
        tensors[2], tensors[5], tensors[6] = (tensors[i].float() for i in (2, 5, 6))
    cu_seqlens = torch.tensor([0, 2, 5], dtype=torch.int32)
    leaves = [tensor.requires_grad_() for tensor in tensors]

    def run(arguments: list[torch.Tensor]) -> torch.Tensor:
        *six, dt_bias, z = arguments
        return selective_scan(*six, cu_seqlens, dt_bias=dt_bias, z=z, backend="reference")

    with torch.autocast("cpu", torch.bfloat16):
        y = run(leaves)
    expected = run([tensor.detach().float() for tensor in tensors])
    assert y.dtype == torch.bfloat16
    assert torch.equal(y, expected.bfloat16())
    gradients = torch.autograd.grad(y.sum(), leaves)
    assert [g.dtype for g in gradients] == [tensor.dtype for tensor in tensors]


BOTH = pytest.mark.parametrize(
    "backend",
    [
        "reference",
        pytest.param(
            "cpu",
            marks=pytest.mark.skipif(
                not scan.SCAN_BACKENDS["cpu"].available()[0], reason="kernels not built"
            ),
        ),
    ],
)


@BOTH
def test_steps_from_the_states_of_a_scan_continue_it(backend: str) -> None:
    *six, dt_bias, z = inputs(7)
    x, dt, A, B, C, D = six
    whole = selective_scan(
        *six, torch.tensor([0, 7], dtype=torch.int32), dt_bias=dt_bias, z=z, backend=backend
    )
    head = torch.tensor([0, 4], dtype=torch.int32)
    options = {"dt_bias": dt_bias, "backend": backend}
    y, state = selective_scan_states(x[:4], dt[:4], A, B[:4], C[:4], D, head, z=z[:4], **options)
    torch.testing.assert_close(y, whole[:4], rtol=1e-5, atol=1e-6)
    for t in range(4, 7):
        now, before = slice(t, t + 1), state.clone()
        y, after = selective_step(state, x[now], dt[now], A, B[now], C[now], D, z=z[now], **options)
        torch.testing.assert_close(y, whole[now], rtol=1e-5, atol=1e-6)
        assert torch.equal(state, before)  # the old state can be stepped from again
        state = after
