"""The ONNX graphs agree with PyTorch, history by history and step by step."""

from __future__ import annotations

import json

import numpy as np
import pytest

from recbole_m3rec.ops.cpu import library
from recbole_m3rec.serving.onnx import OnnxError, Step, compare, export_onnx, main
from recbole_m3rec.serving.recommender import Recommender
from tests.serving.conftest import SETTINGS, made_network

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("score", ["dot", "cosine"])
def test_graphs_and_pytorch_agree_on_a_thousand_histories(write_made, tmp_path, score):
    settings = SETTINGS | {"score": score, "repetition": score == "cosine"}
    bundle = write_made(network=made_network(**settings), settings=settings)
    output = tmp_path / "graphs"
    assert max(export_onnx(bundle, output).values()) < 1e-4
    shop = Recommender.load(bundle)
    sessions = {
        name: onnxruntime.InferenceSession(str(output / f"{name}.onnx"))
        for name in ("step", "encode")
    }
    found = compare(shop, Step(shop), sessions, n=1000, seed=1)
    assert max(found.values()) < 1e-4
    about = json.loads((output / "about.json").read_text())
    table = np.fromfile(output / "table.f32", "<f4").reshape(61, 24)
    assert np.array_equal(table, shop.ranker.vectors.table.numpy())
    assert len(about["repetition"]) == (20 if score == "cosine" else 0)
    if score == "cosine":
        shop.max_history = 20
        frame = shop.recommend([["i1", "i2"]], 60, exclude_seen=False, explain=True)
        terms = frame.set_index("item")["repetition"]
        assert terms["i2"] == pytest.approx(about["repetition"][0], abs=1e-5)
        assert terms["i1"] == pytest.approx(about["repetition"][1], abs=1e-5)
    assert library.available()[1] != "switched off"


def test_a_graph_that_differs_is_an_error(write_made, tmp_path, monkeypatch):
    from recbole_m3rec.serving import onnx

    monkeypatch.setattr(onnx, "compare", lambda *given: {"step": 0.0, "encode": float("nan")})
    with pytest.raises(OnnxError, match=r"encode\.onnx differs"):
        export_onnx(write_made(), tmp_path / "graphs")


def test_the_command_names_what_is_missing(tmp_path, capsys):
    assert main(["--bundle", str(tmp_path / "no"), "--output", str(tmp_path / "out")]) == 2
    assert "no such folder" in capsys.readouterr().err
