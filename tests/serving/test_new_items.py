"""Items that were never in training are ranked by their content; explanations say which."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

from recbole_m3rec.features.align import ItemFeatures
from recbole_m3rec.features.encoders.batches import EncoderError
from recbole_m3rec.features.encoders.tfidf_svd import fit_tfidf_svd
from recbole_m3rec.network.m3rec import M3RecNetwork
from recbole_m3rec.network.packed import PackedSequences
from recbole_m3rec.serving.bundle.text_encoders import as_tensors, from_tensors
from recbole_m3rec.serving.bundle.write import write_bundle
from recbole_m3rec.serving.new_items import NewItemError
from recbole_m3rec.serving.recommender import Recommender
from tests.serving.conftest import SETTINGS, made_features, made_network

N, GROUPS = 48, 4


def picture(group, draw):
    values = draw.normal(0, 0.2, 8)
    values[group] += 2
    return values.astype(np.float32)


@pytest.fixture(scope="module")
def only_pictures(tmp_path_factory):
    """A bundle of a network trained where the next item has a picture like the last; text is noise.

    Item n is of group n % GROUPS.
    """
    draw = np.random.default_rng(0)
    torch.manual_seed(0)
    image = np.stack([picture(n % GROUPS, draw) for n in range(N + 1)])
    text = draw.normal(0, 1, (N + 1, 8)).astype(np.float32)
    every = torch.ones(N + 1, dtype=torch.bool)
    features = {
        "image": ItemFeatures("image", torch.from_numpy(image), every, "a", ""),
        "text": ItemFeatures("text", torch.from_numpy(text), every, "b", ""),
    }
    network = trained(features, draw)
    folder = tmp_path_factory.mktemp("made") / "bundle"
    items = pa.table(
        {
            "item_id": [f"i{n}" for n in range(1, N + 1)],
            "count": pa.array(np.ones(N, dtype=np.int64)),
            "has_image": np.ones(N, dtype=bool),
            "has_text": np.ones(N, dtype=bool),
        }
    )
    about = {"max_history": 20, "features": {}}
    write_bundle(folder, network, TRAINED, items, about=about)
    return folder


TRAINED = {"hidden_size": 16, "num_layers": 1, "d_state": 4, "dropout_prob": 0.0}


def trained(features: dict[str, ItemFeatures], draw: np.random.Generator) -> M3RecNetwork:
    """Train a network where the next item is of the group of the last."""
    network = M3RecNetwork(N + 1, features, **TRAINED)
    optimiser = torch.optim.Adam(network.parameters(), lr=5e-3)
    for _ in range(150):
        last = draw.integers(1, N + 1, 64)
        rows = np.stack([draw.integers(1, N + 1, 64), draw.integers(1, N + 1, 64), last], 1)
        targets = (last % GROUPS) + GROUPS * draw.integers(1, N // GROUPS, 64)
        packed = PackedSequences(
            torch.from_numpy(rows.reshape(-1)), torch.arange(0, 193, 3, dtype=torch.int32)
        )
        loss = network.cross_entropy(packed, torch.from_numpy(targets))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return network


def test_where_only_pictures_matter_the_explanation_says_pictures(only_pictures):
    shop = Recommender.load(only_pictures)
    draw = np.random.default_rng(5)
    features = {
        "image": np.stack([picture(group, draw) for group in range(GROUPS)]),
        "text": draw.normal(0, 1, (GROUPS, 8)).astype(np.float32),
    }
    new = pd.DataFrame({"item_id": [f"new{group}" for group in range(GROUPS)]})
    assert shop.add_items(new, features) == ["image", "text"]
    for group in range(GROUPS):
        other = (group + 1) % GROUPS
        history = [f"i{GROUPS + other}", f"i{2 * GROUPS + other}", f"i{3 * GROUPS + group}"]
        found = shop.explain(history, f"new{group}")
        assert found.terms["image"] > 3 * abs(found.terms["text"])
        item, effect = found.because["image"][0]
        assert item == history[2]  # the one of the same group
        assert effect > 0
        frame = shop.recommend([history], 4, allowed=list(new["item_id"]))
        assert frame["item"][0] == f"new{group}"


@pytest.mark.parametrize("has_features", [True, False])
def test_an_item_added_again_gets_the_terms_of_one_held_out(write_made, any_score, has_features):
    network = made_network(**any_score)
    network.hold_out(torch.arange(61) >= 59)  # those that the bundle says nobody used
    shop = Recommender.load(write_made(network=network, settings=SETTINGS | any_score))
    if not has_features:  # a bundle from before they were stored
        shop.bundle.features = {}
    features = made_features(60)
    rows = {name: of.values[[59, 60, 5]].numpy() for name, of in features.items()}
    rows["image"][2] = np.nan  # item 5 has no picture
    new = pd.DataFrame({"item_id": ["a", "b", "c"], "title": ["A", "B", "C"]})
    shop.add_items(new, rows)
    frame = shop.recommend([["i4"]], 100, explain=True).set_index("item")
    for new_id, old in (("a", "i59"), ("b", "i60"), ("c", "i5")):
        terms = (frame.loc[row, ["image", "text"]].astype(float) for row in (new_id, old))
        assert np.allclose(*terms, atol=1e-5)
    if has_features:  # of half the digits, and likeness is rounded
        for new_id, old in (("a", "i59"), ("b", "i60")):
            assert frame["id"][new_id] == pytest.approx(frame["id"][old], rel=0.02, abs=0.02)
    assert frame["id"].abs().min() > 0
    assert shop.items.show(61) == {"item": "a", "title": "A", "cold": True}
    assert [shop.items.ids[n] for n in shop.items.search("b", 60)].count("b") == 1
    assert len(shop.recommend([["a", "i4"]], 3)) == 3  # it can be in a history
    assert shop.similar("a", "text", 1)["item"][0] == "i59"


def test_what_cannot_be_added_is_named_and_nothing_is_added(shop):
    text = np.zeros((1, 10), np.float32)
    for frame, features, message in (
        (pd.DataFrame({"id": ["a"]}), {}, "item_id"),
        (pd.DataFrame({"item_id": ["i7"]}), {"text": text}, "'i7' is empty or there already"),
        (pd.DataFrame({"item_id": ["a"]}), {}, "no feature of any modality"),
        (pd.DataFrame({"item_id": ["a"]}), {"text": text[:, 1:]}, r"expected \[1, 10\]"),
        (pd.DataFrame({"item_id": ["a"]}), {"audio": text}, "audio"),
        (pd.DataFrame({"item_id": ["a"]}), {"text": text + np.inf}, "not finite"),
    ):
        with pytest.raises(NewItemError, match=message):
            shop.add_items(frame, features)
    assert len(shop.items) == 60


def test_a_fitted_text_encoder_survives_the_bundle_and_encodes_as_the_corpus_was():
    texts = ["red hat wool", "blue hat", "red shoe", "blue wool shoe", "green coat", "green hat"]
    options = {"dim": 4, "min_df": 1, "max_ngram": 2, "unit_rows": True}
    fitted, values = fit_tfidf_svd(texts, **options)
    again = from_tensors("text", as_tensors("text", fitted), options)
    assert np.allclose(again.encode(texts), values, atol=1e-5)
    assert not again.encode(["zebra"]).any()


def test_items_are_added_from_text_alone_by_the_bundles_recipe(write_made):
    texts = [f"{('red', 'blue')[n % 2]} {('hat', 'shoe', 'coat')[n % 3]}" for n in range(61)]
    options = {"dim": 4, "min_df": 1, "max_ngram": 1, "unit_rows": True}
    fitted, values = fit_tfidf_svd(texts, **options)
    every = torch.ones(61, dtype=torch.bool)
    text = ItemFeatures("text", torch.from_numpy(values), every, "b", "")
    torch.manual_seed(0)
    settings = {"hidden_size": 8}
    network = M3RecNetwork(61, {"text": text}, **settings)
    recipe = {"encoder": "tfidf-svd", "fields": ["name"], "options": options}
    about = {"features": {"text": {"norm": "l2", "recipe": recipe}}}
    encoders = as_tensors("text", fitted)
    folder = write_made(network=network, settings=settings, about=about, encoders=encoders)
    shop = Recommender.load(folder)
    new = pd.DataFrame({"item_id": ["a", "b"], "name": ["blue coat", "quasar"]})
    assert shop.add_items(new) == ["text"]
    alike = {f"i{n}" for n in range(1, 61) if texts[n] == "blue coat"}
    assert set(shop.similar("a", "text", len(alike))["item"]) == alike


def test_items_added_from_text_alone_are_found_by_users_whose_histories_are_alike(write_made):
    words, things = ("red", "blue", "green", "white"), ("hat", "shoe", "coat", "scarf", "sock")
    texts = [f"{words[n % GROUPS]} {things[n % 5]}" for n in range(N + 1)]
    options = {"dim": 8, "min_df": 1, "max_ngram": 1, "unit_rows": True}
    fitted, values = fit_tfidf_svd(texts, **options)
    every = torch.ones(N + 1, dtype=torch.bool)
    torch.manual_seed(0)
    text = ItemFeatures("text", torch.from_numpy(values), every, "b", "")
    network = trained({"text": text}, np.random.default_rng(0))
    recipe = {"encoder": "tfidf-svd", "fields": ["name"], "options": options}
    about = {"features": {"text": {"norm": "none", "recipe": recipe}}}
    encoders = as_tensors("text", fitted)
    more = {"settings": TRAINED, "about": about, "encoders": encoders}
    shop = Recommender.load(write_made(n_items=N, network=network, **more))
    names = [f"{word} glove" for word in words]
    assert shop.add_items(pd.DataFrame({"item_id": names, "name": names})) == ["text"]
    histories = [[f"i{group + GROUPS * n}" for n in (1, 3, 5)] for group in range(GROUPS)]
    for user, part in shop.recommend(histories, N // GROUPS).groupby("user"):
        found = list(part["item"])
        assert names[user] in found
        assert next(item for item in found if item in names) == names[user]


def mean_colours(images):
    """Encode pictures as a callable of one's own does: their mean colour, three numbers."""
    return np.stack([np.asarray(image, np.float32).mean((0, 1)) / 255 for image in images])


def test_items_are_added_from_pictures_by_the_bundles_encoder(write_made, tmp_path):
    image_module = pytest.importorskip("PIL.Image")
    colours = torch.rand(61, 3)
    every = torch.ones(61, dtype=torch.bool)
    network = M3RecNetwork(61, {"image": ItemFeatures("image", colours, every, "a", "")})
    name = f"{__name__}:mean_colours"
    images = {"encoder": name, "precision": "auto", "batch_size": 2}
    about = {"features": {"image": {"norm": "none", "images": images}}}
    shop = Recommender.load(write_made(network=network, settings={}, about=about))
    for item in (7, 9, 20):
        colour = tuple((255 * colours[item]).round().int().tolist())
        image_module.new("RGB", (8, 8), colour).save(tmp_path / f"{item}.png")
    files = [str(tmp_path / f"{item}.png") for item in (7, 9, 20)]
    new = pd.DataFrame({"item_id": ["a", "b", "c", "d"], "image_file": [*files, None]})
    with pytest.raises(EncoderError, match="code that the bundle only names"):
        shop.add_items(new)
    with pytest.raises(EncoderError, match="encoded by .*found os:system"):
        shop.add_items(new, encoders={"image": "os:system"})
    broken = new.assign(image_file=[*files[:2], __file__, None])
    with pytest.raises(EncoderError, match="item 'c': .*test_new_items.py"):
        shop.add_items(broken, encoders={"image": name})
    assert len(shop.items) == 60
    assert shop.add_items(new, encoders={"image": name}) == ["image"]
    for added, known in (("a", "i7"), ("b", "i9"), ("c", "i20")):
        assert known in set(shop.similar(added, "image", 3)["item"])
    assert list(shop.items.has["image"][-4:]) == [True, True, True, False]


def test_items_of_a_model_that_never_missed_a_modality_may_miss_it(only_pictures):
    shop = Recommender.load(only_pictures)
    shop.add_items(pd.DataFrame({"item_id": ["a"]}), {"text": np.ones((1, 8), np.float32)})
    frame = shop.recommend([["i1", "a"]], 60, explain=True, exclude_seen=False).set_index("item")
    assert frame.loc["a", "image"] == 0
    assert np.isfinite(frame["score"]).all()


def test_the_network_is_unchanged_by_new_items(shop):
    before = shop.recommend([["i4"]], 60)
    text = made_features(60)["text"].values[:1].numpy()
    shop.add_items(pd.DataFrame({"item_id": ["a"]}), {"text": text})
    after = shop.recommend([["i4"]], 61, blocked=["a"])
    assert np.allclose(before["score"], after["score"])
    assert list(before["item"]) == list(after["item"])
    assert made_network().n_items == 61
