"""Nets and data sets that the tests of this folder are built from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format

from lrbench_caffe.datasets.datum import mean_bytes
from lrbench_caffe.datasets.lmdb_writer import write_lmdb
from lrbench_caffe.prototxt.messages import Messages
from lrbench_caffe.prototxt.nets import PhaseNet, phase_layers

NetOf = Callable[..., PhaseNet]
Write = Callable[..., Path]


@pytest.fixture
def net_of(messages: Messages) -> NetOf:
    """``net_of(text, phase)``: a net in a phase, from its prototxt."""

    def build(
        text: str, phase: str = "TEST", level: int = 0, stages: tuple[str, ...] = ()
    ) -> PhaseNet:
        message = text_format.Parse(text, messages.new("NetParameter"))
        layers = phase_layers(message, phase, level, frozenset(stages))
        return PhaseNet(
            "test net #0" if phase == "TEST" else "training net", "net.prototxt", phase, "", layers
        )

    return build


@pytest.fixture
def write_images(tmp_path: Path) -> Write:
    """``write_images(name, count, shape)``: an LMDB of black images."""

    def write(name: str, count: int, shape: tuple[int, int, int]) -> Path:
        path = tmp_path / name
        write_lmdb(path, [np.zeros(shape, np.uint8)] * count, [0] * count, shape)
        return path

    return write


@pytest.fixture
def write_mean(tmp_path: Path) -> Write:
    """``write_mean(name, shape)``: a mean file as compute_image_mean writes it."""

    def write(name: str, shape: tuple[int, int, int]) -> Path:
        path = tmp_path / name
        path.write_bytes(mean_bytes(np.zeros(shape, np.float32)))
        return path

    return write
