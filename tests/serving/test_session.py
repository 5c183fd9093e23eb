"""A session equals the batch path item by item, and its saved bytes go on where it was."""

import json
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch

from recbole_m3rec.serving.catalogue import UnknownItemError
from recbole_m3rec.serving.recommender import Recommender
from recbole_m3rec.serving.session import SessionError
from tests.serving.conftest import N_ITEMS, SETTINGS, made_features, made_network


def test_a_session_equals_the_batch_path_after_each_of_200_items(any_shop):
    shop = any_shop
    shop.max_history = 200
    history = [f"i{n}" for n in np.random.default_rng(0).integers(1, N_ITEMS + 1, 200)]
    options = {"explain": True, "exclude_seen": False}
    batch = shop.recommend([history[:length] for length in range(1, 201)], 5, **options)
    session, found = shop.session(), []
    for item in history:
        session.add(item)
        found.append(session.recommend(5, **options))
    ours = pd.concat(found, ignore_index=True)
    assert list(ours["item"]) == list(batch["item"])
    columns = ["score", "image", "text", "id"]
    assert np.allclose(ours[columns], batch[columns], rtol=1e-5, atol=1e-5)
    assert session.history == history


@pytest.mark.parametrize("exclude_seen", [True, False])
def test_among_many_items_it_recommends_what_the_batch_path_does(write_made, exclude_seen):
    settings = SETTINGS | {"score": "cosine", "repetition": True}
    network = made_network(3000, **settings)
    shop = Recommender.load(write_made(n_items=3000, network=network, settings=settings))
    weights = {"text": 2.0, "repetition": 3.0}
    options = {"exclude_seen": exclude_seen, "explain": True, "weights": weights, "blocked": ["i9"]}
    history, session = ["i4", "i2000", "i4", "i77"], shop.session()
    for item in history:
        session.add(item)
    ours, batch = session.recommend(10, **options), shop.recommend([history], 10, **options)
    assert list(ours["item"]) == list(batch["item"])
    assert list(ours) == list(batch)
    assert np.allclose(ours.iloc[:, 3:], batch.iloc[:, 3:], rtol=1e-5, atol=1e-5)
    assert set(history).isdisjoint(ours["item"]) == exclude_seen
    other = pickle.loads(pickle.dumps(shop))  # as a process gets it that is spawned
    pd.testing.assert_frame_equal(other.recommend([history], 10, **options), batch)


def test_a_session_from_a_history_goes_on_like_one_that_grew(shop):
    grown, read = shop.session(), shop.session(["i4", "nope", "i9"])
    assert read.unknown_items == 1
    for item in ("i4", "i9"):
        grown.add(item)
    for session in (grown, read):
        session.add("i17")
    options = {"weights": {"id": 2}, "blocked": ["i3"]}
    ours, theirs = grown.recommend(5, **options), read.recommend(5, **options)
    assert list(ours["item"]) == list(theirs["item"])
    batch = shop.recommend([["i4", "i9", "i17"]], 5, **options)
    assert list(ours["item"]) == list(batch["item"])


def test_sessions_of_several_threads_keep_their_own_states(shop):
    histories = [
        [f"i{(7 * n + 3 * k) % N_ITEMS + 1}" for k in range(20 + n % 5)] for n in range(80)
    ]

    def scores(history):
        session = shop.session(history)
        session.add("i7")
        return list(session.recommend(5)["score"])

    expected = [scores(history) for history in histories]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as threads:
            found = list(threads.map(scores, histories))
    finally:
        sys.setswitchinterval(interval)
    assert found == expected


def test_a_saved_session_goes_on_elsewhere(shop):
    session = shop.session(["i4", "i9"])
    again = shop.restore(session.save())
    for one in (session, again):
        one.add("i30")
    assert list(session.recommend()["score"]) == list(again.recommend()["score"])
    assert again.history == ["i4", "i9", "i30"]
    empty = shop.restore(shop.session().save()).recommend(2)  # gets what is used most
    assert list(empty["item"]) == ["i3", "i1"]
    assert empty.attrs["popular_users"] == [0]


def test_bytes_of_elsewhere_are_refused(shop, write_made):
    saved = shop.session(["i4"]).save()
    for damaged in (b"", b"abc", saved[:50], b"\x80\x04."):
        with pytest.raises(SessionError, match="not a saved session"):
            shop.restore(damaged)
    other = Recommender.load(write_made("other", network=made_network(spread=2.0)))
    with pytest.raises(SessionError, match="of the bundle"):
        other.restore(saved)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda tensors, about: about.pop("unknown_items"),
        lambda tensors, about: about.update(unknown_items="many"),
        lambda tensors, about: about.update(added="5"),
        lambda tensors, about: about.update(added='["i5"]'),
        lambda tensors, about: tensors.update(history=torch.tensor([61])),
        lambda tensors, about: tensors.pop("query"),
        lambda tensors, about: tensors.update(query=tensors["query"][:, 1:].clone()),
        lambda tensors, about: tensors.update(query=tensors["query"].double()),
        lambda tensors, about: tensors.update(ssm=tensors["ssm"].double()),
        lambda tensors, about: tensors.pop("window"),
        lambda tensors, about: tensors.update(history=torch.tensor(4)),
        lambda tensors, about: tensors.update(history=torch.tensor([[4]])),
    ],
)
def test_a_session_that_lacks_a_part_or_has_another_is_refused(shop, spoil):
    saved = shop.session(["i4"]).save()
    header = json.loads(saved[8 : 8 + int.from_bytes(saved[:8], "little")])
    tensors, about = safetensors.torch.load(saved), header["__metadata__"]
    assert shop.restore(safetensors.torch.save(tensors, about)).history == ["i4"]
    spoil(tensors, about)
    with pytest.raises(SessionError, match="not a saved session"):
        shop.restore(safetensors.torch.save(tensors, about))


def test_a_session_saved_before_there_were_filters_goes_on(shop):
    session = shop.session(["i4", "i9"])
    saved = session.save()
    header = json.loads(saved[8 : 8 + int.from_bytes(saved[:8], "little")])
    tensors = safetensors.torch.load(saved)
    del tensors["recent"]
    again = shop.restore(safetensors.torch.save(tensors, header["__metadata__"]))
    for one in (session, again):
        one.add("i30")
    assert list(session.recommend()["score"]) == list(again.recommend()["score"])


def test_an_unknown_item_leaves_the_session_as_it_was(shop):
    session = shop.session(["i4"])
    before = session.recommend()
    with pytest.raises(UnknownItemError):
        session.add("nope")
    assert list(session.recommend()["score"]) == list(before["score"])


def test_a_session_leaves_the_recommender_as_it_was(shop):
    before = shop.recommend([["i4", "i9"]])
    shop.session(["i4"]).add("i9")
    assert list(shop.recommend([["i4", "i9"]])["score"]) == list(before["score"])


def with_added(folder, items, rows):
    """A recommender to which items were added, one after another, with features of these rows."""
    shop = Recommender.load(folder)
    text = made_features(N_ITEMS)["text"].values.numpy()
    for item, row in zip(items, rows, strict=True):
        shop.add_items(pd.DataFrame({"item_id": [item]}), {"text": text[row : row + 1]})
    return shop


def test_a_session_with_added_items_goes_on_where_they_are_the_same_items(write_made):
    folder = write_made()
    shop = with_added(folder, ["x", "y", "z"], [1, 2, 3])
    session = shop.session(["z", "i4", "x", "z", "i9"])
    saved = session.save()
    other_order = with_added(folder, ["z", "y", "x"], [3, 2, 1])
    again = other_order.restore(saved)
    assert again.history == session.history
    for one in (session, again):
        one.add("y")
    ours, theirs = (one.recommend(80).set_index("item")["score"] for one in (session, again))
    assert np.allclose(ours, theirs[ours.index], atol=1e-5)
    assert other_order.restore(again.save()).history == again.history


@pytest.mark.parametrize(
    ("items", "rows", "message"),
    [
        ([], [], "added item 'x', not there here. Add the same items"),
        (["z"], [3], "added item 'x', not there here"),
        (["x", "z"], [1, 4], "added item 'z' has other features of text"),
    ],
)
def test_a_session_with_other_added_items_is_refused(write_made, items, rows, message):
    folder = write_made()
    shop = with_added(folder, ["x", "y", "z"], [1, 2, 3])
    other = with_added(folder, items, rows)
    with pytest.raises(SessionError, match=message):
        other.restore(shop.session(["i4", "x", "z"]).save())
    # Items that the history has not are of no matter.
    assert other.restore(shop.session(["i4"]).save()).history == ["i4"]
