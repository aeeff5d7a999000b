"""Downloading, from a server in this process."""

from __future__ import annotations

import hashlib
import http.server
import os
import threading
from pathlib import Path

import pytest

from lrbench_caffe.datasets.download import fetch
from lrbench_caffe.errors import InputError

CONTENT = bytes(range(256)) * 4000
MD5 = hashlib.md5(CONTENT).hexdigest()


class Server(http.server.BaseHTTPRequestHandler):
    """/good/ serves CONTENT and ranges, /plain/ no ranges, /wrong/ other bytes, /broken/ half of them.

    /other/ does not speak HTTP, and /lengthless/ does not say how much it sends.
    """

    requests: list[tuple[str, str | None]] = []

    def do_GET(self) -> None:
        kind = self.path.split("/")[1]
        wanted = self.headers.get("Range")
        self.requests.append((kind, wanted))
        if kind == "other":
            self.wfile.write(b"SSH-2.0-OpenSSH_9.2\r\n")
            return
        if kind == "missing":
            self.send_error(404, "Not Found")
            return
        body = CONTENT[::-1] if kind == "wrong" else CONTENT
        start = int(wanted.split("=")[1].rstrip("-")) if wanted and kind == "good" else 0
        if start >= len(body):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        length = "unknown" if kind == "lengthless" else str(len(body) - start)
        self.send_header("Content-Length", length)
        self.end_headers()
        self.wfile.write(body[start:] if kind != "broken" else body[: len(body) // 2])

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    Server.requests.clear()


def test_download_once(server, tmp_path):
    path = fetch("x.gz", MD5, tmp_path / "downloads", [f"{server}/good/"])
    assert path == tmp_path / "downloads" / "x.gz"
    assert path.read_bytes() == CONTENT
    fetch("x.gz", MD5, tmp_path / "downloads", [f"{server}/good/"])
    assert Server.requests == [("good", None)]
    assert os.listdir(path.parent) == ["x.gz"]


@pytest.mark.parametrize(("kind", "asked"), [("good", "bytes=1000-"), ("plain", "bytes=1000-")])
def test_resumes(server, tmp_path, kind, asked):
    (tmp_path / "x.gz.partial").write_bytes(CONTENT[:1000])
    path = fetch("x.gz", MD5, tmp_path, [f"{server}/{kind}"])
    assert path.read_bytes() == CONTENT
    assert Server.requests == [(kind, asked)]


def test_a_partial_that_is_whole_needs_only_its_name(server, tmp_path):
    (tmp_path / "x.gz.partial").write_bytes(CONTENT)
    assert fetch("x.gz", MD5, tmp_path, [f"{server}/good"]).read_bytes() == CONTENT


def test_next_mirror_after_each_kind_of_failure(server, tmp_path):
    closed = "http://127.0.0.1:9"  # nobody listens on the discard port
    kinds = ("missing", "other", "wrong", "broken", "good")
    mirrors = [closed, *(f"{server}/{kind}" for kind in kinds)]
    assert fetch("x.gz", MD5, tmp_path, mirrors).read_bytes() == CONTENT
    half = f"bytes={len(CONTENT) // 2}-"
    before = [(kind, None) for kind in ("missing", "other", "wrong", "broken")]
    assert Server.requests == [*before, ("good", half)]


def test_a_mirror_that_does_not_tell_the_length(server, tmp_path):
    assert fetch("x.gz", MD5, tmp_path, [f"{server}/lengthless"]).read_bytes() == CONTENT


def test_the_mirror_of_the_user_comes_first(server, tmp_path):
    fetch("x.gz", MD5, tmp_path, [f"{server}/wrong"], first=f"{server}/good/")
    assert Server.requests == [("good", None)]


def test_a_damaged_file_is_fetched_again(server, tmp_path):
    (tmp_path / "x.gz").write_bytes(b"damaged")
    assert fetch("x.gz", MD5, tmp_path, [f"{server}/good"]).read_bytes() == CONTENT


def test_no_mirror_delivers(server, tmp_path):
    mirrors = [f"{server}/missing", f"{server}/wrong", "http://127.0.0.1:9"]
    with pytest.raises(InputError) as caught:
        fetch("x.gz", MD5, tmp_path, mirrors)
    message = str(caught.value)
    assert message.startswith("cannot download x.gz (")
    assert "missing/x.gz: HTTP 404 Not Found" in message
    other = hashlib.md5(CONTENT[::-1]).hexdigest()
    assert f"wrong/x.gz: wrong checksum (MD5 {other}, published {MD5})" in message
    assert "Connection refused" in message
    assert message.endswith("fetch it by hand, for example from http://127.0.0.1:9/x.gz, and name its folder "
                            "with source DIR")  # fmt: skip
    assert os.listdir(tmp_path) == []


def test_bad_url_and_bad_folder(tmp_path):
    with pytest.raises(InputError, match=r"cannot download x\.gz"):
        fetch("x.gz", MD5, tmp_path, ["no url"])
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        fetch("x.gz", MD5, Path(tmp_path / "file" / "folder"), ["http://127.0.0.1:9"])
