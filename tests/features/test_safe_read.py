"""What is no file, or less than it claims to be, is one true error for both readers of vectors."""

import io
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from recbole_m3rec.features.feature_file import read_features
from recbole_m3rec.features.feature_table import FeatureFileError
from recbole_m3rec.features.safe_read import load_npz
from recbole_m3rec.features.vector_files import read_vectors

READERS = [read_features, read_vectors]


def header(shape, kind="<f4"):
    """Return the start of an .npy file of this shape, and 64 bytes of content."""
    buffer = io.BytesIO()
    claim = {"descr": kind, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, claim)
    return buffer.getvalue() + bytes(64)


@pytest.mark.parametrize("read", READERS)
def test_a_header_that_claims_terabytes_allocates_nothing(tmp_path, read):
    (tmp_path / "x.npy").write_bytes(header((10**9, 6000)))
    (tmp_path / "x.ids.txt").write_text("a\n")
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("embedding.npy", header((10**9, 6000)))
        archive.writestr("item_id.npy", header((1,), "<U3"))
    for name in ("x.npy", "x.npz"):
        with pytest.raises(
            FeatureFileError, match=rf"{name}: the header of array.*24,000,000,000,000 bytes, but"
        ):
            read(tmp_path / name)


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("suffix", [".npy", ".npz", ".pt", ".parquet"])
def test_folders_and_links_that_lead_nowhere_are_called_so(tmp_path, read, suffix):
    (tmp_path / f"folder{suffix}").mkdir()
    with pytest.raises(FeatureFileError, match=f"folder{suffix}: is a folder, expected a f"):
        read(tmp_path / f"folder{suffix}")
    os.symlink(f"loop{suffix}", tmp_path / f"loop{suffix}")
    with pytest.raises(FileNotFoundError, match=f"is a link to loop{suffix}, which leads nowhere"):
        read(tmp_path / f"loop{suffix}")
    os.mkfifo(tmp_path / f"pipe{suffix}")
    with pytest.raises(FeatureFileError, match=f"pipe{suffix}: is a device or pipe"):
        read(tmp_path / f"pipe{suffix}")


class Trap:
    """Makes a file where it is unpickled."""

    def __reduce__(self):
        return Path.touch, (Path("touched"),)


@pytest.mark.parametrize("read", READERS)
def test_pickles_are_refused_and_run_nothing(tmp_path, read):
    torch.save({"item_id": Trap(), "embedding": torch.ones(1, 1)}, tmp_path / "x.pt")
    torch.save(Trap(), tmp_path / "y.pt")
    np.savez(tmp_path / "x.npz", item_id=np.array([Trap()]), embedding=np.ones((1, 1)))
    (tmp_path / "x.npy").write_bytes(pickle.dumps(Trap()))
    (tmp_path / "x.ids.txt").write_text("a\n")
    for name in ("x.pt", "y.pt", "x.npz", "x.npy"):
        with pytest.raises(FeatureFileError, match=f"{name}: .*unpickling can run code"):
            read(tmp_path / name)
    assert not Path("touched").exists()


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("suffix", [".npy", ".npz", ".pt", ".parquet", ".csv"])
def test_files_that_are_not_there_or_of_something_else_are_named(tmp_path, read, suffix):
    if suffix == ".csv" and read is read_features:
        return  # no format of a feature file
    with pytest.raises(FileNotFoundError, match=f"x{suffix}: there is no such f"):
        read_with_ids(read, tmp_path / f"x{suffix}")
    for content in (b"item_id:token\ttitle:token_seq\n1\tToy Story\n", b"\x93\xff\x00 nothing"):
        (tmp_path / f"x{suffix}").write_bytes(content)
        with pytest.raises(FeatureFileError, match=f"x{suffix}"):
            read_with_ids(read, tmp_path / f"x{suffix}")


def read_with_ids(read, path):
    np.save(path.with_suffix(".item_id.npy"), np.array(["a"]))
    return read(path)


@pytest.mark.parametrize("read", READERS)
def test_numpy_ids_in_a_pt_file_are_told_how_to_be_saved(tmp_path, read):
    content = {"item_id": [np.str_("a"), np.str_("b")], "embedding": torch.zeros(2, 3)}
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(FeatureFileError, match=r"holds Python or NumPy objects.*\[str\(id\)") as e:
        read(tmp_path / "x.pt")
    assert "\x1b" not in str(e.value)
    assert "\n" not in str(e.value)


def test_an_entry_that_is_no_array_is_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("item_id.npy", b"abc")
    with pytest.raises(FeatureFileError, match="entry 'item_id' is no array"):
        load_npz(tmp_path / "x.npz")


OF_PYARROW = pa.ArrowMemoryError("malloc of size 137438953472 failed")
OF_TORCH = RuntimeError("[enforce] DefaultCPUAllocator: can't allocate memory: you tried\nframe 0")


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(
    ("error", "said"),
    [(OF_PYARROW, "malloc of"), (OF_TORCH, ".enforce. Default"), (MemoryError(), "MemoryError.,")],
)
def test_a_damaged_file_that_asks_for_all_memory_is_one_error(
    tmp_path, monkeypatch, read, error, said
):
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"item_id": ["a"], "embedding": [[1.0, 2.0]]}), path)

    def asks_for_too_much(*args, **options):
        raise error

    monkeypatch.setattr(pq, "read_table", asks_for_too_much)
    monkeypatch.setattr(pq, "ParquetFile", asks_for_too_much)
    with pytest.raises(FeatureFileError, match=rf"asks for more memory than there is \({said}"):
        read(path)
