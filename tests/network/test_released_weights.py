"""The authors' released program, computed once, is what the ``detached`` network must give."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from recbole_m3rec import load_released_state
from recbole_m3rec.network.packed import pack
from recbole_m3rec.network.released_weights import released_name

CASES = Path(__file__).parent / "released"


@pytest.fixture(params=["one_layer", "two_layers"])
def case(request):
    with np.load(CASES / f"{request.param}.npz") as arrays:
        return {key: arrays[key] for key in arrays}


@pytest.fixture
def network(case):
    state = {
        k.removeprefix("state/"): torch.tensor(v) for k, v in case.items() if k.startswith("state/")
    }
    return load_released_state(state)


def assert_close(found, expected, what, floor=0.0):
    assert difference(found, expected) <= max(1e-4 * magnitude(expected), floor), what


def difference(found, expected):
    return float((found.detach() - torch.as_tensor(expected)).abs().max())


def magnitude(expected):
    return float(torch.as_tensor(expected).abs().max())


def batch(case):
    return torch.tensor(case["item_seq"]), torch.tensor(case["item_seq_len"])


def test_sizes_are_read_off_the_tensors(case, network):
    config = json.loads(str(case["config"]))
    assert network.config.num_layers == config["num_layers"]
    assert network.config.hidden_size == config["hidden_size"]
    assert network.n_items == config["n_items"]
    assert network.content_modalities == ("image", "text")


def test_query_and_scores_are_the_released_ones(case, network):
    query = network.query(*batch(case))
    assert_close(query, case["seq_output"], "query")
    assert_close(query @ network.item_table().T, case["full_sort_scores"], "scores")
    items = torch.tensor(case["pos_item"])
    assert_close(network.score_items(*batch(case), items), case["predict_scores"], "predict")


def test_loss_and_every_gradient_are_the_released_ones(case, network):
    loss = network.cross_entropy(pack(*batch(case)), torch.tensor(case["pos_item"]))
    assert_close(loss, case["loss"], "loss")
    loss.backward()
    n_without = 0
    for name, parameter in network.named_parameters():
        expected = case.get(f"grad/{released_name(name)}")
        if expected is None:
            assert parameter.grad is None, f"{name} must take no gradient"
            n_without += 1
        else:
            assert parameter.grad is not None, name
            # A projector's last bias moves all scores of a history alike, which softmax ignores:
            # its gradient is 0, and what the file holds is rounding noise of the order 1e-8.
            floor = 1e-6 if name.endswith("projector.2.bias") else 0.0
            assert_close(parameter.grad, expected, name, floor)
    assert n_without == 4 + 12 * (network.config.num_layers - 1)


@pytest.mark.parametrize("rule", ["frozen", "shared"])
def test_another_gradient_rule_does_not_agree(case, network, rule):
    network.modality_gradient = rule
    network.cross_entropy(pack(*batch(case)), torch.tensor(case["pos_item"])).backward()
    assert network.input_norms["text"].weight.grad is not None
