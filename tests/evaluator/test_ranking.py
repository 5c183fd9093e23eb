"""Ranks in blocks against a stable sort of the whole matrix of scores."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_m3rec.evaluator import ranking
from recbole_m3rec.evaluator.ranking import LARGEST_BLOCK, block_shape, rank_targets

SHAPES = pytest.mark.parametrize("largest", [LARGEST_BLOCK, 64, 7, 1])


def rank(scores, users, targets, **keys):
    """Rank by given finite scores: the item table is the identity."""
    n_items = scores.shape[1]
    users, targets = torch.as_tensor(users).long(), torch.as_tensor(targets).long()
    return rank_targets(scores, torch.eye(n_items), users, targets, **keys)


def check(scores, users, targets, k, found):
    """Compare with the definition, pair by pair."""
    scores = scores.clone()
    scores[:, 0] = -torch.inf
    order = scores.sort(dim=1, descending=True, stable=True).indices
    for place, (user, target) in enumerate(zip(users, targets, strict=True)):
        row, own = scores[user], scores[user, target]
        assert found.higher[place] == (row > own).sum()
        assert found.equal[place] == (row == own).sum()
        assert found.before[place] == (order[user] == target).nonzero().item()
    assert torch.equal(found.top, order[:, :k])
    assert torch.equal(found.listed, (scores > -torch.inf).sum(1))
    assert not found.is_nan.any()


@SHAPES
@pytest.mark.parametrize("levels", [10**6, 4, 1])
def test_ranks_equal_those_of_a_stable_sort(largest, levels):
    generator = torch.Generator().manual_seed(largest)
    scores = torch.randint(levels, (30, 23), generator=generator).float()
    users, targets = torch.arange(30), torch.randint(1, 23, (30,), generator=generator)
    found = rank(scores, users, targets, n_top=6, count_listed=True, largest_block=largest)
    check(scores, users, targets, 6, found)


@settings(max_examples=60)
@given(data=st.data())
def test_any_number_of_targets_and_any_block(data):
    n_users, n_items = data.draw(st.integers(1, 9)), data.draw(st.integers(2, 9))
    level = st.integers(-2, 2)
    rows = st.lists(level, min_size=n_items, max_size=n_items)
    scores = torch.tensor(data.draw(st.lists(rows, min_size=n_users, max_size=n_users))).float()
    pair = st.tuples(st.integers(0, n_users - 1), st.integers(1, n_items - 1))
    pairs = sorted(data.draw(st.sets(pair, max_size=20)))
    users, targets = [user for user, _ in pairs], [target for _, target in pairs]
    k = data.draw(st.integers(0, n_items))
    largest = data.draw(st.integers(1, 100))
    found = rank(scores, users, targets, n_top=k, count_listed=True, largest_block=largest)
    check(scores, users, targets, k, found)


@pytest.fixture
def given_scores(monkeypatch):
    """Look scores up instead of multiplying, so that they may be infinite or NaN."""
    monkeypatch.setattr(ranking, "matmul", lambda scores, rows, **_: scores[:, rows.argmax(1)])


@SHAPES
@pytest.mark.usefixtures("given_scores")
def test_infinite_scores_are_ranked(largest):
    inf = torch.inf
    scores = torch.tensor(
        [[9.0, -inf, 1.0, inf, -inf], [9.0, -inf, -inf, -inf, -inf], [9.0, inf, inf, 0.0, -1.0]]
    )
    users, targets = [0, 0, 1, 2, 2], [1, 2, 3, 2, 4]
    found = rank(scores, users, targets, n_top=3, count_listed=True, largest_block=largest)
    check(scores, users, targets, 3, found)
    assert found.listed.tolist() == [2, 0, 4]


@SHAPES
@pytest.mark.usefixtures("given_scores")
@pytest.mark.parametrize("item", [1, 4])
def test_users_with_a_nan_score_are_found(largest, item):
    scores = torch.zeros(30, 5)
    scores[7, item] = torch.nan
    scores[9, 0] = torch.nan  # of padding, which scores -inf whatever it was
    scores[11] = -torch.inf
    found = rank(scores, torch.arange(30), torch.full((30,), 2), largest_block=largest)
    assert found.is_nan.nonzero().flatten().tolist() == [7]


def test_padding_is_no_item_however_high_it_scores():
    found = rank(torch.tensor([[99.0, 1.0, 2.0]]), [0], [1], n_top=2)
    assert found.top.tolist() == [[2, 1]]
    assert found.before.tolist() == [1]


@pytest.mark.parametrize("n_users", [0, 5])
def test_users_without_targets_and_no_users_at_all(n_users):
    found = rank(torch.ones(n_users, 4), [], [], n_top=2)
    assert len(found.before) == 0
    assert found.top.tolist() == [[1, 2]] * n_users


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_vectors_are_multiplied_in_float32(dtype):
    queries = torch.full((1, 300), 1.0, dtype=dtype)
    table = torch.full((3, 300), 1.0, dtype=dtype)
    table[2, 0] = 0.99  # 299.99 and 300 are one number in either half precision
    found = rank_targets(queries, table, torch.tensor([0]), torch.tensor([2]))
    assert found.higher.tolist() == [1]


def test_more_top_items_than_items_are_refused():
    with pytest.raises(ValueError, match="5 best items were asked for, there are 4"):
        rank(torch.ones(2, 4), [0], [1], n_top=5)


def test_no_block_is_larger_than_allowed():
    sizes = [2, 1_000, 12_101, 200_000, 1_000_000, 50_000_000]
    for n_items, n_users, largest in itertools.product(sizes, [1, 50, 4096], [1, 100, 2**24]):
        users, items = block_shape(n_users, n_items, largest)
        assert users * items <= largest
        assert 1 <= users <= n_users
        assert 1 <= items <= n_items


def test_the_catalogue_is_split_only_where_a_few_users_do_not_fit():
    assert block_shape(4096, 12_101) == (346, 12_101)
    assert block_shape(4096, 1_000_000) == (16, 1_000_000)
    assert block_shape(4096, 4_000_000) == (16, 2**20)


def test_blocks_are_never_larger_than_allowed_while_ranking(monkeypatch):
    shapes = []

    def watched(queries, vectors, **_):
        shapes.append((len(queries), len(vectors)))
        return queries @ vectors.T

    monkeypatch.setattr(ranking, "matmul", watched)
    rank(torch.rand(40, 30), torch.arange(40), torch.ones(40), n_top=3, largest_block=100)
    assert max(users * items for users, items in shapes) <= 100
    assert len(shapes) > 1
