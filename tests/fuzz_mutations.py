"""Damage behind a file's outer form: checksums, lengths and compression stay right.

Random bytes hardly pass a checksum, so that what lies behind it is never asked. Here an archive is
opened, a member is damaged, and the archive is closed again; likewise for other forms.
"""

import gzip
import io
import json
import random
import struct
import warnings
import zipfile
from contextlib import suppress

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

ARRAY = b"\x93NUMPY"
NAMES = ("item_id", "embedding", "id", "ids", "tree", "x", "")
VALUES = (None, True, -1, 0, 2**63, 10**30, 1e308, float("nan"), "", "x", "tensor", [], {}, [[]])
COLUMNS = (
    lambda n: pa.array([f"i{k}" for k in range(n)]),
    lambda n: pa.array(["i"] * n).dictionary_encode(),
    lambda n: pa.array(range(n), pa.int64()),
    lambda n: pa.array([b"\xff"] * n, pa.binary()),
    lambda n: pa.array([[1.0, float(k)] for k in range(n)], pa.list_(pa.float32())),
    lambda n: pa.array([[1.0, 2.0]] * n, pa.list_(pa.float16(), 2)),
    lambda n: pa.array([[1.0, None]] * n, pa.list_(pa.float64())),
    lambda n: pa.array([[1.0] * k for k in range(n)], pa.large_list(pa.float32())),
    lambda n: pa.array([[float("nan"), 1e39]] * n, pa.list_(pa.float64())),
    lambda n: pa.array([[[1.0]]] * n, pa.list_(pa.list_(pa.float32()))),
    lambda n: pa.array([["a"]] * n),
    lambda n: pa.array([{"a": 1}] * n),
    lambda n: pa.array([k * 10**17 for k in range(n)], pa.timestamp("ns")),
    lambda n: pa.array([k * 3600 for k in range(n)], pa.timestamp("s", "Europe/Berlin")),
    lambda n: pa.array([None] * n),
    lambda n: pa.array([True] * n),
    lambda n: pa.array([10**5] * n, pa.decimal128(20, 3)),
)
ARRAYS = (
    lambda n: np.array([f"i{k}" for k in range(n)]),
    lambda n: np.array([b"i%d" % k for k in range(n)]),
    lambda n: np.arange(n),
    lambda n: np.arange(2 * n, dtype=np.float16).reshape(n, 2),
    lambda n: np.full((n, 2), 1e39),
    lambda n: np.ones((n, 2), np.complex64),
    lambda n: np.ones((n, 0), np.float32),
    lambda n: np.ones((n, 2, 2), np.float32),
    lambda n: np.zeros(n, [("a", "f4"), ("b", "U3")]),
    lambda n: np.zeros(n, "M8[s]"),
    lambda n: np.float32(1),
    lambda n: np.asfortranarray(np.ones((n, 3), ">f8")),
)
TENSORS = (
    lambda n: [f"i{k}" for k in range(n)],
    lambda n: list(range(n)),
    lambda n: [None] * n,
    lambda n: torch.arange(n),
    lambda n: torch.ones(n, 2, dtype=torch.bfloat16),
    lambda n: torch.ones(n, 2, dtype=torch.complex64),
    lambda n: torch.ones(n, 2).to_sparse(),
    lambda n: torch.ones(1, 2).expand(n, 2),
    lambda n: torch.nn.Parameter(torch.ones(n, 2)),
    lambda n: torch.ones(n, 2, device="meta"),
    lambda n: {"x": torch.ones(n)},
    lambda n: 1.5,
)


def mutate(data, max_size, seed, change):
    """Return a damaged file, half of the time one whose outer form is whole.

    Args:
        data: the file.
        max_size: of what ``change`` returns, bytes.
        seed: decides what is done.
        change: damages bytes, of which it gets a string and the most that it may return.
    """
    chance = random.Random(seed)
    if chance.random() < 0.5:
        with suppress(Exception):  # another form, or a broken one
            return inside(data, max_size, chance, change)[:max_size]
    return change(data, max_size)


def inside(data, max_size, chance, change):
    """Damage what lies in a file; a ValueError where its form is not known or broken."""
    if data[:2] == b"PK":
        return archive(data, max_size, chance, change)
    if data[:2] == b"\x1f\x8b":
        return gzip.compress(change(gzip.decompress(data), max_size), mtime=0)
    if data[:4] == b"PAR1":
        return parquet(data, chance)
    if data[: len(ARRAY)] == ARRAY:
        return array(data, max_size, chance, change)
    if data[8:9] == b"{":
        return safetensors(data, chance)
    return as_json(data, chance)


def archive(data, max_size, chance, change):
    """Damage, drop, double or rename a member of a zip archive, or put another in its place."""
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        members = [(entry.filename, file.read(entry)) for entry in file.infolist()]
    if any(name.endswith("data.pkl") for name, _ in members) and chance.random() < 0.5:
        new = io.BytesIO()
        names = chance.sample(NAMES, 2) if chance.random() < 0.2 else NAMES[:2]
        content = {name: chance.choice(TENSORS)(chance.randrange(4)) for name in names}
        torch.save(chance.choice([content, *content.values()]), new)
        return new.getvalue()
    place = chance.randrange(len(members))
    name, content = members[place]
    act = chance.randrange(8)
    if act == 0:
        del members[place]
    elif act == 1:
        members.append((name, content))
    elif act == 2:
        members[place] = (f"{chance.choice(NAMES)}.npy", content)
    elif act == 3 and name.endswith(".npy"):
        new = io.BytesIO()
        np.save(new, chance.choice(ARRAYS)(chance.randrange(4)), allow_pickle=False)
        members[place] = (name, new.getvalue())
    elif act == 4:
        members[place] = (name, change(content, max_size))
    else:
        members[place] = (name, inside(content, max_size, chance, change))
    new = io.BytesIO()
    with zipfile.ZipFile(new, "w") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of two members of a name
        for name, content in members:
            file.writestr(zipfile.ZipInfo(name), content)
    return new.getvalue()


def array(data, max_size, chance, change):
    """Damage the header of an ``.npy`` file, whose length stays right, or the JSON in its bytes."""
    [length] = struct.unpack("<H", data[8:10])
    header, values = data[10 : 10 + length], data[10 + length :]
    if values[:1] in (b"{", b"[") and chance.random() < 0.8:
        values = as_json(values, chance)
        header = repr({"descr": "|u1", "fortran_order": False, "shape": (len(values),)}).encode()
    else:
        header = change(header.rstrip(), max_size)
    header = header.replace(b"\n", b" ") + b"\n"
    return data[:8] + struct.pack("<H", len(header)) + header + values


def safetensors(data, chance):
    """Damage the header of a safetensors file, or the JSON in its metadata; lengths stay right."""
    [length] = struct.unpack("<Q", data[:8])
    header, values = json.loads(data[8 : 8 + length]), data[8 + length :]
    notes = header.get("__metadata__")
    if isinstance(notes, dict) and notes and chance.random() < 0.7:
        key = chance.choice(sorted(notes))
        notes[key] = as_json(notes[key].encode(), chance).decode()
        text = json.dumps(header).encode()
    else:
        text = as_json(data[8 : 8 + length], chance)
    return struct.pack("<Q", len(text)) + text + values


def parquet(data, chance):
    """Put a column of another kind into a Parquet table, rename, double or drop one."""
    table = pq.read_table(io.BytesIO(data))
    place, act = chance.randrange(table.num_columns), chance.randrange(5)
    name, column = table.column_names[place], chance.choice(COLUMNS)(table.num_rows)
    if act == 0:
        table = table.append_column(name, column)
    elif act == 1:
        names = list(table.column_names)
        names[place] = chance.choice(NAMES)
        table = table.rename_columns(names)
    elif act == 2:
        table = pa.concat_tables([table, table]) if table.num_rows < 50 else table.slice(0, 0)
    else:
        table = table.set_column(place, name, column)
    new = pa.BufferOutputStream()
    pq.write_table(table, new, compression=chance.choice(["none", "snappy", "gzip"]))
    return new.getvalue().to_pybytes()


def as_json(data, chance):
    """Change one node of a JSON text: its value, its key, or its place."""
    tree = json.loads(data)
    nodes = list(nodes_of(tree))
    if not nodes:
        return json.dumps(chance.choice(VALUES)).encode()
    owner, key = chance.choice(nodes)
    act = chance.randrange(4)
    if act == 0:
        del owner[key]
    elif act == 1 and isinstance(owner, dict):
        owner[str(chance.choice([*NAMES, *(k for o, k in nodes if isinstance(k, str))]))] = (
            owner.pop(key)
        )
    elif act == 2:
        other, at = chance.choice(nodes)
        owner[key] = json.loads(json.dumps(other[at]))
    else:
        owner[key] = chance.choice(VALUES)
    return json.dumps(tree).encode()


def nodes_of(tree):
    """Yield each container in a tree with each of its keys or places."""
    keys = (
        list(tree) if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else []
    )
    for key in keys:
        yield tree, key
        yield from nodes_of(tree[key])
