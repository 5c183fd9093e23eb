"""Which implementation of the scan is taken, and the errors where there is none."""

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
from tests.ops.kernel_cases import both_backends, raw_scan_inputs, scan_inputs

COMPILED = ("cpu", "triton", "mamba_ssm")


def _set_available(monkeypatch, here, what):
    for name in COMPILED:
        backend = replace(scan.SCAN_BACKENDS[name], available=lambda: (here, what))
        monkeypatch.setitem(scan.SCAN_BACKENDS, name, backend)


@pytest.fixture
def _absent(monkeypatch):
    _set_available(monkeypatch, False, "not built, says the test")


@pytest.fixture
def _present(monkeypatch):
    _set_available(monkeypatch, True, "some kernels")


def test_an_unknown_backend_is_an_error_that_names_the_nearest():
    with pytest.raises(ScanBackendError, match="found 'refrence'. Did you mean reference\\?"):
        check_backend("refrence")


@pytest.mark.usefixtures("_absent")
def test_an_absent_backend_is_an_error_that_says_how_to_get_it_and_auto_does_without():
    ways = {"cpu": "C\\+\\+ compiler", "triton": "triton>=3.2", "mamba_ssm": "pip install --no-b"}
    one, ends = torch.ones(1, 1), torch.tensor([0, 1], dtype=torch.int32)
    for name, way in ways.items():
        assert backends()[name] == "absent: not built, says the test"
        refused = f"{name} is not available: not built.*{way}"
        with pytest.raises(ScanBackendError, match=refused):
            check_backend(name)
        with pytest.raises(ScanBackendError, match=refused):
            selective_scan(one, one, -one, one, one, one[0], ends, backend=name)
    check_backend("auto")
    assert choose_backend("auto", one) == "reference"
    assert backends()["reference"].startswith("available")


@pytest.mark.usefixtures("_present")
def test_auto_takes_the_kernels_where_they_fit():
    assert choose_backend("auto", torch.zeros(1)) == "cpu"
    assert choose_backend("auto", torch.zeros(1, dtype=torch.float64)) == "reference"
    assert choose_backend("reference", torch.zeros(1)) == "reference"
    assert scan._choose("cuda", False) == "triton"
    assert scan._choose("cuda", True) == "reference"
    assert choose_backend("auto", torch.zeros(1, device="meta")) == "reference"


@pytest.mark.usefixtures("_present")
@pytest.mark.parametrize("name", ["cpu", "triton", "mamba_ssm"])
def test_a_backend_of_another_device_is_an_error_that_names_both(name):
    elsewhere = torch.zeros(1, device="meta")
    home = "cpu" if name == "cpu" else "cuda"
    with pytest.raises(ScanBackendError, match=f"{name} runs on {home} tensors, found one on meta"):
        choose_backend(name, elsewhere)


@pytest.mark.usefixtures("_present")
def test_auto_logs_its_choice_once(caplog):
    scan._tell_once.cache_clear()
    with caplog.at_level(logging.INFO, logger="recbole_m3rec"):
        for _ in range(3):
            choose_backend("auto", torch.zeros(1))
            choose_backend("cpu", torch.zeros(1))
    assert [record.message for record in caplog.records] == [
        "scan_backend auto: cpu for tensors on cpu (some kernels)"
    ]


@pytest.mark.usefixtures("_absent")
def test_auto_logs_why_it_is_the_reference(caplog):
    scan._tell_once.cache_clear()
    with caplog.at_level(logging.INFO, logger="recbole_m3rec"):
        scan._choose("cuda", False)
    assert [record.message for record in caplog.records] == [
        "scan_backend auto: reference for tensors on cuda "
        "(triton is absent: not built, says the test)"
    ]


@pytest.mark.usefixtures("_present")
def test_backends_names_all_but_auto():
    assert set(backends()) == set(BACKENDS) - {"auto"}
    assert all(text.startswith("available") for text in backends().values())


@pytest.mark.parametrize("last_only", [False, True])
@pytest.mark.parametrize("gated", [False, True])
def test_options_of_the_reference_are_softplus_gate_and_last_rows(last_only, gated):
    (x, dt, A, B, C, D, dt_bias, z), cu_seqlens = raw_scan_inputs([2, 3])
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


@pytest.mark.parametrize("mixed", [False, True])
def test_the_reference_computes_short_floats_in_float32_even_under_autocast(mixed):
    tensors = [tensor.bfloat16() for tensor in raw_scan_inputs([2, 3])[0]]
    if mixed:  # as autocast leaves them: parameters and what they alone make stay float32
        tensors[2], tensors[5], tensors[6] = (tensors[i].float() for i in (2, 5, 6))
    cu_seqlens = torch.tensor([0, 2, 5], dtype=torch.int32)
    leaves = [tensor.requires_grad_() for tensor in tensors]

    def run(arguments):
        *six, dt_bias, z = arguments
        return selective_scan(*six, cu_seqlens, dt_bias=dt_bias, z=z, backend="reference")

    with torch.autocast("cpu", torch.bfloat16):
        y = run(leaves)
    expected = run([tensor.detach().float() for tensor in tensors])
    assert y.dtype == torch.bfloat16
    assert torch.equal(y, expected.bfloat16())
    gradients = torch.autograd.grad(y.sum(), leaves)
    assert [g.dtype for g in gradients] == [tensor.dtype for tensor in tensors]


@both_backends
def test_steps_from_the_states_of_a_scan_continue_it(backend):
    (*six, dt_bias, z), whole_sequence = raw_scan_inputs([7])
    x, dt, A, B, C, D = six
    whole = selective_scan(*six, whole_sequence, dt_bias=dt_bias, z=z, backend=backend)
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


@both_backends
def test_a_step_on_short_floats_is_that_of_float32(backend):
    (*six, dt_bias, z), _ = raw_scan_inputs([1, 1])
    short = [tensor.bfloat16() for tensor in (*six, dt_bias, z)]
    state = torch.ones(2, *six[2].shape)

    def run(arguments):
        *six, dt_bias, z = arguments
        return selective_step(state, *six, dt_bias=dt_bias, z=z, backend=backend)

    y, after = run(short)
    expected, expected_after = run([tensor.float() for tensor in short])
    assert torch.equal(y, expected.bfloat16())
    assert torch.equal(after, expected_after)


@both_backends
@pytest.mark.parametrize("ends", [[1, 3], [0, 2], [0, 4], [0, 3, 2, 3], [0, 1, 1, 3]])
def test_unsound_sequences_are_refused(backend, ends):
    tensors, _ = scan_inputs([3])
    with pytest.raises(ValueError, match="cu_seqlens: expected 0"):
        selective_scan(*tensors, torch.tensor(ends, dtype=torch.int32), backend=backend)


@both_backends
def test_no_channels_give_no_columns(backend):
    (*six, _, _), ends = raw_scan_inputs([2, 1], d_inner=0)
    y, state = selective_scan_states(*six, ends, backend=backend)
    stepped, _ = selective_step(torch.zeros(3, 0, 8), *six, backend=backend)
    assert y.shape == stepped.shape == (3, 0)
    assert state.shape == (2, 0, 8)
