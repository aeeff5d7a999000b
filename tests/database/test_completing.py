"""What a database keeps of a log that is imported again."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lrbench_caffe.records import RunRecord
from tests.database.records import DATASET, NETWORK, at, run

PARTIAL = replace(NETWORK, name="LeNet (partial)", digest="n2")


def logged(iteration: int, top1: float | None, **others):
    """A test of a log. Its outputs are printed, but which one is Top-1 only the net tells."""
    outputs = {"accuracy": 0.9, "loss": 0.3}
    none = {"ac": None, "cd": None, "cdac": None, "outputs": outputs}
    known = {} if top1 is not None else {"top5": None, "samples": 0}
    return at(iteration, top1, **{**none, **known, **others})


def whole(**others) -> RunRecord:
    """The log with its net file beside it."""
    tests = [logged(100, 90.0), logged(200, 95.0)]
    return run("log", source="imported", **{"measurements": tests, **others})


def partial(**others) -> RunRecord:
    """The same log without its net file."""
    tests = [logged(100, None), logged(200, None)]
    return whole(**{"network": PARTIAL, "measurements": tests, **others})


def test_metrics_that_the_second_import_lacks_stay(database):
    database.put(whole())
    assert database.put(partial()) is False
    assert database.get("log").measurements == whole().measurements


def test_metrics_that_the_first_import_lacked_are_added(database):
    database.put(partial())
    assert database.put(whole()) is True
    assert database.get("log").measurements == whole().measurements


def test_a_log_that_has_grown_keeps_the_metrics_that_it_had(database):
    database.put(whole(status="stopped"))
    longer = [logged(100, None), logged(200, None), logged(300, None)]
    assert database.put(partial(measurements=longer, ended=2000.0)) is True
    kept = database.get("log").measurements
    assert [(m.iteration, m.top1, m.top5) for m in kept] == [
        (100, 90.0, 99.5), (200, 95.0, 99.5), (300, None, None),
    ]  # fmt: skip


def test_the_net_decides_which_output_is_top1(database):
    database.put(whole())
    other_head = [logged(100, 80.0), logged(200, 85.0)]
    assert database.put(partial(measurements=other_head)) is False
    assert [m.top1 for m in database.get("log").measurements] == [90.0, 95.0]


def test_the_losses_of_both_imports_are_kept(database):
    database.put(whole(measurements=[logged(100, 90.0, train_loss=None, ld=None)]))
    database.put(partial(measurements=[logged(100, None, test_loss=None)]))
    (kept,) = database.get("log").measurements
    assert (kept.top1, kept.test_loss, kept.train_loss, kept.ld) == (90.0, 0.3, 0.25, 0.05)


@pytest.mark.parametrize("ended", [1060.0, 2000.0], ids=["the same", "grown"])
def test_a_second_import_leaves_no_task_without_runs(database, ended):
    database.put(whole())
    before = {task.id: task.title for task in database.tasks()}
    longer = [logged(100, None), logged(200, None), logged(300, None)]
    database.put(partial(measurements=longer, ended=ended))
    assert {task.id: task.title for task in database.tasks()} == before
    assert "digits / LeNet" in before.values()


def test_a_second_import_leaves_no_data_set_that_nobody_has(database):
    """The data set's name differs where its files are not at hand."""
    database.put(whole())
    before = database.counts()
    unknown = replace(DATASET, name="elsewhere", digest=None)
    database.put(partial(dataset=unknown))
    assert database.counts() == before
