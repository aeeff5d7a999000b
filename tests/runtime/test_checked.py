"""Which checks of fast layers are remembered, and when they are made again; the worker is a stand-in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lrbench_caffe.runtime import checked
from lrbench_caffe.runtime.cpu import CPU
from lrbench_caffe.runtime.replies import CaffeInfo, Check
from lrbench_caffe.runtime.starting import FastLayers, start_checked

GOOD = Check(None, None, False)


class Counting:
    """A worker that answers what it is told to, and remembers what it was asked."""

    def __init__(self, info: CaffeInfo, answer: Check = GOOD) -> None:
        self.info = info
        self.answer = answer
        self.asked: list[tuple[str, bool]] = []

    def check(self, library: str, threads: int, *, measure: bool) -> Check:
        self.asked.append((Path(library).name, measure))
        return self.answer

    def close(self) -> None: ...

    def kill(self) -> None: ...


@pytest.fixture
def info(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CaffeInfo:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("libcaffe.so", "libopenblas.so", "wide.so", "narrow.so"):
        (tmp_path / name).write_text(name)
    return CaffeInfo(
        python="3.9.2", executable="/usr/bin/python3.9", caffe="1.0.0", path="/caffe", layers=[],
        writable_base_lr=True, callbacks=True, layer_callbacks=True, cuda=False, gpus=0,
        blas=[str(tmp_path / "libopenblas.so")], files=[str(tmp_path / "libcaffe.so")], protocol=3,
        descriptor=b"", blas_kernels="Haswell",
    )  # fmt: skip


def asked(info: CaffeInfo, folder: Path, answer: Check = GOOD, **more: Any) -> list[str]:
    """The libraries that are checked when a worker starts."""
    worker: Any = Counting(info, answer)
    wanted = FastLayers([folder / "wide.so", folder / "narrow.so"], **more)
    start_checked(lambda kernels: worker, wanted, lambda text: None)
    return [name for name, _ in worker.asked]


def test_once_for_the_same(info: CaffeInfo, tmp_path: Path) -> None:
    assert asked(info, tmp_path) == ["wide.so"]
    assert asked(info, tmp_path) == []
    assert asked(info, tmp_path, recheck=True) == ["wide.so"]


def test_what_is_wrong_or_slow_is_checked_again(info: CaffeInfo, tmp_path: Path) -> None:
    for answer in (
        Check(None, "Convolution differs", False),
        Check("product", None, False),
        Check(None, None, True),
    ):
        first = asked(info, tmp_path, answer)
        assert first == asked(info, tmp_path, answer) and first[0] == "wide.so"


def test_a_failure_is_not_hidden_by_what_was_good(info: CaffeInfo, tmp_path: Path) -> None:
    asked(info, tmp_path)
    (tmp_path / "wide.so").write_text("built again")
    assert asked(info, tmp_path, Check(None, "Pooling differs", False))[0] == "wide.so"


def test_a_check_without_the_measurement_does_not_do_for_one_with_it(
    info: CaffeInfo, tmp_path: Path
) -> None:
    assert asked(info, tmp_path, measure=False) == ["wide.so"]
    assert asked(info, tmp_path) == ["wide.so"]
    assert asked(info, tmp_path, measure=False) == []


def test_all_that_it_depends_on(
    info: CaffeInfo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked(info, tmp_path)
    assert asked(replace(info, blas_kernels="SkylakeX"), tmp_path) == ["wide.so"]
    assert asked(info, tmp_path, threads=2) == ["wide.so"]
    with monkeypatch.context() as patch:
        patch.setenv("OPENBLAS_NUM_THREADS", "7")
        assert asked(info, tmp_path) == ["wide.so"]
    with monkeypatch.context() as patch:
        patch.setattr(checked, "this_cpu", lambda: CPU("another", ("1", "2", "3"), frozenset()))
        assert asked(info, tmp_path) == ["wide.so"]
    for name in ("libcaffe.so", "libopenblas.so"):
        (tmp_path / name).write_text("an update")
        assert asked(info, tmp_path) == ["wide.so"]
    assert asked(info, tmp_path) == []


def test_without_a_cache_it_is_checked_each_time(info: CaffeInfo, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    assert asked(info, tmp_path) == asked(info, tmp_path) == ["wide.so"]
