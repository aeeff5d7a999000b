"""What the client of a platform does where the other side fails."""

from __future__ import annotations

import gzip
import json
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from lrbench_caffe.errors import InputError
from lrbench_caffe.sharing import client
from lrbench_caffe.sharing.client import Client, PlatformError


@pytest.mark.parametrize(
    "url", ["", "example.org", "ftp://example.org", "http://", "http://a:b@c", "http://c:port"]
)
def test_an_address_that_is_none(url):
    with pytest.raises(InputError, match="allowed: http://HOST or https://HOST"):
        Client(url)


class Flaky(BaseHTTPRequestHandler):
    """A server that answers 503, breaks the connection, and then takes what it is sent."""

    bodies: list[bytes] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.bodies.append(body)
        if len(self.bodies) == 1:
            self.send_error(503)
        elif len(self.bodies) == 2:
            self.connection.close()
        else:
            answer = json.dumps({"new": 1, "present": 0, "refused": 0, "answers": []}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        pass


def test_what_passes_is_waited_for(monkeypatch):
    Flaky.bodies = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Flaky) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        sent = Client(address, "x").send([b"{}\n"], "b", None, None)
        assert (sent.new, len(Flaky.bodies)) == (1, 3)
        assert len(set(Flaky.bodies)) == 1
        server.shutdown()
    with pytest.raises(PlatformError, match=f"{address} is out of reach: "):
        Client(address, "x", patience=0.2).send([b"{}\n"], "b", None, None)


@pytest.mark.parametrize("wait", ["3600", "9" * 30])
def test_a_server_that_wants_more_time_than_there_is(wait, monkeypatch):
    class Busy(Flaky):
        def do_POST(self) -> None:
            self.send_response(503)
            self.send_header("Retry-After", wait)
            self.send_header("Content-Length", "0")
            self.end_headers()

    pauses: list[float] = []
    monkeypatch.setattr(client.time, "sleep", pauses.append)
    with ThreadingHTTPServer(("127.0.0.1", 0), Busy) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        with pytest.raises(PlatformError, match="answers 503"):
            Client(f"http://127.0.0.1:{server.server_port}", "x").send([b"{}\n"], "b", None, None)
        server.shutdown()
    assert pauses == []


def test_an_answer_that_is_too_slow_is_asked_for_again(monkeypatch):
    """Patience begins when the first request has failed, however long that took."""
    monkeypatch.setattr(client, "TIMEOUT", 1.0)
    monkeypatch.setattr(client, "FIRST_PAUSE", 0.1)
    over = threading.Event()

    class Slow(Flaky):
        def do_POST(self) -> None:
            if not self.bodies:
                self.bodies.append(b"")
                over.wait(60)
                return
            self.bodies += [b""]
            super().do_POST()

    Flaky.bodies = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Slow) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        try:
            assert Client(address, "x", patience=1.0).send([b"{}\n"], "b", None, None).new == 1
        finally:
            over.set()
            server.shutdown()


@contextmanager
def answering(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """A server that answers all requests with a function, and its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            answer(self)

        def do_GET(self) -> None:
            answer(self)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def tell(to: BaseHTTPRequestHandler, status: int, body: bytes = b"", **headers: str) -> None:
    to.send_response(status)
    for name, value in headers.items():
        to.send_header(name.replace("_", "-"), value)
    to.send_header("Content-Length", str(len(body)))
    to.end_headers()
    to.wfile.write(body)


ENOUGH = b'{"new": 1, "present": 0, "refused": 0, "answers": []}'


@pytest.mark.parametrize(
    "body",
    [b"<html>", b"[]", b'"ok"', b"null", b'{"runs": []}', ENOUGH[:-3] + b'["x"]}',
     ENOUGH.replace(b"1", b"null")],
)  # fmt: skip
def test_a_server_that_is_no_platform(body):
    with answering(lambda to: tell(to, 200, body)) as address:
        client = Client(address, "x")
        with pytest.raises(PlatformError, match="not that of an upload: no LR platform"):
            client.send([b"{}\n"], "b", None, None)


def test_runs_that_are_none_are_not_given():
    with (
        answering(lambda to: tell(to, 200, b"<html>\n<body>\n")) as address,
        pytest.raises(PlatformError, match="not runs: no LR platform"),
    ):
        next(Client(address).pages())


def test_pages_that_never_end():
    with answering(lambda to: tell(to, 200, b'{"uid": "a"}\n')) as address:
        pages = Client(address).pages()
        assert next(pages) == [b'{"uid": "a"}\n']
        with pytest.raises(PlatformError, match="again and again"):
            next(pages)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_loses_neither_runs_nor_the_token(status):
    """urllib makes a GET of it, without the body and the token: its answer was taken for the upload's."""
    asked = []

    def moved(to: BaseHTTPRequestHandler) -> None:
        asked.append(to.path)
        if to.path.startswith("/lr/"):
            tell(to, status, Location=f"/new{to.path}")
        elif "after" not in to.path:
            tell(to, 200, b'{"uid": "a"}\n')
        else:
            tell(to, 200)

    told = f"answers {status}: moved to {{}}/new/lr; name that address$"
    with answering(moved) as address:
        client = Client(f"{address}/lr", "x")
        with pytest.raises(PlatformError, match=told.format(address)):
            client.send([b"{}\n"], "b", None, None)
        with pytest.raises(PlatformError, match=told.format(address)):
            next(client.pages())
        assert all(path.startswith("/lr/") for path in asked)
        if status < 307:
            assert list(Client(f"{address}/lr").pages()) == [[b'{"uid": "a"}\n']]


def test_an_answer_damaged_on_its_way_is_asked_for_again(monkeypatch):
    monkeypatch.setattr(client, "FIRST_PAUSE", 0.01)
    whole = gzip.compress(ENOUGH)
    bodies = [whole[:10] + b"\xff" * 9, whole[:-9], b"x", whole]

    def answer(to: BaseHTTPRequestHandler) -> None:
        tell(to, 200, bodies.pop(0), Content_Encoding="gzip")

    with answering(answer) as address:
        assert Client(address, "x").send([b"{}\n"], "b", None, None).new == 1
    assert bodies == []


@pytest.mark.parametrize("wait", [1, 30, 60])
def test_who_asks_too_often_comes_back_when_the_server_says(wait, monkeypatch):
    """By a clock of the test: 60 s are as long as the client's patience."""
    now = [1000.0]
    monkeypatch.setattr(client.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(client.time, "sleep", lambda s: now.__setitem__(0, now[0] + s))
    free = now[0] + wait
    refused = []

    def answer(to: BaseHTTPRequestHandler) -> None:
        if now[0] >= free:
            return tell(to, 200, ENOUGH)
        refused.append(now[0])
        return tell(to, 429, Retry_After=str(math.ceil(free - now[0])))

    with answering(answer) as address:
        assert Client(address, "x").send([b"{}\n"], "b", None, None).new == 1
    assert refused == [1000.0]
