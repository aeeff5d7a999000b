"""The scripts of the pages, run by Node.js without a browser: what they calculate."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

import lrbench_caffe.web
from lrbench_caffe.web.charts import moving_mean

STATIC = Path(lrbench_caffe.web.__file__).parent / "static"
NODE = shutil.which("node")
# What the scripts need of a browser: a page without the elements that they look for.
BROWSER = """
const fs = require("fs"), vm = require("vm");
const document = {
  getElementById: () => null, querySelector: () => null, querySelectorAll: () => [], documentElement: {},
};
const browser = {
  document, structuredClone, URLSearchParams, innerWidth: 1200, location: {search: ""},
  matchMedia: () => ({addEventListener() {}}), getComputedStyle: () => ({getPropertyValue: () => ""}),
};
"""
RUN = """
const context = vm.createContext(browser);
for (const file of ["charts.js", "live.js"]) {
  vm.runInContext(fs.readFileSync(`${process.argv[1]}/${file}`, "utf8"), context);
}
console.log(JSON.stringify(vm.runInContext(process.argv[2], context)));
"""
# The page of a run: its words, its form and its figure; ``tell`` is an event of the server.
LIVE = """
const words = Object.fromEntries(["status", "iteration", "last", "progress"].map(id => [id, {}]));
const place = {clientWidth: 1000, style: {}};
const figure = {dataset: {events: "/events"}, querySelector: () => place};
const boxes = ["error", "loss", "lr"].map(value => ({value, checked: false, parentElement: {}}));
const form = {elements: {smooth: {value: "1", valueAsNumber: 1}, log: boxes}, addEventListener() {}};
document.getElementById = id => id === "axes" ? form : words[id] || null;
document.querySelector = selector => selector === "figure.live" ? figure : null;
let source;
browser.EventSource = function () { source = this; this.addEventListener = () => {}; };
browser.requestAnimationFrame = draw => draw();
browser.Plotly = {react: (place, traces, layout) => { browser.drawn = {traces, layout}; }};
browser.tell = data => source.onmessage({data: JSON.stringify(data)});
browser.words = () => Object.values(words).map(word => word.textContent ?? word.value);
"""

pytestmark = pytest.mark.skipif(NODE is None, reason="there is no Node.js")


def value_of(expression: str, page: str = "") -> Any:
    """The value of an expression in a page with the scripts."""
    command = [str(NODE), "-e", BROWSER + page + RUN, str(STATIC), expression]
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


@pytest.mark.parametrize(
    ("values", "length", "means"),
    [
        ([1, 2, 3, 4], 2, [1, 1.5, 2.5, 3.5]),
        ([2, 2, 2, None, None], 3, [2, 2, 2, None, None]),
        # The mean of 2 and 6, of 6 alone, of 6 and 4.
        ([2, 6, None, 6, 4], 2, [2, 4, None, 6, 5]),
        ([2, None, 4], 1, [2, None, 4]),
    ],
)
def test_what_is_no_number_is_not_counted_in_a_moving_mean(values, length, means):
    assert value_of(f"movingMean({json.dumps(values)}, {length})") == means
    numbers = [math.nan if value is None else value for value in values]
    shown = [None if math.isnan(mean) else mean for mean in moving_mean(numbers, length)]
    assert shown == means


def event(**values: object) -> str:
    test = {"iteration": 0, "top1": None, "test_loss": 2.5}
    known = {
        "again": False,
        "status": "running",
        "iteration": None,
        "result": None,
        "losses": [],
        "tests": [test],
    }
    return f"tell({json.dumps({**known, **values})})"


def test_a_live_page_says_what_the_server_told():
    told = event(iteration=10_000, result="loss 1.0393", losses=[[9994.5, 0.01, 1.5]])
    script = f"{told}; {event(status='finished', tests=[])}; words()"
    # The row of losses is a mean of ten. The second event has nothing new but the status.
    assert value_of(script, LIVE) == ["finished", 10_000, "loss 1.0393", 10_000]


def test_a_live_page_of_a_net_that_does_not_classify_has_no_panel_of_top1():
    drawn = value_of(f"{event()}; drawn", LIVE)
    assert [trace["name"] for trace in drawn["traces"]] == ["test loss", "training loss", "LR"]
    assert drawn["layout"]["yaxis"]["visible"] is False
    classifies = event(tests=[{"iteration": 0, "top1": 9.5, "test_loss": 2.5}])
    for script in (event(tests=[]), classifies):  # before the first test, and behind it
        drawn = value_of(f"{script}; drawn", LIVE)
        assert drawn["traces"][0]["name"] == "Top-1"
        assert "visible" not in drawn["layout"]["yaxis"]
