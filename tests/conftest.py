"""What every test may use: a tiny dataset in RecBole's atomic files, and a configuration for it.

RecBole writes checkpoints and logs into the working directory and reads the command line, so each
test runs in a folder of its own with an empty command line.
"""

import logging
import random
import shutil
import socket
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import settings
from tqdm import tqdm

import recbole_m3rec  # noqa: F401  (registers the plugin before any test touches RecBole)
from recbole_m3rec.cli.train import main
from recbole_m3rec.compare import scheduler
from recbole_m3rec.support import command_names
from tests.first_run import first_run  # noqa: F401  (a fixture)
from tests.tiny import inter_file, small, tiny_log, tiny_title

settings.register_profile("any machine", deadline=None)  # a busy one is slow, not wrong
settings.load_profile("any machine")

# tqdm's own lock is shared with forks, and one that a test kills would keep it for ever.
tqdm.set_lock(threading.RLock())


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    """Run in ``tmp_path`` with no command line, and give back loggers and devices afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["pytest"])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / ".state"))  # what was written here
    monkeypatch.setattr(command_names, "program", lambda: "recbole-m3rec")  # installed or not
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield tmp_path
    for handler in root.handlers[:]:
        if handler not in handlers:
            root.removeHandler(handler)
            handler.close()
    root.setLevel(level)


@pytest.fixture
def tiny_interactions():
    """The interactions of the tiny dataset."""
    return tiny_log()


@pytest.fixture
def write_files(tmp_path):
    """Return ``write``, which writes a dataset's atomic files, texts or bytes by their endings."""

    def write(name, files):
        folder = tmp_path / "dataset" / name
        folder.mkdir(parents=True, exist_ok=True)
        for ending, content in files.items():
            content = content if isinstance(content, bytes) else content.encode()
            (folder / f"{name}.{ending}").write_bytes(content)
        return folder

    return write


@pytest.fixture
def write_dataset(write_files, tiny_interactions):
    """Return ``write``, which writes ``dataset/<name>/<name>.inter`` and ``<name>.item``."""

    def write(name="tiny", interactions=None, items=None, shuffle=None):
        """Write atomic files.

        Args:
            name: the dataset's name.
            interactions: (user token, item token, time) in file order; default tiny_interactions.
            items: title by item token; default "<colour> <thing>" for every item; ``{}``: no file.
            shuffle: seed by which the lines of the ``.inter`` file are shuffled.

        Returns:
            The dataset's folder.
        """
        rows = list(tiny_interactions if interactions is None else interactions)
        if shuffle is not None:
            random.Random(shuffle).shuffle(rows)
        files = {"inter": inter_file(rows)}
        if items is None:
            items = {item: tiny_title(item) for item in sorted({item for _, item, _ in rows})}
        if items:
            lines = ["item_id:token\ttitle:token_seq\tkind:token"]
            lines += [f"{item}\t{title}\t{title.split()[-1]}" for item, title in items.items()]
            files["item"] = "\n".join(lines) + "\n"
        return write_files(name, files)

    return write


@pytest.fixture
def make_config(write_dataset):
    """Return a function that builds a small RecBole ``Config``; keywords are configuration keys."""

    def make(model="SASRec", dataset="tiny", **keys):
        from recbole.config import Config

        if not Path("dataset", dataset).exists() and dataset == "tiny":
            write_dataset(dataset)
        settings = {**small(model), **keys}
        if "valid_metric" not in keys:
            [lengths, names] = [settings["topk"], settings.get("metrics", ["NDCG"])]
            lengths = [lengths] if isinstance(lengths, int) else lengths
            if "NDCG" not in names or 5 not in lengths:
                settings["valid_metric"] = f"{names[0]}@{lengths[0]}"
        return Config(model=model, dataset=dataset, config_dict=settings)

    return make


@pytest.fixture
def prepare(make_config):
    """Return ``build``: from configuration keys to (config, dataset, train, valid, test data)."""

    def build(model="SASRec", dataset="tiny", **keys):
        from recbole.data import create_dataset, data_preparation

        config = make_config(model, dataset, **keys)
        built = create_dataset(config)
        return (config, built, *data_preparation(config, built))

    return build


@pytest.fixture
def new_model(prepare):
    """Return ``build``: from a model and keys to (config, new model, train, valid, test data)."""

    def build(model="SASRec", **keys):
        from recbole.utils import get_model, init_seed

        config, _, *data = prepare(model, **keys)
        init_seed(config["seed"], True)
        return (config, get_model(model)(config, data[0].dataset), *data)

    return build


@pytest.fixture
def new_trainer(new_model):
    """Return ``build``: from a model and keys to (trainer of a new model, train, valid, test)."""

    def build(model="SASRec", **keys):
        from recbole.utils import get_trainer

        config, net, *data = new_model(model, **keys)
        return (get_trainer(config["MODEL_TYPE"], model)(config, net), *data)

    return build


@pytest.fixture
def small_arguments():
    """Arguments under which a model trains on the tiny dataset in a moment."""
    return [
        "--dataset=tiny",
        "--hidden_size=8",
        "--embedding_size=8",
        "--inner_size=8",
        "--train_batch_size=32",
        "--MAX_ITEM_LIST_LENGTH=5",
        "--topk=[3,5]",
        "--valid_metric=NDCG@5",
        "--show_progress=False",
        "--gpu_id=",
        "--hidden_dropout_prob=0.0",
        "--attn_dropout_prob=0.0",
    ]


@pytest.fixture
def call(capsys):
    """Return ``call(*arguments)``: exit code, standard output, last line of standard error."""

    def run(*given):
        root = logging.getLogger()
        for handler in root.handlers[:]:
            if isinstance(handler, logging.FileHandler):
                root.removeHandler(handler)  # RecBole sets its log file up once a process
        code = main(given)
        captured = capsys.readouterr()
        return code, captured.out, (captured.err.splitlines() or [""])[-1]

    return run


@pytest.fixture(scope="session")
def first_runs(tmp_path_factory):
    """The folder in which ``trained`` trains each model once."""
    return tmp_path_factory.mktemp("trained")


@pytest.fixture
def trained(call, first_runs, own_folder, small_arguments, write_dataset, monkeypatch):
    """Return ``train(model)``, which trains one epoch on the tiny dataset: the checkpoint."""

    def train(model):
        made = first_runs / model
        if not made.exists():
            shutil.copytree(write_dataset().parent, made / "dataset")
            with monkeypatch.context() as there:
                there.chdir(made)
                there.setenv("XDG_STATE_HOME", str(made / ".state"))
                own = [one for one in small_arguments if model == "SASRec" or "drop" not in one]
                code, _, error = call(f"--model={model}", "--epochs=1", *own)
            assert code == 0, error
        shutil.copytree(made, own_folder, dirs_exist_ok=True)
        return next(Path("saved").glob(f"{model}-*.pth"))

    return train


@pytest.fixture
def port():
    """A port of this machine that is free."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


@pytest.fixture
def refuse_workers(monkeypatch):
    """Return a function after whose call any worker that is started is an error."""

    def refuse_to_start(*args):
        raise AssertionError("a worker was started")

    return lambda: monkeypatch.setattr(scheduler, "start", refuse_to_start)
