"""Runs to store: a plain one to vary, and any that can be (Hypothesis)."""

from __future__ import annotations

import dataclasses
from typing import Any

from hypothesis import strategies as st

from lrbench_caffe.database.ranges import INT32, LAYERS, REAL, WHOLE, YEAR_9999
from lrbench_caffe.lr import parse
from lrbench_caffe.metrics import Measurement
from lrbench_caffe.records import (
    SOURCES,
    STATUSES,
    Dataset,
    Framework,
    Network,
    PolicyRecord,
    RunRecord,
    SolverSettings,
    Start,
)

FRAMEWORK = Framework("Caffe", "1.0.0", "CPU")
DATASET = Dataset("digits", 1, 8, 8, 10, 1438, 359, "d1")
NETWORK = Network("LeNet", "n1", {"Convolution": 2, "InnerProduct": 2}, 431080, 4)
SOLVER = SolverSettings("SGD", 64, 1, 0.01, 0.9, 0.0005)


def policy(text: str) -> PolicyRecord:
    return PolicyRecord.of(parse(text))


SIN2 = policy("SIN2(k0=0.01, k1=0.06, l=2000)")


def at(iteration: int, top1: float | None, net: int = 0, **others: Any) -> Measurement:
    top5 = max(99.5, top1) if isinstance(top1, float) else 99.5
    row = Measurement(
        iteration=iteration, lr=0.01, top1=top1, top5=top5, ac=0.9, cd=0.1, cdac=0.05, test_loss=0.3,
        train_loss=0.25, ld=0.05, seconds=1.5, samples=359, silent_classes=0, net=net,
    )  # fmt: skip
    return dataclasses.replace(row, **others)


def run(uid: str, **others: Any) -> RunRecord:
    """A run that finished with Top-1 90, 95, 95 at the iterations 100, 200, 300."""
    record = RunRecord(
        uid=uid, source="measured", origin=f"runs/{uid}", framework=FRAMEWORK, task_type="classification",
        dataset=DATASET, network=NETWORK, policy=SIN2, solver=SOLVER, seed=1, max_iter=300,
        test_interval=100, epoch=22.5, machine="here", started=1000.0, ended=1060.0, status="finished",
        measurements=[at(100, 90.0), at(200, 95.0), at(300, 95.0)],
    )  # fmt: skip
    return dataclasses.replace(record, **others)


# -- any run ---------------------------------------------------------------------------------------

texts = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=20)
numbers = st.floats(-REAL, REAL).map(lambda x: x + 0.0)
times = st.floats(0, YEAR_9999).map(abs)
positive = st.integers(1, WHOLE)
counts = st.integers(0, WHOLE)
iterations = st.integers(0, INT32)


def maybe(strategy: st.SearchStrategy) -> st.SearchStrategy:
    return st.none() | strategy


frameworks = st.builds(Framework, texts, texts, texts)
datasets = st.builds(
    Dataset, texts, *[maybe(positive)] * 4, *[maybe(counts)] * 2, digest=maybe(texts)
)
networks = st.builds(
    Network,
    texts,
    texts,
    st.dictionaries(texts, st.integers(0, 1000), max_size=3),
    maybe(counts),
    st.integers(0, LAYERS),
)
solvers = st.builds(SolverSettings, texts, maybe(positive), positive, *[maybe(numbers)] * 3)
policies = st.sampled_from(
    [
        SIN2,
        policy("FIX(k0=0.1)"),
        policy("NSTEP(k0=0.1, gamma=0.1, l=[100, 200])"),
        policy("FIX(k0=0.1) ; 20000: SINEXP(k0=0.0001, k1=0.9, gamma=0.99994, l=2000)"),
        policy("PLATEAU(k0=0.05, gamma=0.1, n=3, metric=test_loss)"),
    ]
)
measurements = st.builds(
    Measurement,
    iteration=st.integers(0, 10**6),
    lr=numbers,
    top1=maybe(st.floats(0, 100).map(abs)),
    top5=maybe(st.floats(0, 100).map(abs)),
    ac=maybe(st.floats(0, 1).map(abs)),
    cd=maybe(numbers.map(abs)),
    cdac=maybe(numbers.map(abs)),
    test_loss=maybe(numbers),
    train_loss=maybe(numbers),
    ld=maybe(numbers),
    seconds=numbers,
    samples=counts,
    silent_classes=counts,
    net=st.integers(0, 3),
    outputs=st.dictionaries(texts, numbers, max_size=3),
)
digests = st.text("0123456789abcdef", min_size=32, max_size=32)
layer_counts = st.integers(0, LAYERS)
starts = st.one_of(
    st.just(Start()),
    st.builds(Start, st.just("unknown"), name=maybe(texts)),
    st.builds(
        Start,
        st.just("weights"),
        maybe(digests),
        maybe(layer_counts),
        maybe(layer_counts),
        name=maybe(texts),
    ),
    st.builds(
        Start, st.just("snapshot"), maybe(digests), iteration=maybe(iterations), name=maybe(texts)
    ),
)
runs = st.builds(
    RunRecord,
    uid=texts.filter(bool),
    source=st.sampled_from(SOURCES),
    origin=texts,
    framework=frameworks,
    task_type=texts,
    dataset=datasets,
    network=networks,
    policy=policies,
    solver=solvers,
    seed=maybe(st.integers(-(2**63), 2**63 - 1)),
    max_iter=st.integers(1, INT32),
    test_interval=maybe(iterations),
    epoch=maybe(st.floats(1e-9, 1e9)),
    machine=maybe(texts),
    started=maybe(times),
    ended=maybe(times),
    status=st.sampled_from(STATUSES),
    reason=maybe(texts),
    repeats=st.integers(1, 1000),
    top1_sd=maybe(st.floats(0, 100).map(abs)),
    measurements=st.lists(measurements, max_size=4, unique_by=lambda m: (m.iteration, m.net)).map(
        lambda rows: sorted(rows, key=lambda m: (m.iteration, m.net))
    ),
    start=starts,
    layers=maybe(texts),
    head=maybe(texts),
)
