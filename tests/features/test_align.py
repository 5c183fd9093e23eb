"""Features find their item by token."""

import logging

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recbole_m3rec.features.align import align, half_whitening
from recbole_m3rec.features.feature_table import FeatureFileError, FeatureTable

TOKENS = ["[PAD]", "x", "y", "z"]


def table(rows, dtype=np.float32):
    return FeatureTable(np.array(list(rows), object), np.array(list(rows.values()), dtype), {})


def aligned(rows, norm="none", dtype=np.float32):
    return align(table(rows, dtype), "text", TOKENS, norm, "a test")


def test_rows_follow_the_ids_of_the_dataset_and_absent_items_are_missing():
    features = aligned({"z": [5, 6], "elsewhere": [9, 9], "x": [1, 2]})
    assert features.values.tolist() == [[0, 0], [1, 2], [0, 0], [5, 6]]
    assert features.present.tolist() == [True, True, False, True]
    assert features.description == "text: 2 of 3 items (66.6 %), 2-d, a test"


def test_padding_is_a_row_only_where_the_table_has_one():
    features = aligned({"[PAD]": [7, 7], "x": [1, 2]})
    assert features.values.tolist() == [[7, 7], [1, 2], [0, 0], [0, 0]]
    assert features.present.tolist() == [True, True, False, False]
    assert features.description.startswith("text: 1 of 3 items (33.3 %)")


@given(
    st.lists(st.sampled_from("abcdefgh"), unique=True, min_size=1),
    st.permutations(list("abcdefgh")),
    st.integers(1, 8),
)
def test_alignment_equals_a_dictionary(file_ids, items, n):
    tokens = ["[PAD]", *items[:n]]
    rows = {token: [float(place + 1)] for place, token in enumerate(file_ids)}
    if not set(tokens) & set(rows):
        with pytest.raises(FeatureFileError, match="none of the dataset's"):
            align(table(rows), "text", tokens, "none", "a test")
        return
    features = align(table(rows), "text", tokens, "none", "a test")
    assert features.values.tolist() == [rows.get(token, [0.0]) for token in tokens]
    assert features.present[1:].tolist() == [token in rows for token in tokens[1:]]


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_the_type_of_the_numbers_is_kept_under_every_norm(dtype):
    for norm in ("none", "l2", "standardize", "whiten"):
        features = aligned({"x": [1, 2], "y": [3, 5]}, norm, dtype)
        assert features.values.numpy().dtype == dtype


def test_arrays_of_tokens_are_read_like_lists():
    features = align(table({"y": [1]}), "text", np.array(TOKENS), "none", "a test")
    assert features.values.flatten().tolist() == [0, 0, 1, 0]


def test_the_description_counts_in_thousands_and_never_rounds_up_to_all():
    tokens = ["[PAD]", *map(str, range(10_000))]
    rows = {token: [1.0] for token in tokens[1:-1]}
    features = align(table(rows), "image", tokens, "none", "clip.parquet")
    assert features.description == "image: 9,999 of 10,000 items (99.9 %), 1-d, clip.parquet"


# Norms


def test_l2_makes_rows_of_length_one_and_leaves_zeros():
    features = aligned({"x": [3, 4], "y": [0, 0], "z": [-5, 0]}, "l2")
    expected = torch.tensor([[0, 0], [0.6, 0.8], [0, 0], [-1, 0]])
    torch.testing.assert_close(features.values, expected)


def test_standardize_uses_the_items_present_alone():
    features = aligned({"[PAD]": [100, 5], "x": [1, 5], "z": [3, 9]}, "standardize")
    # Mean 2 and 7, deviation 1 and 2; the padding row of the table is scaled, but does not count.
    expected = torch.tensor([[98.0, -1], [-1, -1], [0, 0], [1, 1]])
    torch.testing.assert_close(features.values, expected)


@pytest.mark.parametrize("constant", [0.1, 1e-30, 3e38, 60000.0])
def test_constant_columns_become_zero(constant):
    rows = {"x": [constant, 1.0], "y": [constant, 2.0], "z": [constant, 4.0]}
    values = aligned(rows, "standardize").values
    assert values[:, 0].tolist() == [0, 0, 0, 0]
    assert values[1:, 1].std(correction=0) == pytest.approx(1)


def test_a_long_constant_column_becomes_zero_whatever_the_rounding():
    tokens = ["[PAD]", *map(str, range(100_003))]
    values = np.repeat(np.float32([[0.1, 1 / 3]]), len(tokens), axis=0)
    long = FeatureTable(np.array(tokens, object), values, {})
    assert not align(long, "text", tokens, "standardize", "a test").values.any()


def test_huge_and_tiny_numbers_stay_finite():
    for number in (3e38, 1e-38):
        rows = {"x": [number, -number], "y": [-number, number]}
        for norm in ("l2", "standardize", "whiten"):
            values = aligned(rows, norm).values
            assert values.isfinite().all()
            assert values.abs().max() > 0.5


def test_an_unknown_norm_names_the_nearest():
    with pytest.raises(ValueError, match="'standardise'. Did you mean standardize?"):
        aligned({"x": [1]}, "standardise")


# Fingerprints


def test_the_fingerprint_changes_with_values_presence_and_norm_alone():
    rows = {"x": [1.0, 2.0], "y": [0.0, 0.0]}
    prints = {
        aligned(rows).fingerprint,
        aligned({"x": [1.0, 3.0], "y": [0.0, 0.0]}).fingerprint,
        aligned({"x": [1.0, 2.0]}).fingerprint,
        aligned(rows, "l2").fingerprint,
    }
    assert len(prints) == 4
    shuffled = dict(reversed(rows.items())) | {"not in the dataset": [4.0, 4.0]}
    assert aligned(shuffled).fingerprint == aligned(rows).fingerprint
    other_name = align(table(rows), "image", TOKENS, "none", "elsewhere")
    assert other_name.fingerprint == aligned(rows).fingerprint


# Ids that do not meet


def test_no_common_token_shows_both_sides():
    with pytest.raises(FeatureFileError, match=r"3 items.*'x', 'y', 'z'.*'B001', 'B002'") as error:
        align(table({"B001": [1], "B002": [1]}), "text", TOKENS, "none", "b.npz")
    assert "b.npz" in str(error.value)
    assert "would match" not in str(error.value)


@pytest.mark.parametrize(
    ("theirs", "hint"),
    [
        (["1.0", "2.0"], "2 of them .* without a final '.0': .* has '1', the features have '1.0'"),
        ([" 1", "2\n"], "2 of them .* without white space around them: .* has '1', .* have ' 1'"),
        (["001", "002"], "2 of them .* without zeros in front: .* '1', .* '001'"),
    ],
)
def test_another_spelling_of_the_ids_is_told_and_not_guessed(theirs, hint):
    rows = {token: [1.0] for token in theirs}
    with pytest.raises(FeatureFileError, match=hint):
        align(table(rows), "text", ["[PAD]", "1", "2"], "none", "a test")


def test_spelling_of_a_part_of_the_ids_is_a_warning(caplog):
    with caplog.at_level(logging.WARNING):
        features = align(table({"a": [1], "B": [2]}), "text", ["[PAD]", "a", "b"], "none", "a test")
    assert features.present.tolist() == [True, True, False]
    assert "1 of them would match if the ids were compared in lower case" in caplog.text


def test_rows_of_zeros_are_told_with_an_item_and_stay_present(caplog):
    rows = {"[PAD]": [0, 0], "a": [0, 1], "c": [0, 0], "b": [0, 0], "other": [0, 0]}
    features = align(table(rows), "image", ["[PAD]", "a", "b", "c"], "none", "a test")
    assert features.present.all()
    assert (
        "image features (a test): rows of zeros, which count as known: 2, such as that of 'b'."
        in caplog.text
    )
    caplog.clear()
    align(table({"a": [0, 1]}), "image", ["[PAD]", "a", "b"], "l2", "a test")
    assert not caplog.text


MANY = {f"i{number}": [float(number), float(-number)] for number in range(1, 31)}


def mixed(rows, seed=1, tokens=None):
    ids = ["[PAD]", "no row", *MANY] if tokens is None else tokens
    return align(table(MANY), "text", ids, "none", "a test", feature_rows=rows, seed=seed)


def test_shuffled_rows_belong_to_other_items_and_missing_ones_stay_missing():
    own, shuffled = mixed("own"), mixed("shuffled")
    assert sorted(shuffled.values.tolist()) == sorted(own.values.tolist())
    assert (shuffled.values[2:, 0] != own.values[2:, 0]).sum() > 20
    assert shuffled.values[:2].tolist() == [[0, 0], [0, 0]]
    assert shuffled.present.tolist() == own.present.tolist()


def test_random_rows_have_mean_and_deviation_of_the_table_and_say_nothing():
    own, codes = mixed("own").values[2:].double(), mixed("random").values[2:].double()
    assert abs(codes.mean() - own.mean()) < own.std() / 2
    assert 0.7 < codes.std() / own.std() < 1.3
    assert abs(torch.corrcoef(torch.stack([own[:, 0], codes[:, 0]]))[0, 1]) < 0.5


@pytest.mark.parametrize("rows", ["shuffled", "random"])
def test_mixed_up_rows_depend_on_seed_and_tokens_alone(rows):
    first, backwards = mixed(rows), ["[PAD]", *reversed(MANY), "no row"]
    assert torch.equal(mixed(rows).values, first.values)
    assert not torch.equal(mixed(rows, seed=2).values, first.values)
    turned = mixed(rows, tokens=backwards).values[1:-1].flip(0)
    assert torch.equal(turned, first.values[2:])
    prints = {mixed(r, seed).fingerprint for r in ("own", rows) for seed in (1, 2)}
    assert len(prints) == 3  # a seed changes mixed rows, never an item's own
    assert first.description.endswith(f"{rows} rows in place of a test")


def test_an_unknown_choice_of_rows_names_the_nearest():
    with pytest.raises(ValueError, match="feature_rows must be one of own, shuffled, random"):
        mixed("shuffle")


def standardized(n, width, seed=0):
    random = np.random.default_rng(seed)
    rows = random.normal(size=(n, width)) @ random.normal(size=(width, width))
    return (rows - rows.mean(axis=0)) / rows.std(axis=0)


def test_the_deviation_in_each_direction_becomes_its_square_root():
    rows = standardized(500, 12)
    mapped = rows @ half_whitening([rows])
    before = np.sqrt(np.linalg.eigvalsh(np.cov(rows.T, ddof=0)))
    after = np.sqrt(np.linalg.eigvalsh(np.cov(mapped.T, ddof=0)))
    assert np.allclose(after / after[-1], np.sqrt(before / before[-1]))
    assert mapped.std(axis=0).mean() == pytest.approx(1)


def test_blocks_give_what_all_rows_give():
    rows = standardized(300, 8)
    assert np.allclose(half_whitening([rows]), half_whitening([rows[:7], rows[7:]]))


def test_columns_without_correlation_stay_as_they_are():
    rows = np.array([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])
    assert np.allclose(half_whitening([rows]), np.eye(2))


@pytest.mark.parametrize(("n", "width"), [(1, 3), (2, 40), (30, 40)])
def test_fewer_rows_than_columns(n, width):
    rows = standardized(max(n, 2), width)[:n] if n > 1 else np.zeros((1, width))
    mapped = rows @ half_whitening([rows])
    assert np.isfinite(mapped).all()
    assert np.linalg.matrix_rank(mapped) == np.linalg.matrix_rank(rows)


def test_a_constant_column_is_left_out():
    rows = standardized(50, 4)
    rows[:, 2] = 0
    whitening = half_whitening([rows])
    assert np.allclose(whitening[2], 0, atol=1e-12)
    assert np.isfinite(whitening).all()
