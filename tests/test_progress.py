"""Progress: who does long work tells it, and only a command draws it."""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from lrbench_caffe.datasets.download import fetch
from lrbench_caffe.datasets.lmdb_scan import LmdbRecords
from lrbench_caffe.datasets.lmdb_writer import write_lmdb
from lrbench_caffe.progress import SILENT, Moved, Progress, track
from lrbench_caffe.prototxt import datacheck
from lrbench_caffe.terminal import console
from lrbench_caffe.terminal.progress import Bars


class Heard(Progress):
    """Notes the bars: what is done, how much it is, whether in bytes, and each amount that is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.bars: list[tuple[str, int | None, bool, list[int]]] = []
        super().__init__(self.lines.append)

    @contextmanager
    def bar(self, what: str, total: int | None, *, in_bytes: bool = False) -> Iterator[Moved]:
        amounts: list[int] = []
        yield amounts.append
        self.bars.append((what, total, in_bytes, amounts))


def test_items_are_told_now_and_then():
    heard = Heard()
    assert list(track(range(1234), heard, "counting", 1234)) == list(range(1234))
    assert heard.bars == [("counting", 1234, False, [500, 1000])]
    assert list(track("abc", SILENT, "counting", 3)) == ["a", "b", "c"]


def test_a_data_set_tells_how_much_is_written_and_checked(tmp_path, monkeypatch):
    monkeypatch.setattr(datacheck, "cache_dir", lambda: tmp_path / "cache")
    monkeypatch.setattr(datacheck, "_PATIENCE", 0.0)
    path, heard = tmp_path / "x_lmdb", Heard()
    images = np.zeros((2100, 1, 1, 1), np.uint8)
    write_lmdb(path, images, np.zeros(2100, np.uint8), (1, 1, 1), progress=heard)
    datacheck.scan_once(LmdbRecords(path), heard)
    assert heard.bars == [
        ("writing x_lmdb", 2100, False, [500, 1000, 1500, 2000]),
        (str(path), 2100, False, [0, 1024, 2048]),
    ]
    assert heard.lines == [f"all records of {path} are checked, once; trust_data skips this"]


def test_a_download_tells_the_bytes_that_have_arrived(tmp_path, monkeypatch):
    class Quiet(SimpleHTTPRequestHandler):
        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=str(tmp_path / "served"))  # type: ignore[arg-type]

        def log_message(self, *_: object) -> None:
            pass

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    content = bytes(600_000)
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "x.gz").write_bytes(content)
    heard = Heard()
    with ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        fetch("x.gz", hashlib.md5(content).hexdigest(), tmp_path, [url], progress=heard)
        server.shutdown()
    ((what, total, in_bytes, amounts),) = heard.bars
    assert (what, total, in_bytes) == ("downloading x.gz", 600_000, True)
    assert amounts[0] == 0 and amounts[-1] == 600_000 and amounts == sorted(amounts)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("stream", [Terminal(), io.StringIO()])
def test_bars_are_drawn_on_a_terminal_alone(stream, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(console.sys, "stderr", stream)
    with Bars().bar("writing x_lmdb", 2000) as moved:
        moved(1000)
    drawn = "writing x_lmdb" in stream.getvalue() and "1000/2000" in stream.getvalue()
    assert drawn == stream.isatty()
    assert stream.isatty() or stream.getvalue() == ""


def test_bars_hand_lines_to_the_command():
    lines: list[str] = []
    Bars(lines.append).say("all records are checked")
    assert lines == ["all records are checked"]


def test_nobody_needs_to_be_told(tmp_path: Path):
    SILENT.say("nothing")
    with SILENT.bar("nothing", None) as moved:
        moved(1)
