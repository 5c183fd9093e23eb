"""Has setuptools build the CPU kernels as ``recbole_m3rec/ops/cpu/compile.py`` compiles them.

The library is optional: where it cannot be compiled, the build says so in one line and goes on.
The package then tries once more where it runs, and else uses the pure-PyTorch scan.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from setuptools import Extension
from setuptools.command.build_ext import build_ext

OPS = Path("recbole_m3rec", "ops")


def _load_compile() -> ModuleType:
    """Return the package's module by its path: importing the package would need torch."""
    path = Path(__file__).parent / OPS / "cpu" / "compile.py"
    spec = importlib.util.spec_from_file_location("recbole_m3rec_compile", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def extensions() -> list[Extension]:
    """The library, as setuptools is told of it."""
    files = [path.as_posix() for path in sorted((OPS / "csrc").glob("*"))]
    sources = [file for file in files if file.endswith(".cpp")]
    headers = [file for file in files if file.endswith(".h")]
    name = "recbole_m3rec.ops._m3rec_ops"
    return [Extension(name, sources, depends=headers, language="c++", optional=True)]


class CompileKernels(build_ext):
    """``build_ext`` that compiles by one C++ compiler of its own and survives its absence."""

    def build_extension(self, ext: Extension) -> None:
        target = Path(self.get_ext_fullpath(ext.name)).absolute()
        target.unlink(missing_ok=True)  # what an earlier build left must not pass for this one's
        try:
            _load_compile().compile_library(target)
        except Exception as problem:
            print(
                f"recbole_m3rec: the compiled CPU kernels are left out ({problem}); they are "
                "compiled at first use where there is a compiler, else the slower pure-PyTorch "
                "scan is used",
                file=sys.stderr,
            )
