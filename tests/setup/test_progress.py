"""What setup prints while something is downloaded."""

from __future__ import annotations

import io
import time
from pathlib import Path

import pytest

from lrbench_caffe.setup import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def wait_for(text: str, output: io.StringIO) -> None:
    end = time.monotonic() + 60
    while text not in output.getvalue():
        assert time.monotonic() < end, output.getvalue()
        time.sleep(0.01)


@pytest.mark.parametrize("terminal", [True, False])
def test_a_download_is_counted_while_it_lasts(
    terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    output = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr("sys.stdout", output)
    monkeypatch.setattr(progress, "TERMINAL_SECONDS" if terminal else "FILE_SECONDS", 0.01)
    folder = tmp_path / "archives"
    (folder / "partial").mkdir(parents=True)
    (folder / "a").write_bytes(bytes(1_000_000))
    (tmp_path / "b").write_bytes(bytes(2_000_000))
    with progress.counting("Caffe", folder, 3_000_000):
        wait_for("Caffe: 1 of 3 MB", output)
        (tmp_path / "b").rename(folder / "partial" / "b")
        wait_for("Caffe: 3 of 3 MB", output)
        progress.say(".venv", "ready")
        wait_for(".venv: ready\n", output)
    text = output.getvalue()
    if terminal:  # the count stays in its line, and is gone at the end
        assert text.count("\n") == 1 and f"{progress.ERASE}.venv: ready\n" in text
        assert text.endswith((progress.ERASE, "ready\n"))
    else:
        assert progress.ERASE not in text
        assert set(text.splitlines()) == {"Caffe: 1 of 3 MB", "Caffe: 3 of 3 MB", ".venv: ready"}


def test_a_count_that_never_stood_there_is_not_erased(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    output = Terminal()
    monkeypatch.setattr("sys.stdout", output)
    with progress.counting("Caffe", tmp_path, 1):
        pass
    progress.say("Caffe", "ready")
    assert output.getvalue() == "Caffe: ready\n"
