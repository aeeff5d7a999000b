"""What is not fit to be stored is refused with the field's name; the rest is stored as it is."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest

from lrbench_caffe.database.checks import checked_run, run_from_json, storable
from lrbench_caffe.database.errors import RecordError
from lrbench_caffe.errors import InputError
from lrbench_caffe.lr import from_caffe, parse
from lrbench_caffe.records import SCHEMA, PolicyRecord, digest
from tests.database import records
from tests.database.records import at, run


def with_part(name: str, **values):
    return run("a", **{name: dataclasses.replace(getattr(run("a"), name), **values)})


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (run(""), "uid: empty"),
        (run("a", source="guessed"), "source: 'guessed'; allowed: measured, paper, imported"),
        (run("a", status="ended"), "status: 'ended'; allowed: running, finished"),
        (run("a", max_iter=-1), "max_iter: -1; allowed: 1 to 2147483647"),
        (run("a", max_iter=1.5), "max_iter: 1.5; allowed: an integer"),
        (run("a", max_iter=True), "max_iter: True; allowed: an integer"),
        (run("a", seed=2**63), "seed: 9223372036854775808; allowed"),
        (run("a", repeats=0), "repeats: 0; allowed: 1 to"),
        (run("a", epoch=0.0), "epoch: 0.0; allowed: 1e-09 to 1000000000"),
        (run("a", started=math.nan), "started: nan; allowed: a finite number"),
        (run("a", origin=None), "origin: None; allowed: text"),
        (run("a", machine="a\0b"), "machine: .*; allowed: text without control characters"),
        (
            run("a", machine="\x1b[31m"),
            r"machine: '\\x1b\[31m'; allowed: text without control characters",
        ),
        (
            run("a", origin="x\nerror: y"),
            r"origin: 'x\\nerror: y'; allowed: text without control characters",
        ),
        (run("a", machine="\udcff"), "machine: .*; allowed: text without .*lone surrogates"),
        (run("a", max_iter=0), "max_iter: 0; allowed: 1 to"),
        (run("a", max_iter=2**31), "max_iter: 2147483648; allowed: 1 to"),
        (run("a", epoch=5e-324), "epoch: 5e-324; allowed: 1e-09 to 1000000000"),
        (run("a", epoch=math.inf), "epoch: inf; allowed: a finite number"),
        (run("a", repeats=10**6 + 1), "repeats: 1000001; allowed: 1 to 1000000"),
        (run("a", started=3e11), "started: .*; allowed: 0 to 253402300799"),
        (run("a", ended=-1.0), "ended: -1.0; allowed: 0 to"),
        (run("u" * 201), "uid: 'u.*u'; allowed: 200 characters"),
        (run("a", measurements=[at(1, "99")]), r"measurement\.top1: '99'; allowed: a number"),
        (run("a", measurements=[at(1, True)]), r"measurement\.top1: True; allowed: a number"),
        (
            run("a", measurements=[at(1, 1.0, ld=1e200)]),
            r"measurement\.ld: 1e\+200; allowed: -1e\+100 to",
        ),
        (
            with_part("network", layers={"ReLU": 10**6 + 1}),
            r"network\.layers: .*; allowed: numbers of layers",
        ),
        (
            with_part("network", layers={"Re\x1bLU": 1}),
            r"network\.layers: .*; allowed: an object of JSON",
        ),
        (run("a", measurements=[at(1, 101.0)]), r"measurement\.top1: 101.0; allowed: 0 to 100"),
        (run("a", measurements=[at(-1, 1.0)]), r"measurement\.iteration: -1; allowed: 0 to"),
        (
            run("a", measurements=[at(1, 1.0, lr=math.inf)]),
            r"measurement\.lr: inf; allowed: a finite number",
        ),
        (
            run("a", measurements=[at(1, 1.0, ac=1.2)]),
            r"measurement\.ac: 1.2; allowed: 0 to 1.0001",
        ),
        (
            run("a", measurements=[at(1, 1.0), at(1, 2.0)]),
            "measurements: an iteration of a net occurs twice",
        ),
        (with_part("dataset", classes=0), r"dataset\.classes: 0; allowed: 1 to"),
        (with_part("dataset", channels="3"), r"dataset\.channels: '3'; allowed: an integer"),
        (
            with_part("network", layers={"Convolution": 1.5}),
            r"network\.layers: .*; allowed: numbers of layers",
        ),
        (with_part("network", layers=[1]), r"network\.layers: .*; allowed: an object of JSON"),
        (
            with_part("policy", params={"k0": math.nan}),
            r"policy\.params: .*; allowed: an object of JSON",
        ),
        (
            with_part("policy", params={"k0": "\0"}),
            r"policy\.params: .*; allowed: an object of JSON",
        ),
        (with_part("solver", iter_size=0), r"solver\.iter_size: 0; allowed: 1 to"),
    ],
)
def test_what_cannot_be_stored(record, message):
    with pytest.raises(RecordError, match=message):
        checked_run(record)


def test_what_can_be_stored_is_not_changed():
    assert checked_run(run("a")) == run("a")
    odd = with_part("policy", params={"metric": "😀", "l": [1, 2]})
    assert checked_run(odd) == odd
    # Top-1 of a softmax in single precision.
    assert (
        checked_run(run("a", measurements=[at(1, 1.0, ac=1.0000001)])).measurements[0].ac
        == 1.0000001
    )


def test_measurements_are_sorted():
    rows = [at(200, 1.0), at(100, 1.0, net=1), at(100, 1.0)]
    assert checked_run(run("a", measurements=rows)).measurements == [rows[2], rows[1], rows[0]]


def test_numbers_become_of_their_kind():
    plain = checked_run(run("a", started=1, measurements=[at(1, 90, lr=-0.0)]))
    assert json.dumps([plain.started, plain.measurements[0].top1]) == "[1.0, 90.0]"
    assert math.copysign(1, plain.measurements[0].lr) == 1


# -- JSON ------------------------------------------------------------------------------------------


def line(**changes):
    """The exchange form of a run with changes, and a digest that fits."""
    value = {**run("a").to_json(), **changes}
    del value["digest"]
    return {**value, "digest": digest(value)}


def test_the_exchange_form_comes_back():
    assert run_from_json(json.loads(json.dumps(run("a").to_json()))) == run("a")


def test_a_digest_is_not_required():
    value = line()
    del value["digest"]
    assert run_from_json(value) == run("a")


def without(value: dict, *path: str) -> dict:
    inner = value
    for name in path[:-1]:
        inner = inner[name]
    del inner[path[-1]]
    del value["digest"]
    return value


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "list; allowed: an object"),
        (None, "NoneType; allowed: an object"),
        ({}, "schema: None; allowed: 1 to 3"),
        (line(schema="1"), "schema: '1'; allowed"),
        (line(schema=0), "schema: 0; allowed"),
        (line(schema=True), "schema: True; allowed"),
        (line(colour="red"), "colour: unknown field"),
        (line(dataset=None), "dataset: None; allowed: an object"),
        (line(measurements={}), "measurements: allowed: a list"),
        (line(measurements=[1]), "measurement: 1; allowed: an object"),
        (line(measurements=[{"iteration": 1}]), r"measurement\.\w+: missing"),
        (line(repeats="five"), "repeats: 'five'; allowed: an integer"),
        (without(line(), "uid"), "uid: missing"),
        (without(line(), "top1_sd"), "top1_sd: missing"),
        (without(line(), "network", "depth"), r"network\.depth: missing"),
        (without(line(), "dataset", "digest"), r"dataset\.digest: missing"),
        (without(line(), "start", "kind"), r"start\.kind: missing"),
        (without(line(), "measurements", 0, "net"), r"measurement\.net: missing"),
        (without(line(), "measurements", 0, "top1"), r"measurement\.top1: missing"),
        ({**line(), "uid": "b"}, "digest: it does not match the content"),
        (
            line(policy={**dataclasses.asdict(records.SIN2), "text": "SINE2(k0=1)"}),
            r"policy\.text: unknown LR function 'SINE2'",
        ),
        (
            line(policy={**dataclasses.asdict(records.SIN2), "function": "FIX"}),
            r"policy\.function: 'FIX'; allowed: 'SIN2', as policy\.text says",
        ),
        (
            line(policy={**dataclasses.asdict(records.SIN2), "params": {}}),
            r"policy\.params: {}; allowed: {'k0'",
        ),
        (
            line(policy={**dataclasses.asdict(records.SIN2), "num_params": 9}),
            r"policy\.num_params: 9; allowed: 3",
        ),
        (line(seed="long" * 10**5), "seed: .*; allowed: an integer"),
        (line(seed=[["long"] * 100] * 100), "seed: .*; allowed: an integer"),
        (line(**{"long\x1b" * 10**5: 1}), "'long.*: unknown field"),
    ],
)
def test_what_is_no_run(value, message):
    with pytest.raises(RecordError, match=message) as caught:
        run_from_json(value)
    assert len(str(caught.value)) < 400
    assert str(caught.value).isprintable()


def test_a_newer_schema_is_no_bad_record_but_the_end():
    with pytest.raises(
        InputError, match="schema 4 is newer than this program, which reads up to 3"
    ) as caught:
        run_from_json({"schema": SCHEMA + 1, "what": "ever"})
    assert not isinstance(caught.value, RecordError)


def test_any_policy_that_can_be_written_can_be_stored():
    for text in (
        "POLY(k0=0.1, p=2)",
        "FIX(k0=0.05) ; plateau(n=3): INV(k0=0.01, gamma=0.001, p=0.75)",
    ):
        record = run("a", policy=records.policy(text))
        assert isinstance(record.policy, PolicyRecord)
        assert run_from_json(json.loads(json.dumps(record.to_json()))) == record


@pytest.mark.parametrize("name", ["poly", "inv"])
def test_what_a_log_has_comes_in_again(name):
    """Caffe allows policies that are refused where a person writes one."""
    policy = from_caffe(name, base_lr=0.01, gamma=0.0, power=0.0, max_iter=300)
    record = run("a", policy=PolicyRecord.of(policy))
    assert run_from_json(json.loads(json.dumps(record.to_json()))) == record


def test_a_poly_without_l_ends_with_the_training():
    record = run("a", policy=PolicyRecord.of(parse("POLY(k0=0.1, p=2)").bind(300)))
    assert run_from_json(record.to_json()) == record


def test_words_of_another_program_become_one_line():
    assert storable("Check failed:\n  a \x1b[1m\0") == r"Check failed: a \x1b[1m\x00"
