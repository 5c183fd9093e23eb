"""The projectors, and that both kinds serve the network."""

import pytest
import torch

from recbole_m3rec.features.align import ItemFeatures
from recbole_m3rec.network.m3rec import M3RecNetwork
from recbole_m3rec.network.projectors import WhiteningExperts, make_projector
from recbole_m3rec.network.settings import ModelConfigError

FEATURES = torch.randn(7, 5, generator=torch.Generator().manual_seed(0))


def experts():
    torch.manual_seed(1)
    made = WhiteningExperts(5, 4, 3)
    with torch.no_grad():
        for weight in made.parameters():
            weight.normal_()
    return made


def test_whitening_experts_follow_the_definition_one_item_at_a_time():
    made = experts()
    maps, shifts = made.experts.weight.view(3, 4, 5), made.experts.bias.view(3, 4)
    for item, found in zip(FEATURES, made(FEATURES), strict=True):
        weights = torch.softmax(made.gate.weight @ item + made.gate.bias, dim=0)
        parts = [w * (m @ item + b) for w, m, b in zip(weights, maps, shifts, strict=True)]
        torch.testing.assert_close(found, sum(parts), rtol=1e-5, atol=1e-6)


def test_experts_start_with_equal_say():
    made = make_projector("moe_whitening", 5, 4, 3)
    mean = made.experts(FEATURES).view(7, 3, 4).mean(1)
    torch.testing.assert_close(made(FEATURES), mean)


@pytest.mark.parametrize("kind", ["mlp", "moe_whitening"])
def test_the_network_learns_every_weight_of_its_projector(kind):
    present = torch.ones(7, dtype=torch.bool)
    of_items = {"text": ItemFeatures("text", FEATURES, present, "print", "text")}
    torch.manual_seed(2)
    network = M3RecNetwork(7, of_items, hidden_size=8, d_state=4, projector=kind)
    network.query(torch.tensor([[1, 2, 3]]), torch.tensor([3])).square().sum().backward()
    network.item_table().square().sum().backward()
    for name, weight in network.content["text"].projector.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.abs().max() > 0, name


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"projector": "moe"}, "projector must be one of mlp, moe_whitening, found 'moe'"),
        ({"projector_experts": 0}, "projector_experts must be an integer of at least 1, found 0"),
        ({"share_mamba": "no"}, "share_mamba must be one of True, False, found 'no'"),
    ],
)
def test_a_setting_out_of_range_is_named(settings, message):
    with pytest.raises(ModelConfigError, match=message):
        M3RecNetwork(7, {}, **settings)
