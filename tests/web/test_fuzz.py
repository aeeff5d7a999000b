"""Random requests to the command ``web`` with PostgreSQL behind it: none makes it fail.

``LRBENCH_FUZZ=10000 pytest -m slow tests/web/test_fuzz.py`` sends about so many to the API, and as
many to the pages.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("schemathesis")

from fastapi import FastAPI

from lrbench_caffe.database import Database
from lrbench_caffe.database.platform import Platform
from lrbench_caffe.web.pages import PAGES
from tests.database.server import Server
from tests.web.pages_data import MARKUP, fill, write_studies
from tests.web.schemathesis_hooks import KNOWN, POLICIES, ROOT, known_run
from tests.web.serving import Client
from tests.web.test_faults import command, free_port

pytestmark = pytest.mark.slow
REQUESTS = int(os.environ.get("LRBENCH_FUZZ", "1000"))
UNREACHABLE = 503  # the only answer of this kind that is none of a fault


@dataclass(frozen=True)
class Running:
    """The command as a process.

    Attributes:
        url: its address; admin: the secret of an admin's token.
        folder: of its standard output (``access``) and its standard error (``errors``).
    """

    url: str
    admin: str
    folder: Path

    def requests(self) -> list[dict[str, object]]:
        """The lines of the access log."""
        lines = (self.folder / "access").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]

    def check(self) -> None:
        """Check that it lives, that no answer was a fault's, and that no traceback was written."""
        assert Client(self.url).get("/ready").status == 200
        faults = [line for line in self.requests() if int(str(line["status"])) >= 500]
        assert [line for line in faults if line["status"] != UNREACHABLE] == []
        assert "Traceback" not in (self.folder / "errors").read_text(encoding="utf-8")


@pytest.fixture
def running(server: Server, new_url, tmp_path: Path) -> Iterator[Running]:
    """A server of some hundred runs, four studies and hostile names."""
    url, port = new_url("postgresql"), free_port()
    with Database.open(url) as database:
        fill(database)
        database.put_many([known_run(number) for number in range(KNOWN)])
        admin = Platform(database).add_token("root", "admin")
    write_studies(tmp_path / "runs")
    plenty = ("--requests", "1000000000", "--writes", "1000000000")
    with contextlib.ExitStack() as stack:
        logs = [stack.enter_context((tmp_path / name).open("wb")) for name in ("access", "errors")]
        stack.enter_context(
            command(url, port, *plenty, "--runs", str(tmp_path / "runs"), logs=logs)
        )
        yield Running(f"http://127.0.0.1:{port}", admin, tmp_path)


# -- the API ---------------------------------------------------------------------------------------


def test_nothing_that_is_or_is_not_as_described_makes_the_api_fail(running, tmp_path):
    """schemathesis in all its phases, with an admin's token and without."""
    # Both times some 800 requests are of the coverage, and 14 to 18 of each further example.
    of_each = 1 + max(0, REQUESTS - 1600) // 28
    for seed, headers in enumerate(((), ("-H", f"Authorization: Bearer {running.admin}")), start=1):
        done = subprocess.run(
            [
                sys.executable, "-m", "schemathesis.cli", "run", f"{running.url}/api/v1/openapi.json",
                "--phases", "examples,coverage,fuzzing,stateful", "--checks", "not_a_server_error",
                "--max-examples", str(of_each), "--seed", str(seed), "--no-color", *headers,
            ],
            cwd=tmp_path, capture_output=True, text=True,
            env={**os.environ, "SCHEMATHESIS_HOOKS": "tests.web.schemathesis_hooks", "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    running.check()
    asked = Counter((line["method"], line["status"]) for line in running.requests())
    assert sum(asked.values()) >= REQUESTS
    # It was no wall that was tested: runs were read, stored, changed and deleted.
    assert min(asked[method, 200] for method in ("GET", "POST", "PUT", "DELETE")) > 0
    print(sum(asked.values()), "requests:", dict(asked))


# -- the pages -------------------------------------------------------------------------------------

NUMBERS = ("0", "-1", "1", "2", "1000", str(2**31), str(2**53), str(2**63), str(2**64), "9" * 400)
NUMBERS += ("1e308", "1e999", "nan", "-inf", "0x1", "1_000", "١٢", " 1 ", "1.5", "+1", "00001")
ODD = ("\0", "a\0b", "\x1b[2J", "\r\nX: y", "\u202e", "\ufeff", "\U0001f600" * 5, "e\u0301", "%00")
ODD += ("../../etc/passwd", "..%2f", "' OR 1=1 --", "{{7*7}}", MARKUP, "a/b/../c", "?", "#;&")
NAMES = ("top1", "FIX", "sin2", "measured", "paper", "scratch", "ada", "own", "all", "on", "log")
NAMES += ("png", "svg", "csv", "json", "epoch", "seconds", "x", "lr", "true", "shown", "hidden")
MARK = "<fuzz>"  # must be text wherever it is shown


class Chooser:
    """Random requests to the pages, each of a seed."""

    def __init__(self, seed: int, known: dict[str, tuple[str, ...]]) -> None:
        self.random = random.Random(seed)
        self.known = known

    def value(self, name: str) -> str:
        """A value of a parameter: every second time one that may be valid."""
        choose = self.random.choice
        if self.random.random() < 0.5 and name in self.known:
            return choose(self.known[name])
        kinds = (
            lambda: "",
            lambda: choose(NUMBERS),
            lambda: choose(ODD),
            lambda: choose(NAMES),
            lambda: choose(POLICIES),
            lambda: MARK,
            lambda: "".join(map(chr, self.random.choices(range(1, 0xD800), k=8))),
            lambda: choose(("x", "1", "ü", ",", "(", "<")) * choose((999, 1001, 5000)),
        )
        return choose(kinds)()

    def path(self, template: str) -> str:
        """A path with its parameters filled in."""
        parts = []
        for part in template.replace("{", "\0{").replace("}", "\0").split("\0"):
            known = part.startswith("{")
            parts.append(quote(self.value(part[1:])[:2000], safe="") if known else part)
        return "".join(parts)

    def pairs(self, names: list[str]) -> list[tuple[str, str]]:
        """Parameters: some left out, some repeated, some that no page has."""
        chosen = [name for name in names if self.random.random() < 0.4]
        if chosen and self.random.random() < 0.2:
            chosen += [self.random.choice(chosen)] * self.random.choice((1, 60))
        if self.random.random() < 0.1:
            chosen.append(self.value("nothing")[:100])
        return [(name, self.value(name)) for name in chosen]

    def encoded(self, pairs: list[tuple[str, str]]) -> str:
        """A query, every tenth time with bytes that are no text."""
        text = "&".join(f"{quote(name)}={quote(value)}" for name, value in pairs)
        return text + "&q=%ff%fe%" if self.random.random() < 0.1 else text


def described() -> list[tuple[str, str, list[str]]]:
    """Method, path and parameters of all pages and forms."""
    app = FastAPI()
    for router in PAGES:
        app.include_router(router)
    schema = app.openapi()
    found = []
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            names = [p["name"] for p in operation.get("parameters", ()) if p["in"] == "query"]
            for content in operation.get("requestBody", {}).get("content", {}).values():
                form = schema["components"]["schemas"][content["schema"]["$ref"].split("/")[-1]]
                names += form["properties"]
            found.append((method.upper(), path, names))
    return found


def known_values(running: Running) -> dict[str, tuple[str, ...]]:
    """By parameter, values that are there."""
    client = Client(running.url, running.admin)
    tasks = tuple(str(task["id"]) for task in client.get("/api/v1/tasks").json)
    lives = tuple(str(run["key"]) for run in client.get("/live.json").json)
    uids = (*(f"r{number}" for number in range(0, KNOWN, 10)), "bad", "h1", "sent")
    studies = tuple(
        part.split('"')[0].rsplit("/")[-1]
        for part in client.get("/tunings").text.split("/tunings/")
    )
    return {
        "task": tasks, "task_id": tasks, "data": tasks, "uid": uids, "after": uids, "policy": POLICIES,
        "key": (*lives, *studies[1:]), "form": ("png", "svg", "csv", "json"), "summary": ("1", "20", "30"),
        "name": ("table2", "table7", "figure1"), "max_iter": ("1", "100", "70000"), "top": ("1", "20"),
        "by": ("top1", "iterations", "test_loss"), "weights": ("top1=2,iterations=1",),
        "functions": ("FIX", "SIN2"), "sources": ("measured", "paper"), "x": ("iteration", "epoch"),
        "solver": ((ROOT / "solvers/lenet_digits_solver.prototxt").read_text(encoding="utf-8"),),
        "net": ((ROOT / "prototxt/lenet_digits_train_test.prototxt").read_text(encoding="utf-8"),),
        "channels": ("1",), "height": ("8",), "width": ("8",), "standing": ("unverified", "shown"),
        "function": ("all", "FIX", "TRI"), "smooth": ("5", "100"), "limit": ("1", "500"),
    }  # fmt: skip


def test_no_query_and_no_form_makes_a_page_fail(running):
    chooser = Chooser(17, known_values(running))
    visitors = [Client(running.url), Client(running.url, running.admin)]
    assert all(visitor.get("/sign-in").status == 200 for visitor in visitors)
    pages, asked = described(), Counter()
    for number in range(REQUESTS):
        method, template, names = pages[number % len(pages)]
        if template == "/plotly.js" and number > len(pages):
            continue  # 4 MB each time
        client = chooser.random.choice(visitors)
        path, pairs = chooser.path(template), chooser.pairs(names)
        if method == "GET":
            answer = client.get(f"{path}?{chooser.encoded(pairs)}")
        elif chooser.random.random() < 0.5:
            answer = client.submit(path, **{name: value for name, value in pairs if name})
        else:
            answer = client.submit_parts(path, pairs)
        asked[answer.status] += 1
        place = (method, path[:200], pairs)
        assert answer.status < 500, (place, answer.text[:500])
        if answer.headers.get_content_type() == "text/html":
            assert MARK not in answer.text, place
    running.check()
    assert asked[200] > REQUESTS / 4
    print(dict(asked))
