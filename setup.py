"""What pyproject.toml cannot say of the packages: the example set-ups in a wheel, and README for an index."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
EXAMPLES = ("solvers", "prototxt")  # where lrbench_caffe/prototxt/examples.py looks for them


class BuildWithExamples(build_py):
    """Puts the set-ups, which lie at the top of the repository, into the package lrbench_caffe."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:  # they are found in the clone
            return
        for name in EXAMPLES:
            target = Path(self.build_lib) / "lrbench_caffe" / "examples" / name
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(ROOT / name, target)


def readme() -> str:
    """Return README.md for a package index, which has no files beside it.

    Of links to files of the repository the text stays; pictures in the repository go.
    """
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    here = r"(?!https?://|#)[^)\s]+"
    text = re.sub(rf"!\[[^]]*\]\({here}\)\n*", "", text)
    return re.sub(rf"\[([^]]+)\]\({here}\)", r"\1", text)


setup(
    long_description=readme(),
    long_description_content_type="text/markdown",
    cmdclass={"build_py": BuildWithExamples},
)
