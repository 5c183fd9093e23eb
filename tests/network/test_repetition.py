"""Learned repetition: what it adds to which score, and that a model learns it from the data."""

import math

import pytest
import torch
import torch.nn.functional as F

from recbole_m3rec.evaluator.ranking import rank_targets
from recbole_m3rec.network.m3rec import M3RecNetwork
from recbole_m3rec.network.packed import pack
from recbole_m3rec.network.repetition import N_LAGS, SCALE, Repetition
from recbole_m3rec.ops.scores import linear_cross_entropy as module
from recbole_m3rec.ops.scores.linear_cross_entropy import linear_cross_entropy
from recbole_m3rec.ops.scores.score_terms import ScoreTerms


def set_lags(repeats, values):
    with torch.no_grad():
        repeats.by_lag[: len(values)] = torch.tensor(values) / SCALE


def naive(repeats, histories, n_items):
    """The definition, one history after another."""
    scores, by_lag = [[0.0] * n_items for _ in histories], repeats.by_lag.tolist()
    for row, history in enumerate(histories):
        for lag, item in enumerate(reversed(history), start=1):
            kind = min(int(math.log2(lag)), N_LAGS - 1)
            scores[row][item] += SCALE * by_lag[kind]
    return torch.tensor(scores)


def padded(histories):
    width = max(map(len, histories))
    rows = torch.tensor([h + [0] * (width - len(h)) for h in histories])
    return rows, torch.tensor([len(h) for h in histories])


def test_the_terms_are_the_definition_at_last_tokens_and_at_every_token():
    repeats, generator = Repetition(), torch.Generator().manual_seed(1)
    with torch.no_grad():
        repeats.by_lag.normal_(generator=generator)
    lengths = [1, 2, 9, 300, 5]
    histories = [torch.randint(1, 8, (n,), generator=generator).tolist() for n in lengths]
    packed = pack(*padded(histories))
    at_last = repeats(packed).add_to_(torch.zeros(5, 8))
    torch.testing.assert_close(at_last, naive(repeats, histories, 8), atol=1e-3, rtol=1e-5)

    prefixes = [h[: i + 1] for h in histories for i in range(len(h))]
    scored = torch.arange(0, len(prefixes), 3)
    terms = repeats(packed, scored)
    assert (terms.rows[1:] >= terms.rows[:-1]).all()
    everywhere = terms.add_to_(torch.zeros(len(scored), 8))
    expected = naive(repeats, prefixes[::3], 8)
    torch.testing.assert_close(everywhere, expected, atol=1e-3, rtol=1e-5)


@pytest.mark.parametrize("tiles", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_loss_and_gradients_with_terms_are_those_of_the_whole_matrix(monkeypatch, tiles, dtype):
    if tiles:
        monkeypatch.setitem(module.BYTES_AT_A_TIME, "cpu", 64)
        monkeypatch.setattr(module, "FEWEST_ROWS", 10**9)
    generator = torch.Generator().manual_seed(2)
    query = torch.randn(40, 6, generator=generator, dtype=dtype).requires_grad_()
    table = torch.randn(23, 6, generator=generator, dtype=dtype).requires_grad_()
    targets = torch.randint(0, 23, (40,), generator=generator)
    rows = torch.randint(0, 40, (90,), generator=generator).sort().values  # some pairs twice
    items = torch.randint(0, 23, (90,), generator=generator)
    values = torch.randn(90, generator=generator, dtype=dtype).requires_grad_()
    loss = linear_cross_entropy(query, table, targets, ScoreTerms(rows, items, values))
    found = torch.autograd.grad(loss, (query, table, values))
    logits = (query @ table.T).index_put((rows, items), values, accumulate=True)
    expected = F.cross_entropy(logits, targets)
    wanted = torch.autograd.grad(expected, (query, table, values))
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("largest_block", [2**24, 50])
def test_ranks_in_blocks_are_those_of_the_whole_matrix(largest_block):
    generator = torch.Generator().manual_seed(3)
    queries, table = torch.randn(9, 4, generator=generator), torch.randn(31, 4, generator=generator)
    rows = torch.arange(9).repeat_interleave(5)
    terms = ScoreTerms(rows, torch.randint(1, 31, (45,), generator=generator), torch.randn(45) * 5)
    targets = torch.randint(1, 31, (9,), generator=generator)
    found = rank_targets(
        queries, table, torch.arange(9), targets, terms=terms, largest_block=largest_block
    )
    scores = terms.add_to_(queries @ table.T)
    scores[:, 0] = -torch.inf
    own = scores.gather(1, targets[:, None])
    assert found.higher.tolist() == (scores > own).sum(1).tolist()


def make(**settings):
    torch.manual_seed(0)
    return M3RecNetwork(12, hidden_size=8, d_state=4, repetition=True, **settings)


@pytest.mark.parametrize("score", ["dot", "cosine"])
def test_every_way_to_a_score_adds_the_same(score):
    network = make(score=score).eval()
    set_lags(network.repeats, [3.0, -2.0, 1.0])
    seq, lengths = padded([[1, 2, 3, 2], [5, 5], [4]])
    with torch.no_grad():
        scores = network(seq, lengths)
        without = network.query(seq, lengths) @ network.item_table().T
        expected = naive(network.repeats, [[1, 2, 3, 2], [5, 5], [4]], 12)
        torch.testing.assert_close(scores - without, expected, atol=1e-5, rtol=1e-5)
        for item in range(1, 12):
            items = torch.full((3,), item)
            single = network.score_items(seq, lengths, items)
            torch.testing.assert_close(single, scores[:, item], atol=1e-5, rtol=1e-5)


def train(network, histories, targets):
    seq, lengths = padded(histories)
    packed, targets = pack(seq, lengths), torch.tensor(targets)
    optimiser = torch.optim.Adam(network.parameters(), lr=0.02)
    network.train()
    for _ in range(30):
        optimiser.zero_grad()
        network.cross_entropy(packed, targets).backward()
        optimiser.step()
    return network.repeats.by_lag.detach()


def random_histories(n, generator):
    return [(torch.randperm(11, generator=generator)[:4] + 1).tolist() for _ in range(n)]


def test_where_nothing_is_used_twice_history_falls_out_of_the_ranking():
    generator = torch.Generator().manual_seed(4)
    histories = random_histories(200, generator)
    fresh = [
        next(i for i in (torch.randperm(11, generator=generator) + 1).tolist() if i not in h)
        for h in histories
    ]
    learned = train(make(dropout_prob=0.0), histories, fresh)
    assert (SCALE * learned[:3] < -2).all()


def test_where_people_come_back_to_what_they_had_long_ago_that_lag_rises():
    generator = torch.Generator().manual_seed(5)
    histories = random_histories(200, generator)
    learned = train(make(dropout_prob=0.0), histories, [h[0] for h in histories])  # lag 4
    assert SCALE * learned[2] > 2
    assert learned[0] < learned[2]
    assert learned[1] < learned[2]
    assert learned[3] == 0  # no history is that long


def test_bpr_learns_repetition_too():
    network = make(dropout_prob=0.0)
    packed = pack(*padded([[1, 2], [3, 4]]))
    loss = network.bpr(packed, torch.tensor([2, 3]), torch.tensor([7, 8]))
    loss.backward()
    assert network.repeats.by_lag.grad[0] < 0  # item 2 is the latest: its term should rise
    assert network.repeats.by_lag.grad[1] < 0


@pytest.mark.parametrize("temperature", [0, -1.0, float("nan"), float("inf"), "warm", True])
def test_a_temperature_that_is_none_is_refused(temperature):
    with pytest.raises(ValueError, match="temperature must be above 0, found"):
        make(score="cosine", temperature=temperature)


def test_cosine_scores_do_not_depend_on_lengths_of_vectors():
    network = make(score="cosine", temperature=0.5).eval()
    seq, lengths = padded([[1, 2, 3]])
    with torch.no_grad():
        table = network.item_table()
        torch.testing.assert_close(table.norm(dim=1), torch.full((12,), 2.0))
        torch.testing.assert_close(network.query(seq, lengths).norm(dim=1), torch.ones(1))
