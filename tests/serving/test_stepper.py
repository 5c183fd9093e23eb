"""A step by the compiled kernels equals the network's own modules in float64."""

import copy
import itertools

import pytest
import torch

from recbole_m3rec.network import mamba
from recbole_m3rec.network.item_encoder import ItemVectors
from recbole_m3rec.network.m3rec import M3RecNetwork
from recbole_m3rec.network.mamba import MambaState
from recbole_m3rec.network.packed import PackedSequences
from recbole_m3rec.ops.cpu import library
from recbole_m3rec.serving.stepper import Stepper
from tests.ops.conftest import kernels, threads  # noqa: F401
from tests.ops.kernel_cases import needs_kernels, randn
from tests.serving.conftest import made_features

N_ITEMS = 30
SETTINGS = {
    "two layers": {"hidden_size": 64},
    "so wide that threads share it": {"hidden_size": 272, "d_state": 4},
    "one layer has no residual": {"hidden_size": 16, "num_layers": 1, "d_state": 5},
    "odd sizes": {"hidden_size": 19, "d_state": 3, "d_conv": 2, "expand": 3, "num_layers": 3},
    "no window": {"hidden_size": 7, "d_conv": 1, "expand": 1, "d_state": 1},
    "own blocks": {"hidden_size": 20, "share_mamba": False},
    "one expert": {"hidden_size": 8, "share_experts": True, "score": "cosine"},
    "no content": {"hidden_size": 33, "modalities": 0},
    "low pass": {"hidden_size": 21, "low_pass": 4},
    "low pass of one item": {"hidden_size": 16, "low_pass": 1, "num_layers": 1},
}


def made(modalities=2, **settings):
    """A network whose weights all matter, a token, and a state."""
    torch.manual_seed(0)
    features = dict(itertools.islice(made_features(N_ITEMS).items(), modalities))
    network = M3RecNetwork(N_ITEMS + 1, features, **settings).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    sizes = network.layers[0].shared.mamba.initial_state(modalities + 1)
    state = randn(*((len(network.layers), *kept.shape) for kept in sizes), seed=1)
    state[2][..., -1] = torch.arange(state[2].shape[2]) > 0  # no oldest item yet
    tokens = randn((modalities + 1, network.config.hidden_size), seed=2)[0]
    return network, tokens, MambaState(*state)


def step(network, tokens, state):
    query, after = Stepper(network).step(
        dict(zip(network.modalities, tokens.split(1), strict=True)), state
    )
    return [query, *after]


@needs_kernels
@pytest.mark.parametrize("name", SETTINGS)
def test_a_step_equals_the_modules_in_float64(kernels, threads, name):  # noqa: F811
    network, tokens, state = made(**SETTINGS[name])
    double = copy.deepcopy(network).double()
    expected = step(double, tokens.double(), MambaState(*(kept.double() for kept in state)))
    torch.set_num_threads(2)
    before = [kept.clone() for kept in state]
    for found, want in zip(step(network, tokens, state), expected, strict=True):
        torch.testing.assert_close(found.double(), want, rtol=1e-5, atol=5e-6)
    assert all(map(torch.equal, state, before))


@pytest.mark.parametrize("name", ["two layers", "own blocks", "low pass"])
def test_a_history_is_read_in_one_scan_a_layer_and_run(monkeypatch, name):
    network, tokens, _ = made(**SETTINGS[name])
    scans = []
    for function in ("selective_scan", "selective_scan_states"):
        run = getattr(mamba, function)
        counted = lambda *inputs, run=run, **more: scans.append(1) or run(*inputs, **more)  # noqa: E731
        monkeypatch.setattr(mamba, function, counted)
    sequence = dict(zip(network.modalities, tokens[:, None].expand(-1, 5, -1), strict=True))
    query, _ = Stepper(network).read(sequence)
    assert len(scans) == len(network.layers) * len(network._runs())
    rows = PackedSequences(torch.arange(5), torch.tensor([0, 5], dtype=torch.int32))
    expected = network.encode(rows, ItemVectors(sequence, torch.empty(0)))
    torch.testing.assert_close(query, expected, rtol=0, atol=0)


def test_without_kernels_a_step_is_the_same(monkeypatch):
    network, tokens, state = made(**SETTINGS["odd sizes"])
    found = step(network, tokens, state)
    with library.without_kernels():
        for one, other in zip(step(network, tokens, state), found, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@needs_kernels
def test_a_state_of_other_sizes_is_refused():
    network, tokens, state = made(**SETTINGS["two layers"])
    with pytest.raises(ValueError, match=r"window: expected \[2, 3, 128, 3\] float32"):
        step(network, tokens, state._replace(window=state.window[:, :2]))
