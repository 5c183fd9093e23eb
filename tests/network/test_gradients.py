"""What teaches what: the three gradient rules, and windows against prefixes."""

import pytest
import torch

from recbole_m3rec.features.align import ItemFeatures
from recbole_m3rec.network.m3rec import M3RecNetwork
from recbole_m3rec.network.packed import PackedSequences, pack

N_ITEMS, HIDDEN = 10, 8
HISTORIES = torch.tensor([[1, 2, 3, 4, 5], [6, 8, 0, 0, 0], [7, 4, 9, 1, 0]])
LENGTHS = torch.tensor([5, 2, 4])


def make(names=("image", "text"), rule="frozen", **more):
    random = torch.Generator().manual_seed(1)
    features = {}
    for name in names:
        values = torch.randn(N_ITEMS, 6, generator=random)
        present = torch.ones(N_ITEMS, dtype=torch.bool)
        present[4] = False
        features[name] = ItemFeatures(name, values, present, name, name)
    torch.manual_seed(0)
    settings = {"hidden_size": HIDDEN, "d_state": 4, "dropout_prob": 0.0, **more}
    return M3RecNetwork(N_ITEMS, features, modality_gradient=rule, **settings)


def gradients_of(network, value):
    """Gradients by parameter, of those that got one other than zeros."""
    network.zero_grad()
    value.backward()
    named = network.named_parameters()
    return {n: p.grad.clone() for n, p in named if p.grad is not None and p.grad.abs().max() > 0}


def of_text_sequences(rule):
    """Parameters that the text block of the query teaches."""
    network = make(rule=rule)
    query = network.query(HISTORIES, LENGTHS)[:, HIDDEN : 2 * HIDDEN]
    weights = torch.randn(query.shape, generator=torch.Generator().manual_seed(2))
    return set(gradients_of(network, (query * weights).sum()))


def named(*parts):
    return {n for n, _ in make().named_parameters() if any(part in n for part in parts)}


EXPERT = ("experts.text",)
FUSION = ("content.text.weight",)
BEFORE = ("content.text.projector", "content.text.missing", "input_norms.text")


# Frozen, the shared block learns nothing of text, and what lies before it does, through the block;
# detached, nothing before the last expert learns.
TAUGHT = {
    "frozen": (*EXPERT, *FUSION, *BEFORE),
    "detached": ("layers.1.experts.text", *FUSION),
    "shared": (*EXPERT, *FUSION, *BEFORE, ".shared."),
}


@pytest.mark.parametrize("rule", TAUGHT)
def test_a_rule_says_what_the_text_side_teaches(rule):
    assert of_text_sequences(rule) == named(*TAUGHT[rule])


@pytest.mark.parametrize("rule", ["frozen", "detached", "shared"])
def test_the_id_sequence_teaches_the_shared_block_under_every_rule(rule):
    network = make(rule=rule)
    query = network.query(HISTORIES, LENGTHS)[:, 2 * HIDDEN :]
    weights = torch.randn(query.shape, generator=torch.Generator().manual_seed(2))
    taught = set(gradients_of(network, (query * weights).sum()))
    assert taught == named("item_embedding", "input_norms.id", "experts.id", ".shared.")


@pytest.mark.parametrize("rule", ["frozen", "detached", "shared"])
def test_the_table_teaches_projectors_under_every_rule(rule):
    network = make(rule=rule)
    taught = set(gradients_of(network, network.item_table().square().sum()))
    parts = ("item_embedding", "projector", "content.image.weight", "content.text.weight")
    assert taught == named(*parts)


def test_the_rules_differ_in_gradients_and_not_in_values():
    queries = [
        make(rule=rule).query(HISTORIES, LENGTHS) for rule in ("frozen", "detached", "shared")
    ]
    assert torch.allclose(queries[0], queries[1], atol=1e-6)
    assert torch.allclose(queries[0], queries[2], atol=1e-6)


@pytest.mark.parametrize("loss", ["CE", "BPR"])
@pytest.mark.parametrize("rule", ["frozen", "detached", "shared"])
@pytest.mark.parametrize("num_layers", [1, 2])
def test_all_positions_have_the_summed_loss_and_gradient_of_their_prefixes(loss, rule, num_layers):
    """Inputs are all items of a history but the newest; their successors are the targets."""
    network = make(rule=rule, num_layers=num_layers)
    inputs, targets = pack(HISTORIES, LENGTHS - 1), pack(HISTORIES[:, 1:], LENGTHS - 1).values
    negatives = (targets + 3) % N_ITEMS

    def summed(rows, scored):
        if loss == "CE":
            return network.cross_entropy(rows, targets, scored) * len(targets)
        return network.bpr(rows, targets, negatives, scored) * len(targets)

    prefixes = [
        history[:length]
        for history, n in zip(HISTORIES, LENGTHS.tolist(), strict=True)
        for length in range(1, n)
    ]
    ends = torch.tensor([len(prefix) for prefix in prefixes]).cumsum(0)
    packed = PackedSequences(
        torch.cat(prefixes), torch.tensor([0, *ends.tolist()], dtype=torch.int32)
    )
    by_window = summed(inputs, torch.arange(len(targets)))
    by_prefix = summed(packed, None)
    assert float(by_window.detach()) == pytest.approx(float(by_prefix.detach()), rel=1e-5)
    windows, expected = gradients_of(network, by_window), gradients_of(network, by_prefix)
    assert windows.keys() == expected.keys()
    scale = max(float(gradient.abs().max()) for gradient in expected.values())
    for name, gradient in expected.items():
        difference = float((windows[name] - gradient).abs().max())
        assert difference <= 1e-5 * scale, f"{name}: {difference}"


def test_a_block_of_its_own_learns_from_its_modality_alone():
    network = make(rule="frozen", share_mamba=False)
    query = network.query(HISTORIES, LENGTHS)
    own = {name for name, _ in network.named_parameters() if ".own." in name}
    of_text = {name for name in own if ".own.text." in name}
    assert of_text
    assert of_text < own  # the image has blocks too
    block = query[:, HIDDEN : 2 * HIDDEN]
    weights = torch.randn(block.shape, generator=torch.Generator().manual_seed(2))
    taught = gradients_of(network, (block * weights).sum())
    assert of_text == {name for name in taught if "mamba" in name or "own" in name}


def test_blocks_of_their_own_compute_what_shared_ones_would():
    shared, apart = make(), make(share_mamba=False)
    weights = shared.state_dict()
    for name in apart.state_dict():
        if ".own." in name:
            at, rest = name.split(".own.")
            weights[name] = weights[f"{at}.shared.{rest.split('.', 1)[1]}"]
    apart.load_state_dict(weights)
    expected = shared.query(HISTORIES, LENGTHS)
    torch.testing.assert_close(apart.query(HISTORIES, LENGTHS), expected, rtol=1e-6, atol=1e-7)


def test_one_expert_serves_every_modality():
    several, one = make(), make(share_experts=True)
    for layer in one.layers:
        assert len({id(expert) for expert in layer.experts.values()}) == 1
    n_saved = sum(p.numel() for p in several.layers[0].experts["text"].parameters()) * 2 * 2
    count = [sum(p.numel() for p in network.parameters()) for network in (several, one)]
    assert count[0] - count[1] == n_saved
    of_text = one.query(HISTORIES, LENGTHS)[:, HIDDEN : 2 * HIDDEN].square().sum()
    assert any("experts" in name for name in gradients_of(one, of_text))
