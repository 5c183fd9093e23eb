"""Scores in eight bits lead to the same items and scores as exact ones."""

import pytest
import torch

from recbole_m3rec.ops.cpu import library
from recbole_m3rec.ops.cpu.byte_table import ByteTable
from recbole_m3rec.ops.scores.score_terms import ScoreTerms
from recbole_m3rec.serving.scoring import eight_bits
from recbole_m3rec.serving.scoring.eight_bits import EightBits
from recbole_m3rec.serving.scoring.exact import Edits, exact_top

N, WIDTH, B, K = 2000, 48, 20, 5
pytestmark = pytest.mark.skipif(not library.available()[0], reason=library.available()[1])


def tables():
    torch.manual_seed(0)
    plain = torch.randn(N, WIDTH)
    outlier = plain.clone()
    outlier[7] *= 1000
    scales = plain * torch.logspace(-6, 6, WIDTH)
    return {
        "plain": plain,
        "ties": plain[torch.arange(N) % 100],
        "near": plain[:1] + 1e-4 * plain,
        "outlier": outlier,
        "scales": scales,
        "zeros": torch.zeros(N, WIDTH),
    }


def made_edits(added):
    rows = torch.arange(B).repeat_interleave(30)
    items = torch.randint(1, N, (30 * B,))
    terms = ScoreTerms(rows[::3], items[1::3], 5 * torch.rand(10 * B)) if added else None
    nothing = torch.empty(0, dtype=torch.int64)
    return Edits((rows, items), terms, [None] * B, nothing, torch.zeros(N))


@pytest.mark.parametrize("added", [False, True])
@pytest.mark.parametrize("name", tables())
def test_the_best_items_are_those_of_exact_scores(name, added):
    table = tables()[name]
    queries = torch.randn(B, WIDTH) / table.abs().amax(0).clamp(min=1)
    edits = made_edits(added)
    items, scores = EightBits(table).top(queries, K, edits)
    expected, their_scores = exact_top(queries, table, K, edits)
    assert torch.allclose(scores, their_scores, rtol=1e-5, atol=1e-5)
    clear = (their_scores[:, 1:] < their_scores[:, :-1] - 1e-5).all(1)
    assert torch.equal(items[clear], expected[clear])
    assert name in ("near", "ties", "zeros") or clear.all()


@pytest.mark.parametrize(("width", "scale"), [(1, 1), (WIDTH, 1e-20), (WIDTH, 1e-37)])
def test_one_column_and_tiny_queries_lead_to_exact_items(width, scale):
    table, queries = tables()["plain"][:, :width].contiguous(), scale * torch.randn(B, width)
    edits = made_edits(False)
    items, _ = EightBits(table).top(queries, K, edits)
    assert torch.equal(items, exact_top(queries, table, K, edits)[0])


def test_queries_that_are_not_sure_are_scored_exactly_and_only_they(monkeypatch):
    table, asked = tables()["plain"], []
    monkeypatch.setattr(
        eight_bits, "exact_top", lambda q, *rest: asked.append(len(q)) or exact_top(q, *rest)
    )
    queries = torch.randn(B, WIDTH)
    EightBits(table).top(queries, K, made_edits(False))
    assert not asked
    mixed = table.clone()
    mixed[500:, 0] = 100 + 1e-3 * mixed[500:, 1]
    queries[:3] = torch.eye(1, WIDTH)
    queries[3:, 0] = 0
    EightBits(mixed).top(queries, K, made_edits(False))
    assert asked == [3]


def test_terms_of_the_best_items_count_once(monkeypatch):
    table, queries, edits = tables()["plain"], torch.randn(B, WIDTH), made_edits(False)
    best, _ = exact_top(queries, table, 3, edits)
    terms = ScoreTerms(torch.arange(B).repeat_interleave(3), best.flatten(), torch.ones(3 * B))
    edits = edits._replace(added=terms)
    expected, their_scores = exact_top(queries, table, K, edits)
    monkeypatch.setattr(eight_bits, "exact_top", None)  # not called: all rows are sure
    items, scores = EightBits(table).top(queries, K, edits)
    assert torch.equal(items, expected)
    assert torch.allclose(scores, their_scores, rtol=1e-5, atol=1e-5)


def test_where_few_items_are_left_removed_ones_stay_out():
    table, queries, left = tables()["plain"], torch.randn(B, WIDTH), K + 3
    rows = torch.arange(B).repeat_interleave(N - left)
    items = torch.arange(left, N).repeat(B)
    edits = made_edits(False)._replace(removed=(rows, items))
    found, _ = EightBits(table).top(queries, K, edits)
    assert torch.equal(found, exact_top(queries, table, K, edits)[0])


def in_float64(queries, table, k, removed, added):
    """Return the best rows and their scores by sorting all of them."""
    scores = queries.double() @ table.double().t()
    scores = scores.float()
    for query, row, value in zip(*added, strict=True):
        scores[query, row] += value
    scores[removed] = -torch.inf
    scores[:, 0] = -torch.inf
    best, rows = scores.sort(dim=1, descending=True, stable=True)
    return rows[:, :k], best[:, :k]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("width", [1, 31, 64, 192, 517])
@pytest.mark.parametrize("instructions", library.INSTRUCTION_SETS)
def test_what_is_sure_is_what_sorting_all_scores_finds(width, dtype, instructions, monkeypatch):
    monkeypatch.setenv("RECBOLE_M3REC_VECTORS", instructions)
    torch.manual_seed(width)
    table, queries = torch.randn(3001, width).to(dtype), torch.randn(7, width)
    table[5] = 0
    table[7, 0] = torch.finfo(torch.float16).smallest_normal / 8
    table[8] = table[9]  # of equal scores the lower row
    removed = torch.arange(7).repeat_interleave(500), torch.randint(0, 3001, (3500,))
    added = torch.arange(7).repeat_interleave(9), torch.randint(0, 20, (63,)), torch.randn(63)
    try:
        rows, scores, is_sure = ByteTable(table).best(queries, K, removed, added, candidates=50)
    except RuntimeError as error:
        pytest.skip(str(error))
    expected, their_scores = in_float64(queries, table, K, removed, added)
    assert is_sure.sum() >= 5
    assert torch.equal(rows[is_sure], expected[is_sure])
    torch.testing.assert_close(scores[is_sure], their_scores[is_sure], rtol=1e-6, atol=1e-6)


def test_threads_change_nothing():
    torch.manual_seed(0)
    table, queries = torch.randn(60_000, 64), torch.randn(9, 64)
    nothing = torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64)
    found = []
    before = torch.get_num_threads()
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.append(ByteTable(table).best(queries, K, nothing, candidates=40))
    torch.set_num_threads(before)
    for others in found[1:]:
        assert all(torch.equal(*pair) for pair in zip(found[0], others, strict=True))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_numbers_that_are_not_finite_are_never_sure(value):
    table, queries = tables()["plain"].clone(), torch.randn(3, WIDTH)
    queries[1, 2] = value
    added = torch.tensor([2]), torch.tensor([4]), torch.tensor([torch.nan])
    nothing = torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64)
    _, scores, is_sure = ByteTable(table).best(queries, K, nothing, added, candidates=40)
    assert is_sure.tolist() == [True, False, False]
    table[3, 3] = value
    assert not ByteTable(table).best(queries, K, nothing, candidates=40)[2].any()


def test_what_does_not_fit_is_an_error_of_one_line():
    table = ByteTable(tables()["plain"])
    queries, nothing = torch.randn(2, WIDTH), torch.empty(0, dtype=torch.int64)
    for pair in ((2, 0), (-1, 0), (0, N), (0, -1)):
        removed = tuple(torch.tensor([number]) for number in pair)
        with pytest.raises(ValueError, match="a query or row is named that is not there"):
            table.best(queries, K, removed, candidates=40)
    with pytest.raises(ValueError, match=r"queries: expected \[2, 48\]"):
        table.best(queries[:, :3], K, (nothing, nothing), candidates=40)
    with pytest.raises(ValueError, match=r"removed: expected \[S\] int64 twice"):
        table.best(queries, K, (nothing.int(), nothing), candidates=40)
    with pytest.raises(ValueError, match="found torch.bfloat16"):
        ByteTable(tables()["plain"].bfloat16())
