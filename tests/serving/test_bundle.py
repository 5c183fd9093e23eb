"""A bundle is written whole or not at all, and read safely or not at all."""

import dataclasses
import json
import os
import pickle
import random
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from recbole_m3rec.network.m3rec import M3RecNetwork
from recbole_m3rec.serving.bundle import write as writing
from recbole_m3rec.serving.bundle.files import BundleError, read_table
from recbole_m3rec.serving.bundle.read import read_bundle, seal
from recbole_m3rec.support.hashing import sha256_of
from recbole_m3rec.support.safe_write import CannotWriteError, FileInUseError, open_alone
from tests.serving.conftest import N_ITEMS, SETTINGS, made_features, made_items, made_network


def test_what_is_read_is_what_was_written(write_made):
    network = made_network()
    bundle = read_bundle(write_made())
    vectors = network.item_vectors()
    assert torch.equal(bundle.vectors.table, vectors.table)
    for name in network.modalities:
        assert torch.equal(bundle.vectors.sequence[name], vectors.sequence[name])
    ours, theirs = network.state_dict(), bundle.network.state_dict()
    for key in theirs:
        if key not in ("item_embedding.weight", "content._extra_state"):
            assert torch.equal(ours[key], theirs[key]), key
    assert bundle.items.equals(made_items())
    assert not bundle.network.training
    assert bundle.about["metrics"] == {"test": {"hit@10": 0.5}}


def test_features_wider_than_all_else_are_read(write_made):
    features = made_features(N_ITEMS)
    values = torch.randn(N_ITEMS + 1, 700)
    features["text"] = dataclasses.replace(features["text"], values=values)
    network = M3RecNetwork(N_ITEMS + 1, features, **SETTINGS).eval()
    assert read_bundle(write_made(network=network)).network.content["text"].projector


def test_half_precision_halves_the_vectors(write_made):
    bundle = read_bundle(write_made(precision="float16"))
    assert bundle.vectors.table.dtype == torch.float16
    assert torch.allclose(bundle.vectors.table.float(), made_network().item_table(), atol=1e-2)


@pytest.mark.parametrize("scale", [1e9, 1e-9])
def test_vectors_that_half_precision_cannot_hold_are_refused(write_made, tmp_path, scale):
    network = made_network(score="cosine")
    network.content["text"].projector[2].weight.data *= scale
    network.content["text"].projector[2].bias.data *= scale
    settings = {**SETTINGS, "score": "cosine"}
    with pytest.raises(
        BundleError, match=r"item i1: float16 .* sequence.text, .* --precision float32"
    ):
        write_made(network=network, settings=settings, precision="float16")
    assert not [*tmp_path.iterdir()]
    write_made(network=network, settings=settings)


def test_any_changed_byte_of_any_file_is_one_error(write_made):
    folder = write_made()
    draw = random.Random(0)
    files = sorted(folder.iterdir())
    assert len(files) == 6
    for number in range(200):
        path = files[number % len(files)]
        whole = path.read_bytes()
        place = draw.randrange(len(whole))
        changed = bytearray(whole)
        changed[place] ^= 1 << draw.randrange(8)
        path.write_bytes(changed)
        with pytest.raises(BundleError, match=r"Export|export|version"):
            read_bundle(folder)
        path.write_bytes(whole)
    read_bundle(folder)


@pytest.mark.parametrize(
    "name",
    [
        "model.json",
        "model.safetensors",
        "vectors.safetensors",
        "features.safetensors",
        "items.parquet",
        "histories.parquet",
    ],
)
def test_a_truncated_or_missing_file_is_named(write_made, name):
    folder = write_made()
    path = folder / name
    whole = path.read_bytes()
    for size in (0, 7, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(BundleError, match=name):
            read_bundle(folder)
    path.unlink()
    with pytest.raises(BundleError, match=name):
        read_bundle(folder)


def digest_of(path):
    return {"bytes": path.stat().st_size, "sha256": sha256_of(path)}


def change_about(folder, **changes):
    """Change model.json as somebody would who knows its digest."""
    content = json.loads((folder / "model.json").read_text())
    del content["digest"]
    (folder / "model.json").write_bytes(seal(content | changes)[0])


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"format_number": 2}, "format 2, this version of recbole_m3rec reads 1"),
        ({"files": None}, "files is None, expected dict"),
        ({"files": {"model.safetensors": 3}}, "model.safetensors has no bytes and sha256"),
        ({"network": [1]}, "network is .1., expected dict"),
        ({"max_history": "all"}, "max_history is all, expected int"),
        ({"max_history": 0}, "max_history is 0, expected 1 or more"),
    ],
)
def test_a_description_of_other_kinds_is_named(write_made, changes, says):
    folder = write_made()
    change_about(folder, **changes)
    with pytest.raises(BundleError, match=says):
        read_bundle(folder)


def test_no_memory_is_taken_for_a_network_that_is_larger_than_its_weights(write_made, monkeypatch):
    folder = write_made()
    content = json.loads((folder / "model.json").read_text())
    monkeypatch.setattr("recbole_m3rec.serving.bundle.read.build_network", None)
    for large in ({"hidden_size": 50_000}, {"num_layers": 10**9}):
        settings = {**content["network"]["settings"], **large}
        change_about(folder, network={**content["network"], "settings": settings})
        with pytest.raises(BundleError, match="numbers, its settings need at least"):
            read_bundle(folder)


def test_a_table_with_two_columns_of_a_name_or_empty_cells_is_refused(write_made):
    folder = write_made()
    whole = pq.read_table(folder / "items.parquet")
    content = json.loads((folder / "model.json").read_text())
    ids = pa.array([None, *whole["item_id"].to_pylist()[1:]], pa.string())
    for table, says in (
        (whole.append_column("title", whole["title"]), "two columns of one name"),
        (whole.set_column(0, "item_id", ids), "column item_id has empty cells"),
        (whole.set_column(4, "has_text", whole["count"]), "has_text is int64, expected bool"),
    ):
        pq.write_table(table, folder / "items.parquet")
        files = content["files"] | {"items.parquet": digest_of(folder / "items.parquet")}
        change_about(folder, files=files)
        with pytest.raises(BundleError, match=says):
            read_bundle(folder)


class Bomb:
    def __reduce__(self):
        return (open, ("exploded", "w"))


def test_a_pickle_slipped_in_is_refused_and_not_run(write_made):
    folder = write_made()
    (folder / "extra.pkl").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(BundleError, match=r"extra\.pkl: no file of the bundle"):
        read_bundle(folder)
    (folder / "extra.pkl").unlink()
    for name in ("model.safetensors", "vectors.safetensors", "items.parquet"):
        whole = (folder / name).read_bytes()
        torch.save({"a": Bomb()}, folder / name)
        content = json.loads((folder / "model.json").read_text())
        files = content["files"] | {name: digest_of(folder / name)}
        change_about(folder, files=files)
        with pytest.raises(BundleError, match=name):
            read_bundle(folder)
        (folder / name).write_bytes(whole)
        change_about(folder, files=content["files"])
    read_bundle(folder)
    assert not Path("exploded").exists()


def test_a_name_outside_the_folder_is_refused(write_made, tmp_path):
    folder = write_made()
    (tmp_path / "secret").write_text("x")
    content = json.loads((folder / "model.json").read_text())
    change_about(folder, files=content["files"] | {"../secret": digest_of(tmp_path / "secret")})
    with pytest.raises(BundleError, match="lists"):
        read_bundle(folder)


def test_settings_of_another_version_are_an_error(write_made):
    folder = write_made()
    content = json.loads((folder / "model.json").read_text())
    network = content["network"] | {"settings": {**SETTINGS, "flux": 3}}
    change_about(folder, network=network)
    with pytest.raises(BundleError, match="flux"):
        read_bundle(folder)


def test_nothing_but_a_bundle_is_replaced(write_made, tmp_path):
    folder = write_made()
    first = read_bundle(folder).digest
    assert read_bundle(write_made(about={"max_history": 30})).digest != first
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_text("x")
    with pytest.raises(BundleError, match="other things"):
        write_made("photos")
    # another program's file of the same name, what somebody laid beside a bundle's files
    (tmp_path / "photos" / "model.json").write_text('{"modelTopology": 1}')
    (folder / "notes.txt").write_text("x")
    for place, kept in (("photos", "cat.jpg"), (folder.name, "notes.txt")):
        with pytest.raises(BundleError, match=rf"such as {kept}"):
            write_made(place)
        assert (tmp_path / place / kept).exists()


def test_a_failed_write_leaves_what_was_there(write_made, monkeypatch, tmp_path):
    folder = write_made()
    before = read_bundle(folder).digest

    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writing.pq, "write_table", fail)
    with pytest.raises(CannotWriteError, match="No space left"):
        write_made()
    with pytest.raises(CannotWriteError):
        write_made("other")
    assert read_bundle(folder).digest == before
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.skipif(os.name != "posix", reason="Windows has no limit of this kind")
def test_a_disk_that_is_full_is_one_error_of_the_library_s_files_too(write_made, tmp_path):
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(CannotWriteError, match=f"^cannot write {tmp_path / 'bundle'}: .*large"):
            write_made()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_that_cannot_be_written_is_named_as_it_was_given(write_made, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CannotWriteError, match=f"^cannot write {tmp_path / 'file' / 'bundle'}: "):
        write_made("file/bundle")


def test_what_a_killed_export_left_is_removed_and_one_at_work_is_not_disturbed(
    write_made, tmp_path
):
    folder = write_made()
    for name in (".bundle.new", ".bundle.old"):
        shutil.copytree(folder, tmp_path / name)
    (tmp_path / ".bundle.lock.tmp").touch()
    read_bundle(write_made())
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    (tmp_path / ".bundle.new").mkdir()
    with (
        open_alone(tmp_path / ".bundle.lock.tmp"),
        pytest.raises(FileInUseError, match=f"^{folder}: another run is writing it"),
    ):
        write_made()
    assert (tmp_path / ".bundle.new").exists()


def test_a_file_that_changes_while_it_is_read_is_named(write_made, monkeypatch):
    folder = write_made()

    def read(path):
        (folder / "vectors.safetensors").touch()
        return read_table(path)

    monkeypatch.setattr("recbole_m3rec.serving.bundle.read.read_table", read)
    with pytest.raises(BundleError, match=r"vectors\.safetensors: changed while"):
        read_bundle(folder)


def test_a_copy_elsewhere_is_the_same_bundle(write_made, tmp_path):
    folder = write_made()
    shutil.copytree(folder, tmp_path / "copy")
    assert read_bundle(tmp_path / "copy").digest == read_bundle(folder).digest
