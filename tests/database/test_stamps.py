"""Stamps of tasks: new with all that changes what is shown of a task, and with nothing else."""

from __future__ import annotations

import pytest

from lrbench_caffe.database.platform import Platform
from lrbench_caffe.records import Contribution, Dataset
from tests.database.records import at, run

OTHER = Dataset("other", 1, 8, 8, 10, 100, 20, "d2")


@pytest.fixture
def platform(database):
    return Platform(database)


def looked_at(database, platform):
    """What pages and rankings show of the tasks."""
    tasks = [task.id for task in database.tasks()]
    return (
        database.runs_of_tasks(),
        [platform.not_shown(number) for number in tasks],
        [database.summaries(number) for number in tasks],
        [database.summaries(number, unfinished=True) for number in tasks],
    )


CHANGES = {
    "a run begins": lambda d, p: d.begin_run(run("new", seed=9)),
    "a run that has ended continues": lambda d, p: d.begin_run(run("a")),
    "a run ends": lambda d, p: d.end_run("running", "finished", None, 9.0),
    "a run that has ended gets a test": lambda d, p: d.add_measurements("a", [at(400, 99.0)]),
    "a whole run is stored": lambda d, p: d.put(run("new", seed=9)),
    "a stored run is completed": lambda d, p: d.put(run("running", seed=4)),
    "a run is deleted": lambda d, p: d.delete(["a"]),
    "a run is hidden": lambda d, p: p.set_standing(["a"], "hidden"),
    "an upload is taken back": lambda d, p: p.take_back("batch"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_a_task_gives_it_a_new_stamp(database, platform, change):
    sent = Contribution("batch", "ada", None, None, 5.0)
    database.put_many([run("a"), run("b", seed=2), run("sent", seed=3, contribution=sent)])
    (changing,) = set(database.stamps()) - {1, 2, 3}  # the paper's
    database.put(run("elsewhere", dataset=OTHER))
    database.begin_run(run("running", seed=4))
    before, shown = database.stamps(), looked_at(database, platform)
    CHANGES[change](database, platform)
    assert looked_at(database, platform) != shown, "nothing has changed: the test is none"
    after = database.stamps()
    assert set(after) == set(before)
    assert [number for number in before if after[number] != before[number]] == [changing]
    assert database.stamps(changing) == {changing: after[changing]}


def test_what_changes_nothing_that_is_shown_leaves_the_stamps(database, platform):
    database.put(run("a"))
    database.begin_run(run("running", seed=4))
    before, shown = database.stamps(), looked_at(database, platform)
    assert database.put(run("a")) is False
    database.add_measurements("running", [at(100, 80.0)])
    assert (database.stamps(), looked_at(database, platform)) == (before, shown)


def test_a_task_that_gets_the_number_of_one_that_is_gone_has_another_stamp(database):
    database.put(run("a"))
    first = database.stamps()
    (number,) = set(first) - {1, 2, 3}
    database.delete(["a"])
    assert database.stamps(number) == {}
    database.put(run("b", dataset=OTHER))  # SQLite gives it the number again
    later = database.stamps()
    assert all(first.get(n) != stamp for n, stamp in later.items() if n not in (1, 2, 3))
