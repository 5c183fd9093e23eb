"""Packaging: what the distribution is called, what it needs, what it carries.

Three things are decided here and nowhere else: the dependencies with their bounds, that
``properties/`` travels inside the package, and that the compiled kernels are optional: without a
C++ compiler the build goes on.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent.resolve()
sys.path.insert(0, str(HERE))  # a PEP 517 build does not put the project's folder on the path

from setup_kernels import CompileKernels, extensions  # noqa: E402

# Each lower bound of what the package itself needs, but RecBole's and torch's, is what
# constraints-oldest.txt pins, and CI runs the tests there.
INSTALL_REQUIRES = [
    # 1.2.1 pins a ray without wheels for Python 3.12 and newer, where pip settles on 1.2.0.
    "recbole>=1.2.0,<1.3",
    # torch.library.custom_op and register_autograd, which the scan uses, came with 2.4. CI tests
    # the newest release only.
    "torch>=2.4",
    "numpy>=1.26.4",
    "pandas>=2.1.4",
    "pyarrow>=15.0.2",  # the first series that stores float16 in Parquet
    "pyyaml>=6.0.1",
    "safetensors>=0.4.5",  # checkpoints that run no code
    "scikit-learn>=1.3.2",
    "scipy>=1.11.4",
    "threadpoolctl>=3.1.0",
    "tqdm>=4.66.1",
    "wrapt>=1.16.0",  # runs the registration when RecBole is imported
    # RecBole counts FLOPs through thop, which imports distutils: gone from Python 3.12 on, but
    # still supplied by setuptools, which new virtual environments no longer contain.
    "setuptools>=69; python_version >= '3.12'",
    # RecBole 1.2.0 imports both and declares neither; its general models need the first to load.
    "kmeans-pytorch>=0.3; python_version >= '3.12'",
    "psutil>=5.9.0; python_version >= '3.12'",
]

EXTRAS_REQUIRE = {
    # Everything that the checks need: tests, lint, types.
    "test": [
        "dask>=2024.8",
        "distributed>=2024.8",
        "fastapi>=0.115",
        "httpx>=0.27",
        "hyperopt>=0.2.7",
        "hypothesis>=6.100",
        "matplotlib>=3.8",
        "mypy>=1.11",
        "optuna>=4.1",
        "pandas-stubs",
        "pillow>=10.0.1",
        "prometheus-client>=0.20",
        "pytest>=8.0",
        "pytest-xdist>=3.5",
        "pytest-cov>=5.0",
        "ruff>=0.6",
        "safetensors>=0.4.5",
        "types-PyYAML",
        "uvicorn>=0.30",
    ],
    # Bundles, Recommender, and the service with its page; redis for replicas that share events.
    "serving": [
        "fastapi>=0.115",
        "httptools>=0.6",
        "prometheus-client>=0.20",
        "redis>=5.0.1",
        "safetensors>=0.4.5",
        "uvicorn>=0.30",
        "uvloop>=0.19; sys_platform != 'win32'",
    ],
    # --cluster: comparisons, encoding, preparation and downloads on a Dask cluster.
    "cluster": ["dask>=2024.8", "distributed>=2024.8"],
    # Approximate search in catalogues of more than 200,000 items.
    "faiss": ["faiss-cpu>=1.8"],
    # Bundles for other runtimes: recbole-m3rec onnx
    "onnx": ["onnx>=1.16", "onnxruntime>=1.18", "onnxscript>=0.2", "safetensors>=0.4.5"],
    # RecBole's hyper-parameter search; trials of `recbole-m3rec compare --tune`.
    "tuning": ["hyperopt>=0.2.7", "optuna>=4.1"],
    # Fetching images, and encoders with pretrained weights. Not needed for tfidf-svd. Encoders of
    # open_clip and timm work where these are installed.
    "encoders": [
        "pillow>=10.0.1",
        "sentence-transformers>=3.3",
        "transformers>=4.46",
    ],
    # The picture of a dataset that dataset_scripts/describe.py draws.
    "plots": [
        "matplotlib>=3.8",
        "pillow>=10.0.1",
    ],
    # The site: sphinx-build -W --keep-going -b html docs docs/_build/html
    "docs": [
        "furo>=2024.8",
        "myst-parser>=4.0",
        "sphinx>=8.2; python_version >= '3.11'",
    ],
    # A CUDA device, the CUDA toolkit (nvcc) and an installed CUDA build of torch come first, for
    # mamba-ssm and causal-conv1d are compiled against both:
    #     pip install --no-build-isolation -e '.[cuda]'
    # Optional even on CUDA: the package runs without any of the three.
    "cuda": [
        "causal-conv1d>=1.4; platform_system == 'Linux'",
        "mamba-ssm>=2.2; platform_system == 'Linux'",
        "triton>=3.2; platform_system == 'Linux'",
    ],
}


class BuildWithProperties(build_py):
    """``build_py`` that also lays ``properties/`` into the package.

    An editable install is left alone: it runs from the clone, where ``properties/`` lies beside
    the package.
    """

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib) / "recbole_m3rec" / "properties"
            shutil.rmtree(target, ignore_errors=True)  # nothing stale from an earlier build
            shutil.copytree(HERE / "properties", target)


def version() -> str:
    """Return ``__version__`` from the package's source, which importing would need RecBole for."""
    source = (HERE / "recbole_m3rec" / "__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__(?:: str)? = "([^"]+)"', source, re.MULTILINE)
    if found is None:
        raise RuntimeError('recbole_m3rec/__init__.py has no line __version__ = "…"')
    return found.group(1)


setup(
    name="recbole_m3rec",
    version=version(),
    description="M3Rec, a multi-modal sequential recommender, as a plugin of RecBole",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="The recbole_m3rec authors",
    keywords=["sequential recommendation", "multi-modal recommendation", "Mamba", "RecBole"],
    project_urls={"RecBole": "https://recbole.io"},
    license="MIT",
    license_files=["LICENSE"],
    python_requires=">=3.10,<3.14",
    install_requires=INSTALL_REQUIRES,
    extras_require=EXTRAS_REQUIRE,
    packages=find_packages(include=["recbole_m3rec", "recbole_m3rec.*"]),
    package_data={
        "recbole_m3rec": [
            *("py.typed", "config/*.yaml", "serving/page/*"),
            *("ops/csrc/*.cpp", "ops/csrc/*.h"),
        ],
    },
    ext_modules=extensions(),
    cmdclass={"build_ext": CompileKernels, "build_py": BuildWithProperties},
    zip_safe=False,
    entry_points={
        "console_scripts": ["recbole-m3rec = recbole_m3rec.cli.main:main"],
    },
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
