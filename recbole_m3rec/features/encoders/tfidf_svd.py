"""TF-IDF and SVD: text features without a download, bit-identical from run to run."""

from __future__ import annotations

import functools
import itertools
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from recbole_m3rec.features.encoders.batches import check_counts, check_flags

if TYPE_CHECKING:
    from scipy import sparse

_HAS_WORD = re.compile(r"\w")
# Scripts without spaces between words: Thai, Lao, Burmese, Khmer, Chinese and Japanese.
_UNSPACED = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_RUNS = re.compile(f"[{_UNSPACED}]+|[^{_UNSPACED}]+")
_IS_UNSPACED = re.compile(f"[{_UNSPACED}]")

# Bounds the memory of the factorisation; the most frequent terms are kept.
_MAX_TERMS = 100_000

# Relative to the largest singular value, and to rows of length 1: what lies below is rounding.
_ROUNDING = 1e-5

_CORRECTIONS = 20


def encode_tfidf_svd(
    texts: Sequence[str],
    *,
    dim: int = 512,
    min_df: int = 2,
    max_ngram: int = 1,
    unit_rows: bool = True,
    progress: Callable[[int], object] | None = None,
) -> np.ndarray:
    """Encode texts by latent semantic analysis: TF-IDF of words, then their leading directions.

    The result depends on the texts and their order alone: the start is fixed, the linear algebra
    runs on one thread, and each component has its largest entry positive.

    Args:
        texts: one per item; a term never spans two lines.
        dim: numbers per item, at least 1; fewer come out where the texts do not span as many.
        min_df: leave out terms of fewer texts, at least 1; lowered where none would stay.
        max_ngram: longest term in words, 1 to 3; at a fixed ``dim``, pairs crowd out single words.
        unit_rows: scale each row to length 1.
        progress: called with the number of texts done since the last call.

    Returns:
        ``[len(texts), d]`` float32 with ``d <= dim``; zeros for a text without any known term.

    Raises:
        ValueError: an option out of range, or no text has any word.
    """
    _, fitted, rows = _fit(texts, dim, min_df, max_ngram, unit_rows, progress)
    return _finished(rows, fitted)


@dataclass(frozen=True)
class FittedTfidfSvd:
    """What a corpus taught: with it, texts outside the corpus are encoded alike.

    Attributes:
        terms: the corpus's terms, ``T`` of them.
        idf: weight of each, ``[T]`` float32.
        directions: about the right singular vectors, ``[T, d]`` float32.
        max_ngram: longest term in words.
        unit_rows: whether rows are scaled to length 1.
    """

    terms: tuple[str, ...]
    idf: np.ndarray
    directions: np.ndarray
    max_ngram: int
    unit_rows: bool

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Encode texts, ``[len(texts), d]`` float32; zeros for one without any known term."""
        from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer

        analyzer = partial(_terms, max_ngram=self.max_ngram)
        counter = CountVectorizer(analyzer=analyzer, vocabulary=self.terms, dtype=np.float32)
        weigher = TfidfTransformer(sublinear_tf=True)
        weigher.idf_ = self.idf
        return _finished(weigher.transform(counter.transform(texts)) @ self.directions, self)


def fit_tfidf_svd(
    texts: Sequence[str],
    *,
    dim: int = 512,
    min_df: int = 2,
    max_ngram: int = 1,
    unit_rows: bool = True,
    progress: Callable[[int], object] | None = None,
) -> tuple[FittedTfidfSvd, np.ndarray]:
    """Encode texts as :func:`encode_tfidf_svd` does; also return what encodes further texts."""
    weights, fitted, rows = _fit(texts, dim, min_df, max_ngram, unit_rows, progress)
    corrected = _corrected(weights, rows, fitted.directions)
    return replace(fitted, directions=corrected), _finished(rows, fitted)


def _fit(
    texts: Sequence[str],
    dim: int,
    min_df: int,
    max_ngram: int,
    unit_rows: bool,
    progress: Callable[[int], object] | None,
) -> tuple[sparse.csr_matrix, FittedTfidfSvd, np.ndarray]:
    """Return TF-IDF weights, what was learned, and rows that are not finished."""
    _check_options(dim, min_df, max_ngram, unit_rows)
    weights, terms, idf = _tfidf(texts, min_df, max_ngram, progress)
    rows, directions = _leading_directions(weights, min(dim, *weights.shape))
    fitted = FittedTfidfSvd(terms, idf.astype(np.float32), directions, max_ngram, unit_rows)
    return weights, fitted, rows


def _corrected(weights: sparse.csr_matrix, rows: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Return directions with ``weights @ directions`` nearer to ``rows``.

    The last singular vectors of a randomized SVD are rough, by a hundredth here. The correction is
    the least one, by conjugate gradients, a system per column.
    """
    weights = weights.astype(np.float64)
    missing = rows - weights @ directions
    found, step = np.zeros_like(missing), missing
    size = (missing**2).sum(0)
    for _ in range(_CORRECTIONS):
        product = weights @ (weights.T @ step)
        curvature = (step * product).sum(0)
        moves = curvature > _ROUNDING * (step**2).sum(0)  # else only rounding is left
        rate = np.divide(size, curvature, out=np.zeros_like(size), where=moves)
        found = found + rate * step
        missing = missing - rate * product
        before, size = size, (missing**2).sum(0)
        step = missing + np.divide(size, before, out=np.zeros_like(size), where=moves) * step
    return (directions + weights.T @ found).astype(np.float32)


def _finished(rows: np.ndarray, fitted: FittedTfidfSvd) -> np.ndarray:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    known = lengths > _ROUNDING
    rows = np.where(known, rows, np.float32(0))
    if fitted.unit_rows:
        rows /= np.where(known, lengths, np.float32(1))
    return np.ascontiguousarray(rows, dtype=np.float32)


def _check_options(dim: int, min_df: int, max_ngram: int, unit_rows: bool) -> None:
    check_counts("tfidf-svd", dim=dim, min_df=min_df, max_ngram=max_ngram)
    if max_ngram > 3:
        raise ValueError(f"tfidf-svd: max_ngram must be at most 3, found {max_ngram}")
    check_flags("tfidf-svd", unit_rows=unit_rows)


def _tfidf(
    texts: Sequence[str], min_df: int, max_ngram: int, progress: Callable[[int], object] | None
) -> tuple[sparse.csr_matrix, tuple[str, ...], np.ndarray]:
    """Return TF-IDF weights, ``[len(texts), n_terms]``, rows of length 1 or 0; terms and idf."""
    from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer

    if not any(map(_HAS_WORD.search, texts)):
        raise ValueError("tfidf-svd: none of the texts has a word, so there is nothing to encode")
    analyzer = partial(_terms, max_ngram=max_ngram)
    counter = CountVectorizer(analyzer=analyzer, dtype=np.float32)
    counts = counter.fit_transform(_reporting(texts, progress))
    in_texts = np.bincount(counts.indices, minlength=counts.shape[1])
    by_frequency = np.argsort(-in_texts, kind="stable")[:_MAX_TERMS]
    frequent = by_frequency[in_texts[by_frequency] >= min(min_df, in_texts.max())]
    kept = np.sort(frequent)
    weigher = TfidfTransformer(sublinear_tf=True)
    weights = weigher.fit_transform(counts[:, kept])
    return weights, tuple(counter.get_feature_names_out()[kept]), weigher.idf_


def _leading_directions(weights: sparse.csr_matrix, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """Project rows on their ``rank`` leading right singular vectors, signs fixed; return both."""
    from sklearn.utils.extmath import randomized_svd
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    with threadpool_limits(limits=1):  # BLAS adds up in another order on another number of threads
        left, lengths, right = randomized_svd(
            weights,
            rank,
            n_oversamples=10,
            n_iter=5,
            flip_sign=True,  # the largest entry of each left vector is positive
            random_state=0,
        )
    kept = lengths > _ROUNDING * lengths.max()
    return (left * lengths)[:, kept], right[kept].T.astype(np.float32)


@functools.cache
def _word() -> re.Pattern[str]:
    """Return what a word is: the vowel signs of Indian and other scripts belong to it."""
    marks = (c for c in map(chr, range(0x10000)) if unicodedata.category(c) in ("Mn", "Mc"))
    return re.compile(rf"\w[\w{''.join(marks)}]*")


def _words(line: str) -> Iterator[str]:
    """Yield the words of a line; of scripts without spaces, pairs of neighbouring characters."""
    for word in _word().findall(line):
        for run in _RUNS.findall(word):
            is_long = len(run) > 2 and _IS_UNSPACED.match(run)
            yield from map("".join, itertools.pairwise(run)) if is_long else [run]


def _terms(text: str, max_ngram: int) -> Iterator[str]:
    for line in unicodedata.normalize("NFKC", text).casefold().split("\n"):
        words = list(_words(line))
        yield from words
        for n in range(2, max_ngram + 1):
            yield from map(" ".join, zip(*(words[i:] for i in range(n)), strict=False))


def _reporting(texts: Sequence[str], progress: Callable[[int], object] | None) -> Iterator[str]:
    for text in texts:
        yield text
        if progress is not None:
            progress(1)
