"""Random codes."""

import numpy as np
import pytest

from recbole_m3rec.features.encoders import random_codes


def test_codes_depend_on_the_tokens_not_on_their_order():
    tokens, codes = random_codes(["b", "[PAD]", "a", "b"], seed=1, name="text", dim=4)
    again, same = random_codes(["a", "b", "[PAD]"], seed=1, name="text", dim=4)
    assert tokens == again == ["[PAD]", "a", "b"]
    assert np.array_equal(codes, same)
    assert codes.dtype == np.float32


def test_seed_and_name_change_every_code():
    _, codes = random_codes("ab", seed=1, name="text", dim=4)
    for seed, name in ((2, "text"), (1, "image")):
        assert (random_codes("ab", seed=seed, name=name, dim=4)[1] != codes).all()


def test_the_stream_is_the_same_in_every_version():
    _, codes = random_codes(["a"], seed=2024, name="text", dim=3)
    expected = [-0.02591007389128208, 0.02170982025563717, -0.007068161852657795]
    assert codes.tolist() == [expected]


def test_codes_have_the_asked_deviation():
    _, codes = random_codes(map(str, range(200)), seed=0, name="text", dim=64, std=0.5)
    assert codes.std() == pytest.approx(0.5, rel=0.02)
    assert abs(codes.mean()) < 0.02


@pytest.mark.parametrize("options", [{"dim": 0}, {"dim": 1.5}, {"std": 0}, {"std": "wide"}])
def test_options_out_of_range_are_named(options):
    with pytest.raises(ValueError, match=f"random-codes: {next(iter(options))} must be"):
        random_codes("ab", seed=0, name="text", **options)
