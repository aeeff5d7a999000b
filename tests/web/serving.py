"""A web server to test: the application in uvicorn, on a free port, and a client that keeps cookies."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.cookiejar import CookieJar
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, HTTPRedirectHandler, Request, build_opener

import uvicorn

from lrbench_caffe.web.app import create_app
from lrbench_caffe.web.settings import WebSettings


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Any
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class _NoRedirects(HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


class Client:
    """A browser of the least kind: it keeps cookies, and follows no redirect."""

    def __init__(self, url: str, secret: str | None = None) -> None:
        self.url = url
        self.cookies = CookieJar()
        self._open = build_opener(HTTPCookieProcessor(self.cookies), _NoRedirects()).open
        self._secret = secret

    def ask(
        self,
        path: str,
        body: bytes | None = None,
        method: str | None = None,
        **headers: str,
    ) -> Answer:
        request = Request(self.url + path, body, method=method)
        for name, value in headers.items():
            request.add_header(name.replace("_", "-"), value)
        if self._secret is not None:
            request.add_header("Authorization", f"Bearer {self._secret}")
        try:
            with self._open(request, timeout=120) as response:
                return Answer(response.status, response.headers, response.read())
        except HTTPError as error:
            return Answer(error.code, error.headers, error.read())

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask(path, **headers)

    def post(self, path: str, body: bytes = b"", **headers: str) -> Answer:
        return self.ask(path, body, "POST", **headers)

    def submit(self, path: str, **fields: str) -> Answer:
        """Send a form as its page would, with the key that the page has."""
        key = next((c.value for c in self.cookies if c.name == "lrbench_form"), None)
        if key is not None:
            fields.setdefault("form_key", key)
        kind = "application/x-www-form-urlencoded"
        return self.post(path, urlencode(fields).encode(), Content_Type=kind)

    def submit_parts(self, path: str, fields: list[tuple[str, str]]) -> Answer:
        """The same for a form with files: a field whose name ends with "file" is one."""
        edge = "edge-of-a-part"
        key = next((c.value for c in self.cookies if c.name == "lrbench_form"), "")
        body = b""
        for name, value in (("form_key", key), *fields):
            told = f'name="{name}"' + ('; filename="a.txt"' if name.endswith("file") else "")
            head = f"--{edge}\r\nContent-Disposition: form-data; {told}\r\n\r\n"
            body += head.encode() + value.encode() + b"\r\n"
        kind = f"multipart/form-data; boundary={edge}"
        return self.post(path, body + f"--{edge}--\r\n".encode(), Content_Type=kind)

    def sign_in(self, secret: str) -> None:
        assert self.get("/sign-in").status == 200
        assert self.submit("/sign-in", secret=secret).status == 303


@contextlib.contextmanager
def serving(settings: WebSettings, port: int = 0) -> Iterator[str]:
    """Serve until the block ends; gives the address."""
    config = uvicorn.Config(
        create_app(settings),
        port=port,
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=2,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server ended while it started"
        time.sleep(0.01)
    (socket,) = server.servers[0].sockets
    try:
        yield f"http://127.0.0.1:{socket.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
