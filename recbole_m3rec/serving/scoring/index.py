"""Approximate search in a large catalogue by faiss, with exact scores of what it finds.

The index is an inverted file: items are divided among cells, and a query looks into the nearest
ones. What a bundle stores is plain numbers (centroids, the cell of each item), from which faiss's
index is put together at loading: faiss's own files are not safe to read from a stranger.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recbole_m3rec.serving.scoring.candidates import Pairs, score
from recbole_m3rec.serving.scoring.exact import Edits, exact_top

# Items from which --export builds an index.
LARGE = 200_000
TARGET_RECALL = 0.98  # of the 10 best
TRAINED_ON = 64  # items per cell that centroids are learned from
SAMPLE = 256  # queries that recall is measured with
SCORED_AT_ONCE = 2**14  # candidates whose vectors are gathered


class IndexUnavailableError(RuntimeError):
    """faiss is not installed."""


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise IndexUnavailableError(
            "approximate search needs faiss: pip install 'recbole_m3rec[faiss]', or search exactly "
            "(index=False)"
        ) from error
    return faiss


class Index:
    """An inverted file over the item table.

    Args:
        tensors: ``centroids [n_cells, D]`` float32, ``cells [n_items]`` int32 and ``probes [1]``.
        table: ``[n_items, D]``.

    Raises:
        IndexUnavailableError: faiss is not installed.
        ValueError: the tensors do not fit the table.
    """

    def __init__(self, tensors: Mapping[str, Tensor], table: Tensor) -> None:
        faiss = _faiss()
        centroids, cells = tensors["centroids"], tensors["cells"]
        n_cells, width = centroids.shape
        fits = (
            len(cells) == len(table)
            and width == table.shape[1]
            and centroids.dtype == torch.float32
        )
        if not fits or int(cells.min()) < 0 or int(cells.max()) >= n_cells:
            raise ValueError(
                f"the index has {len(cells):,} items of width {width} in {n_cells} cells, the "
                f"catalogue {len(table):,} of width {table.shape[1]}: export the bundle again"
            )
        quantizer = faiss.IndexFlatIP(width)
        quantizer.add(np.ascontiguousarray(centroids.numpy()))
        # Eight bits a number are read four times as fast, and candidates are scored exactly anyway.
        kind, product = faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
        self.faiss = faiss.IndexIVFScalarQuantizer(quantizer, width, n_cells, kind, product, False)
        sample = table[:: max(1, len(table) // 2**16)].float().numpy()
        self.faiss.sq.train(np.ascontiguousarray(sample))
        self.faiss.is_trained = True
        for first in range(0, len(table), 2**18):
            some = slice(first, first + 2**18)
            rows = np.ascontiguousarray(table[some].float().numpy())
            ids = np.arange(first, first + len(rows), dtype=np.int64)
            its_cells = cells[some].numpy().astype(np.int64)
            self.faiss.add_core(
                len(rows),
                *(faiss.swig_ptr(array) for array in (rows, ids, its_cells)),
            )
        self.faiss.nprobe = int(tensors["probes"][0])
        self._search = faiss.SearchParametersIVF

    def add(self, first: int, rows: Tensor) -> None:
        """Add items, numbered from ``first`` on."""
        ids = np.arange(first, first + len(rows), dtype=np.int64)
        self.faiss.add_with_ids(np.ascontiguousarray(rows.float().numpy()), ids)

    def candidates(self, queries: Tensor, n: int, probes: int | None = None) -> np.ndarray:
        """Return about ``n`` items that score high for each query, ``[B, n]``, -1 for none."""
        params = self._search(nprobe=probes or self.faiss.nprobe)
        _, items = self.faiss.search(np.ascontiguousarray(queries.numpy()), n, params=params)
        return items

    def top(self, queries: Tensor, table: Tensor, k: int, edits: Edits) -> tuple[Tensor, Tensor]:
        """Return each query's ``k`` best items of those found, scored exactly.

        Where filters leave fewer than ``k``, more is searched, and at last everything.
        See :func:`recbole_m3rec.serving.scoring.exact.exact_top`.
        """
        items = torch.zeros(len(queries), k, dtype=torch.int64)
        scores = torch.full((len(queries), k), -torch.inf)
        narrow = [allowed is not None and len(allowed) <= 64 * k for allowed in edits.allowed]
        is_exact = torch.tensor(narrow, dtype=torch.bool)
        is_exact[edits.replaced] = True
        rows = (~is_exact).nonzero().squeeze(1)
        removed, added = Pairs.of(*edits.removed), edits.added and Pairs.of(*edits.added)
        most = int(torch.bincount(edits.removed[0]).max()) if len(edits.removed[0]) else 0
        n, probes = 2 * k + most, self.faiss.nprobe
        while len(rows) and n <= len(table) // 4:
            at_once, open_rows = max(1, SCORED_AT_ONCE // n), []
            for some in rows.split(at_once):
                found = torch.from_numpy(self.candidates(queries[some], n, probes))
                if added is not None:  # what the query alone does not find
                    found = torch.cat([found, added.of_rows(some)], 1)
                found = found.sort(dim=1).values  # so that of equal scores the lower item is first
                own = score(queries[some], table, found, some, added, removed, edits.allowed)
                own, order = own.sort(dim=1, descending=True, stable=True)
                whole = (own > -torch.inf).sum(1) >= k
                items[some[whole]] = found.gather(1, order)[whole, :k]
                scores[some[whole]] = own[whole, :k]
                open_rows.append(some[~whole])
            rows = torch.cat(open_rows)
            n, probes = 4 * n, min(4 * probes, self.faiss.nlist)
        for row in torch.cat([is_exact.nonzero().squeeze(1), rows])[:, None]:
            items[row], scores[row] = exact_top(queries[row], table, k, edits.of(row))
        return items, scores


def build_index(table: Tensor, queries: Tensor) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Divide items among cells, and choose how many cells a query looks into.

    Args:
        table: ``[n_items, D]``.
        queries: real queries to measure recall with, ``[n, D]`` float32.

    Returns:
        The tensors of :class:`Index`; and what was measured: ``recall@10``, ``cells``, ``probes``,
        ``queries``.
    """
    faiss = _faiss()
    table, queries = table.detach(), queries.detach()
    n_items, width = table.shape
    n_cells = max(1, min(int(4 * n_items**0.5), n_items // 8))
    rng = np.random.default_rng(0)
    sample = rng.choice(n_items, min(n_items, TRAINED_ON * n_cells), replace=False)
    rows = np.ascontiguousarray(table[torch.from_numpy(np.sort(sample))].float().numpy())
    kmeans = faiss.Kmeans(
        width, n_cells, niter=8, seed=0, spherical=False, min_points_per_centroid=1
    )
    kmeans.train(rows)
    centroids = torch.from_numpy(kmeans.centroids.copy())
    nearest = faiss.IndexFlatL2(width)
    nearest.add(kmeans.centroids)
    cells = torch.empty(n_items, dtype=torch.int32)
    for first in range(0, n_items, 2**18):
        part = np.ascontiguousarray(table[first : first + 2**18].float().numpy())
        cells[first : first + len(part)] = torch.from_numpy(nearest.search(part, 1)[1][:, 0])
    tensors = {"centroids": centroids, "cells": cells, "probes": torch.tensor([1])}
    index = Index(tensors, table)
    queries = queries[:SAMPLE]
    nothing = torch.empty(0, dtype=torch.int64)
    edits = Edits((nothing, nothing), None, [None] * len(queries), nothing, torch.zeros(n_items))
    exact = exact_top(queries, table, 10, edits)[0].numpy()
    probes, recall = 1, 0.0
    while True:
        found = index.candidates(queries, 20, probes)
        pairs = zip(exact, found, strict=True)
        recall = float(np.mean([np.isin(best, got).mean() for best, got in pairs]))
        if recall >= TARGET_RECALL or probes >= n_cells:
            break
        probes = min(n_cells, max(probes + 1, int(probes * 1.1)))
    tensors["probes"] = torch.tensor([probes])
    return tensors, {
        "recall@10": round(recall, 4),
        "cells": n_cells,
        "probes": probes,
        "queries": len(queries),
    }
