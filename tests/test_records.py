"""Starts, and records of the first schema."""

from __future__ import annotations

import pytest

from lrbench_caffe.database.checks import RecordError, run_from_json
from lrbench_caffe.records import SCHEMA, SCRATCH, UNKNOWN_START, RunRecord, Start, digest
from tests.database.records import at, run

DIGEST = "0123456789abcdef" * 2
WEIGHTS = Start("weights", DIGEST, 6, 8, name="old.caffemodel")


def of_schema_1(record: RunRecord) -> dict:
    """The line that the first version would have written."""
    line = record.to_json()
    for name in ("start", "layers", "head", "digest"):
        del line[name]
    for row in line["measurements"]:
        del row["outputs"]
    line["schema"] = 1
    return {**line, "digest": digest(line)}


@pytest.mark.parametrize(
    "one, other, same",
    [
        (SCRATCH, Start("scratch"), True),
        (WEIGHTS, Start("weights", DIGEST, 6, 8, name="renamed.caffemodel"), True),
        (WEIGHTS, Start("weights", DIGEST, 5, 8), False),
        (WEIGHTS, Start("weights", DIGEST[::-1], 6, 8), False),
        (Start("snapshot", DIGEST, iteration=500), Start("snapshot", DIGEST, iteration=500), True),
        (Start("snapshot", DIGEST, iteration=500), Start("snapshot", DIGEST, iteration=600), False),
        (Start("weights", name="a"), Start("weights", name="a"), False),
        (Start("snapshot", iteration=5), Start("snapshot", iteration=5), False),
        (UNKNOWN_START, UNKNOWN_START, False),
        (SCRATCH, UNKNOWN_START, False),
    ],
)
def test_only_starts_that_are_wholly_known_are_the_same(one, other, same):
    assert one.same(other) is same
    assert other.same(one) is same


def test_a_start_in_words():
    assert str(WEIGHTS) == "weights old.caffemodel, 6 of 8 layers filled"
    assert str(Start("snapshot", DIGEST, iteration=500)) == "snapshot, iteration 500"
    assert str(SCRATCH) == "scratch"


def test_a_record_has_all_of_it_in_its_exchange_form():
    record = run(
        "a",
        start=WEIGHTS,
        layers="fast",
        head="ip2",
        measurements=[at(1, 5.0, outputs={"loss": 2.0})],
    )
    line = record.to_json()
    assert line["schema"] == SCHEMA == 3
    assert line["start"] == {
        "kind": "weights", "digest": DIGEST, "filled": 6, "layers": 8, "iteration": None,
        "name": "old.caffemodel",
    }  # fmt: skip
    assert run_from_json(line) == record
    assert run_from_json(line).start.name == "old.caffemodel"


@pytest.mark.parametrize(
    "origin, source, start, layers",
    [
        ("/r/a", "measured", "scratch", "stock"),
        ("/r/a (fast layers)", "measured", "scratch", "fast"),
        ("/r/a (stock, then fast layers)", "measured", "scratch", "stock, then fast"),
        ("/r/a (from x_iter_9.solverstate)", "measured", "unknown", "stock"),
        ("/r/a (from a b.caffemodel, c.caffemodel, fast layers)", "measured", "unknown", "fast"),
        ("log.txt (finetuned from x.caffemodel)", "imported", "unknown", None),
        ("log.txt", "imported", "scratch", None),
        ("Wu et al. 2019, Table IV (l=2000 assumed)", "paper", "scratch", None),
        ("/r/from here (old)/a", "measured", "scratch", "stock"),
    ],
)
def test_a_record_of_the_first_schema_tells_its_start_by_its_origin(origin, source, start, layers):
    record = run_from_json(of_schema_1(run("a", origin=origin, source=source)))
    assert (record.start.kind, record.layers, record.head) == (start, layers, None)
    assert record.origin == origin
    assert [m.outputs for m in record.measurements] == [{}, {}, {}]


@pytest.mark.parametrize(
    "start, message",
    [
        ({"kind": "magic"}, "start.kind: 'magic'; allowed: scratch, weights, snapshot, unknown"),
        (
            {"kind": "weights", "digest": "xyz"},
            "start.digest: 'xyz'; allowed: 32 hexadecimal digits",
        ),
        (
            {"kind": "scratch", "digest": DIGEST},
            "start.digest: .* allowed: null where the kind is scratch",
        ),
        (
            {"kind": "weights", "iteration": 5},
            "start.iteration: 5; allowed: null where the kind is weights",
        ),
        ({"kind": "weights", "filled": -1}, "start.filled: -1; allowed: 0 to"),
        ({"kind": "weights", "other": 1}, "start.other: unknown field"),
        ("scratch", "start: 'scratch'; allowed: an object"),
    ],
)
def test_a_start_that_cannot_be_is_refused(start, message):
    line = run("a").to_json()
    del line["digest"]
    given = {**line["start"], **start} if isinstance(start, dict) else start
    with pytest.raises(RecordError, match=message):
        run_from_json({**line, "start": given})


@pytest.mark.parametrize(
    "outputs, message",
    [
        ([], r"measurement.outputs: \[\]; allowed: an object of numbers"),
        ({"loss": "x"}, r"measurement.outputs\['loss'\]: 'x'; allowed: a number"),
        ({"loss": True}, r"measurement.outputs\['loss'\]: True; allowed: a number"),
        ({"a\nb": 1.0}, "measurement.outputs: .* allowed: text without control characters"),
    ],
)
def test_outputs_that_cannot_be_are_refused(outputs, message):
    line = run("a").to_json()
    del line["digest"]
    line["measurements"][0]["outputs"] = outputs
    with pytest.raises(RecordError, match=message):
        run_from_json(line)
