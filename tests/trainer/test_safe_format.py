"""The safe format keeps every value to the bit, stores no objects, and runs nothing."""

import json
from collections import OrderedDict
from pathlib import PurePosixPath

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_m3rec.trainer import safe_format
from recbole_m3rec.trainer.safe_format import CannotStoreError

plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
trees = st.recursive(
    plain,
    lambda parts: (
        st.lists(parts, max_size=3)
        | st.tuples(parts, parts)
        | st.dictionaries(st.text(max_size=5) | st.integers(), parts, max_size=3)
    ),
    max_leaves=12,
)


@settings(max_examples=60)
@given(tree=st.dictionaries(st.text(max_size=5), trees, max_size=4))
def test_any_nesting_of_plain_values_comes_back_as_it_was(tree, tmp_path_factory):
    path = tmp_path_factory.mktemp("safe") / "x"
    safe_format.write(tree, path)
    assert safe_format.is_safe_file(path)
    found = safe_format.read(path)
    assert repr(found) == repr(tree)


def test_tensors_and_arrays_come_back_to_the_bit(tmp_path):
    weight = torch.randn(3, 4)
    content = {
        "state_dict": OrderedDict(
            a=weight, tied=weight, b=weight.bfloat16().T, scalar=weight[0, 0]
        ),
        "numpy": np.random.get_state()[1],
        "torch": torch.get_rng_state(),
        "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}},
        "empty": torch.empty(0, 2),
        "best": np.float64(0.1),
    }
    safe_format.write(content, tmp_path / "x")
    found = safe_format.read(tmp_path / "x")
    assert isinstance(found["state_dict"], OrderedDict)
    for name, value in content["state_dict"].items():
        assert torch.equal(found["state_dict"][name], value)
        assert found["state_dict"][name].dtype == value.dtype
    assert np.array_equal(found["numpy"], content["numpy"])
    assert found["numpy"].dtype == content["numpy"].dtype
    assert torch.equal(found["torch"], content["torch"])
    assert found["optimizer"]["state"][0]["step"] == 3.0
    assert found["empty"].shape == (0, 2)
    assert found["best"] == 0.1


def test_tensors_whose_keys_spell_the_same_name_stay_apart(tmp_path):
    content = {
        "a/b": torch.full((2,), 0),
        "a": {"b": torch.full((3,), 1)},
        1: np.full(4, 2),
        "1": np.full(5, 3),
        "1'": torch.full((6,), 4),
    }
    safe_format.write(content, tmp_path / "x")
    assert repr(safe_format.read(tmp_path / "x")) == repr(content)


def test_an_object_is_refused_by_its_name(tmp_path):
    with pytest.raises(
        CannotStoreError, match="no form for other_parameter/graph, a PurePosixPath"
    ):
        safe_format.write({"other_parameter": {"graph": PurePosixPath("x")}}, tmp_path / "x")


@pytest.mark.parametrize("length", [0, 5, 8, 9, 60, 200])
def test_a_torn_file_is_an_error_of_its_own(tmp_path, length):
    safe_format.write({"weight": torch.ones(5)}, tmp_path / "x")
    torn = tmp_path / "torn"
    torn.write_bytes((tmp_path / "x").read_bytes()[:length])
    with pytest.raises(ValueError, match="."):
        safe_format.read(torn)


@pytest.mark.parametrize("what", ["weight", "setting"])
def test_a_flipped_bit_is_refused(tmp_path, what):
    file = tmp_path / "x"
    safe_format.write({"weight": torch.ones(5), "mark": 987654}, file)
    whole = bytearray(file.read_bytes())
    whole[-2 if what == "weight" else whole.index(b"987654")] ^= 1
    file.write_bytes(whole)
    with pytest.raises(ValueError, match="SHA-256 .* was written, .* is read"):
        safe_format.read(file)


def test_a_file_from_before_digests_is_read(tmp_path, monkeypatch):
    dumps = json.dumps

    def without(value):
        return (
            dumps({k: v for k, v in value.items() if k != "sha256"}) if "version" in value else "x"
        )

    monkeypatch.setattr(safe_format.json, "dumps", without)
    safe_format.write({"weight": torch.ones(5)}, tmp_path / "x")
    monkeypatch.undo()
    assert b"sha256" not in (tmp_path / "x").read_bytes()
    assert torch.equal(safe_format.read(tmp_path / "x")["weight"], torch.ones(5))


def test_a_file_of_another_program_is_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"weight": torch.ones(2)}, tmp_path / "x")
    with pytest.raises(ValueError, match="not written by this package"):
        safe_format.read(tmp_path / "x")
