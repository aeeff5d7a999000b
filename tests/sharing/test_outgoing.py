"""What a run that is sent tells of its contributor's machine."""

from __future__ import annotations

import pytest

from lrbench_caffe.database.exchange import to_line
from lrbench_caffe.records import Start
from lrbench_caffe.sharing.outgoing import without_places
from tests.database.records import run


@pytest.mark.parametrize(
    ("source", "origin", "sent"),
    [
        ("measured", "/home/ada/my work/runs/lenet-1", "lenet-1"),
        ("measured", "/home/ada/runs (old)/lenet-1", "lenet-1"),
        ("measured", "runs/lenet-1", "lenet-1"),
        ("measured", "lenet-1", "lenet-1"),
        (
            "measured",
            "/home/ada/runs/r (finetuned from /home/ada/w.caffemodel, fast layers)",
            "r (finetuned from w.caffemodel, fast layers)",
        ),
        (
            "measured",
            "/home/ada (work)/runs/r (2) (branched at iteration 50 from /home/ada (work)/runs/q)",
            "r (2) (branched at iteration 50 from q)",
        ),
        ("imported", "/var/log/a.log", "a.log"),
        ("imported", "/home/ada (work)/logs/caffe.log", "caffe.log"),
        ("imported", "/home/ada, bob/logs/caffe.log", "caffe.log"),
        ("imported", "ada, bob/caffe.log", "caffe.log"),
        ("imported", "/home/ada, bob/a.log, /home/ada, bob/b.log", "a.log, b.log"),
        ("imported", "logs/a.log, logs/b.log", "a.log, b.log"),
        ("imported", "a.log, b.log", "a.log, b.log"),
        (
            "imported",
            "/home/ada (work)/a.log (the net is that of /home/ada (work)/net.prototxt)",
            "a.log (the net is that of net.prototxt)",
        ),
        (
            "imported",
            "/home/ada/a.log, /logs/b.log (net of /home/ada/net.prototxt; 1/2 known)",
            "a.log, b.log (net of net.prototxt; 1/2 known)",
        ),
        ("imported", "node7.log", "the machine.log"),
    ],
)
def test_an_origin_keeps_the_names_of_files(source, origin, sent):
    record = run("a", source=source, origin=origin, machine="node7")
    assert without_places(record).origin == sent


@pytest.mark.parametrize(
    ("reason", "sent"),
    [
        (None, None),
        ("the loss is NaN at iteration 3/4", "the loss is NaN at iteration 3/4"),
        ("F0101 /tmp/build/src/net.cpp:42] Check failed", "F0101 net.cpp:42] Check failed"),
        ("open '/data of ada/train.txt' failed", "open 'train.txt' failed"),
        ("/home/ada/my work/runs/r/losses.csv: disk full", "r/losses.csv: disk full"),
        ("~ada/x/y is gone, ~/z too", "y is gone, z too"),
        ("node7 and node70 and my-node7 stopped", "the machine and node70 and my-node7 stopped"),
        ("see https://example.org/a/b/c", "see https://example.org/a/b/c"),
    ],
)
def test_a_reason_keeps_its_words(reason, sent):
    record = run(
        "a", status="failed", reason=reason, origin="/home/ada/my work/runs/r", machine="node7"
    )
    assert without_places(record).reason == sent


def test_what_a_run_is_compared_and_repeated_by_stays():
    start = Start("weights", "d" * 32, 3, 4, name="base.caffemodel")
    record = run("a", origin="/home/ada/runs/a", machine="node7", start=start)
    sent = without_places(record)
    assert {name for name, value in vars(record).items() if getattr(sent, name) != value} == {
        "origin",
        "machine",
    }
    line = to_line(sent)
    assert "ada" not in line and "node7" not in line
