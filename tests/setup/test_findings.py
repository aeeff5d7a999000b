"""What the doctor looks for."""

from __future__ import annotations

import re
from pathlib import Path

from lrbench_caffe.setup.findings import PACKAGES

PROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"


def test_all_required_packages_are_looked_for():
    required = PROJECT.read_text().partition("\ndependencies = [")[2].partition("\n]")[0]
    assert set(PACKAGES) == set(re.findall(r'^ *"([\w-]+)', required, re.MULTILINE))
