"""Behind proxies: one that takes the root path away, and one that leaves it; and HEAD."""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Iterator
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest

from tests.database.records import run
from tests.web.serving import Client

ROOT = "/lr"

pytestmark = pytest.mark.parametrize("kind", ["sqlite"], indirect=True)


@pytest.fixture(params=["takes the root path away", "leaves the root path"])
def proxied(request, serve, database) -> Iterator[str]:
    """The address of a server under ``/lr`` of a proxy."""
    database.put(run("a"))
    place = urlsplit(serve(root_path=ROOT))
    strips = request.param.startswith("takes")

    class Proxy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.removeprefix(ROOT) if strips else self.path
            assert self.path.startswith(f"{ROOT}/")
            connection = HTTPConnection(place.hostname, place.port, timeout=30)
            size = int(self.headers.get("Content-Length", 0))
            connection.request(self.command, path, self.rfile.read(size), dict(self.headers))
            answer = connection.getresponse()
            body = answer.read()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)
            connection.close()

        do_POST = do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.ci
def test_all_that_a_page_links_to_is_there(proxied):
    client = Client(proxied)
    seen, todo, kinds = set(), [f"{ROOT}/"], Counter[str]()
    while todo:
        path = todo.pop()
        kind = re.sub(r"[0-9a-f]{16}|\d+", "N", path.partition("?")[0])
        kinds[kind] += 1
        picture = kind.endswith((".png", ".svg"))
        if kinds[kind] > (1 if picture else 2):  # enough of a kind
            continue
        answer = client.get(path)
        if answer.status == 303:
            assert answer.headers["Location"].startswith(f"{proxied}{ROOT}/"), path
            continue
        assert answer.status == 200, path
        if "html" not in answer.headers["Content-Type"]:
            continue
        for kind, link in re.findall(r'(href|src|action)="([^"#]+)"', answer.text):
            if link.startswith("https://"):  # elsewhere
                continue
            address = link.replace("&amp;", "&").removeprefix(proxied)
            assert address.startswith(f"{ROOT}/"), (path, link)
            if address not in seen and kind != "action":
                seen.add(address)
                todo.append(address)
    for part in ("style.css", "charts.js", "pages.js", "plotly.js", "/tasks/4", "/runs/a"):
        assert any(part in address for address in seen), part


def test_signing_in_and_uploading(proxied, token):
    client = Client(proxied)
    assert client.get(f"{ROOT}/sign-in").status == 200
    answer = client.submit(f"{ROOT}/sign-in", secret=token("ada", "write"))
    assert answer.status == 303 and answer.headers["Location"].startswith(f"{proxied}{ROOT}/")
    assert "ada (write)" in client.get(f"{ROOT}/").text


def test_head_is_get_without_the_body(client, database):
    database.put(run("a"))
    for path in ("/", "/runs", "/health", "/api/v1/tasks", "/static/style.css"):
        got, asked = client.get(path), client.ask(path, method="HEAD")
        assert (asked.status, asked.body) == (200, b""), path
        assert asked.headers["Content-Length"] == str(len(got.body)), path
    assert client.ask("/nothing", method="HEAD").status == 404


def test_the_root_path_as_people_type_it(serve):
    client = Client(serve(root_path=ROOT))
    assert client.get(ROOT).status == 200
    assert client.get(ROOT).body == client.get(f"{ROOT}/").body == client.get("/").body
    assert client.get(f"{ROOT}x").status == 404
