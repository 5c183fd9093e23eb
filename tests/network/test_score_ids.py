"""Scores by ID vectors of their own, or offset from those that histories read."""

import pytest
import torch
import torch.nn.functional as F

from recbole_m3rec.features.align import ItemFeatures
from recbole_m3rec.network.m3rec import M3RecNetwork
from recbole_m3rec.network.packed import pack

N_ITEMS = 12
HISTORIES = torch.tensor([[3, 1, 4], [5, 9, 0]]), torch.tensor([3, 2])
TARGETS = torch.tensor([1, 7])


def network(score_ids, **settings):
    torch.manual_seed(1)
    values = torch.randn(N_ITEMS, 6, generator=torch.Generator().manual_seed(2))
    text = ItemFeatures("text", values, torch.ones(N_ITEMS, dtype=torch.bool), "", "")
    settings = {"hidden_size": 8, "d_state": 4, "dropout_prob": 0.0, **settings}
    return M3RecNetwork(N_ITEMS, {"text": text}, score_ids=score_ids, **settings)


@pytest.fixture(params=["dot", "cosine"])
def score(request):
    return request.param


@pytest.fixture(params=["offset", "own"])
def score_ids(request):
    return request.param


@pytest.mark.parametrize("id_init", ["normal", "content"])
def test_scores_are_the_same_before_training(score, score_ids, id_init):
    same, other = (network(which, score=score, id_init=id_init) for which in ("same", score_ids))
    other.load_state_dict(same.state_dict(), strict=False)
    assert torch.equal(other(*HISTORIES), same(*HISTORIES))


@pytest.mark.parametrize("softmax_items", ["all", 4])
def test_histories_read_one_table_and_scores_another(score, score_ids, softmax_items):
    other = network(score_ids, score=score, softmax_items=softmax_items).double()
    other.count_targets(torch.arange(1, N_ITEMS))
    with torch.no_grad():
        other.score_embedding.weight.normal_()
    reading, scoring = (network("same", score=score).double() for _ in range(2))
    reading.load_state_dict(other.state_dict(), strict=False)
    scoring.load_state_dict(other.state_dict(), strict=False)
    with torch.no_grad():
        if score_ids == "own":
            scoring.item_embedding.weight.zero_()
        scoring.item_embedding.weight.add_(other.score_embedding.weight)
    expected = reading.query(*HISTORIES) @ scoring.item_table().T
    torch.testing.assert_close(other(*HISTORIES), expected)
    scored = other.score_items(*HISTORIES, TARGETS)
    torch.testing.assert_close(scored, expected.gather(1, TARGETS[:, None]).squeeze(1))

    loss = other.cross_entropy(pack(*HISTORIES), TARGETS)
    loss.backward()
    learn = other.item_embedding.weight.grad.any(1).nonzero().squeeze(1).tolist()
    if score_ids == "own":
        assert learn == [1, 3, 4, 5, 9]
    if softmax_items == "all":
        torch.testing.assert_close(loss, F.cross_entropy(expected, TARGETS))
        assert other.score_embedding.weight.grad.any(1).all()
        assert score_ids == "own" or learn == list(range(N_ITEMS))


def test_a_held_out_item_is_scored_by_the_mean_of_its_neighbours_vectors(score, score_ids):
    other = network(score_ids, score=score, hidden_size=16).eval()
    lengths = torch.arange(1.0, N_ITEMS + 1)
    with torch.no_grad():  # each on an axis of its own, which shows who lends how much
        other.item_embedding.weight.copy_(torch.eye(N_ITEMS, 16))
        other.score_embedding.weight.copy_(torch.diag(lengths) @ torch.eye(N_ITEMS, 16))
    held_out = torch.zeros(N_ITEMS, dtype=torch.bool)
    held_out[7] = True
    other.hold_out(held_out)
    with torch.no_grad():
        lent = other.item_table()[7, 16:]
        by_dot = network(score_ids, score="dot", hidden_size=16).eval()
        by_dot.load_state_dict(other.state_dict())
        by_dot.hold_out(held_out)
        shares = by_dot.item_table()[7, 16 : 16 + N_ITEMS]
    shares = shares / (lengths + (score_ids == "offset"))
    assert shares.sum() == pytest.approx(1)
    assert shares.count_nonzero() == 5
    assert not shares[[0, 7]].any()
    if score == "cosine":  # of directions, whatever the lengths
        expected = F.normalize(shares, dim=0) / other.config.temperature
        torch.testing.assert_close(lent[:N_ITEMS], expected)


def test_a_choice_that_is_none_is_refused():
    with pytest.raises(ValueError, match=r"score_ids must be one of same, offset, own"):
        network("shared")
