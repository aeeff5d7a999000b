"""What the client of a platform does where the other side fails."""

from __future__ import annotations

import json
import threading
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


def test_a_server_that_is_no_platform():
    class Page(Flaky):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>")

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        client = Client(f"http://127.0.0.1:{server.server_port}", "x")
        with pytest.raises(PlatformError, match="its answer is not JSON"):
            client.send([b"{}\n"], "b", None, None)
        server.shutdown()
