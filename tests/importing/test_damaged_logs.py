"""Logs and exports of any damage: what cannot be read is refused with its place, without a traceback."""

from __future__ import annotations

import random
import re

import pytest

from chaoslab.damage.texts import damaged_export, damaged_log
from lrbench_caffe import db
from lrbench_caffe.database import Database
from lrbench_caffe.database.checks import checked_run
from lrbench_caffe.database.exchange import to_line
from lrbench_caffe.errors import InputError
from lrbench_caffe.importing.caffelog import records_from_logs
from lrbench_caffe.prototxt.shapes import _layer_parameters
from lrbench_caffe.terminal import cli
from tests.database.records import at, policy, run


@pytest.mark.parametrize("first", range(0, 60, 10))
def test_a_damaged_log_is_read_or_refused(first, log, messages, tmp_path):
    for seed in range(first, first + 10):
        path = tmp_path / f"{seed}.log"
        path.write_bytes(damaged_log(log.encode(), random.Random(seed)))
        refused: list[InputError] = []
        found = records_from_logs([path], messages, note=lambda text: None, refuse=refused.append)
        assert found or refused, seed
        for error in refused:
            assert str(path) in str(error) and "\n" not in str(error), seed
            assert "cannot be understood" not in str(error), (
                seed
            )  # each damage of these seeds is foreseen
        for _, record in found:
            try:
                checked_run(record)
            except InputError as error:
                assert "\n" not in str(error), seed


@pytest.mark.parametrize(
    "line",
    [
        r"Iteration \d+(?= .*, loss = )",
        r"Iteration \d+(?=, lr = )",
        r"net output #\d+",
        r"Top shape: \d+",
    ],
)
@pytest.mark.parametrize("length", [11, 5000])
def test_numbers_that_none_of_caffe_can_be(line, length, log, reader):
    damaged, count = re.subn(
        line, lambda found: re.sub(r"\d+", "9" * length, found[0]), log, count=1
    )
    assert count == 1
    assert len(reader.one(damaged).measurements) == len(reader.one(log).measurements)


def test_a_layer_whose_shape_is_another_ones(messages):
    layer = messages.new("LayerParameter")
    layer.type = "Convolution"
    layer.convolution_param.num_output = 3
    layer.convolution_param.kernel_size.append(5)
    assert _layer_parameters(layer, [64, 2, 8, 8]) == 3 * 2 * 5 * 5 + 3
    assert _layer_parameters(layer, [64]) is None


def test_damage_that_was_not_foreseen_does_not_end_the_other_logs(
    log, messages, tmp_path, monkeypatch
):
    def fails(*_):
        raise IndexError("list index out of range")

    monkeypatch.setattr("lrbench_caffe.importing.runreader._network", fails)
    path = tmp_path / "x.log"
    path.write_text(log)
    refused: list[InputError] = []
    assert not records_from_logs([path], messages, note=lambda text: None, refuse=refused.append)
    assert re.match(
        rf"{path}:\d+: what is printed here cannot be understood \(IndexError: ", str(refused[0])
    )


def test_a_damaged_export_is_taken_or_refused_line_by_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    steps = policy("NSTEP(k0=0.1, gamma=0.1, l=[10, 20])")
    runs = [
        run(f"r{n}", seed=n, policy=steps, measurements=[at(100, 90.0, outputs={"a": 1.0})])
        for n in range(3)
    ]
    content = "".join(map(to_line, runs)).encode()
    Database.open("lr.sqlite").close()
    for seed in range(60):
        (tmp_path / "runs.jsonl").write_bytes(damaged_export(content, random.Random(seed)))
        code = cli.run(db.main, ["--db", "lr.sqlite", "import", "runs.jsonl"])
        lines = capsys.readouterr().err.splitlines()
        assert code in (0, 1, 2), seed
        assert bool(lines) == (code != 0), seed
        for line in lines:
            assert re.match(r"error: runs\.jsonl:\d+: |runs\.jsonl: \d+ new", line), (seed, line)
