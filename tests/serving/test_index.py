"""The index finds nearly what exact search does, keeps filters, and takes new items."""

import numpy as np
import pytest
import torch

from recbole_m3rec.serving.recommender import Recommender
from recbole_m3rec.serving.scoring.index import Index, build_index
from tests.serving.conftest import made_features, made_network, write_made_bundle

pytest.importorskip("faiss")
N = 3000


@pytest.fixture(scope="module")
def indexed_bundle(tmp_path_factory):
    network = made_network(N)
    tensors, measured = build_index(network.item_table(), torch.randn(64, 24))
    assert measured["recall@10"] >= 0.98
    folder, about = tmp_path_factory.mktemp("indexed") / "bundle", {"index": measured}
    return write_made_bundle(folder, n_items=N, network=network, index=tensors, about=about)


@pytest.fixture
def shops(indexed_bundle):
    """A recommender with an index, and an exact one, over the same bundle."""
    return Recommender.load(indexed_bundle), Recommender.load(indexed_bundle, index=False)


def histories(n):
    draw = np.random.default_rng(0)
    return [[f"i{i}" for i in draw.integers(1, N + 1, 8)] for _ in range(n)]


def test_it_finds_what_exact_search_finds(shops):
    near, exact = (shop.recommend(histories(50), 10) for shop in shops)
    same = near.merge(exact, on=["user", "item"], suffixes=("", "_e"))
    assert len(same) >= 0.95 * len(exact)
    assert np.allclose(same["score"], same["score_e"], rtol=1e-5, atol=1e-4)


def test_filters_search_on_until_enough_remain(shops):
    near, exact = shops
    best = exact.recommend(histories(1), 600)["item"]
    left = near.recommend(histories(1), 20, blocked=list(best[:500]))
    assert len(left) == 20
    assert not set(left["item"]) & set(best[:500])
    few = [f"i{n}" for n in range(1, 40)]
    options = {"k": 10, "allowed": few}
    ours, theirs = (shop.recommend(histories(3), **options)["item"] for shop in shops)
    assert list(ours) == list(theirs)
    assert len(near.recommend(histories(1), N)) == len(exact.recommend(histories(1), N))
    assert list(near.recommend([[]], 2)["item"]) == list(exact.recommend([[]], 2)["item"])


def test_new_items_are_found(shops):
    near, exact = shops
    import pandas as pd

    features = {name: of.values[[7]].numpy() for name, of in made_features(N).items()}
    for shop in shops:
        shop.add_items(pd.DataFrame({"item_id": ["new"]}), features)
    query = [["i7"]]
    ours, theirs = (shop.recommend(query, 50, exclude_seen=False) for shop in (near, exact))
    assert ("new" in set(ours["item"])) == ("new" in set(theirs["item"]))


def test_an_index_of_another_catalogue_is_an_error():
    tensors, _ = build_index(torch.randn(200, 8), torch.randn(10, 8))
    with pytest.raises(ValueError, match="export the bundle again"):
        Index(tensors, torch.randn(201, 8))
