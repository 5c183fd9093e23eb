"""Compiles the CPU kernels into a plain shared library that is loaded through ctypes.

The library knows neither Python nor torch, so one build fits every version of both. Each file of
kernels is compiled for its own instruction set, and the best that the processor has is chosen when
the program runs. The library is optional: where it cannot be compiled, the build says so in one
line and goes on, and the pure-PyTorch scan is used.
"""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

from setuptools import Extension
from setuptools.command.build_ext import build_ext

FOLDER = Path("recbole_m3rec", "ops", "csrc")
# Never -march=native or -ffast-math: a wheel must run on other machines, and NaN must stay NaN.
# gcc takes the undefined operands inside its own AVX-512 intrinsics for uninitialised variables.
FLAGS = [
    "-std=c++17", "-O3", "-pthread", "-fvisibility=hidden", "-Wall", "-Wno-maybe-uninitialized",
    "-Wno-unknown-warning-option",  # clang does not know the one before
    "-g0",
]  # fmt: skip
FLAGS_OF = {
    "kernels_avx2.cpp": ["-mavx2", "-mfma"],
    "kernels_avx512.cpp": [
        "-mavx2", "-mfma", "-mavx512f", "-mavx512dq", "-mavx512vl", "-mavx512bw",
    ],
}  # fmt: skip


def extensions() -> list[Extension]:
    """The library, as setuptools is told of it."""
    files = sorted(path.name for path in FOLDER.glob("*.cpp"))
    headers = sorted(path.as_posix() for path in FOLDER.glob("*.h"))
    sources = [(FOLDER / name).as_posix() for name in files]
    name = "recbole_m3rec.ops._m3rec_ops"
    return [Extension(name, sources, depends=headers, language="c++", optional=True)]


def _for_x86() -> bool:
    # On macOS one build may be for several processors at once.
    several = "arm64" in os.environ.get("ARCHFLAGS", "")
    return platform.machine().lower() in ("x86_64", "amd64") and not several


class CompileKernels(build_ext):
    """``build_ext`` that gives each source its own flags and survives a missing compiler."""

    def build_extension(self, ext: Extension) -> None:
        target = Path(self.get_ext_fullpath(ext.name))
        target.unlink(missing_ok=True)  # what an earlier build left must not pass for this one's
        try:
            if self.compiler.compiler_type == "msvc":
                raise RuntimeError("it needs gcc or clang")
            self._compile(ext, str(target))
        except (Exception, SystemExit) as problem:
            reason = " ".join(str(problem).split()) or type(problem).__name__
            print(
                f"recbole_m3rec: the compiled CPU kernels are left out ({reason}); "
                "the slower pure-PyTorch scan will be used",
                file=sys.stderr,
            )

    def _compile(self, ext: Extension, target: str) -> None:
        objects = []
        for source in ext.sources:
            flags = FLAGS_OF.get(Path(source).name, [])
            if flags and not _for_x86():
                continue
            macros = [] if _for_x86() else [("M3REC_GENERIC_ONLY", None)]
            objects += self.compiler.compile(
                [source],
                output_dir=self.build_temp,
                macros=macros,
                debug=self.debug,
                extra_postargs=FLAGS + flags,
                depends=ext.depends,
            )
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        self.compiler.link_shared_object(
            objects, target, extra_postargs=["-pthread"], debug=self.debug, target_lang="c++"
        )

    def get_export_symbols(self, ext: Extension) -> list[str]:
        return []  # there is no PyInit function
