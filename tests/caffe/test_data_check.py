"""Data that Caffe cannot be trained on, and LMDBs that are damaged, as every command meets them."""

from __future__ import annotations

import os
import random
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from lrbench_caffe.datasets.lmdb_writer import write_lmdb
from tests.caffe import nets
from tests.caffe.harness import Workspace

SOLVER = "solver.prototxt"
PAGE = 4096


def write_images(
    folder: Path, count: int = 2000, wrong: int | None = None, label: int = 10
) -> None:
    """Images of 8 x 8 in ten classes; record ``wrong`` has another label."""
    draw = np.random.default_rng(1)
    labels = [label if number == wrong else number % 10 for number in range(count)]
    write_lmdb(folder, draw.integers(0, 256, (count, 1, 8, 8), dtype=np.uint8), labels, (1, 8, 8))


def train_on(workspace: Workspace, folder: str = "images_lmdb", **fields: object) -> Path:
    workspace.write("net.prototxt", nets.net(train=nets.data_layer("TRAIN", source=folder)))
    workspace.write(SOLVER, nets.solver(**{"max_iter": 20, "test_interval": 20, **fields}))
    return workspace.path / folder


def command(workspace: Workspace, name: str, *args: str):
    return workspace.command([sys.executable, "-m", f"lrbench_caffe.{name}", *args])


def test_a_label_beyond_the_classes(workspace: Workspace) -> None:
    write_images(train_on(workspace), wrong=1234)
    words = (
        "error: net.prototxt: layer 'loss' (SoftmaxWithLoss) of the training net: record 00001234 of "
        "images_lmdb has the label 10; allowed: 0 to 9 (--trust-data trains without this check)"
    )
    for _ in range(2):  # the second time from the cache
        workspace.train(SOLVER, "--out", "out").failed(2, words)
    assert not (workspace.path / "out").exists()
    command(workspace, "tune", SOLVER, "--no-db", "--out", "study").failed(2, words)
    command(workspace, "range", SOLVER, "--no-db", "--out", "study").failed(2, words)
    assert not (workspace.path / "study").exists()


@pytest.mark.ci
def test_trusted_data_is_trained_on_and_recorded_as_such(workspace: Workspace) -> None:
    flags = ("--iterations", "4", "--passes", "1", "--form", "ramp", "--no-db", "--layers", "stock")
    command(workspace, "range", SOLVER, *flags, "--out", "trusted", "--trust-data").succeeded()
    command(workspace, "range", SOLVER, *flags, "--out", "checked").succeeded()
    for name in ("trusted", "checked"):
        (run,) = (path.parent for path in (workspace.path / name).rglob("run.json"))
        assert [session["data"] for session in workspace.run(str(run)).record["sessions"]] == [name]


def damage(folder: Path, seed: int) -> None:
    """Pages in the middle of the file with other bytes."""
    draw = random.Random(seed)
    content = bytearray((folder / "data.mdb").read_bytes())
    pages = len(content) // PAGE
    for page in range(2 * pages // 5, 3 * pages // 5):
        content[page * PAGE : page * PAGE + 16] = draw.randbytes(16)
    (folder / "data.mdb").write_bytes(content)


def test_a_damaged_lmdb_is_bad_input_for_every_command(workspace: Workspace) -> None:
    folder = train_on(workspace, max_iter=100, snapshot=10)
    write_images(folder)
    workspace.train(SOLVER, "--out", "begun", "--until", "20").succeeded()
    damage(folder, seed=3)
    words = (
        "error: net.prototxt: layer 'digits' of the training net: data_param.source: images_lmdb: ",
    )
    words += ("damaged LMDB (page ",)
    workspace.train(SOLVER, "--out", "out").failed(2, *words)
    assert not (workspace.path / "out").exists()
    workspace.train("--resume", "--out", "begun").failed(2, *words)
    command(workspace, "tune", SOLVER, "--no-db").failed(2, *words)
    command(workspace, "db", "sync", "begun", "--db", str(workspace.path / "lr.sqlite")).succeeded()
    write_images(folder)
    workspace.train("--resume", "--out", "begun").succeeded()


def test_an_lmdb_that_is_shortened_while_caffe_reads_it(workspace: Workspace) -> None:
    """LMDB maps the file, so that Linux ends the process (SIGBUS) that reads behind its new end."""
    folder = train_on(workspace, max_iter=100_000_000, test_interval=100, snapshot=100)
    write_images(folder)
    with workspace.training(SOLVER, out="out") as training:
        training.wait_for_snapshot(200)
        os.truncate(folder / "data.mdb", 5 * PAGE)
        done = training.finish()
    done.failed(
        2, "error: Caffe crashed (SIG", "it read images_lmdb: truncated, data.mdb has 20,480 bytes"
    )
    assert training.run.record["status"] == "failed"
    assert training.run.record["reason"] in done.err


@pytest.mark.parametrize("trust", [(), ("--trust-data",)])
def test_data_that_is_gone_or_no_lmdb(workspace: Workspace, trust: tuple[str, ...]) -> None:
    folder = train_on(workspace)
    folder.mkdir()
    workspace.train(SOLVER, *trust).failed(2, "images_lmdb: not an LMDB, it contains no data.mdb")
    (folder / "data.mdb").mkdir()
    workspace.train(SOLVER, *trust).failed(
        2, "images_lmdb: not an LMDB, its data.mdb is not a file"
    )
    shutil.rmtree(folder)
    write_images(folder, 50)
    with (folder / "data.mdb").open("r+b") as file:
        file.write(bytes(PAGE))
    workspace.train(SOLVER, *trust).failed(2, "images_lmdb: cannot be opened as an LMDB (header 0 ")
    assert not (workspace.path / "runs").exists()
