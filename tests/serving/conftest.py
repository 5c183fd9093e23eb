"""A small network over made items, its bundle, and a recommender of it; no RecBole, no training."""

import shutil
import subprocess
import sys
from itertools import islice

import numpy as np
import pyarrow as pa
import pytest
import torch

from recbole_m3rec.features.align import ItemFeatures
from recbole_m3rec.network.m3rec import M3RecNetwork
from recbole_m3rec.serving.bundle.write import write_bundle
from recbole_m3rec.serving.recommender import Recommender

N_ITEMS = 60
SETTINGS = {"hidden_size": 8, "num_layers": 2, "d_state": 4, "dropout_prob": 0.5}


def made_features(n_items, missing=True):
    """Features of two modalities; some items lack a picture."""
    rng = torch.Generator().manual_seed(1)
    present = torch.ones(n_items + 1, dtype=torch.bool)
    if missing:
        present[5::7] = False
    every = torch.ones(n_items + 1, dtype=torch.bool)
    image = torch.randn(n_items + 1, 12, generator=rng).masked_fill(~present[:, None], 0)
    text = torch.randn(n_items + 1, 10, generator=rng)
    return {
        "image": ItemFeatures("image", image, present, "a" * 64, ""),
        "text": ItemFeatures("text", text, every, "b" * 64, ""),
    }


def made_network(n_items=N_ITEMS, spread=1.0, n_content=2, **settings):
    """A network with random weights, large enough that scores differ."""
    torch.manual_seed(0)
    features = dict(islice(made_features(n_items).items(), n_content))
    network = M3RecNetwork(n_items + 1, features, **{**SETTINGS, **settings})
    with torch.no_grad():
        network.item_embedding.weight.normal_(0, spread)
        if network.score_embedding is not None:
            network.score_embedding.weight.normal_(0, spread)
        for content in network.content.values():
            for weight in content.projector.parameters():
                weight.normal_(0, 0.5)
        if network.repeats is not None:
            network.repeats.by_lag.normal_(0, 0.3)
    return network.eval()


def made_items(n_items=N_ITEMS):
    """Ids i1, i2, …; titles of two words; item 3 was used most, items 59 and 60 never."""
    counts = np.arange(n_items, 0, -1)
    counts[2], counts[-2:] = 1000, 0
    things = ("hat", "shoe", "coat", "scarf")
    return pa.table(
        {
            "item_id": [f"i{n}" for n in range(1, n_items + 1)],
            "count": pa.array(counts, pa.int64()),
            "title": [f"Élan {('red', 'blue')[n % 2]} {things[n % 4]} {n}" for n in range(n_items)],
            "has_image": made_features(n_items)["image"].present[1:].numpy(),
            "has_text": np.ones(n_items, dtype=bool),
        }
    )


def made_histories():
    """Two users."""
    return pa.table({"user_id": ["ann", "böb"], "item_ids": [["i1", "i2"], ["i9", "i8", "i7"]]})


def write_made_bundle(folder, n_items=N_ITEMS, **more):
    """Write a bundle and return its folder; keywords are those of ``write_bundle``."""
    network = more.pop("network", None) or made_network(n_items)
    items = more.pop("items", None) or made_items(n_items)
    about = {"max_history": 20, "metrics": {"test": {"hit@10": 0.5}}, "features": {}}
    about |= more.pop("about", {})
    more = {"settings": SETTINGS, "histories": made_histories(), **more}
    write_bundle(folder, network, more.pop("settings"), items, about=about, **more)
    return folder


@pytest.fixture
def write_made(tmp_path):
    """Return a function that writes a bundle of a name, as ``write_made_bundle`` does."""
    return lambda name="bundle", **more: write_made_bundle(tmp_path / name, **more)


@pytest.fixture(scope="session")
def made_bundle(tmp_path_factory):
    """The made bundle, which no test changes."""
    return write_made_bundle(tmp_path_factory.mktemp("made") / "bundle")


@pytest.fixture
def shop(made_bundle):
    """A recommender of the made bundle."""
    return Recommender.load(made_bundle)


@pytest.fixture(params=[("dot", "same"), ("cosine", "own"), ("cosine", "offset")], ids="-".join)
def any_score(request):
    """Settings of either score; with cosines go repetition, ID vectors of their own, a filter."""
    score, score_ids = request.param
    is_cosine = score == "cosine"
    return {
        **{"score": score, "score_ids": score_ids},
        **{"repetition": is_cosine, "low_pass": 3 * is_cosine},
    }


@pytest.fixture
def any_shop(write_made, any_score):
    """A recommender of either score."""
    network = made_network(**any_score)
    return Recommender.load(write_made(network=network, settings=SETTINGS | any_score))


@pytest.fixture
def start_server():
    """Return a function that starts the service of a bundle as a process: it and its address."""
    running = []

    def start(bundle, *options, first=""):
        program = (  # a shell's background ignores Ctrl-C
            "import signal; signal.signal(2, signal.default_int_handler)\n"
            "import sys; from recbole_m3rec.serving import serve\n"
            f"{first}\nsys.exit(serve.main(sys.argv[1:]))"
        )
        command = [sys.executable, "-c", program, str(bundle), "--port", "0", *options]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        running.append(subprocess.Popen(command, text=True, **pipes))
        return running[-1], running[-1].stdout.readline().split()[2]

    yield start
    for process in running:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


@pytest.fixture
def address(write_made, start_server):
    """Where the service of the made bundle is."""
    return start_server(write_made())[1]


@pytest.fixture
def browser():
    """A Chromium."""
    sync_api = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no chromium on this machine")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


def opened(
    browser, address, width=1400, scheme="light", at="", ready="#cards .card", script="", **more
):
    """Open the page; any error of a script, and any request to another host, fails the test."""
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, **more
    )
    page = context.new_page()
    page.add_init_script(script)
    page.route(  # as a proxy does
        "**/shop/**", lambda route: route.continue_(url=route.request.url.replace("/shop/", "/"))
    )
    page.set_default_timeout(60_000)
    problems = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda line: problems.append(line.text) if line.type == "error" else None)
    page.on(
        "request",
        lambda request: None if request.url.startswith(address) else problems.append(request.url),
    )
    page.goto(address + at)
    page.wait_for_selector(ready)
    return page, problems


@pytest.fixture
def make_client(made_bundle, tmp_path):
    """Return a function from settings to a client of a running service."""
    pytest.importorskip("fastapi")
    from fastapi.testclient import TestClient

    from recbole_m3rec.serving.service.app import create_app
    from recbole_m3rec.serving.service.state import Settings

    opened = []

    def make(bundle=made_bundle, **settings):
        store = str(tmp_path / "events.sqlite")
        client = TestClient(
            create_app(Settings(bundle, store, **settings)), raise_server_exceptions=False
        )
        client.__enter__()
        opened.append(client)
        return client

    yield make
    for client in opened:
        client.__exit__(None, None, None)


@pytest.fixture
def client(make_client):
    """A client of a running service of the made bundle."""
    return make_client()


def is_problem(response, status):
    """Check that an answer is an error as documented, and return what it says."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["status"] == status
    return str(response.json()["detail"])
