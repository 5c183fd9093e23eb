"""Scores in eight bits lead to the same items and scores as exact ones."""

import copy
import pickle

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
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(ByteTable(table).best(queries, K, nothing, candidates=40))
    finally:
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


def test_scores_beyond_float32_are_never_sure():
    table = torch.full((200, 4), 1e30)
    nothing = torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64)
    assert not ByteTable(table).best(torch.full((1, 4), 1e30), 1, nothing, candidates=9)[2].any()


def test_small_numbers_of_16_bits_count_where_torch_flushes_those_of_32():
    torch.manual_seed(0)
    table, queries = (1e-6 * torch.randn(900, 8)).half(), torch.randn(4, 8)
    nothing = torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64)
    expected, scores = in_float64(queries, table, K, nothing, nothing)
    torch.set_flush_denormal(True)
    try:
        rows, found, is_sure = ByteTable(table).best(queries, K, nothing, candidates=60)
    finally:
        torch.set_flush_denormal(False)
    assert is_sure.any()
    torch.testing.assert_close(found[is_sure], scores[is_sure], rtol=1e-5, atol=0)


@pytest.mark.parametrize("count", [1, 2, 300])
def test_few_rows_and_many_candidates(count):
    torch.manual_seed(count)
    table, queries = torch.randn(count, 3), torch.randn(2, 3)
    removed = torch.tensor([0, 0]), torch.tensor([count - 1, count - 1])
    rows, scores, _ = ByteTable(table).best(queries, count + 4, removed, candidates=2**40)
    expected, their_scores = in_float64(queries, table, count, removed, ([], [], []))
    torch.testing.assert_close(scores[:, :count], their_scores)
    is_there = their_scores > -torch.inf
    assert torch.equal(rows[:, :count][is_there], expected[is_there])
    assert (scores[:, count:] == -torch.inf).all()
    assert not rows[:, count:].any()
    nothing = rows[0, :0], rows[0, :0]
    assert ByteTable(table).best(queries[:0], 1, nothing, candidates=1)[0].shape == (0, 1)


def test_what_rounding_a_query_loses_is_part_of_the_bound():
    # One large column leaves few steps for the others, which alone tell the rows apart.
    torch.manual_seed(0)
    width = 2000  # of which products of 32 bits leave eight bits of a query
    table = torch.sign(torch.randn(800, width))
    queries = torch.full((6, width), 1e-3) * torch.randn(6, width)
    queries[:, 0] = 1
    nothing = torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64)
    rows, _, is_sure = ByteTable(table).best(queries, K, nothing, candidates=K)
    expected, _ = in_float64(queries, table, K, nothing, nothing)
    assert torch.equal(rows[is_sure], expected[is_sure])
    assert not (rows == expected).all()


def test_it_can_be_copied_and_pickled():
    table, queries = ByteTable(tables()["plain"]), torch.randn(2, WIDTH)
    nothing = torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64)
    found = table.best(queries, K, nothing, candidates=40)
    for other in (copy.deepcopy(table), pickle.loads(pickle.dumps(table))):
        again = other.best(queries, K, nothing, candidates=40)
        assert all(torch.equal(*pair) for pair in zip(found, again, strict=True))


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
    with pytest.raises(ValueError, match=r"added: expected \[S\] int64 twice and float32"):
        table.best(queries, K, (nothing, nothing), (nothing, nothing, nothing), candidates=40)
    for k, candidates in ((0, 40), (-1, 40), (5, 4), (1, -1)):
        with pytest.raises(ValueError, match=f"1 <= k <= candidates, found {k} and {candidates}"):
            table.best(queries, k, (nothing, nothing), candidates=candidates)
    for wrong in (
        tables()["plain"].bfloat16(),
        torch.empty(0, 3),
        torch.empty(3, 0),
        torch.randn(3),
    ):
        with pytest.raises(ValueError, match="expected a table"):
            ByteTable(wrong)
