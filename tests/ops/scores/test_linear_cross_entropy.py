"""Cross-entropy in pieces beside PyTorch's own over all logits at once, in float64."""

import contextlib
import itertools

import pytest
import torch
import torch.nn.functional as F

from recbole_m3rec.ops.scores import linear_cross_entropy as cross_entropy
from recbole_m3rec.ops.scores.linear_cross_entropy import linear_cross_entropy


def problem(n_queries, n_items, scale=1.0):
    random = torch.Generator().manual_seed(n_queries * 1000 + n_items)
    query = scale * torch.randn(n_queries, 12, generator=random)
    table = torch.randn(n_items, 12, generator=random)
    return query, table, torch.randint(n_items, (n_queries,), generator=random)


def with_gradients(loss, query, table, targets):
    query, table = query.clone().requires_grad_(), table.clone().requires_grad_()
    value = loss(query, table, targets)
    (3.0 * value).backward()
    return [value.detach(), query.grad, table.grad]


def plain(query, table, targets):
    return F.cross_entropy(query @ table.T, targets)


def assert_close(found, expected, tolerance):
    for name, a, b in zip(("loss", "query", "table"), found, expected, strict=True):
        assert (a.double() - b).abs().max() <= tolerance * b.abs().max().clamp(min=1e-30), name


WAYS = {
    # bytes at a time, fewest rows to take whole, rows of a tile
    "a row at a time": (80, 1, 1),
    "some rows": (400, 1, 1),
    "all at once": (10**6, 1, 1),
    "tiles": (60, 10**6, 5),
    "tiles of a logit": (1, 10**6, 1),
    "one tile": (10**6, 10**6, 1024),
}


@pytest.fixture(params=WAYS)
def _way(request, monkeypatch):
    held, fewest, rows = WAYS[request.param]
    monkeypatch.setitem(cross_entropy.BYTES_AT_A_TIME, "cpu", held)
    monkeypatch.setattr(cross_entropy, "FEWEST_ROWS", fewest)
    monkeypatch.setattr(cross_entropy, "ROWS_OF_A_TILE", rows)


@pytest.mark.usefixtures("_way")
def test_loss_and_gradients_are_those_of_all_logits_at_once():
    tolerances = {torch.float32: 2e-6, torch.float64: 1e-13}
    for (n_queries, n_items), dtype in itertools.product([(1, 7), (23, 17), (64, 5)], tolerances):
        query, table, targets = problem(n_queries, n_items)
        expected = with_gradients(plain, query.double(), table.double(), targets)
        found = with_gradients(linear_cross_entropy, query.to(dtype), table.to(dtype), targets)
        assert [t.dtype for t in found] == [dtype] * 3
        assert_close(found, expected, tolerances[dtype])
    for n_queries in (1, 7):  # one item: exactly 0
        found = with_gradients(linear_cross_entropy, *problem(n_queries, 1))
        assert all(float(t.abs().max()) <= 1e-6 for t in found)
    for scale in (1e-6, 1e3, 1e30):
        query, table, targets = problem(9, 11, scale)
        expected = with_gradients(plain, query.double(), table.double(), targets)
        assert_close(with_gradients(linear_cross_entropy, query, table, targets), expected, 5e-6)


@pytest.mark.usefixtures("_way")
def test_log_weights_are_added_to_every_logit_of_their_item():
    query, table, targets = problem(23, 17)
    weights = torch.randn(17)

    def weighted(query, table, targets):
        return linear_cross_entropy(query, table, targets, log_weights=weights)

    def plainly(query, table, targets):
        return F.cross_entropy(query @ table.T + weights.double(), targets)

    expected = with_gradients(plainly, query.double(), table.double(), targets)
    assert_close(with_gradients(weighted, query, table, targets), expected, 2e-6)


@pytest.mark.usefixtures("_way")
def test_nan_anywhere_makes_the_loss_nan():
    for broken in (0, 1):
        tensors = list(problem(5, 6))
        tensors[broken][2, 3] = torch.nan
        assert linear_cross_entropy(*tensors).isnan()


@pytest.mark.usefixtures("_way")
def test_under_autocast_products_are_bfloat16_and_the_loss_float32():
    query, table, targets = problem(50, 30)
    expected = with_gradients(plain, query.double(), table.double(), targets)
    with torch.autocast("cpu", torch.bfloat16):
        found = with_gradients(linear_cross_entropy, query, table, targets)
    assert [t.dtype for t in found] == [torch.float32] * 3
    assert_close(found, expected, 0.05)
    assert (found[1] - expected[1]).abs().max() > 0  # bfloat16 did take part


@pytest.mark.parametrize("fewest", [2, 64], ids=["rows", "tiles"])
@pytest.mark.parametrize("is_wanted", [True, False])
def test_no_more_logits_than_allowed_are_held_and_none_made_twice_in_vain(
    fewest, is_wanted, monkeypatch
):
    monkeypatch.setitem(cross_entropy.BYTES_AT_A_TIME, "cpu", 1200)
    monkeypatch.setattr(cross_entropy, "FEWEST_ROWS", fewest)
    monkeypatch.setattr(cross_entropy, "ROWS_OF_A_TILE", 16)
    query, table, targets = problem(64, 100)
    sizes = []

    def watch(x, weight, rows_at_a_time):
        if x.shape[1] == 12 and len(weight) != 12:  # query by table
            sizes.append(len(x) * len(weight))
        return F.linear(x, weight)

    monkeypatch.setattr(cross_entropy, "matmul", watch)
    linear_cross_entropy(query.requires_grad_(is_wanted), table, targets)
    assert 200 <= max(sizes) <= 1200 / 4
    times = 2 if fewest == 64 and is_wanted else 1
    assert sum(sizes) == times * 64 * 100


@pytest.mark.usefixtures("_way")
def test_the_gradient_of_one_alone_is_the_same_and_the_other_is_not_made():
    expected = with_gradients(linear_cross_entropy, *problem(23, 17))
    for wanted in (0, 1):
        *both, targets = problem(23, 17)
        assert not linear_cross_entropy(*both, targets).requires_grad
        both[wanted].requires_grad_()
        (3.0 * linear_cross_entropy(*both, targets)).backward()
        assert torch.equal(both[wanted].grad, expected[1 + wanted])
        assert both[1 - wanted].grad is None


@pytest.mark.usefixtures("_way")
def test_targets_may_be_a_column_and_none_that_is_no_item_is_ever_a_loss():
    query, table, targets = problem(23, 17)
    column = torch.stack([torch.zeros_like(targets), targets], dim=1)[:, 1]
    expected = linear_cross_entropy(query, table, targets)
    assert torch.equal(linear_cross_entropy(query, table, column), expected)
    for wrong in (-1, 17):
        targets[5] = wrong
        with contextlib.suppress(IndexError, RuntimeError):
            assert linear_cross_entropy(query, table, targets).isnan()


def test_float16_keeps_the_gradients_of_items_that_are_no_target():
    query, table, targets = problem(2048, 3000, 0.1)
    _, *expected = with_gradients(plain, query.double(), table.double(), targets)
    with torch.autocast("cpu", torch.float16):
        _, *found = with_gradients(linear_cross_entropy, query, table, targets)
    others = torch.ones(3000, dtype=torch.bool)
    others[targets] = False
    error = (found[1][others].double() - expected[1][others]).abs().max()
    assert error <= 0.05 * expected[1][others].abs().max()


@pytest.mark.parametrize("fewest", [1, 10**6], ids=["rows", "tiles"])
def test_batches_of_any_size_are_multiplied_in_few_shapes(fewest, monkeypatch):
    monkeypatch.setattr(cross_entropy, "FEWEST_ROWS", fewest)
    shapes = set()

    def watch(x, weight, rows_at_a_time):
        if len(x) >= rows_at_a_time:  # what may go to oneDNN
            shapes.add((rows_at_a_time, *weight.shape))
        return F.linear(x, weight)

    monkeypatch.setattr(cross_entropy, "matmul", watch)
    for n_queries in range(1, 200):
        query, table, targets = problem(n_queries, 30)
        linear_cross_entropy(query.requires_grad_(), table.requires_grad_(), targets).backward()
    assert len(shapes) <= 3 * 5  # three products; 16, 32, 64, 128 and 256 rows
