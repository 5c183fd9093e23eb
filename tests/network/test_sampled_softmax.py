"""The softmax over a sample of the items, against naive sums."""

import math

import pytest
import torch

from recbole_m3rec import ItemFeatures, M3RecNetwork, PackedSequences
from recbole_m3rec.network.sampled_softmax import make_candidates, sampled_cross_entropy
from recbole_m3rec.network.settings import ModelConfigError
from recbole_m3rec.ops.scores.score_terms import ScoreTerms

N_ITEMS = 30
HISTORIES = PackedSequences(torch.tensor([1, 2, 4, 5, 1, 7]), torch.tensor([0, 4, 6]).int())
SCORED = torch.tensor([0, 1, 2, 3, 4, 5])
TARGETS = torch.tensor([2, 4, 5, 9, 7, 9])


def network(**settings):
    torch.manual_seed(0)
    text = ItemFeatures("text", torch.randn(N_ITEMS, 5), torch.ones(N_ITEMS) > 0, "", "text")
    made = M3RecNetwork(
        *(N_ITEMS, {"text": text}), hidden_size=8, d_state=4, dropout_prob=0.0, **settings
    )
    made.count_targets(TARGETS)
    return made


def naive(query, table, chosen, targets, terms):
    losses = []
    for row, target in enumerate(targets.tolist()):
        exponentials, own = [], None
        for place, item in enumerate(chosen.items.tolist()):
            score = query[row] @ table[place]
            for term in range(len(terms.rows)):
                if (terms.rows[term], terms.items[term]) == (row, item):
                    score = score + terms.values[term]
            if item == target:
                own = score
                exponentials.append(score.exp())
            else:
                exponentials.append(score.exp() / chosen.log_pi[place].exp())
        assert own is not None
        losses.append(torch.stack(exponentials).sum().log() - own)
    return torch.stack(losses).mean()


def test_loss_and_gradients_are_those_of_a_naive_sum():
    torch.manual_seed(1)
    counts = torch.randint(1, 9, (N_ITEMS,))
    chosen = make_candidates(torch.randint(N_ITEMS, (9,)), N_ITEMS, TARGETS, counts)
    inputs = [torch.randn(len(TARGETS), 4), torch.randn(len(chosen.items), 4), torch.randn(5)]
    # An item of no candidate, a row's own target, one item twice in a row.
    absent = next(item for item in range(N_ITEMS) if item not in chosen.items)
    rows, items = torch.tensor([0, 1, 2, 3, 3]), torch.tensor([absent, 4, 9, 2, 2])
    results = []
    for function, dtype in ((sampled_cross_entropy, torch.float32), (naive, torch.float64)):
        query, table, values = (x.detach().to(dtype, copy=True).requires_grad_() for x in inputs)
        loss = function(query, table, chosen, TARGETS, ScoreTerms(rows, items, values))
        loss.backward()
        results.append([loss, query.grad, table.grad, values.grad])
    for fast, slow in zip(*results, strict=True):
        torch.testing.assert_close(fast.double(), slow, rtol=1e-5, atol=1e-6)


def test_the_sum_over_all_items_is_estimated_without_bias():
    torch.manual_seed(2)
    counts = torch.randint(1, 20, (N_ITEMS,))
    exponentials = torch.randn(N_ITEMS).double().exp()
    estimates = []
    for _ in range(1000):
        targets = torch.multinomial(counts.double(), 6, replacement=True)
        drawn = torch.randint(N_ITEMS, (5,))
        chosen = make_candidates(drawn, N_ITEMS, targets, counts)
        estimates.append((exponentials[chosen.items] / chosen.log_pi.exp()).sum())
    error = torch.stack(estimates).std() / math.sqrt(len(estimates))
    assert torch.stack(estimates).mean() == pytest.approx(
        float(exponentials.sum()), abs=4 * float(error)
    )
    assert error < 0.04 * exponentials.sum()


@pytest.mark.parametrize("repetition", [False, True])
def test_as_many_as_there_are_items_is_the_exact_loss(repetition):
    losses = [
        network(repetition=repetition, softmax_items=n).cross_entropy(HISTORIES, TARGETS, SCORED)
        for n in ("all", N_ITEMS)
    ]
    assert torch.equal(*losses)


def test_many_draws_come_close_to_the_exact_loss():
    exact = network().cross_entropy(HISTORIES, TARGETS, SCORED)
    sampled = network(softmax_items=20)
    losses = [sampled.cross_entropy(HISTORIES, TARGETS, SCORED).detach() for _ in range(60)]
    assert float(torch.stack(losses).mean()) == pytest.approx(float(exact.detach()), rel=0.02)


def test_a_step_touches_its_items_alone(monkeypatch):
    monkeypatch.setattr("recbole_m3rec.network.m3rec.FEW_ITEMS", 1.0)
    made = network(softmax_items=3, repetition=True)
    made.cross_entropy(HISTORIES, TARGETS, SCORED).backward()
    gradient = made.item_embedding.weight.grad
    assert gradient is not None
    touched = gradient.abs().sum(1).nonzero()[:, 0].tolist()
    assert set(HISTORIES.values.tolist()) | set(TARGETS.tolist()) <= set(touched)
    assert len(touched) <= len({*HISTORIES.values.tolist(), *TARGETS.tolist()}) + 3


def test_held_out_items_are_never_drawn():
    made = network(softmax_items=25)
    made.hold_out(torch.arange(N_ITEMS) >= 20)
    assert int(made.draw_trained(500, torch.device("cpu")).max()) < 20
    assert made.n_trained() == 20
    assert made.cross_entropy(HISTORIES, TARGETS, SCORED).isfinite()


def test_counts_are_asked_for():
    made = network(softmax_items=3)
    del made.target_counts
    with pytest.raises(ModelConfigError, match="softmax_items: 3 needs to know how often"):
        made.cross_entropy(HISTORIES, TARGETS, SCORED)


@pytest.mark.parametrize("value", [0, -1, "some", 2.5, True])
def test_other_values_are_refused(value):
    with pytest.raises(ModelConfigError, match="softmax_items must be an integer of at least 1"):
        network(softmax_items=value)
