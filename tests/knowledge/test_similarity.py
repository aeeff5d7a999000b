"""Similarity of tasks: its parts by hand, its promises, and the table in the docs."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrbench_caffe.database.rows import task_key
from lrbench_caffe.knowledge.similarity import (
    closeness,
    comparable,
    data_similarity,
    family,
    is_held_out,
    network_similarity,
    similarity,
)
from lrbench_caffe.records import Dataset, Network, Task
from tests.knowledge.tasks import CNN3, DIGITS, HERE, MNIST, MNIST_HERE, RESNET, TITLES

DOC = Path(__file__).parents[2] / "docs" / "recommending.md"


def test_closeness_of_numbers():
    assert closeness(7, 7) == 1
    assert closeness(10, 100) == closeness(1000, 100) == 0.5
    assert closeness(1, 100) == pytest.approx(1 / 3)
    assert closeness(None, 5) == closeness(5, None) == closeness(None, None) == 0.5


def test_family_of_nets():
    lenet = {"Convolution": 2, "Pooling": 2, "InnerProduct": 2, "ReLU": 1}
    deeper = {"Convolution": 3, "Pooling": 2, "InnerProduct": 1, "ReLU": 4, "LRN": 2}
    # min: 2 + 2 + 1 + 1 + 0 = 6; max: 3 + 2 + 2 + 4 + 2 = 13
    assert family(lenet, deeper) == 6 / 13
    assert family(lenet, lenet) == 1
    assert family(lenet, {"Recurrent": 3}) == 0


def test_digits_and_mnist_by_hand():
    # pixels 784 / 64 = 12.25, samples 60000 / 1297 = 46.26, parameters 431080 / 131080 = 3.289
    data = 0.9 * (1 + 1 / (1 + 1.08814) + 1 + 1 / (1 + 1.66522)) / 4
    network = 0.9 * (1 + 1 / (1 + 0.51702) + 1) / 3
    assert data_similarity(MNIST.dataset, DIGITS.dataset) == pytest.approx(data, abs=1e-5)
    assert network_similarity(MNIST.network, DIGITS.network) == pytest.approx(network, abs=1e-5)
    assert similarity(MNIST, DIGITS) == pytest.approx((data + network) / 2, abs=1e-5)


def test_one_for_the_same_task_only():
    for task in TITLES.values():
        assert similarity(task, task) == 1
        assert sum(similarity(task, other) == 1 for other in TITLES.values()) == 1


def test_the_framework_does_not_count():
    assert similarity(MNIST, replace(MNIST, framework=HERE)) == 1


def test_what_is_held_out_of_a_task():
    def parts(**changes) -> Task:
        data = {"name": "digits_holdout", "train_samples": 1167, "test_samples": 130, "digest": "x"}
        return replace(DIGITS, dataset=replace(DIGITS.dataset, **{**data, **changes}))

    assert is_held_out(parts(), DIGITS)
    assert not is_held_out(DIGITS, parts()) and not is_held_out(DIGITS, DIGITS)
    assert not is_held_out(parts(test_samples=500), DIGITS)  # not 1297 together
    assert not is_held_out(parts(name="digits_2"), DIGITS)
    assert not is_held_out(parts(classes=5), DIGITS)
    assert not is_held_out(replace(parts(), network=MNIST.network), DIGITS)


def test_the_papers_data_is_known_by_name_and_form():
    assert similarity(MNIST, MNIST_HERE) == 1
    named = replace(MNIST_HERE, dataset=replace(MNIST_HERE.dataset, name="MNIST"))
    assert similarity(MNIST, named) == 1
    fashion = replace(MNIST_HERE, dataset=replace(MNIST_HERE.dataset, name="fashion_mnist"))
    assert similarity(MNIST, fashion) == (0.9 + 1) / 2


def test_tasks_that_are_stored_apart_may_be_comparable():
    nvcaffe = replace(MNIST, framework=replace(HERE, name="NVCaffe"))
    for other in (MNIST_HERE, nvcaffe):
        assert comparable(MNIST, other)
        assert task_key(MNIST) != task_key(other)
    assert not comparable(MNIST, DIGITS)


def test_other_data_of_the_same_name_and_form_is_other_data():
    other = replace(MNIST_HERE, dataset=replace(MNIST_HERE.dataset, digest="another"))
    assert similarity(MNIST_HERE, other) == (0.9 + 1) / 2


def test_data_of_unknown_size_without_digest_is_not_the_same():
    unknown = replace(MNIST, dataset=replace(MNIST.dataset, train_samples=None))
    assert similarity(unknown, replace(unknown, framework=HERE)) < 1


def test_a_task_is_the_same_as_itself_however_little_is_known():
    unknown = replace(MNIST, dataset=Dataset("x", None, None, None, None, None, None))
    assert similarity(replace(unknown, id=1), replace(unknown, id=2)) == 1


def test_data_with_one_digest_and_another_form_is_other_data():
    cropped = replace(MNIST_HERE, dataset=replace(MNIST_HERE.dataset, height=24, width=24))
    assert data_similarity(MNIST_HERE.dataset, cropped.dataset) < 0.9
    assert (
        similarity(MNIST_HERE, replace(MNIST_HERE, dataset=replace(MNIST_HERE.dataset, name="m")))
        == 1
    )


def test_another_kind_of_task():
    assert similarity(MNIST, replace(MNIST, task_type="other")) == 0


@pytest.mark.parametrize(
    ("task", "others"),
    [
        (MNIST, [DIGITS, CNN3, RESNET]),
        (DIGITS, [MNIST, CNN3, RESNET]),
        (CNN3, [MNIST, RESNET, DIGITS]),
        (RESNET, [CNN3, MNIST, DIGITS]),
    ],
    ids=list(TITLES),
)
def test_the_order_of_the_shipped_tasks(task, others):
    values = [similarity(task, other) for other in others]
    assert values == sorted(values, reverse=True)
    assert len(set(values)) == 3


def test_the_table_in_the_docs():
    rows = {
        cells[0]: [float(cell) for cell in cells[1:]]
        for line in DOC.read_text(encoding="utf-8").splitlines()
        if re.match(r"\| .* \| \d\.\d\d ", line)
        and (cells := [c.strip() for c in line.strip("|").split("|")])
    }
    assert rows == {
        title: [round(similarity(task, other), 2) for other in TITLES.values()]
        for title, task in TITLES.items()
    }


some = st.one_of(st.none(), st.integers(1, 10**6))
datasets = st.builds(
    Dataset,
    st.sampled_from(["a", "b"]),
    some,
    some,
    some,
    some,
    some,
    some,
    st.sampled_from([None, "x", "y"]),
)
layers = st.dictionaries(st.sampled_from(["Convolution", "ReLU", "Pooling"]), st.integers(1, 40))
networks = st.builds(
    Network, st.just("n"), st.sampled_from("pq"), layers, some, st.integers(0, 200)
)
tasks = st.builds(Task, st.just(HERE), st.just("classification"), datasets, networks)


@given(tasks, tasks)
def test_symmetric_and_within_bounds(one, other):
    assert similarity(one, other) == similarity(other, one)
    assert 0 <= similarity(one, other) <= 1
