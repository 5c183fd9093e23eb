"""Scores in eight bits lead to the same items and scores as exact ones."""

import pytest
import torch

from recbole_m3rec.ops.cpu import library
from recbole_m3rec.ops.cpu.byte_products import byte_products
from recbole_m3rec.ops.scores.score_terms import ScoreTerms
from recbole_m3rec.serving.scoring import eight_bits
from recbole_m3rec.serving.scoring.eight_bits import EightBits
from recbole_m3rec.serving.scoring.exact import Edits, exact_top

N, WIDTH, B, K = 2000, 48, 20, 5
needs_kernel = pytest.mark.skipif(not library.available()[0], reason=library.available()[1])


@pytest.fixture(autouse=True, params=["torch", pytest.param("kernel", marks=needs_kernel)])
def products(request, monkeypatch):
    """Which products are used; torch's are right everywhere, though fast on some processors."""
    monkeypatch.setattr(eight_bits, "torch_is_fast", lambda: request.param == "torch")
    monkeypatch.setattr(eight_bits, "MOST_ROWS_OF_KERNEL", eight_bits.MOST_ROWS)


@needs_kernel
@pytest.mark.parametrize("width", [1, 31, 48, 192, 516])
@pytest.mark.parametrize("instructions", library.INSTRUCTION_SETS)
def test_the_kernel_multiplies_whole_numbers_exactly(width, instructions, monkeypatch):
    monkeypatch.setenv("RECBOLE_M3REC_VECTORS", instructions)
    largest = min(2**15 - 1, (2**31 - 1) // (127 * width))
    table = torch.randint(-127, 128, (2500, width), dtype=torch.int8)
    queries = torch.randint(-largest, largest + 1, (3, width), dtype=torch.int16)
    table[0], queries[0] = 127, largest
    table[1] = -127
    try:
        found = byte_products(queries, table)
    except RuntimeError as error:
        pytest.skip(str(error))
    assert torch.equal(found.long(), queries.long() @ table.long().t())
    with pytest.raises(ValueError, match="int16"):
        byte_products(queries.int(), table)


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
def test_one_column_and_tiny_queries_lead_to_exact_items(width, scale, monkeypatch):
    if width == 1:
        monkeypatch.setattr(EightBits, "_products", None)  # not called: torch's are wrong then
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
