"""Scores by ID vectors of their own: copies at first, learnt apart from those of histories."""

import pytest
import torch
import torch.nn.functional as F

from recbole_m3rec.features.align import ItemFeatures
from recbole_m3rec.network.m3rec import M3RecNetwork
from recbole_m3rec.network.packed import pack

N_ITEMS = 12
HISTORIES = torch.tensor([[3, 1, 4], [5, 9, 0]]), torch.tensor([3, 2])
TARGETS = torch.tensor([1, 7])


def network(tie_ids, **settings):
    torch.manual_seed(1)
    values = torch.randn(N_ITEMS, 6, generator=torch.Generator().manual_seed(2))
    text = ItemFeatures("text", values, torch.ones(N_ITEMS, dtype=torch.bool), "", "")
    settings = {"hidden_size": 8, "d_state": 4, "dropout_prob": 0.0, **settings}
    return M3RecNetwork(N_ITEMS, {"text": text}, tie_ids=tie_ids, **settings)


@pytest.fixture(params=["dot", "cosine"])
def score(request):
    return request.param


@pytest.mark.parametrize("id_init", ["normal", "content"])
def test_scores_are_the_same_before_training(score, id_init):
    tied, own = (network(tie, score=score, id_init=id_init) for tie in (True, False))
    own.load_state_dict(tied.state_dict(), strict=False)
    torch.testing.assert_close(own(*HISTORIES), tied(*HISTORIES), rtol=0, atol=0)


@pytest.mark.parametrize("softmax_items", ["all", 4])
def test_histories_read_one_table_and_scores_the_other(score, softmax_items):
    own = network(False, score=score, softmax_items=softmax_items).double()
    own.count_targets(torch.arange(1, N_ITEMS))
    with torch.no_grad():
        own.output_embedding.weight.normal_()
    reading, scoring = (network(True, score=score).double() for _ in range(2))
    reading.load_state_dict(own.state_dict(), strict=False)
    scoring.load_state_dict(own.state_dict(), strict=False)
    with torch.no_grad():
        scoring.item_embedding.weight.copy_(own.output_embedding.weight)
    expected = reading.query(*HISTORIES) @ scoring.item_table().T
    torch.testing.assert_close(own(*HISTORIES), expected)
    scored = own.score_items(*HISTORIES, TARGETS)
    torch.testing.assert_close(scored, expected.gather(1, TARGETS[:, None]).squeeze(1))

    loss = own.cross_entropy(pack(*HISTORIES), TARGETS)
    loss.backward()
    read = own.item_embedding.weight.grad.any(1).nonzero().squeeze(1).tolist()
    assert read == [1, 3, 4, 5, 9]
    if softmax_items == "all":
        torch.testing.assert_close(loss, F.cross_entropy(expected, TARGETS))
        assert own.output_embedding.weight.grad.any(1).all()


def test_a_held_out_item_is_scored_by_the_mean_of_its_neighbours_vectors(score):
    own = network(False, score=score, hidden_size=16).eval()
    with torch.no_grad():
        own.output_embedding.weight.copy_(3 * torch.eye(N_ITEMS, 16))  # shows who lends how much
    held_out = torch.zeros(N_ITEMS, dtype=torch.bool)
    held_out[7] = True
    own.hold_out(held_out)
    lent = own.id_vectors(own.output_embedding, torch.tensor([7]), score)[0].detach()
    assert lent.count_nonzero() == 5
    assert not lent[[0, 7]].any()
    assert lent.sum() == pytest.approx(1 if score == "cosine" else 3)
    with torch.no_grad():
        in_table = F.normalize(own.item_table()[7, 16:], dim=0)
    torch.testing.assert_close(in_table, F.normalize(lent, dim=0))


def test_a_choice_that_is_none_is_refused():
    with pytest.raises(ValueError, match=r"tie_ids must be .*True.*False"):
        network("yes")
