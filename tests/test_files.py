"""Files that a kill leaves whole, and what it leaves beside them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from lrbench_caffe.datasets.scan import Scan
from lrbench_caffe.files import publish, temporary_of
from lrbench_caffe.progress import SILENT
from lrbench_caffe.prototxt.datacheck import scan_once
from lrbench_caffe.runs import waiting
from lrbench_caffe.runs.directory import RunDirectory
from lrbench_caffe.runs.newest import mark_latest

ROOT = Path(__file__).parents[1]
KILLED = """
import os, signal, sys
from pathlib import Path
from lrbench_caffe.files import replace_by

def write(temporary):
    temporary.write_bytes(b"ha")
    os.kill(os.getpid(), signal.SIGKILL)

replace_by(Path(sys.argv[1]), write)
"""


def killed_at(path: Path) -> Path:
    """Let a process be killed while it writes a file; returns what it left."""
    path.parent.mkdir(parents=True, exist_ok=True)
    before = set(path.parent.iterdir())
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    (left,) = set(path.parent.iterdir()) - before
    return left


def test_a_kill_leaves_the_old_file_and_the_next_command_removes_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    publish(path, b"old")
    left = killed_at(path)
    other = killed_at(tmp_path / "others.csv")
    assert (path.read_bytes(), left.read_bytes()) == (b"old", b"ha")
    publish(path, b"new")
    assert path.read_bytes() == b"new"
    assert set(tmp_path.iterdir()) == {path, other}


def test_what_a_user_put_there_is_written_to(tmp_path: Path) -> None:
    (tmp_path / "real.csv").write_bytes(b"old")
    for name, target in (("link.csv", "real.csv"), ("dangling.csv", "new.csv")):
        (tmp_path / name).symlink_to(target)
        publish(tmp_path / name, b"table")
        assert (tmp_path / name).is_symlink()
        assert (tmp_path / target).read_bytes() == b"table"
    os.mkfifo(tmp_path / "pipe")
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append((tmp_path / "pipe").read_bytes()))
    reader.start()
    publish(tmp_path / "pipe", b"table")
    reader.join()
    assert read == [b"table"]


@pytest.mark.parametrize("name", ["/dev/full", "missing/table.csv"])
def test_the_file_that_cannot_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OSError) as caught:
        publish(Path(name), b"table")
    assert caught.value.filename == name


class OneRecord:
    """A data set."""

    place = "digits_lmdb"

    def stamp(self) -> str:
        return "1"

    def scan(self, progress: object) -> Scan:
        return Scan(records=1, labels=[(0, 0)])

    def find(self, wrong: object) -> None: ...


def test_what_kills_left_in_the_users_folders_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of any file there, for the one that was being written may never be written again."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    noted = killed_at(waiting.folder() / "0123abcd.json")
    checked = killed_at(tmp_path / "cache" / "lrbench_caffe" / "data-checks" / "0123abcd.json")
    latest = killed_at(tmp_path / "runs" / "latest")
    waiting.add(waiting.Note("lr.sqlite", "runs/x", "here", "uid"))
    scan_once(OneRecord(), SILENT)
    (tmp_path / "runs" / "x").mkdir()
    mark_latest(tmp_path / "runs", RunDirectory(tmp_path / "runs" / "x"))
    assert (tmp_path / "runs" / "latest").resolve() == tmp_path / "runs" / "x"
    for left in (noted, checked, latest):
        assert not left.exists()
        assert any(left.parent.iterdir())
    mine = temporary_of(waiting.folder() / "0123abcd.json")  # as of another thread
    mine.touch()
    waiting.add(waiting.Note("lr.sqlite", "runs/y", "here", "uid"))
    assert mine.exists()
