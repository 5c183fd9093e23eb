"""Held-out items: an ID of alike items, no candidate and no gradient in training."""

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


@pytest.mark.parametrize("at_once", [2, 65_536])
def test_a_held_out_item_has_the_id_of_the_most_alike(network, at_once, monkeypatch):
    monkeypatch.setattr(untrained_items, "TRAINED_AT_ONCE", at_once)
    before = network.item_vectors()
    network.hold_out(COLD)
    after = network.item_vectors()
    features = network.content["text"].features.double()
    ids = network.item_embedding.weight.detach().double()
    for item in COLD.nonzero()[:, 0].tolist():
        alike = torch.nn.functional.cosine_similarity(features[item], features)
        alike = alike.masked_fill(COLD, -1).index_fill(0, torch.tensor(0), -1)  # nor padding
        assert torch.equal(after.sequence["id"][item].double(), ids[alike.argmax()])
    assert torch.equal(after.table[:, :HIDDEN], before.table[:, :HIDDEN])
    assert torch.equal(after.table[~COLD], before.table[~COLD])
    some = torch.tensor([3, 1, 8])
    torch.testing.assert_close(network.item_vectors(some).table, after.table[some])
    assert network.item_vectors(torch.tensor([1, 2])).table.shape == (2, 2 * HIDDEN)


def test_without_content_a_held_out_item_has_no_id():
    network = M3RecNetwork(N_ITEMS, hidden_size=HIDDEN, d_state=2)
    network.hold_out(COLD)
    assert not network.item_table()[COLD].any()


def test_a_history_with_a_held_out_item_has_a_finite_query(network):
    network.hold_out(COLD)
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
