"""Held-out items: an ID of alike items, no candidate and no gradient in training."""

import math

import pytest
import torch

from recbole_m3rec.features.align import ItemFeatures
from recbole_m3rec.network import untrained_items
from recbole_m3rec.network.m3rec import M3RecNetwork
from recbole_m3rec.network.packed import PackedSequences

N_ITEMS, HIDDEN = 9, 4
COLD = torch.tensor([item in (3, 8) for item in range(N_ITEMS)])
HISTORIES = PackedSequences(
    torch.tensor([1, 2, 4, 5, 1, 7]), torch.tensor([0, 4, 6], dtype=torch.int32)
)
TARGETS = torch.tensor([6, 4])


@pytest.fixture
def network():
    torch.manual_seed(0)
    values = torch.randn(N_ITEMS, 5)
    present = torch.ones(N_ITEMS, dtype=torch.bool)
    text = ItemFeatures("text", values, present, "fingerprint", "text")
    return M3RecNetwork(
        N_ITEMS, {"text": text}, hidden_size=HIDDEN, d_state=2, dropout_prob=0.0, num_layers=1
    )


def cosines(x, item):
    return torch.nn.functional.cosine_similarity(x[item], x).tolist()


@pytest.mark.parametrize("at_once", [2, 65_536])
def test_a_held_out_item_has_a_mean_id_of_the_most_alike(network, at_once, monkeypatch):
    monkeypatch.setattr(untrained_items, "TRAINED_AT_ONCE", at_once)
    monkeypatch.setattr(untrained_items, "N_LENDERS", 2)
    network.eval()
    before = network.item_vectors()
    network.hold_out(COLD)
    after = network.item_vectors()
    features = network.content["text"].features.double()
    projected = before.sequence["text"].detach().double()
    ids = network.item_embedding.weight.detach().double()
    for item in COLD.nonzero()[:, 0].tolist():
        by_features, by_model = cosines(features, item), cosines(projected, item)
        alike = {
            other: (by_features[other] + by_model[other]) / 2
            for other in range(1, N_ITEMS)  # not padding
            if not COLD[other] and by_features[other] > 0
        }
        first, second = sorted(alike, key=lambda other: -alike[other])[:2]
        weight = 1 / (1 + math.exp((alike[second] - alike[first]) / 0.1))
        expected = weight * ids[first] + (1 - weight) * ids[second]
        found = after.sequence["id"][item].double()
        torch.testing.assert_close(found, expected, atol=1e-3 * ids.norm(), rtol=0)
    assert torch.equal(after.table[:, :HIDDEN], before.table[:, :HIDDEN])
    assert torch.equal(after.table[~COLD], before.table[~COLD])
    some = torch.tensor([3, 1, 8])
    torch.testing.assert_close(network.item_vectors(some).table, after.table[some])
    assert network.item_vectors(torch.tensor([1, 2])).table.shape == (2, 2 * HIDDEN)


def test_likeness_follows_the_weights(network):
    network.eval()
    network.hold_out(COLD)
    before = network.item_vectors().sequence["id"]
    for parameter in network.content["text"].projector.parameters():
        parameter.data.uniform_(-1, 1)
    after = network.item_vectors().sequence["id"]
    assert (after[COLD] != before[COLD]).any(1).all()
    assert torch.equal(after[~COLD], before[~COLD])


def test_in_training_a_held_out_item_has_no_id(network):
    network.hold_out(COLD)
    assert not network.train().item_vectors().sequence["id"][COLD].any()


def test_of_equally_near_items_the_lowest_come_first():
    vectors = torch.tensor([[9.0, 9], [1, 0], [2, 0], [2, 0], [-1, 0], [2, 0]])
    candidates = torch.tensor([1, 2, 3, 4, 5])
    found, product = untrained_items.nearest(
        torch.tensor([[1.0, 0]]), lambda items: vectors[items], candidates, 5
    )
    assert found.tolist() == [[2, 3, 5, 1, 0]]
    assert product.tolist() == [[2, 2, 2, 1, 0]]


def test_without_content_a_held_out_item_has_no_id():
    network = M3RecNetwork(N_ITEMS, hidden_size=HIDDEN, d_state=2)
    network.eval().hold_out(COLD)
    assert not network.item_table()[COLD].any()


def test_a_history_with_a_held_out_item_has_a_finite_query(network):
    network.eval().hold_out(COLD)
    query = network.query(torch.tensor([[3, 8, 0], [3, 1, 2]]), torch.tensor([2, 3]))
    assert query.isfinite().all()


def test_training_leaves_held_out_items_out_of_the_softmax(network):
    vectors = network.item_vectors()
    logits = network.encode(HISTORIES, vectors) @ vectors.table.T
    expected = torch.nn.functional.cross_entropy(logits.masked_fill(COLD, -torch.inf), TARGETS)
    network.hold_out(COLD)
    loss = network.cross_entropy(HISTORIES, TARGETS)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    gradient = network.item_embedding.weight.grad
    assert gradient is not None
    assert not gradient[COLD].any()
    assert gradient[~COLD].abs().sum(1).min() > 0


def test_weights_keep_their_names(network):
    names = list(network.state_dict())
    network.hold_out(COLD)
    assert list(network.state_dict()) == names
