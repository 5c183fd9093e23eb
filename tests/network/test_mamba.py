"""The Mamba block: packed sequences do not touch, and every way to read it agrees."""

import pytest
import torch
import torch.nn.functional as F

from recbole_m3rec.network.mamba import MambaBlock
from tests.ops.kernel_cases import both_backends, needs_kernels

HIDDEN = 8
LENGTHS = [5, 1, 3, 2, 8]
CU_SEQLENS = torch.tensor([0, *torch.tensor(LENGTHS).cumsum(0).tolist()], dtype=torch.int32)
LAST = CU_SEQLENS[1:].long() - 1


@pytest.fixture(params=[0, 3], ids="low_pass={}".format)
def make(request):
    """Return a function that makes a block, without and with a low-pass filter."""

    def made(backend="reference"):
        torch.manual_seed(3)
        block = MambaBlock(HIDDEN, d_state=4, low_pass=request.param, scan_backend=backend)
        with torch.no_grad():
            block.dt_proj.bias.add_(2.0)  # longer steps: a leak would show
            if block.low_pass is not None:
                block.low_pass.keep.normal_()
        return block

    return made


def tokens():
    return torch.randn(sum(LENGTHS), HIDDEN, generator=torch.Generator().manual_seed(4))


@both_backends
def test_packed_equals_one_sequence_at_a_time(make, backend):
    block, h = make(backend), tokens()
    alone = [
        block(part, torch.tensor([0, len(part)], dtype=torch.int32)) for part in h.split(LENGTHS)
    ]
    torch.testing.assert_close(block(h, CU_SEQLENS), torch.cat(alone), rtol=1e-5, atol=1e-6)


@both_backends
def test_last_only_has_the_results_and_gradients_of_the_last_rows(make, backend):
    block, h, found = make(backend), tokens(), []
    for last_only in (False, True):
        block.zero_grad()
        out = block(h, CU_SEQLENS, last_only)
        out = out if last_only else out[LAST]
        out.square().sum().backward()
        gradients = {name: p.grad.clone() for name, p in block.named_parameters()}
        found.append({"result": out.detach(), **gradients})
    for name, expected in found[0].items():
        close = 1e-5 * float(expected.abs().max())
        torch.testing.assert_close(found[1][name], expected, rtol=1e-4, atol=close)


@both_backends
def test_nothing_of_a_sequence_reaches_another_or_an_earlier_token(make, backend):
    block, h = make(backend), tokens()
    clean = block(h, CU_SEQLENS)
    # Within the third sequence, and from the second item of the last one on.
    for start, end in ((6, 9), (12, sum(LENGTHS))):
        others = [t for t in range(sum(LENGTHS)) if not start <= t < end]
        for poison in (float("nan"), 1e3):
            spoilt = h.clone()
            spoilt[start:end] = poison
            found = block(spoilt, CU_SEQLENS)
            torch.testing.assert_close(found[others], clean[others], rtol=1e-6, atol=1e-6)
            assert not torch.allclose(found[start:end], clean[start:end])


def test_steps_from_the_initial_state_equal_the_full_pass(make):
    block, n = make(), 7
    h = torch.randn(3, n, HIDDEN, generator=torch.Generator().manual_seed(5))
    full = block(h.flatten(0, 1), torch.arange(0, 3 * n + 1, n, dtype=torch.int32)).view_as(h)
    state = block.initial_state(3)
    for t in range(n):
        out, state = block.step(h[:, t], state)
        torch.testing.assert_close(out, full[:, t], rtol=1e-5, atol=1e-6)


@both_backends
def test_a_step_from_the_last_state_equals_the_longer_full_pass(make, backend):
    block, h = make(backend), tokens()
    more = torch.randn(2, len(LENGTHS), HIDDEN, generator=torch.Generator().manual_seed(6))
    longer = [torch.cat([part, more[:, i]]) for i, part in enumerate(h.split(LENGTHS))]
    ends = torch.tensor([len(part) for part in longer]).cumsum(0)
    full = block(torch.cat(longer), torch.tensor([0, *ends.tolist()], dtype=torch.int32))
    for last_only in (False, True):
        out, state = block.forward_with_state(h, CU_SEQLENS, last_only)
        torch.testing.assert_close(out, block(h, CU_SEQLENS, last_only), rtol=0, atol=0)
    first, state = block.step(more[0], state)
    second, _ = block.step(more[1], state)
    torch.testing.assert_close(first, full[ends - 2], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(second, full[ends - 1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("hidden_size", [8, 64])
def test_mambas_own_initialisation(hidden_size):
    torch.manual_seed(0)
    block = MambaBlock(hidden_size, d_state=6)
    dt = F.softplus(block.dt_proj.bias)
    assert dt.min() >= 1e-3 * 0.999
    assert dt.max() <= 1e-1 * 1.001
    assert dt.max() > 10 * dt.min()  # spread over the range
    assert block.dt_proj.weight.abs().max() <= block.dt_rank**-0.5
    assert block.dt_rank == -(-hidden_size // 16)
    wanted = torch.arange(1.0, 7).expand(2 * hidden_size, 6)
    torch.testing.assert_close(block.A_log.exp(), wanted)
    assert (block.D == 1).all()


def test_the_normal_initialisation_has_small_weights_and_no_step_bias():
    torch.manual_seed(0)
    block = MambaBlock(64, init="normal")
    assert (block.dt_proj.bias == 0).all()
    for layer in (block.in_proj, block.x_proj, block.dt_proj, block.out_proj):
        assert float(layer.weight.detach().std()) == pytest.approx(0.02, rel=0.15)


@needs_kernels
@pytest.mark.parametrize("last_only", [False, True])
def test_reference_and_cpu_backend_agree_in_result_and_gradients(make, last_only):
    results = []
    for backend in ("reference", "cpu"):
        block, h = make(backend), tokens().requires_grad_()
        out = block(h, CU_SEQLENS, last_only)
        out.square().sum().backward()
        named = {name: p.grad for name, p in block.named_parameters()}
        results.append({"out": out.detach(), "h": h.grad, **named})
    reference, compiled = results
    for name, wanted in reference.items():
        assert wanted is not None, name
        close = 1e-5 * float(wanted.abs().max())
        torch.testing.assert_close(compiled[name], wanted, rtol=1e-4, atol=close)
