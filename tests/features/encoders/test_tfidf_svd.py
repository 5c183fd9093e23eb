"""TF-IDF and SVD."""

import hashlib
import inspect
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_m3rec.features.encoders.tfidf_svd import _terms, encode_tfidf_svd, fit_tfidf_svd
from tests.fresh_python import fresh_python


def some_texts(n):
    draw = np.random.RandomState(0)
    return [" ".join(f"word{number}" for number in draw.randint(400, size=6)) for _ in range(n)]


def test_texts_that_share_words_are_near_and_others_are_not():
    texts = ["red wool hat", "red wool hat\nnew", "blue silk shoe", "blue silk shoe\nnew"]
    rows = encode_tfidf_svd(texts, min_df=1)
    near, far = rows[0] @ rows[1], rows[0] @ rows[2]
    assert near > 0.7
    assert abs(far) < 1e-5


def test_full_rank_keeps_every_inner_product():
    texts = ["a b", "b c", "a a c"]
    rows = encode_tfidf_svd(texts, min_df=1, unit_rows=False)
    # By hand: idf is 1 + ln(4 / 3) for each of the three terms, so it drops out of unit rows.
    twice = 1 + np.log(2)
    weights = np.array([[1, 1, 0], [0, 1, 1], [twice, 0, 1]])
    weights /= np.linalg.norm(weights, axis=1, keepdims=True)
    np.testing.assert_allclose(rows @ rows.T, weights @ weights.T, atol=1e-5)


def test_each_component_has_its_largest_entry_positive():
    rows = encode_tfidf_svd(some_texts(100), dim=20, unit_rows=False)
    assert (rows[np.abs(rows).argmax(axis=0), np.arange(20)] > 0).all()


@pytest.mark.parametrize("n_texts", [1, 2, 5])
def test_rank_is_what_a_tiny_catalogue_allows(n_texts):
    rows = encode_tfidf_svd([f"word{i}" for i in range(n_texts)])
    assert rows.shape == (n_texts, n_texts)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-5)


def test_repeated_texts_span_one_direction():
    assert encode_tfidf_svd(["red hat"] * 5).shape == (5, 1)


def test_a_text_without_a_known_term_is_a_row_of_zeros():
    rows = encode_tfidf_svd(["red hat", "red hat", "unique", "!?", ""], min_df=2)
    assert rows.any(axis=1).tolist() == [True, True, False, False, False]


def test_pairs_of_words_are_terms_within_a_line_only():
    apart = encode_tfidf_svd(["red\nhat", "hat red"], min_df=1, max_ngram=2)
    together = encode_tfidf_svd(["red hat", "hat red"], min_df=1, max_ngram=2)
    words = encode_tfidf_svd(["red hat", "hat red"], min_df=1, max_ngram=1)
    assert words[0] @ words[1] == pytest.approx(1, abs=1e-5)
    assert apart[0] @ apart[1] > together[0] @ together[1] + 0.05


def test_case_and_width_of_letters_do_not_matter():
    rows = encode_tfidf_svd(["STRASSE", "straße", "ｓｔｒａｓｓｅ", "other"], min_df=1)
    assert rows[0] @ rows[1] == pytest.approx(1, abs=1e-5)
    assert rows[0] @ rows[2] == pytest.approx(1, abs=1e-5)


def test_result_is_equal_to_the_bit_whatever_the_threads_and_the_hash_seed():
    # As large as this, the matrix products of several threads differ from those of one.
    here = hashlib.sha256(encode_tfidf_svd(some_texts(600), dim=100)).hexdigest()
    code = (
        "import hashlib, numpy as np\n"
        "from recbole_m3rec.features.encoders.tfidf_svd import encode_tfidf_svd\n"
        f"{inspect.getsource(some_texts)}"
        "print(hashlib.sha256(encode_tfidf_svd(some_texts(600), dim=100)).hexdigest())"
    )
    threads = "2" if os.environ.get("OMP_NUM_THREADS") == "1" else "1"
    variables = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "PYTHONHASHSEED")
    assert fresh_python(code, **dict.fromkeys(variables, threads)).stdout.split() == [here]


def test_progress_counts_every_text():
    done = []
    encode_tfidf_svd(["red", "blue", ""], progress=done.append)
    assert sum(done) == 3


@pytest.mark.parametrize(
    "options", [{"dim": 0}, {"dim": True}, {"min_df": 0.5}, {"max_ngram": 4}, {"unit_rows": "yes"}]
)
def test_options_out_of_range_are_named(options):
    with pytest.raises(ValueError, match=f"tfidf-svd: {next(iter(options))} must be"):
        encode_tfidf_svd(["red hat"], **options)


@pytest.mark.parametrize("texts", [[], ["", "?!"]])
def test_no_word_at_all_is_an_error(texts):
    with pytest.raises(ValueError, match="has a word"):
        encode_tfidf_svd(texts)


@settings(max_examples=30)
@given(st.lists(st.text(alphabet="ab \n", max_size=6), min_size=1, max_size=6))
def test_any_texts_give_finite_rows_of_length_one_or_zero(texts):
    if not any(text.strip() for text in texts):
        return
    rows = encode_tfidf_svd(texts, dim=3)
    lengths = np.linalg.norm(rows, axis=1)
    assert rows.shape[0] == len(texts)
    assert rows.dtype == np.float32
    assert np.all((lengths == 0) | (np.abs(lengths - 1) < 1e-5))


def test_what_was_learned_encodes_the_corpus_as_it_was_encoded():
    texts = some_texts(400)
    fitted, rows = fit_tfidf_svd(texts, dim=100, min_df=1)
    assert np.abs(fitted.encode(texts) - rows).max() < 1e-4
    assert np.array_equal(rows, encode_tfidf_svd(texts, dim=100, min_df=1))


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("Hats & caps_2, l'été", ["hats", "caps_2", "l", "été"]),
        ("लाल जूते", ["लाल", "जूते"]),
        ("காலணி ❤️ 1", ["காலணி", "1"]),
        ("红色鞋子 xl", ["红色", "色鞋", "鞋子", "xl"]),
        ("スマホ", ["スマ", "マホ"]),
        ("帽 iphone用ケース", ["帽", "iphone", "用ケ", "ケー", "ース"]),
        ("한국 신발", ["한국", "신발"]),
    ],
)
def test_words_are_those_of_the_script(text, terms):
    assert list(_terms(text, 1)) == terms
