"""The ONNX graphs agree with PyTorch, history by history and step by step."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from recbole_m3rec.ops.cpu import library
from recbole_m3rec.serving import onnx as written
from recbole_m3rec.serving.onnx import OnnxError, Step, compare, export_onnx, main, names_of
from recbole_m3rec.serving.recommender import Recommender
from tests.serving.conftest import SETTINGS, made_network

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
pytestmark = pytest.mark.slow


def test_graphs_and_pytorch_agree_on_a_thousand_histories(write_made, tmp_path, monkeypatch):
    settings = SETTINGS | {"score": "cosine", "repetition": True, "num_layers": 2, "low_pass": 4}
    bundle = write_made(network=made_network(n_content=1, **settings), settings=settings)
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
    table = np.fromfile(output / "table.f32", "<f4").reshape(61, 16)
    assert np.array_equal(table, shop.ranker.vectors.table.numpy())
    assert len(about["repetition"]) == 20
    frame = shop.recommend([["i1", "i2"]], 60, exclude_seen=False, explain=True)
    terms = frame.set_index("item")["repetition"]
    assert terms["i2"] == pytest.approx(about["repetition"][0], abs=1e-5)
    assert terms["i1"] == pytest.approx(about["repetition"][1], abs=1e-5)
    assert library.available()[1] != "switched off"
    written_first = about.pop("bundle")
    (output / "index.html").write_text("mine")
    export_onnx(write_made(settings=settings, network=made_network(**settings)), output)
    assert json.loads((output / "about.json").read_text())["bundle"] != written_first
    assert (output / "index.html").read_text() == "mine"

    # And where they do not, it is an error.
    monkeypatch.setattr(written, "_trace", lambda step: onnx.load(output / "step.onnx"))
    monkeypatch.setattr(written, "compare", lambda *given: {"step": 0.0, "encode": float("nan")})
    with pytest.raises(OnnxError, match=r"encode\.onnx differs"):
        export_onnx(bundle, tmp_path / "again")


class InTorch:
    """A session that is what is traced, for networks of which no graph is made here."""

    def __init__(self, step):
        self.step, (self.old, self.more) = step, names_of(step)

    def run(self, _, given):
        before = [given[f"old.{name}"] for name in self.old]
        now = [given[name] for name in self.more]
        return [new.detach().numpy() for new in self.step(*map(torch.tensor, [*before, *now]))]


@pytest.mark.parametrize("low_pass", [0, 1, 3])
def test_what_is_traced_agrees_with_pytorch_too(write_made, low_pass):
    settings = SETTINGS | {"low_pass": low_pass}
    shop = Recommender.load(write_made(network=made_network(**settings), settings=settings))
    step = Step(shop).eval()
    nothing = SimpleNamespace(run=lambda *_: [np.zeros((64, 24))])
    assert compare(shop, step, {"step": InTorch(step), "encode": nothing})["step"] < 1e-5


def test_nothing_but_graphs_is_replaced(write_made, tmp_path, capsys):
    bundle = write_made()
    other = tmp_path / "other"
    other.mkdir()
    (other / "about.json").write_text('{"mine": 1}')
    (tmp_path / "top.csv").write_text("mine")
    for place in (bundle, other, tmp_path / "top.csv"):
        assert main([str(bundle), "--output", str(place)]) == 2
        assert f"{place}: there is a " in capsys.readouterr().err
    Recommender.load(bundle)
    assert (other / "about.json").read_text() == '{"mine": 1}'
    assert (tmp_path / "top.csv").read_text() == "mine"


def test_the_command_names_what_is_missing(tmp_path, capsys):
    assert main([str(tmp_path / "no"), "--output", str(tmp_path / "out")]) == 2
    assert "no such folder" in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("npm") is None, reason="no npm on this machine")
def test_the_browser_recommends_as_python_does(write_made, tmp_path):
    sync_api = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium on this machine")
    pack = ["npm", "pack", "--silent", "onnxruntime-web@1.20.1"]
    if subprocess.run(pack, cwd=tmp_path, capture_output=True).returncode:
        pytest.skip("npm cannot fetch onnxruntime-web")
    shutil.unpack_archive(tmp_path / "onnxruntime-web-1.20.1.tgz", tmp_path, "tar")
    settings = SETTINGS | {"repetition": True}
    bundle = write_made(network=made_network(**settings), settings=settings)
    export_onnx(bundle, tmp_path / "model")
    example = Path(__file__).parents[2] / "examples" / "browser" / "index.html"
    shutil.copy(example, tmp_path)
    command = [sys.executable, "-m", "http.server", "0", "--bind", "127.0.0.1", "-d", str(tmp_path)]
    server = subprocess.Popen(
        [command[0], "-u", *command[1:]],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        address = re.search(r"http://\S+?/", server.stdout.readline())[0]
        with sync_api.sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            page = browser.new_page()
            page.goto(f"{address}index.html?ort=package/dist")
            page.wait_for_selector("body[data-ready]", timeout=120_000)
            found = page.evaluate("recommend(['i4', 'i9', 'i17'], 10)")
            browser.close()
    finally:
        server.kill()
        server.wait()
        server.stdout.close()
    frame = Recommender.load(bundle).recommend([["i4", "i9", "i17"]], 10)
    assert [one["item"] for one in found] == list(frame["item"])
    assert np.allclose([one["score"] for one in found], frame["score"], atol=1e-3)
