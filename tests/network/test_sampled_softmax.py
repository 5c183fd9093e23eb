"""Sampled softmax: the estimate is unbiased, exact where all are drawn, right in every gradient."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from recbole_m3rec.features.align import ItemFeatures
from recbole_m3rec.network import sampled_softmax
from recbole_m3rec.network.m3rec import ItemVectors, M3RecNetwork
from recbole_m3rec.network.packed import PackedSequences
from recbole_m3rec.network.sampled_softmax import draw_candidates, draw_others
from recbole_m3rec.network.settings import ModelConfigError
from recbole_m3rec.ops import linear_cross_entropy as loss_module
from recbole_m3rec.ops.linear_cross_entropy import linear_cross_entropy
from recbole_m3rec.ops.score_terms import ScoreTerms

N_ITEMS = 40
HISTORIES = PackedSequences(
    torch.tensor([1, 2, 4, 2, 30, 7]), torch.tensor([0, 4, 6], dtype=torch.int32)
)
SCORED, TARGETS = torch.tensor([1, 3, 4, 5]), torch.tensor([4, 6, 7, 38])


def make(softmax_items: int | str, **settings: object) -> M3RecNetwork:
    torch.manual_seed(0)
    present = torch.arange(N_ITEMS) % 5 != 3
    text = ItemFeatures("text", torch.randn(N_ITEMS, 5), present, "fingerprint", "text")
    small = {"hidden_size": 4, "d_state": 2, "dropout_prob": 0.0, "num_layers": 1}
    network = M3RecNetwork(
        *(N_ITEMS, {"text": text}),
        **{**small, "repetition": True, "softmax_items": softmax_items, **settings},
    )
    with torch.no_grad():
        network.repeats.by_lag.normal_()  # type: ignore[union-attr]
        network.item_embedding.weight.normal_()
    return network


def test_others_are_distinct_none_of_the_own_and_every_one_is_as_likely() -> None:
    torch.manual_seed(1)
    own = torch.tensor([0, 3, 4, 9])
    counts = torch.zeros(10)
    for _ in range(3000):
        drawn = draw_others(own, 10, 2)
        assert len(set(drawn.tolist())) == 2
        counts[drawn] += 1
    assert counts[own].sum() == 0
    others = counts[[1, 2, 5, 6, 7, 8]]
    assert (others - 1000).abs().max() < 5 * math.sqrt(1000)  # 6,000 draws of 6 items
    assert draw_others(own, 10, 6).tolist() == [1, 2, 5, 6, 7, 8]
    assert draw_others(torch.arange(10), 10, 3).tolist() == []


def test_draws_follow_the_state_of_pytorch() -> None:
    own = torch.tensor([5])
    torch.manual_seed(3)
    first, second = draw_others(own, 10**9, 4), draw_others(own, 10**9, 4)
    torch.manual_seed(3)
    assert torch.equal(draw_others(own, 10**9, 4), first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("held_out", [False, True])
def test_the_sum_of_exponentials_is_that_over_all_items_in_the_mean(held_out: bool) -> None:
    torch.manual_seed(2)
    logits = torch.randn(50, dtype=torch.float64)
    trained = torch.tensor([i for i in range(50) if i % 4]) if held_out else None
    batch = torch.tensor([3, 8, 3, 17])
    whole = logits.exp() if trained is None else logits[trained].exp()
    estimates = []
    for _ in range(4000):
        candidates = draw_candidates(batch, 6, 50, trained)
        estimates.append((logits[candidates.items] + candidates.log_weights).exp().sum())
    found = torch.stack(estimates)
    standard_error = found.std() / math.sqrt(len(found))
    assert abs(found.mean() - whole.sum()) < 4 * standard_error


@pytest.mark.parametrize("score", ["dot", "cosine"])
@pytest.mark.parametrize("scored", [None, SCORED])
@pytest.mark.parametrize("held_out", [False, True])
def test_with_all_others_drawn_loss_and_gradients_are_the_exact_ones(
    score: str, scored: torch.Tensor | None, held_out: bool
) -> None:
    targets = TARGETS if scored is not None else TARGETS[:2]
    found = []
    for softmax_items in ("all", N_ITEMS):
        network = make(softmax_items, score=score)
        if held_out:
            network.hold_out(torch.arange(N_ITEMS) % 10 == 5)
        loss = network.cross_entropy(HISTORIES, targets, scored)
        loss.backward()
        found.append((loss, {name: p.grad for name, p in network.named_parameters()}))
    (exact, exact_gradients), (sampled, gradients) = found
    torch.testing.assert_close(sampled, exact)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, exact_gradients[name], atol=1e-6, rtol=1e-4)


def test_a_sample_is_its_definition_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """Terms, corrected logits and gradients against a matrix written out item by item."""
    network = make(7).double()
    drawn = torch.tensor([0, 3, 9, 10, 21, 22, 39])
    monkeypatch.setattr(sampled_softmax, "draw_others", lambda *_: drawn)
    loss = network.cross_entropy(HISTORIES, TARGETS, SCORED)
    found = torch.autograd.grad(loss, list(network.parameters()))

    own = sorted({1, 2, 4, 30, 7, 6, 38})
    vectors = network.item_vectors()
    query = network.encode(HISTORIES, vectors, SCORED)
    scores = network.repetition(HISTORIES, SCORED).add_to_(query @ vectors.table.T)  # type: ignore[union-attr]
    rest = (N_ITEMS - len(own)) / len(drawn)
    total = scores[:, own].exp().sum(1) + rest * scores[:, drawn].exp().sum(1)
    expected = (total.log() - scores.gather(1, TARGETS[:, None])[:, 0]).mean()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(found, torch.autograd.grad(expected, list(network.parameters())))


def test_a_step_projects_only_its_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    network = make(5)
    asked = []
    project = network.item_vectors

    def projected(items: torch.Tensor) -> ItemVectors:
        asked.append(items)
        return project(items)

    monkeypatch.setattr(network, "item_vectors", projected)
    network.cross_entropy(HISTORIES, TARGETS, SCORED).backward()
    assert [len(items.unique()) for items in asked] == [7 + 5]
    touched = network.item_embedding.weight.grad.abs().sum(1).nonzero()  # type: ignore[union-attr]
    assert len(touched) == 7 + 5


@pytest.mark.parametrize("tiles", [False, True])
def test_weights_of_items_enter_loss_and_gradients(
    monkeypatch: pytest.MonkeyPatch, tiles: bool
) -> None:
    if tiles:
        monkeypatch.setitem(loss_module.BYTES_AT_A_TIME, "cpu", 64)
        monkeypatch.setattr(loss_module, "FEWEST_ROWS", 10**9)
    torch.manual_seed(4)
    query, table = torch.randn(20, 6).requires_grad_(), torch.randn(23, 6).requires_grad_()
    targets, weights = torch.randint(0, 20, (20,)), torch.randn(23)
    weights[20:] = -torch.inf
    rows, items = torch.randint(0, 20, (30,)).sort().values, torch.randint(0, 23, (30,))
    values = torch.randn(30).requires_grad_()
    loss = linear_cross_entropy(query, table, targets, ScoreTerms(rows, items, values), weights)
    logits = (query @ table.T + weights).index_put((rows, items), values, accumulate=True)
    expected = F.cross_entropy(logits, targets)
    torch.testing.assert_close(loss, expected)
    inputs = query, table, values
    torch.testing.assert_close(
        torch.autograd.grad(loss, inputs), torch.autograd.grad(expected, inputs)
    )


@pytest.mark.parametrize("softmax_items", ["some", 0, -5, 2.5, True])
def test_what_is_no_number_of_items_is_refused(softmax_items: object) -> None:
    with pytest.raises(ModelConfigError, match="softmax_items"):
        make(softmax_items)  # type: ignore[arg-type]
