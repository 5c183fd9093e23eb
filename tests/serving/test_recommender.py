"""Recommendations equal what the network scores, whatever is filtered, weighed or explained."""

import numpy as np
import pandas as pd
import pytest
import torch

from recbole_m3rec.network.packed import PackedSequences
from recbole_m3rec.ops.scores.best import best
from recbole_m3rec.serving import recommender
from recbole_m3rec.serving.arguments import weights_of
from recbole_m3rec.serving.catalogue import UnknownItemError
from recbole_m3rec.serving.recommender import Recommender, RequestError
from recbole_m3rec.serving.scoring.exact import best_by_groups
from tests.serving.conftest import N_ITEMS, made_network


def scores_of(history):
    """Score all items by the network itself; padding -inf."""
    network = made_network()
    vectors = network.item_vectors()
    bounds = torch.tensor([0, len(history)], dtype=torch.int32)
    with torch.no_grad():
        query = network.encode(PackedSequences(torch.tensor(history), bounds), vectors)
        scores = (query @ vectors.table.T)[0]
    scores[0] = -torch.inf
    return scores


def ids(numbers):
    return [f"i{int(number)}" for number in numbers]


def test_recommendations_are_the_networks_best_without_the_history(shop):
    scores = scores_of([4, 9, 17])
    scores[[4, 9, 17]] = -torch.inf
    values, items = scores.topk(10)
    frame = shop.recommend([["i4", "i9", "i17"]])
    assert list(frame.columns) == ["user", "rank", "item", "score"]
    assert list(frame["item"]) == ids(items)
    assert np.allclose(frame["score"], values, atol=1e-5)
    with_seen = shop.recommend([["i4", "i9", "i17"]], 60, exclude_seen=False)
    assert set(with_seen["item"]) == set(ids(range(1, 61)))


def test_many_histories_get_what_each_gets_alone(shop):
    draw = np.random.default_rng(0)
    histories = [ids(draw.integers(1, N_ITEMS + 1, draw.integers(0, 30))) for _ in range(50)]
    together = shop.recommend(histories, 7)
    for user, history in enumerate(histories):
        alone = shop.recommend([history], 7)
        part = together[together["user"] == user]
        assert list(part["item"]) == list(alone["item"])
        assert np.allclose(part["score"], alone["score"], atol=1e-5)


def test_only_the_newest_items_are_read_but_none_comes_again(shop):
    long = ids([*range(1, 31)])
    assert shop.max_history == 20
    frame = shop.recommend([long], 60)
    assert not set(frame["item"]) & set(long)
    scores = scores_of(list(range(11, 31)))
    scores[1:31] = -torch.inf
    assert list(frame["item"][:10]) == ids(scores.topk(10).indices)


def test_allowed_and_blocked_items(shop):
    frame = shop.recommend([["i1"]], 5, allowed=["i2", "i3", "i4", "i1", "nope"], blocked=["i3"])
    assert sorted(frame["item"]) == ["i2", "i4"]
    assert len(shop.recommend([["i1"]], 5, allowed=[])) == 0


def test_an_empty_history_gets_what_is_used_most_and_says_so(shop):
    frame = shop.recommend([[], ["i1"]], 2, blocked=["i1"])
    assert list(frame["item"][:2]) == ["i3", "i2"]
    assert frame.attrs["popular_users"] == [0]


def test_no_histories_get_an_empty_frame_like_any_other(shop):
    frame, none = shop.recommend([["i1"]], explain=True), shop.recommend({}, explain=True)
    assert none.empty
    assert list(none.columns) == list(frame.columns)
    for name in frame.columns.drop("item"):
        assert none[name].dtype == frame[name].dtype, name
    assert none.attrs == {"unknown_items": 0, "popular_users": []}
    assert list(shop.recommend([]).columns) == ["user", "rank", "item", "score"]


def test_unknown_items_are_skipped_and_counted(shop):
    frame = shop.recommend([["i4", "what", "i9", "i17", "ever"]])
    assert frame.attrs["unknown_items"] == 2
    assert list(frame["item"]) == list(shop.recommend([["i4", "i9", "i17"]])["item"])


def test_histories_come_as_users_mappings_and_frames(shop):
    frame = pd.DataFrame(
        {"user_id": ["b", "a", "a"], "item_id": ["i9", "i2", "i1"], "timestamp": [1, 9, 3]}
    )
    expected = shop.recommend({"a": ["i1", "i2"], "b": ["i9"]})
    pd.testing.assert_frame_equal(shop.recommend(frame), expected)
    assert list(shop.recommend(["ann"])["item"]) == list(shop.recommend([["i1", "i2"]])["item"])
    with pytest.raises(RequestError, match="zoe"):
        shop.recommend(["zoe"])
    with pytest.raises(RequestError, match="must be a list"):
        shop.recommend("ann")


def test_scores_are_the_networks_own_and_terms_sum_to_them(any_shop, any_score):
    network = made_network(**any_score)
    history = [4, 9, 4, 17]
    with torch.no_grad():
        expected = network(torch.tensor([history]), torch.tensor([4]))[0]
    frame = any_shop.recommend([ids(history)], 60, explain=True, exclude_seen=False)
    numbers = [int(item[1:]) for item in frame["item"]]
    assert np.allclose(frame["score"], expected[numbers], atol=1e-4)
    names = ["image", "text", "id"] + ["repetition"] * any_shop.has_repetition
    assert list(frame.columns[4:]) == names
    assert np.allclose(frame[names].sum(axis=1), frame["score"], atol=1e-4)
    found = any_shop.explain(ids(history), "i4")
    assert list(found.terms) == names
    assert found.score == pytest.approx(float(expected[4]), abs=1e-4)
    if any_shop.has_repetition:
        assert frame.set_index("item")["repetition"]["i4"] != 0
        assert frame.set_index("item")["repetition"]["i5"] == 0
        assert found.because["repetition"][0][0] in ("i4", "i9", "i17")
        silent = any_shop.recommend(
            [ids(history)], 60, weights={"repetition": 0}, explain=True, exclude_seen=False
        )
        assert (silent["repetition"] == 0).all()


def test_weights_weigh_terms(shop):
    frame = shop.recommend([["i4"]], 60, explain=True)
    weighed = shop.recommend([["i4"]], 60, weights={"image": 2.5, "id": 0}, explain=True)
    both = frame.merge(weighed, on="item", suffixes=("", "_w"))
    assert len(both) == 59
    assert np.allclose(both["image_w"], 2.5 * both["image"], atol=1e-5)
    assert np.allclose(both["text_w"], both["text"], atol=1e-5)
    assert np.allclose(both["score_w"], 2.5 * both["image"] + both["text"], atol=1e-4)
    typed = shop.recommend([["i4"]], 60, weights={"image": np.float32(2.5), "id": np.int64(0)})
    assert list(typed["item"]) == list(weighed["item"])
    equal = shop.recommend([["i4"]], 60, weights={"image": 0, "text": 0, "id": 0})
    assert (equal["score"] == 0).all()
    assert list(equal["item"]) == ids([n for n in range(1, 61) if n != 4])


def test_no_weights_are_none_and_cost_nothing():
    assert weights_of({}, ["image"]) is weights_of(None, ["image"]) is None


def test_weights_are_numbers_by_modality(shop):
    with pytest.raises(RequestError, match="Did you mean image"):
        shop.recommend([["i4"]], weights={"imag": 1})
    for weight in (np.nan, np.inf, 10**400, 1e300, -1e7, -1, True, "2", None, 1j):
        with pytest.raises(RequestError, match="image must be a number from 0 to 1,000,000, found"):
            shop.recommend([["i4"]], weights={"image": weight})
    for weights in ([1, 2], 0.5, "image", np.ones(3)):
        with pytest.raises(RequestError, match="weights must be a mapping by modality"):
            shop.recommend([["i4"]], weights=weights)


@pytest.mark.parametrize("k", [0, -1, 1.5, "3", True, None, np.bool_(True)])
def test_k_must_be_a_number_of_items(shop, k):
    for ask in (
        lambda: shop.recommend([["i1"]], k),
        lambda: shop.session(["i1"]).recommend(k),
        lambda: shop.similar("i1", k=k),
    ):
        with pytest.raises(RequestError, match="k must be a whole number of at least 1"):
            ask()
    with pytest.raises(RequestError, match="max_history must be a whole number of at least 1"):
        shop.max_history = k


def test_a_k_above_the_catalogue_gets_all_of_it(shop):
    for k in (N_ITEMS, 10**30):
        assert len(shop.recommend([["i1"]], k)) == N_ITEMS - 1
        assert len(shop.similar("i1", k=k)) == N_ITEMS - 1


def test_explanations_sum_to_the_score_and_leave_one_out(shop):
    history = ["i4", "i9", "i9", "i17"]
    found = shop.explain(history, "i30")
    assert found.score == pytest.approx(float(scores_of([4, 9, 9, 17])[30]), abs=1e-5)
    assert sum(found.terms.values()) == pytest.approx(found.score, abs=1e-5)
    without = shop.explain(["i4", "i17"], "i30")
    for name, items in found.because.items():
        effect = dict(items)["i9"]
        assert effect == pytest.approx(found.terms[name] - without.terms[name], abs=1e-5)
        assert [value for _, value in items] == sorted(dict(items).values(), reverse=True)
    only = shop.explain(["i4"], "i30")
    assert dict(only.because["id"])["i4"] == pytest.approx(only.terms["id"])
    with pytest.raises(RequestError):
        shop.explain(["unknown"], "i30")
    with pytest.raises(UnknownItemError, match="no item 'i99'"):
        shop.explain(history, "i99")


def test_similar_items_are_the_nearest_by_cosine(shop):
    table = made_network().item_table()[:, 8:16].detach()
    cosine = torch.nn.functional.cosine_similarity(table, table[7:8])
    cosine[[0, 7]] = -2
    assert list(shop.similar("i7", "text", 5)["item"]) == ids(cosine.topk(5).indices)
    assert "i5" not in set(shop.similar("i7", "image", 60)["item"])  # it has no picture
    assert len(shop.similar("i7", k=100)) == N_ITEMS - 1
    nothing = shop.similar("i5", "image")
    assert (len(nothing), nothing.attrs) == (0, {"reason": "item 'i5' has no image"})
    with pytest.raises(RequestError, match="Did you mean text"):
        shop.similar("i7", "texts")


def test_of_equally_similar_items_the_first_are_taken(shop, monkeypatch):
    monkeypatch.setattr(recommender, "cosines", lambda table, own: torch.ones(len(table)))
    assert list(shop.similar("i2", k=4)["item"]) == ["i1", "i3", "i4", "i5"]


def test_search_finds_all_words_without_accents_and_the_most_used_first(shop):
    found = [shop.items.ids[n] for n in shop.items.search("elan SHOE", 3)]
    assert found == ["i2", "i6", "i10"]
    assert [shop.items.ids[n] for n in shop.items.search("", 1)] == ["i3"]
    assert shop.items.search("i7", 1) == [7]
    assert shop.items.show(60)["cold"]


def test_half_precision_recommends_nearly_the_same(write_made):
    exact, half = (Recommender.load(write_made(p, precision=p)) for p in ("float32", "float16"))
    ours, theirs = (r.recommend([["i4", "i9"]], 10) for r in (exact, half))
    assert np.allclose(ours["score"], theirs["score"], atol=0.05)


@pytest.mark.parametrize("ties", [False, True])
def test_the_best_by_groups_are_the_best(ties):
    torch.manual_seed(0)
    for n in (10, 700, 3001):
        scores = torch.randn(20, n)
        if ties:
            scores = (scores * 2).round()
        scores[3, 5:] = -torch.inf
        for k in (1, 10):
            ours, theirs = best_by_groups(scores, k), best(scores.clone(), k)
            assert torch.equal(ours[0], theirs[0])
            finite = theirs[0] > -torch.inf
            assert torch.equal(ours[1][finite], theirs[1][finite])
