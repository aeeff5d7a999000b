"""The scripts of the pages, run by Node.js without a browser: what they calculate."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

import lrbench_caffe.web

STATIC = Path(lrbench_caffe.web.__file__).parent / "static"
NODE = shutil.which("node")
# A page without elements that the scripts look for.
PAGE = """
const fs = require("fs"), vm = require("vm");
const document = {getElementById: () => null, querySelector: () => null, querySelectorAll: () => []};
const context = vm.createContext({document, matchMedia: () => ({addEventListener() {}})});
for (const file of ["charts.js", "live.js"]) {
  vm.runInContext(fs.readFileSync(`${process.argv[1]}/${file}`, "utf8"), context);
}
console.log(JSON.stringify(vm.runInContext(process.argv[2], context)));
"""

pytestmark = pytest.mark.skipif(NODE is None, reason="there is no Node.js")


def value_of(expression: str) -> object:
    """The value of an expression in a page with the scripts."""
    command = [str(NODE), "-e", PAGE, str(STATIC), expression]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return json.loads(done.stdout)


def test_a_line_of_one_point_has_a_dot():
    traces = [
        {"y": [0.01], "mode": "lines"},
        {"y": [None, 2.0], "mode": "lines"},
        {"y": [0.01, 0.02], "mode": "lines"},
        {"y": [], "mode": "lines"},
    ]
    drawn = value_of(f"dotted({json.dumps(traces)})")
    assert [t["mode"] for t in drawn] == ["lines+markers", "lines+markers", "lines", "lines"]
