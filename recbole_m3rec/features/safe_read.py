"""Files from elsewhere, decoded so that whatever is wrong with one is one error that names it."""

from __future__ import annotations

import errno
import math
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from recbole_m3rec.features.feature_table import FeatureFileError

_UNPICKLED = re.compile("allow_pickle|eights only|WeightsUnpickler")


@contextmanager
def decoding(path: Path, what: str) -> Iterator[None]:
    """Turn whatever a decoder raises on a damaged or foreign file into one error.

    Args:
        path: the file.
        what: names its kind in the error that it is not there.

    Raises:
        FileNotFoundError: there is no such file, or a link leads nowhere.
        FeatureFileError: it is no file, or cannot be decoded.
    """
    check_is_file(path, what)
    try:
        yield
    except FeatureFileError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise  # the system's, but for a position in front of the file that an archive names
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        if isinstance(error, MemoryError) or "can't allocate memory" in reason:
            raise FeatureFileError(
                f"{path}: asks for more memory than there is ({reason}), as damaged files do. Make"
                " it again, or read it where there is more"
            ) from error
        if _UNPICKLED.search(reason):
            raise FeatureFileError(
                f"{path}: cannot be read as {path.suffix}: it is truncated, something else, or"
                " holds Python or NumPy objects, which are not read because unpickling can run"
                " code. Save plain arrays by numpy.save, or a tensor by torch.save, and ids as a"
                " list of str, such as [str(id) for id in ids]"
            ) from error
        raise FeatureFileError(
            f"{path}: cannot be read as {path.suffix}, the file is truncated or something else"
            f" ({reason}). Make it again"
        ) from error


def check_is_file(path: Path, what: str) -> None:
    """Raise unless a path leads to a regular file.

    Raises:
        FileNotFoundError: nothing is there, or a link leads nowhere.
        FeatureFileError: something else is there.
    """
    if path.is_file():
        return
    if path.is_symlink() and not path.exists():
        raise FileNotFoundError(
            f"{path}: is a link to {path.readlink()}, which leads nowhere or in a circle. Expected"
            f" a {what}: link to one"
        )
    if not path.exists():
        raise FileNotFoundError(f"{path}: there is no such {what}")
    kind = "a folder" if path.is_dir() else "a device or pipe"
    raise FeatureFileError(f"{path}: is {kind}, expected a {what}. Name the file itself")


def load_npy(path: Path, mmap_mode: Any = None) -> Any:
    """Read an ``.npy`` file that is as long as its header says."""
    with open(path, "rb") as file:
        _check_claim(path, file, path.stat().st_size)
    return np.load(path, mmap_mode=mmap_mode, allow_pickle=False)


def load_npz(path: Path) -> dict[str, np.ndarray]:
    """Read all arrays of an ``.npz`` archive that are as long as their headers say."""
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if entry.filename.endswith(".npy"):
                with archive.open(entry) as file:
                    _check_claim(path, file, entry.file_size, f" {entry.filename[:-4]!r}")
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):  # bytes of something else
            raise FeatureFileError(f"{path}: entry {name!r} is no array. Make the file again")
    return arrays


def as_numpy(tensor: torch.Tensor) -> np.ndarray:
    """Return a tensor's numbers; NumPy has no bfloat16, of which float32 holds every one."""
    if tensor.dtype == torch.bfloat16:
        tensor = tensor.float()
    numbers: np.ndarray = tensor.detach().numpy()
    return numbers


def _check_claim(path: Path, file: IO[bytes], n_bytes: int, name: str = "") -> None:
    if file.read(len(np.lib.format.MAGIC_PREFIX)) != np.lib.format.MAGIC_PREFIX:
        return  # no array: numpy says so
    file.seek(0)
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_2_0
    if version == (1, 0):
        read = np.lib.format.read_array_header_1_0
    shape, _, dtype = read(file)
    needed = math.prod(shape) * dtype.itemsize
    if not dtype.hasobject and needed > n_bytes:
        raise FeatureFileError(
            f"{path}: the header of array{name} says {list(shape)} of {dtype}, {needed:,} bytes,"
            f" but {n_bytes:,} are there. The file is truncated: make it again"
        )
