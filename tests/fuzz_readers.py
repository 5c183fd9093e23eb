"""Every reader of files under random bytes: a right result or its documented error, nothing else.

``python -m tests.fuzz_readers NAME --minutes 10`` searches by coverage, for which atheris must be
installed (``pip install atheris``); inputs that fail are kept in the working directory. Half of the
inputs are damaged behind their outer form (fuzz_mutations.py), with ``--flat`` none.
"""

import argparse
import gzip
import hashlib
import io
import json
import pickle
import shutil
import sys
import tempfile
import zipfile
from contextlib import suppress
from dataclasses import dataclass
from inspect import isclass, isfunction
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from recbole_m3rec.atomic.atomic_file import AtomicFileError, read_columns, read_header
from recbole_m3rec.atomic.exact_times import check_times, exact_order
from recbole_m3rec.atomic.inter_file import read_interactions
from recbole_m3rec.atomic.item_file import ItemFile
from recbole_m3rec.config.literals import PLAIN, read_value
from recbole_m3rec.config.yaml_files import ConfigurationError, read_yaml
from recbole_m3rec.data.saved import stored
from recbole_m3rec.datasets.amazon.item_fields import item_fields, parse_json, parse_python
from recbole_m3rec.datasets.io.problems import Problems
from recbole_m3rec.datasets.io.raw_lines import RawFileError, read_blocks
from recbole_m3rec.datasets.tables.column_texts import as_strings
from recbole_m3rec.datasets.tables.read_table import open_table
from recbole_m3rec.datasets.tables.text_rows import PROBLEMS
from recbole_m3rec.features.feature_file import read_features
from recbole_m3rec.features.feature_table import FeatureFileError
from recbole_m3rec.features.vector_files import read_vectors
from recbole_m3rec.serving.bundle.files import BundleError
from recbole_m3rec.serving.bundle.read import read_bundle, seal
from recbole_m3rec.serving.bundle.write import write_bundle
from recbole_m3rec.serving.recommender import Recommender
from recbole_m3rec.trainer import safe_format
from tests.fuzz_mutations import mutate


class Executed(BaseException):
    """Something that was read has been run."""


def executed():
    """End everything: the pickles among the seeds name this function."""
    raise Executed


class Bomb:
    """Calls :func:`executed` when it is unpickled."""

    def __reduce__(self):
        return executed, ()


@dataclass(frozen=True)
class Reader:
    """Reads a file of a suffix, checks what comes out, and may raise the errors named."""

    suffix: str
    read: object
    errors: tuple
    seeds: object


def atomic(path):
    """Compare the fields of an atomic file with those that a naive reader finds."""
    names = list(read_header(path))
    columns = [column.to_pylist() for column in read_columns(path, names)]
    text = path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    rows = [line.split("\t") for line in text.split("\n")[1:] if line]
    assert [list(row) for row in zip(*columns, strict=True)] == rows
    if "timestamp" in names:
        strings = read_columns(path, ["timestamp"])[0]
        check_times(path, "timestamp", strings)
        order = exact_order(strings)
        assert len(order) == len(rows)


def inter(path):
    """Read interactions: every id stands in the dictionary."""
    log = read_interactions(path)
    assert len(log.users) == len(log.items) == len(log.times)


def item(path):
    """Read two fields of items: no token twice, one value each."""
    tokens, values = ItemFile(path).read(["title", "kind"])
    assert len(set(tokens)) == len(tokens)
    assert all(len(column) == len(tokens) for column in values)


def features(path):
    """Read features: finite numbers, one id a row and none twice."""
    if path.suffix == ".npy":
        path.with_suffix(".ids.txt").write_text("a\nb\nc\n")
    table = read_features(path)
    assert np.isfinite(table.values).all()
    assert len(set(table.item_ids.tolist())) == len(table.values) > 0


def vectors(path):
    """Read vectors: floats in two dimensions."""
    found = read_vectors(path)
    assert found.values.ndim == 2
    assert found.ids is None or len(found.ids) == len(found.values)


def raw_lines(path):
    """Read blocks of lines: numbered without a gap; plain bytes come back as they are."""
    line, data = 1, b""
    for block in read_blocks(path):
        assert block.first_line == line
        line, data = line + block.n_lines, data + block.data
    given = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    if given[:2] != b"\x1f\x8b":
        assert data == (given if given.endswith(b"\n") else given + b"\n")


def metadata(path):
    """Parse a line of Amazon's metadata both ways: clean text or none."""
    line, wrong = path.read_bytes().decode("utf-8", "replace"), None
    for parse in (parse_python, parse_json):
        try:
            fields = item_fields(parse(line))
        except ValueError as error:
            wrong = error
            continue
        assert all(isinstance(value, str) and "\t" not in value for value in fields.values())
        assert not any("\n" in value or "\r" in value for value in fields.values())
    if wrong is not None:
        raise wrong


def table(path):
    """Read a table of whatever kind its first bytes say: columns of one length."""
    found = open_table(path)
    for arrays, lines in found.chunks(found.names, Problems(PROBLEMS, shown=0)):
        assert all(len(as_strings(array)) == len(lines) for array in arrays.values())


def yaml(path):
    """Read a configuration file and, as a value of the command line, its text."""
    text = path.read_bytes().decode("utf-8", "replace")
    value = read_value(text)
    assert value is None or isinstance(value, PLAIN)
    assert all(isinstance(key, str) for key in read_yaml(path))


def checkpoint(path):
    """Read a safe checkpoint: a dictionary."""
    if safe_format.is_safe_file(path):
        assert isinstance(safe_format.read(path), dict)


def saved_dataset(path):
    """Read a saved dataset: a dictionary."""
    assert isinstance(stored.read(path), dict)


def bundle(path):
    """Read the files of an archive as a bundle whose digests a stranger has made right."""
    folder = path.parent / "bundle"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        with zipfile.ZipFile(path) as archive:
            members = {Path(name).name: archive.read(name) for name in archive.namelist()}
        about = dict(json.loads(members.pop("model.json", b"{}")))
    except Exception:  # no archive: not what is tried here
        return
    about.pop("digest", None)
    if isinstance(about.get("files"), dict):
        about["files"] |= {
            name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for name, data in members.items()
        }
    with suppress(ValueError):  # NaN, which is no JSON
        members["model.json"] = seal(about)[0]
    for name, data in members.items():
        (folder / (name or "nameless")).write_bytes(data)
    shop = Recommender(read_bundle(folder), index=False)
    assert len(shop.items) + 1 == len(shop.bundle.vectors.table)


def written_bundle():
    """Return the files of a small bundle as an archive."""
    from tests.serving.conftest import SETTINGS, made_histories, made_items, made_network

    new = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(new, "w") as archive:
        path = Path(folder) / "bundle"
        about = {"max_history": 20, "metrics": {}, "features": {}}
        more = {"about": about, "histories": made_histories()}
        write_bundle(
            path,
            made_network(4, num_layers=1),
            {**SETTINGS, "num_layers": 1},
            made_items(4),
            **more,
        )
        for file in sorted(path.iterdir()):
            archive.writestr(zipfile.ZipInfo(file.name), file.read_bytes())
    return new.getvalue()


def written(write, suffix):
    """Return what a function writes into a file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"x{suffix}"
        write(path)
        return path.read_bytes()


def arrays_of(suffix):
    """Return seeds of a binary format of vectors, a pickle among them."""
    values, ids = np.arange(6, dtype=np.float32).reshape(3, 2), ["a", "b", "c"]
    frame = pa.table({"item_id": ids, "embedding": list(values)})
    tensors = {"item_id": ids, "embedding": torch.from_numpy(values)}
    bomb = np.array([Bomb()], object)
    writers = {
        ".npy": [lambda p: np.save(p, values), lambda p: np.save(p, bomb)],
        ".npz": [
            lambda p: np.savez(p, item_id=ids, embedding=values),
            lambda p: np.savez(p, item_id=ids, embedding=bomb),
        ],
        ".pt": [
            lambda p: torch.save(tensors, p),
            lambda p: torch.save(Bomb(), p),
            lambda p: p.write_bytes(pickle.dumps(Bomb())),
        ],
        ".parquet": [lambda p: pq.write_table(frame, p)],
    }
    return [written(write, suffix) for write in writers[suffix]]


ATOMIC = [
    b"user_id:token\titem_id:token\ttimestamp:float\nu\ti\t1\nu\tj\t1.5e3\n",
    b"\xef\xbb\xbfitem_id:token\ttitle:token_seq\tkind:token\r\ni\tred \"hat\t'x\r\n\r\n",
]
LINES = [
    b"{'asin': 'B', 'title': \"a'b\", 'price': 1.5, 'categories': [['x', 'y']]}\n",
    b'{"parent_asin": "B", "title": "a", "images": [{"large": "http://x/y.jpg"}]}\n',
    b"__import__('tests.fuzz_readers').fuzz_readers.executed()",
]
CSV = [b'id,title,price\n1,"a ""b""\nc",2\n2,d,3\n', b"id;x\n1;\xe9\n", b"id\tx\n1\t2\n"]
YAML = [
    b"a: 1e-3\nb: [1, {c: d}]\ne: &x {f: g}\nh: *x\n",
    b"!!python/object/apply:tests.fuzz_readers.executed []",
    b"{'a': 1, 'b': (2, None)}",
]
CONTENT = {"epoch": 1, "state": {"w": torch.ones(2, 2)}, "config": {"settings": {"a": [1, None]}}}
READERS = {
    "atomic": Reader(".inter", atomic, (AtomicFileError,), lambda: ATOMIC),
    "inter": Reader(".inter", inter, (AtomicFileError,), lambda: ATOMIC),
    "item": Reader(".item", item, (AtomicFileError,), lambda: ATOMIC),
    **{
        f"features{suffix}": Reader(
            suffix, features, (FeatureFileError,), lambda suffix=suffix: arrays_of(suffix)
        )
        for suffix in (".npy", ".npz", ".pt", ".parquet")
    },
    **{
        f"vectors{suffix}": Reader(
            suffix, vectors, (FeatureFileError,), lambda suffix=suffix: arrays_of(suffix)
        )
        for suffix in (".npz", ".pt", ".parquet")
    },
    "vectors.csv": Reader(".csv", vectors, (FeatureFileError,), lambda: [b"id,a,b\nx,1,2\n"]),
    "raw_lines": Reader("", raw_lines, (RawFileError,), lambda: [*LINES, gzip.compress(LINES[0])]),
    "metadata": Reader("", metadata, (ValueError,), lambda: LINES),
    "csv": Reader(".csv", table, (RawFileError,), lambda: CSV),
    "parquet": Reader(".parquet", table, (RawFileError,), lambda: arrays_of(".parquet")),
    "yaml": Reader(".yaml", yaml, (ConfigurationError,), lambda: YAML),
    "checkpoint": Reader(
        ".safetensors",
        checkpoint,
        (ValueError,),
        lambda: [written(lambda p: safe_format.write(CONTENT, p), ".safetensors")],
    ),
    "bundle": Reader(
        ".zip",
        bundle,
        (BundleError,),
        lambda: [written_bundle()],
    ),
    "saved_dataset": Reader(
        ".npz",
        saved_dataset,
        (FeatureFileError,),
        lambda: [written(lambda p: stored.write({"a": np.ones(3)}, p), ".npz"), *arrays_of(".npz")],
    ),
}


def try_bytes(name, data, folder):
    """Let a reader read some bytes: anything but a result or a documented error is raised."""
    reader = READERS[name]
    path = Path(folder) / f"x{reader.suffix}"
    path.write_bytes(data)
    with suppress(reader.errors):
        reader.read(path)


def classes_of(module):
    """Return the classes that a module defines."""
    return [c for c in vars(module).values() if isclass(c) and c.__module__ == module.__name__]


def main():
    """Search for inputs that a reader fails on."""
    import atheris

    parser = argparse.ArgumentParser()
    parser.add_argument("reader", choices=READERS)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--corpus", type=Path, help="folder of inputs, kept; default: an empty one")
    parser.add_argument("--flat", action="store_true", help="random bytes alone")
    given = parser.parse_args()
    for module in list(sys.modules):
        if module.startswith(("recbole_m3rec", "yaml.", "zipfile", "numpy.lib._format")):
            for owner in (sys.modules[module], *classes_of(sys.modules[module])):
                for each in [each for each in vars(owner).values() if isfunction(each)]:
                    with suppress(Exception):  # some bytecode cannot be instrumented
                        atheris.instrument_func(each)
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        corpus = given.corpus or Path(folder) / "corpus"
        corpus.mkdir(parents=True, exist_ok=True)
        for number, data in enumerate(READERS[given.reader].seeds()):
            (corpus / f"seed-{number}").write_bytes(data)
        limits = ["-timeout=120", "-rss_limit_mb=4000", "-max_len=65536", "-print_final_stats=1"]
        options = [f"-max_total_time={round(60 * given.minutes)}", f"-seed={given.seed}", *limits]

        def by_form(data, max_size, seed):
            return mutate(data, max_size, seed, atheris.Mutate)

        atheris.Setup(
            [sys.argv[0], *options, str(corpus)],
            lambda data: try_bytes(given.reader, data, folder),
            **({} if given.flat else {"custom_mutator": by_form}),
        )
        atheris.Fuzz()


if __name__ == "__main__":
    main()
