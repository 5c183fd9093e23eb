"""What features are known by changes with what they are made of, and with nothing else."""

from recbole_m3rec.data.saved.digests import feature_digests


def test_features_are_identified_by_their_recipes_and_what_those_read(make_config, write_dataset):
    folder = write_dataset()
    recipe = {"encoder": "tfidf-svd", "fields": ["title"]}
    features = {"text": recipe, "noise": {"encoder": "random-codes", "dim": 4}}

    def today(**keys):
        keys = {"modalities": "auto", "features": features, **keys}
        return feature_digests(make_config("M3Rec", **keys))

    before = today()
    assert list(before) == ["noise", "text"]
    assert today() == before
    assert today(seed=1)["noise"] != before["noise"]
    assert today(seed=1)["text"] == before["text"]
    other = {**features, "text": {**recipe, "fields": ["kind"]}}
    assert today(features=other)["text"] != before["text"]
    item_file = folder / "tiny.item"
    item_file.write_text(item_file.read_text().replace("red", "dark red"))
    assert today()["text"] != before["text"]
    assert today()["noise"] == before["noise"]
    assert feature_digests(make_config("Mamba4Rec")) in (None, {})
