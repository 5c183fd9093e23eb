"""Compiles the CPU kernels into a plain shared library: when the package is built, or first used.

The library knows neither Python nor torch, so one build fits every version of both. Each file of
kernels is compiled for its own instruction set, and the best that the processor has is chosen when
the program runs. ``setup.py`` loads this file by its path, hence nothing but Python's own library
is imported here.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SOURCES = Path(__file__).resolve().parent.parent / "csrc"
# Never -march=native or -ffast-math: a wheel must run on other machines, and NaN must stay NaN.
# gcc takes the undefined operands inside its own AVX-512 intrinsics for uninitialised variables.
FLAGS = [
    "-std=c++17", "-O3", "-fPIC", "-pthread", "-fvisibility=hidden", "-Wall",
    "-Wno-maybe-uninitialized",
    "-Wno-unknown-warning-option",  # clang does not know the one before
    "-g0",
]  # fmt: skip
FLAGS_OF = {
    "kernels_avx2.cpp": ["-mavx2", "-mfma"],
    "kernels_avx512.cpp": [
        "-mavx2", "-mfma", "-mavx512f", "-mavx512dq", "-mavx512vl", "-mavx512bw",
    ],
}  # fmt: skip


class CompileError(RuntimeError):
    """The kernels cannot be compiled here; says why."""


def compiler() -> list[str]:
    """Return the command of a C++ compiler: ``CXX``, else the first of c++, g++, clang++.

    Raises:
        CompileError: there is none.
    """
    command = shlex.split(os.environ.get("CXX", ""))
    for words in [command] if command else [["c++"], ["g++"], ["clang++"]]:
        if shutil.which(words[0]):
            return words
    raise CompileError(
        f"CXX names {command[0]}, which is no program" if command else "there is no C++ compiler"
    )


def digest() -> str:
    """Return 16 hex digits that change with the sources, the flags and the kind of processor."""
    content = hashlib.sha256(repr((FLAGS, FLAGS_OF, platform.machine())).encode())
    for path in sorted(SOURCES.iterdir()):
        if path.suffix in (".cpp", ".h"):
            content.update(path.name.encode() + path.read_bytes())
    return content.hexdigest()[:16]


def compile_library(target: Path) -> None:
    """Compile the kernels into ``target``, which appears whole or not at all.

    Raises:
        CompileError: no sources, no compiler, or one that fails; an older ``target`` stays.
    """
    sources = sorted(SOURCES.glob("*.cpp"))
    if not sources:
        raise CompileError(f"the sources are not in {SOURCES}")
    command = [*compiler(), *shlex.split(os.environ.get("ARCHFLAGS", ""))]
    on_x86 = platform.machine().lower() in ("x86_64", "amd64") and "arm64" not in command
    if on_x86:
        macros = []
    else:
        macros = ["-DM3REC_GENERIC_ONLY"]
        sources = [source for source in sources if source.name not in FLAGS_OF]
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".compiling-", dir=target.parent) as folder:

        def compile_one(source: Path) -> str:
            result = f"{folder}/{source.stem}.o"
            flags = [*FLAGS, *FLAGS_OF.get(source.name, []), *macros]
            _run([*command, *flags, "-c", str(source), "-o", result])
            return result

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            objects = list(pool.map(compile_one, sources))
        library = f"{folder}/{target.name}"
        _run([*command, "-shared", "-pthread", *objects, "-o", library])
        os.replace(library, target)


def _run(command: list[str]) -> None:
    try:
        result = subprocess.run(command, capture_output=True, text=True, errors="replace")
    except OSError as error:
        raise CompileError(f"{command[0]} cannot be run ({error.strerror})") from error
    if result.returncode:
        lines = [line for line in result.stderr.splitlines() if "error" in line] or [result.stderr]
        raise CompileError(f"{command[0]} failed: {lines[0].strip()[:200] or 'without a word'}")
