"""Items that were never in training are ranked by their content; explanations say which."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

from recbole_m3rec.features.align import ItemFeatures
from recbole_m3rec.features.encoders.batches import EncoderError
from recbole_m3rec.features.encoders.image_models import image_encoder
from recbole_m3rec.features.encoders.tfidf_svd import fit_tfidf_svd
from recbole_m3rec.network.m3rec import M3RecNetwork
from recbole_m3rec.network.packed import PackedSequences
from recbole_m3rec.serving.bundle.encoders import as_tensors, from_tensors
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


TEXT = np.zeros((1, 10), np.float32)
ONE, TWO = pd.DataFrame({"item_id": ["a"]}), pd.DataFrame({"item_id": ["a", "b"]})


REFUSED = (
    (pd.DataFrame({"id": ["a"]}), {}, "expected a column item_id"),
    (pd.DataFrame([["a", "b"]], columns=["item_id"] * 2), {}, "expected a column item_id"),
    (
        pd.concat([ONE, ONE.assign(title="t").title, ONE.assign(title="t").title], axis=1),
        {},
        "each once",
    ),
    (ONE[:0], {}, "no items to add"),
    ([{"item_id": "a"}], {}, "items must be a pandas frame .*pandas.DataFrame"),
    ({"item_id": ["a"]}, {}, "items must be a pandas frame"),
    (None, {}, "items must be a pandas frame .* found None"),
    (pd.DataFrame({"item_id": ["i7"]}), {"text": TEXT}, "'i7' is empty or there already"),
    (pd.DataFrame({"item_id": ["a", "a"]}), {}, "row 1: item id 'a' is empty or there already"),
    (pd.DataFrame({"item_id": [""]}), {"text": TEXT}, "row 0: item id '' is empty"),
    (pd.DataFrame({"item_id": ["a", None]}), {}, "row 1: item_id must be a text .* found "),
    (pd.DataFrame({"item_id": [5.0]}), {}, "row 0: item_id must be .* found 5.0"),
    (pd.DataFrame({"item_id": [["a"]]}), {}, "row 0: item_id must be"),
    (ONE, {}, "no feature of any modality"),
    (ONE, {"text": TEXT + np.nan}, "no feature of any modality"),
    (TWO, {"text": [[0.0] * 10, [np.nan] * 10]}, "1 of 2 new items have no feature .*: 'b'"),
    (ONE, {"text": TEXT[:, 1:]}, r"have shape \[1, 9\], expected \[1, 10\]"),
    (ONE, {"text": TEXT[0]}, r"have shape \[10\], expected \[1, 10\]"),
    (TWO, {"text": TEXT}, r"have shape \[1, 10\], expected \[2, 10\]"),
    (ONE, {"audio": TEXT}, "a modality of features must be one of image, text, found 'audio'"),
    (ONE, {"txt": TEXT}, "Did you mean text"),
    (ONE, {"id": TEXT}, "a modality of features must be one of"),
    (ONE, {5: TEXT}, "a modality of features must be one of"),
    (ONE, {"text": TEXT + np.inf}, "text, row 0: numbers that are not finite"),
    (
        TWO,
        {"text": [[0.0] * 10, [0.0] * 9 + [np.nan]]},
        "text, row 1: numbers that are not fin",
    ),
    (ONE, {"text": [[1e300] * 10]}, "text, row 0: numbers that are not finite"),
    (ONE, {"text": np.full((1, 10), 3e38, np.float32)}, "so large that"),
    (ONE, {"text": ["red hat"]}, "text must be numbers .*Texts and pictures are given as col"),
    (ONE, {"text": {"a": [0.0] * 10}}, "text must be numbers"),
    (TWO, {"text": [[0.0] * 10, [0.0] * 9]}, "text must be numbers"),
    (ONE, TEXT, "features must be a mapping by modality"),
    (ONE, pd.DataFrame(TEXT), "features must be a mapping by modality"),
)


def test_what_cannot_be_added_is_named_and_nothing_is_added(shop):
    for items, features, message in REFUSED:
        with pytest.raises(NewItemError, match=message):
            shop.add_items(items, features)
        parts = shop.ranker.vectors.table, shop.ranker.counts, shop.items.ids
        assert [len(shop.items), *map(len, parts)] == [60, 61, 61, 61], message
    shop.add_items(ONE, {"text": TEXT})
    assert shop.recommend([["i4"]], allowed=["a", "b"])["item"].tolist() == ["a"]


def test_encoders_of_no_modality_are_refused(shop):
    for encoders, message in (({"imag": "x:y"}, "Did you mean image"), (["x:y"], "a mapping")):
        with pytest.raises(NewItemError, match=message):
            shop.add_items(ONE, {"text": TEXT}, encoders=encoders)


def test_items_are_added_from_nested_lists_with_whole_numbers_as_ids(shop):
    columns = {
        "item_id": [0, 5],
        "title": ["<b>Zero</b> &amp; 1", None],
        "price": pd.Categorical([9.5, None]),
    }
    shop.add_items(pd.DataFrame(columns), {"text": np.eye(2, 10).tolist(), "image": None})
    assert shop.items.show(61) == {"item": "0", "title": "Zero & 1", "price": "9.5", "cold": True}
    assert shop.items.show(62) == {"item": "5", "cold": True}
    assert set(shop.recommend([["i4"]], allowed=[0, 5])["item"]) == {"0", "5"}


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
    expected = "'b'. text is made of the columns name, none of whose words was in training. The"
    with pytest.raises(NewItemError, match=expected):
        shop.add_items(new)
    with pytest.raises(NewItemError, match="of the columns name. The columns are item_id, title$"):
        shop.add_items(new.rename(columns={"name": "title"}))
    without = Recommender.load(folder)
    without.bundle.encoders.clear()
    with pytest.raises(NewItemError, match="the bundle has no encoder of the columns name. The"):
        without.add_items(new[:1])
    assert shop.add_items(new[:1]) == ["text"]
    assert shop.items.show(61)["title"] == "blue coat"  # as the export of such a column shows it
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
    parts = image_encoder(name).parts
    images = {"encoder": name, "precision": "auto", "batch_size": 2, "encoder_parts": parts}
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
    with pytest.raises(NewItemError, match="2 of 2 .*: 'c', 'd'. image is made from .* image_file"):
        shop.add_items(new[2:].assign(image_file=["", None]), encoders={"image": name})
    with pytest.raises(EncoderError, match="item 'c': .*test_new_items.py"):
        shop.add_items(new[2:].assign(image_file=[__file__, None]), encoders={"image": name})
    images["encoder_parts"] = {"source": "another"}
    changed = Recommender.load(write_made("changed", network=network, settings={}, about=about))
    with pytest.raises(EncoderError, match="the source of .*mean_colours is not that of training"):
        changed.add_items(new[:3], encoders={"image": name})
    assert len(shop.items) == 60
    assert shop.add_items(new[:3], encoders={"image": name}) == ["image"]
    for added, known in (("a", "i7"), ("b", "i9"), ("c", "i20")):
        assert known in set(shop.similar(added, "image", 3)["item"])
    assert list(shop.items.has["image"][-3:]) == [True, True, True]


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
