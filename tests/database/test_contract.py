"""What the database promises, whichever kind it is. Every test runs on SQLite and on PostgreSQL."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import uuid

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from lrbench_caffe.database import Database, RecordError, UnknownRun
from lrbench_caffe.database.errors import ConflictError
from lrbench_caffe.errors import InputError
from lrbench_caffe.paper import tables as paper
from lrbench_caffe.paper.tables import paper_records
from lrbench_caffe.records import Dataset, Framework, RunRecord, Spread, Start, Task
from tests.database import records
from tests.database.records import at, run

TASK = Task(records.FRAMEWORK, "classification", records.DATASET, records.NETWORK)


def task_id(database: Database) -> int:
    found = database.find_task(TASK)
    assert found is not None and found.id is not None
    return found.id


def summary(database: Database, **filters):
    (only,) = database.summaries(task_id(database), **filters)
    return only


# -- a run as it is trained ------------------------------------------------------------------------


def test_a_run_is_stored_as_it_goes(database):
    whole = run("a")
    database.begin_run(dataclasses.replace(whole, measurements=[]))
    assert database.get("a").status == "running"
    assert database.get("a").ended is None
    for measurement in whole.measurements:
        database.add_measurements("a", [measurement])
    assert database.get("a").measurements == whole.measurements
    assert database.summaries(task_id(database)) == []  # it has not ended
    database.end_run("a", "finished", None, 1060.0)
    assert database.get("a") == whole
    assert summary(database).top1 == Spread(95.0, None)


def test_a_measurement_made_again_by_a_resumed_run_takes_the_place_of_the_first(database):
    database.put(run("a"))
    database.begin_run(run("a", max_iter=400, measurements=[]))
    assert database.get("a").status == "running"
    assert database.summaries(task_id(database)) == []
    database.add_measurements("a", [at(300, 97.0), at(400, 96.0)])
    database.end_run("a", "finished", None, 2000.0)
    assert [m.top1 for m in database.get("a").measurements] == [90.0, 95.0, 97.0, 96.0]
    assert summary(database).max_iter == 400
    assert summary(database).iterations == Spread(300.0, None)


def test_a_run_that_was_resumed_with_a_nearer_end_has_no_tests_beyond_it(database):
    database.put(run("a", status="failed"))
    database.begin_run(run("a", max_iter=150, measurements=[at(100, 90.0)]))
    database.end_run("a", "finished", None, 2000.0)
    assert [m.iteration for m in database.get("a").measurements] == [100]
    assert summary(database).top1 == Spread(90.0, None)
    # Where the database was out of reach meanwhile, the whole run comes at the end.
    database.put(run("b", status="failed", seed=2))
    assert database.put(run("b", seed=2, max_iter=150, ended=2000.0, measurements=[at(100, 70.0)]))
    assert [m.iteration for m in database.get("b").measurements] == [100]
    assert summary(database).top1 == Spread(80.0, 10.0, 2)


def test_the_later_of_two_measurements_of_one_call_is_valid(database):
    database.begin_run(run("a", measurements=[]))
    database.add_measurements("a", [at(100, 1.0), at(100, 2.0)])
    assert [m.top1 for m in database.get("a").measurements] == [2.0]


def test_several_test_nets_are_kept_apart_and_the_first_one_is_ranked(database):
    database.put(run("a", measurements=[at(100, 50.0), at(100, 99.0, net=1)]))
    assert [(m.net, m.top1) for m in database.get("a").measurements] == [(0, 50.0), (1, 99.0)]
    assert summary(database).top1 == Spread(50.0, None)


def test_measurements_that_come_after_the_end_count(database):
    database.put(run("a"))
    database.add_measurements("a", [at(400, 99.0)])
    assert summary(database).top1 == Spread(99.0, None)


def test_what_could_not_be_measured_is_nothing(database):
    lost = at(100, math.nan, ac=math.nan, test_loss=math.inf, ld=-math.inf)
    database.begin_run(run("a", measurements=[]))
    database.add_measurements("a", [lost])
    assert database.get("a").measurements == [at(100, None, ac=None, test_loss=None, ld=None)]


def test_numbers_of_numpy_are_numbers(database):
    row = at(np.int64(100), np.float32(90.5), lr=np.float64(0.1), samples=np.int32(3))
    database.begin_run(run("a", measurements=[]))
    database.add_measurements("a", [row])
    assert database.get("a").measurements == [at(100, 90.5, lr=0.1, samples=3)]


def test_the_last_words_of_another_program_are_kept_as_far_as_possible(database):
    database.begin_run(run("a"))
    database.end_run("a", "failed", "Check failed: \0 \udcff ü", 5.0)
    assert database.get("a").reason == r"Check failed: \x00 \udcff ü"


@pytest.mark.parametrize(
    "call",
    [
        lambda d: d.get("nobody"),
        lambda d: d.add_measurements("nobody", [at(1, 1.0)]),
        lambda d: d.end_run("nobody", "finished", None, 1.0),
    ],
)
def test_a_run_that_is_not_there_is_named(database, call):
    with pytest.raises(UnknownRun, match="no run 'nobody'"):
        call(database)


# -- whole records ---------------------------------------------------------------------------------


def test_put_is_idempotent(database):
    before = database.counts()
    assert database.put(run("a")) is True
    once = database.counts()
    assert database.put(run("a")) is False
    assert database.counts() == once
    assert once["run"] == before["run"] + 1
    assert database.get("a") == run("a")


def test_put_completes_what_is_there(database):
    database.begin_run(run("a", measurements=[at(100, 90.0)]))
    assert database.put(run("a")) is True
    assert database.get("a") == run("a")
    assert summary(database).top1 == Spread(95.0, None)


def test_put_does_not_undo_what_is_known_better(database):
    database.put(run("a"))
    stopped = run("a", status="stopped", reason="Ctrl-C", ended=1010.0, measurements=[at(100, 1.0)])
    assert database.put(stopped) is False
    running = run("a", status="running", ended=None, measurements=[])
    assert database.put(running) is False
    assert database.get("a") == run("a")


def test_an_older_state_of_a_run_that_is_training_again_changes_nothing(database):
    database.put(run("a", status="stopped", measurements=[at(100, 90.0), at(200, 91.0)]))
    old = database.get("a")
    database.begin_run(dataclasses.replace(old, max_iter=600))
    database.add_measurements("a", [at(200, 92.0), at(300, 93.0)])
    assert database.put(old) is False
    database.add_measurements("a", [at(600, 99.0)])
    database.end_run("a", "finished", None, 2000.0)
    found = database.get("a")
    assert (found.status, found.max_iter) == ("finished", 600)
    assert [m.top1 for m in found.measurements] == [90.0, 92.0, 93.0, 99.0]


def test_put_takes_a_later_end(database):
    database.put(
        run("a", status="stopped", reason="Ctrl-C", ended=1010.0, measurements=[at(100, 1.0)])
    )
    assert database.put(run("a")) is True
    assert database.get("a") == run("a")


@pytest.mark.parametrize(
    "other",
    [
        {"policy": records.policy("FIX(k0=0.1)")},
        {"seed": 2},
        {"source": "imported"},
        {"dataset": dataclasses.replace(records.DATASET, digest="d2")},
    ],
)
def test_a_uid_of_another_run_is_refused_and_nothing_changes(database, other):
    database.put(run("a"))
    before = database.counts()
    with pytest.raises(RecordError, match="uid: 'a' is another run"):
        database.put(run("a", **other))
    with pytest.raises(RecordError, match="uid: 'a' is another run"):
        database.begin_run(run("a", **other))
    assert database.counts() == before
    assert database.get("a") == run("a")


def test_of_several_records_all_go_in_or_none(database):
    database.put(run("a"))
    with pytest.raises(RecordError):
        database.put_many([run("b"), run("a", seed=2)])
    with pytest.raises(UnknownRun):
        database.get("b")
    assert database.put_many([run("a"), run("b")]) == [False, True]


@given(record=records.runs)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_record_comes_back_as_it_was(database, record: RunRecord):
    unique = dataclasses.replace(record, uid=f"{record.uid}{uuid.uuid4()}")
    assert database.put(unique) is True
    back = database.get(unique.uid)
    assert back == unique
    assert back.to_json() == unique.to_json()
    assert database.put(back) is False


# -- what runs have in common ----------------------------------------------------------------------


def test_parts_are_stored_once_also_where_nothing_is_known(database):
    before = database.counts()
    unknown = Dataset("x", None, None, None, None, None, None, None)
    for uid in ("a", "b", "c"):
        database.put(run(uid, dataset=unknown))
    after = database.counts()
    added = {name: after[name] - before[name] for name in after}
    assert added == {
        "framework": 1, "task_type": 1, "dataset": 1, "network": 1, "task": 1, "policy": 0, "solver": 1,
        "run": 3, "measurement": 9, "summary": 1, "batch": 0, "token": 0,
    }  # fmt: skip


def test_a_task_is_data_net_and_framework_not_version_and_device(database):
    database.put(run("a"))
    database.put(run("b", seed=2, framework=Framework("Caffe", "2.0", "GPU")))
    database.put(run("c", seed=3, dataset=dataclasses.replace(records.DATASET, name="my_digits")))
    database.put(run("d", seed=4, network=dataclasses.replace(records.NETWORK, name="Net")))
    assert summary(database).runs == 4
    assert database.get("b").framework == Framework("Caffe", "2.0", "GPU")
    assert database.get("c").dataset.name == "my_digits"
    assert database.get("d").network.name == "Net"


@pytest.mark.parametrize(
    "other",
    [
        {"framework": Framework("DIGITS", "1.0.0", "CPU")},
        {"task_type": "other"},
        {"network": dataclasses.replace(records.NETWORK, digest="n2")},
        {"dataset": dataclasses.replace(records.DATASET, digest="d2")},
        {"dataset": dataclasses.replace(records.DATASET, digest=None)},
        {"dataset": dataclasses.replace(records.DATASET, train_samples=1000)},
        {"dataset": dataclasses.replace(records.DATASET, width=None)},
    ],
)
def test_other_tasks_are_other_tasks(database, other):
    database.put(run("a"))
    assert database.find_task(dataclasses.replace(TASK, **other)) is None
    database.put(run("b", **other))
    assert summary(database).runs == 1


def test_data_that_is_not_at_hand_goes_by_its_name(database):
    unseen = dataclasses.replace(records.DATASET, digest=None)
    database.put(run("a", dataset=unseen))
    named = dataclasses.replace(unseen, name="DIGITS")
    assert database.find_task(dataclasses.replace(TASK, dataset=named)) is not None
    other = dataclasses.replace(unseen, name="letters")
    assert database.find_task(dataclasses.replace(TASK, dataset=other)) is None


def test_tasks_are_listed_with_their_numbers(database):
    database.put(run("a"))
    mine = [task for task in database.tasks() if task.dataset == records.DATASET]
    assert mine == [dataclasses.replace(TASK, id=task_id(database))]
    assert database.runs_of_tasks()[task_id(database)] == 1


# -- summaries -------------------------------------------------------------------------------------


def test_a_summary_is_mean_and_deviation_over_seeds_each_at_its_first_best(database):
    for seed, tops in ((1, [90.0, 94.0, 94.0]), (2, [90.0, 91.0, 98.0])):
        rows = [at(100 * (i + 1), top, ld=float(i), ac=None) for i, top in enumerate(tops)]
        database.put(run(f"s{seed}", seed=seed, started=1000.0 + seed, measurements=rows))
    found = summary(database)
    assert found.top1 == Spread(96.0, 2.0)  # 94 and 98
    assert found.iterations == Spread(250.0, 50.0)  # 200 and 300
    assert found.ld == Spread(1.5, 0.5)  # 1.0 and 2.0
    assert found.ac is None
    assert (found.runs, found.repeats, found.failed, found.diverged) == (2, 2, 0, 0)
    assert found.origin == "runs/s2"
    assert (found.policy, found.solver, found.epoch) == (records.SIN2, records.SOLVER, 22.5)


def test_means_of_several_trainings_weigh_as_many(database):
    # 3 trainings with mean 90 and deviation 1, and one with 94: mean 91; variance (3 (1 + 1) + 9) /
    # 4.
    database.put(run("a", repeats=3, top1_sd=1.0, seed=None, measurements=[at(100, 90.0)]))
    database.put(run("b", measurements=[at(300, 94.0)]))
    found = summary(database)
    assert found.top1 == Spread(91.0, pytest.approx(math.sqrt(15 / 4)))
    assert found.repeats == 4
    # How much the three differed in LD and in #Iterations is not known: no deviation is made up.
    assert found.ld == Spread(pytest.approx(0.05), None)
    assert found.iterations == Spread(150.0, None)


def test_runs_that_did_not_finish_are_counted_and_not_averaged(database):
    database.put(run("a"))
    for seed, status in ((2, "failed"), (3, "diverged"), (4, "diverged"), (5, "stopped")):
        tests = [at(100, 99.0)]
        database.put(run(f"s{seed}", seed=seed, status=status, reason="x", measurements=tests))
    found = summary(database)
    assert (found.runs, found.failed, found.diverged) == (1, 1, 2)
    assert found.top1 == Spread(95.0, None)


def test_a_policy_that_only_diverged_is_known_for_it(database):
    database.put(run("a", status="diverged", reason="the loss is NaN"))
    found = summary(database)
    assert (found.runs, found.repeats, found.diverged, found.top1, found.iterations) == (
        0,
        0,
        1,
        None,
        None,
    )


def test_a_net_that_does_not_classify_has_a_summary_without_top1(database):
    database.put(run("a", measurements=[at(100, None)]))
    assert summary(database).runs == 1
    assert summary(database).top1 is None


@pytest.mark.parametrize(
    "other",
    [
        {"source": "imported"},
        {"max_iter": 301},
        {"solver": dataclasses.replace(records.SOLVER, momentum=None)},
        {"policy": records.policy("SIN2(k0=0.01, k1=0.07, l=2000)")},
    ],
)
def test_what_is_not_comparable_is_not_averaged(database, other):
    database.put(run("a"))
    database.put(run("b", **other))
    assert [s.runs for s in database.summaries(task_id(database))] == [1, 1]


WEIGHTS = Start("weights", "0123456789abcdef" * 2, 6, 8, name="old.caffemodel")
SNAPSHOT = Start("snapshot", "fedcba9876543210" * 2, iteration=500, name="x_iter_500.solverstate")


def test_runs_are_pooled_with_those_of_the_same_start_only(database):
    starts = [
        Start(),
        WEIGHTS,
        dataclasses.replace(WEIGHTS, name="renamed.caffemodel"),
        dataclasses.replace(WEIGHTS, filled=5),
        dataclasses.replace(WEIGHTS, digest="00000000000000000000000000000000"),
        SNAPSHOT,
        dataclasses.replace(SNAPSHOT, iteration=600),
    ]
    for number, start in enumerate(starts):
        database.put(
            run(f"r{number}", seed=number, start=start, measurements=[at(100, 90.0 + number)])
        )
    found = {s.top1.mean: s for s in database.summaries(task_id(database))}
    assert sorted(found) == [90.0, 91.5, 93.0, 94.0, 95.0, 96.0]
    assert found[90.0].start == Start()
    assert (found[91.5].runs, found[91.5].start) == (2, WEIGHTS)
    assert found[95.0].start == SNAPSHOT
    assert found[95.0].start.name == "x_iter_500.solverstate"
    for number, start in enumerate(starts):
        stored = database.get(f"r{number}").start
        assert (stored, stored.name) == (start, start.name)


def test_a_start_that_is_not_known_is_pooled_with_nothing(database):
    unknown = [
        Start("unknown"),
        Start("unknown"),
        Start("weights", name="a"),
        Start("weights", name="a"),
    ]
    for number, start in enumerate([*unknown, Start("snapshot", iteration=500)]):
        database.put(run(f"r{number}", seed=number, start=start))
    found = database.summaries(task_id(database))
    assert [s.runs for s in found] == [1] * 5
    assert not any(s.start.known for s in found)


def test_what_is_known_of_a_start_stays_known(database):
    database.put(run("a", start=Start("unknown")))
    assert database.put(run("a", start=Start("weights", name="x.caffemodel"))) is True
    assert database.put(run("a", start=WEIGHTS)) is True
    assert database.get("a").start == WEIGHTS
    assert summary(database).start == WEIGHTS
    assert database.put(run("a", start=Start("unknown"), ended=2000.0)) is True  # as it ended later
    assert database.get("a").start == WEIGHTS
    assert database.put(run("a", start=Start("unknown"), ended=2000.0)) is False
    database.begin_run(run("a", start=Start("unknown")))
    database.end_run("a", "finished", None, 3000.0)
    assert summary(database).start == WEIGHTS
    with pytest.raises(
        RecordError, match="uid: 'a' is another run in the database: its start differs"
    ):
        database.put(run("a", start=SNAPSHOT, ended=9000.0))
    with pytest.raises(RecordError, match="its start differs"):
        database.begin_run(run("a", start=Start()))


def test_the_layers_and_the_head_of_a_run_come_back(database):
    database.put(run("a", layers="stock, then fast", head="ip2"))
    assert (database.get("a").layers, database.get("a").head) == ("stock, then fast", "ip2")


def test_the_same_seed_is_one_training(database):
    """Seed 1 three times (once on other layers), seed 2, and two that nobody knows the seed of."""
    for uid, seed, layers, top1 in (
        ("a", 1, "stock", 90.0),
        ("b", 1, "stock", 91.0),  # again: does not count
        ("c", 1, "fast", 92.0),
        ("d", 2, "stock", 94.0),
        ("e", None, "stock", 96.0),
        ("f", None, "stock", 98.0),
    ):
        database.put(run(uid, seed=seed, layers=layers, measurements=[at(100, top1)]))
    found = summary(database)
    tops = np.array([90.0, 92.0, 94.0, 96.0, 98.0])
    assert found.top1 == Spread(tops.mean(), pytest.approx(tops.std()))
    assert (found.runs, found.repeats, found.top1.n) == (5, 5, 5)
    assert found.trainings() == 5
    reached = database.iterations_to_top1(task_id(database), 91.0)[found.id]
    assert (reached.runs, reached.of) == (4, 5)  # c, d, e, f; b is a over again
    database.delete(["a"])
    assert summary(database).top1.mean == pytest.approx((91 + 92 + 94 + 96 + 98) / 5)


def test_a_seed_that_finished_did_not_fail(database):
    for number, (seed, status) in enumerate(
        [(1, "failed"), (1, "finished"), (2, "failed"), (2, "failed"), (3, "failed"), (3, "diverged"),
         (4, "diverged"), (4, "diverged"), (None, "failed"), (None, "failed")]
    ):  # fmt: skip
        database.put(run(f"r{number}", seed=seed, status=status))
    found = summary(database)
    assert (found.runs, found.diverged, found.failed) == (1, 2, 3)


def test_a_net_that_does_not_classify_is_known_by_its_test_loss(database):
    """The best measurement is the first with the lowest test loss; the outputs are those there."""
    for seed, losses in ((1, [3.0, 1.0, 1.0]), (2, [2.0, None, 1.5])):
        rows = [
            at(
                100 * (i + 1),
                None,
                test_loss=loss,
                ld=float(i),
                outputs={"l2": 10.0 * seed + i, "sum": 1.0},
            )
            for i, loss in enumerate(losses)
        ]
        del rows[0].outputs["sum"]
        if seed == 2:
            del rows[2].outputs["sum"]
        database.put(run(f"s{seed}", seed=seed, measurements=rows))
    found = summary(database)
    assert found.top1 is None
    assert found.test_loss == Spread(1.25, 0.25)  # 1.0 and 1.5
    assert found.iterations == Spread(250.0, 50.0)  # 200 and 300
    assert found.ld == Spread(1.5, 0.5)
    assert found.outputs == {
        "l2": Spread(16.5, 5.5),
        "sum": Spread(1.0, None),
    }  # 11 and 22; one run has sum
    assert found.outputs["sum"].n == 1
    assert [m.outputs for m in database.get("s1").measurements] == [
        {"l2": 10.0}, {"l2": 11.0, "sum": 1.0}, {"l2": 12.0, "sum": 1.0}
    ]  # fmt: skip


def test_a_net_without_top1_and_loss_is_known_by_its_last_outputs(database):
    rows = [
        at(100 * i, None, test_loss=None, outputs={"detection_eval": 0.1 * i}) for i in (1, 3, 2)
    ]
    database.put(run("a", measurements=rows))
    (found,) = database.summaries(task_id(database))
    assert found.outputs == {"detection_eval": Spread(pytest.approx(0.3), None)}
    assert (found.top1, found.test_loss) == (None, None)


def test_the_last_outputs_are_those_of_the_last_test_that_has_any(database):
    values = (0.5, 0.25, float("nan"))
    rows = [
        at(100 * i, None, test_loss=None, ld=None, outputs={"mAP": value})
        for i, value in enumerate(values, start=1)
    ]
    database.put(run("a", measurements=rows))
    (found,) = database.summaries(task_id(database))
    assert (found.iterations, found.outputs) == (
        Spread(200.0, None),
        {"mAP": Spread(0.25, None)},
    )


def test_the_test_loss_and_the_outputs_of_a_classifier_are_those_at_its_best_top1(database):
    rows = [at(100, 95.0, test_loss=0.5, outputs={"loss": 0.5}), at(200, 94.0, test_loss=0.1)]
    database.put(run("a", measurements=rows))
    found = summary(database)
    assert (found.test_loss, found.outputs) == (Spread(0.5, None), {"loss": Spread(0.5, None)})


def test_policies_of_a_net_that_does_not_classify_are_ordered_by_test_loss(database):
    for text, loss in (
        ("FIX(k0=0.1)", 0.5),
        ("FIX(k0=0.2)", 0.25),
        ("FIX(k0=0.3)", None),
        ("FIX(k0=0.4)", 1),
    ):
        policy = records.policy(text)
        database.put(
            run(
                text,
                policy=policy,
                measurements=[at(100, None, test_loss=loss), at(200, None, test_loss=2)],
            )
        )
    losses = [s.test_loss.mean for s in database.summaries(task_id(database), order_by="test_loss")]
    assert losses == [0.25, 0.5, 1.0, 2.0]
    best = database.summaries(task_id(database), order_by="test_loss", limit=1)
    assert [s.policy.text for s in best] == ["FIX(k0=0.2)"]
    reached = database.iterations_to_loss(task_id(database), 0.5)
    by_id = {s.id: s.policy.text for s in database.summaries(task_id(database))}
    assert {by_id[key]: value.iterations for key, value in reached.items()} == {
        "FIX(k0=0.1)": 100.0, "FIX(k0=0.2)": 100.0
    }  # fmt: skip


def test_outputs_that_are_not_finite_are_left_out_and_others_take_their_place(database):
    database.put(
        run("a", measurements=[at(100, 90.0, outputs={"a": math.nan, "b": np.float32(0.5)})])
    )
    assert database.get("a").measurements[0].outputs == {"b": 0.5}
    database.add_measurements("a", [at(100, 90.0, outputs={"c": 2})])
    assert database.get("a").measurements[0].outputs == {"c": 2.0}
    assert summary(database).outputs == {"c": Spread(2.0, None)}


def test_a_record_of_before_the_outputs_is_no_conflict(database):
    database.put(run("a", measurements=[at(100, 90.0, outputs={"a": 1.0})]))
    assert database.put(run("a", measurements=[at(100, 90.0)])) is False
    with pytest.raises(ConflictError, match="measurement at iteration 100 differs"):
        database.put(run("a", measurements=[at(100, 90.0, outputs={"a": 2.0})]))


def fill(database: Database) -> None:
    """FIX: three policies with Top-1 97, 95, none; SIN2: 96; TRI: 94."""
    for number, (text, top1, ld) in enumerate(
        [
            ("FIX(k0=0.1)", 97.0, 0.5),
            ("FIX(k0=0.2)", 95.0, 0.1),
            ("FIX(k0=0.3)", None, None),
            ("SIN2(k0=0.01, k1=0.06, l=2000)", 96.0, 0.3),
            ("TRI(k0=0.01, k1=0.06, l=2000)", 94.0, 0.2),
        ]
    ):
        database.put(
            run(
                f"r{number}",
                policy=records.policy(text),
                measurements=[at(100 * (number + 1), top1, ld=ld)],
            )
        )


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [97.0, 96.0, 95.0, 94.0, None]),
        ({"limit": 2}, [97.0, 96.0]),
        ({"order_by": "ld"}, [95.0, 94.0, 96.0, 97.0, None]),
        ({"order_by": "iterations"}, [97.0, 95.0, None, 96.0, 94.0]),  # None: at its lowest loss
        ({"order_by": "num_params", "limit": 3}, [97.0, 95.0, None]),
        ({"functions": ["fix"]}, [97.0, 95.0, None]),
        ({"functions": ["TRI", "FIX"], "limit": 2}, [97.0, 95.0]),
        ({"functions": ["TRI", "FIX"], "order_by": "ld"}, [95.0, 94.0, 97.0, None]),
        ({"functions": ["COS"]}, []),
        ({"functions": []}, []),
        ({"sources": ["paper"]}, []),
        ({"sources": ["measured"], "limit": 1}, [97.0]),
    ],
)
def test_the_best_come_first_and_what_was_not_measured_last(database, options, expected):
    fill(database)
    found = database.summaries(task_id(database), **options)
    assert [s.top1 and s.top1.mean for s in found] == expected


def test_an_order_that_there_is_not_is_refused(database):
    with pytest.raises(InputError, match="order_by: 'colour'; allowed: iterations, top1"):
        database.summaries(1, order_by="colour")


def test_iterations_to_a_top1(database):
    database.put(run("a", measurements=[at(100, 90.0), at(200, 95.0)]))
    database.put(run("b", seed=2, measurements=[at(100, 95.0), at(200, 91.0)]))
    database.put(run("c", seed=3, measurements=[at(100, 80.0)]))
    database.put(run("d", seed=4, status="diverged", measurements=[at(50, 96.0)]))
    database.put(run("e", policy=records.policy("FIX(k0=0.1)"), measurements=[at(300, 95.0)]))
    found = {s.policy.function: s for s in database.summaries(task_id(database))}
    reached = database.iterations_to_top1(task_id(database), 95.0)
    assert reached.keys() == {found["SIN2"].id, found["FIX"].id}
    sin2 = reached[found["SIN2"].id]
    assert (sin2.iterations, sin2.runs, sin2.of) == (150.0, 2, 3)  # a at 200, b at 100; c never
    assert database.iterations_to_top1(task_id(database), 95.0, [found["FIX"]]).keys() == {
        found["FIX"].id
    }
    assert database.iterations_to_top1(task_id(database), 99.0) == {}


# -- looking for runs, deleting --------------------------------------------------------------------


def test_what_a_start_has_by_itself_is_its_test_before_the_first_update(database):
    """Of a snapshot at iteration 100 that is the test at 100; of the first test net, over all runs."""
    weights, other = Start("weights", "a" * 32, 4, 4), Start("weights", "b" * 32, 4, 4)
    snapshot = Start("snapshot", "c" * 32, iteration=100)
    tests = [at(0, 94.0, test_loss=0.5), at(0, 1.0, net=1), at(100, 90.0, test_loss=0.7)]
    database.put(run("a", start=weights, measurements=tests))
    database.put(run("b", seed=2, start=weights, measurements=[at(0, 95.0, test_loss=0.3)]))
    database.put(run("c", start=snapshot, measurements=tests))
    database.put(run("d", start=other, measurements=tests[2:]))
    task = next(task for task in database.tasks() if weights in database.starts(task.id))
    found = [
        (database.untrained_top1(task.id, s), database.untrained_loss(task.id, s))
        for s in (weights, snapshot)
    ]
    assert found == [(94.5, pytest.approx(0.4)), (90.0, 0.7)]
    assert database.untrained_top1(task.id, other) is None


def test_runs_are_found_by_what_they_are(database):
    fill(database)
    database.put(run("z", status="failed", reason="x", source="imported"))

    def uids(**filters):
        return [record.uid for record in database.runs(**filters)]

    mine = {"task_id": task_id(database)}
    assert uids(**mine) == ["z", "r4", "r3", "r2", "r1", "r0"]
    assert uids(**mine, limit=2) == ["z", "r4"]
    assert uids(function="fix", **mine) == ["r2", "r1", "r0"]
    assert uids(status="failed") == ["z"]
    assert uids(source="imported") == ["z"]
    assert uids(uid="r1") == ["r1"]
    assert uids(limit=0) == []


def test_runs_come_with_measurements_only_where_asked_for(database):
    database.put(run("a"))
    assert next(database.runs(uid="a")).measurements == []
    assert next(database.runs(uid="a", measurements=True)).measurements == run("a").measurements


def test_many_runs_come_page_by_page(database, monkeypatch):
    monkeypatch.setattr("lrbench_caffe.database.store.PAGE", 3)
    names = [f"r{number:02}" for number in range(10)]
    database.put_many([run(name) for name in names])
    mine = {"task_id": task_id(database)}
    assert [r.uid for r in database.runs(**mine)] == names[::-1]
    assert [r.uid for r in database.runs(**mine, limit=7)] == names[:2:-1]
    assert [r.uid for r in database.export() if r.source == "measured"] == names
    assert database.delete(names) == 10


def test_uids_can_be_cut_short(database):
    for uid in ("ab1", "ab2", "abc", "a%b", "ab"):
        database.put(run(uid))
    assert database.uids("ab1") == ["ab1"]
    assert database.uids("ab", limit=9) == ["ab"]
    assert database.uids("a%") == ["a%b"]
    assert database.uids("zz") == []


def test_uids_differ_by_case(database):
    for uid in ("Xbc", "xbd", "xB"):
        database.put(run(uid))
    assert database.uids("XB") == []
    assert database.uids("xB") == ["xB"]
    assert database.uids("X") == ["Xbc"]
    assert database.uids("x", limit=9) == ["xB", "xbd"]


def test_a_number_that_no_row_can_have_is_no_damage(database):
    """PostgreSQL compares numbers of any size; SQLite takes 64 bits."""
    if database.path is None:
        assert list(database.runs(task_id=2**63)) == []
        return
    with pytest.raises(InputError, match=r"^a number is too large for the database; allowed: -2\*"):
        list(database.runs(task_id=2**63))
    assert list(database.runs(task_id=2**63 - 1)) == []


def test_deleting_leaves_nothing_of_a_run_and_all_of_the_others(database):
    before = database.counts(), list(database.export())
    database.put(run("a"))
    database.put(
        run("b", policy=records.policy("FIX(k0=0.1)"), framework=Framework("Caffe", "2", "GPU"))
    )
    assert database.delete(["a", "nobody"]) == 1
    assert [s.policy.text for s in database.summaries(task_id(database))] == ["FIX(k0=0.1)"]
    assert database.get("b").measurements == run("b").measurements
    assert database.delete(["b"]) == 1
    assert (database.counts(), list(database.export())) == before
    assert database.find_task(TASK) is None


def test_deleting_a_seed_leaves_the_mean_of_the_others(database):
    for seed, top in ((1, 90.0), (2, 92.0), (3, 97.0)):
        database.put(run(f"s{seed}", seed=seed, measurements=[at(100, top)]))
    database.delete(["s3"])
    assert summary(database).top1 == Spread(91.0, 1.0)


# -- opening ---------------------------------------------------------------------------------------


def test_a_new_database_knows_the_papers_results_once(new_url, kind):
    url = new_url(kind, empty=True)
    expected = sorted(record.uid for record in paper_records())
    for _ in range(2):
        with Database.open(url) as database:
            assert sorted(record.uid for record in database.runs(source="paper")) == expected


def test_a_corrected_row_of_the_paper_replaces_the_old_one(url, monkeypatch):
    first = next(paper_records())
    corrected = dataclasses.replace(first, seed=7, measurements=[])
    monkeypatch.setattr("lrbench_caffe.database.preparing.paper_records", lambda: iter([corrected]))
    monkeypatch.setattr("lrbench_caffe.database.preparing.EDITION", 99)
    with Database.open(url) as database:
        assert database.get(first.uid) == corrected
        assert database.counts()["run"] == len(list(database.runs(source="paper")))
        database.delete([first.uid])
    with Database.open(url) as database:
        # Deleted by hand, it stays away until there is another edition.
        assert database.uids(first.uid) == []
    monkeypatch.undo()
    with Database.open(url) as database:
        # An older program on the same database undoes nothing.
        assert database.uids(first.uid) == []


def test_the_edition_goes_up_with_the_tables():
    """Where this fails: EDITION one higher, CONTENT what is found here."""
    digest = hashlib.sha256()
    for file in sorted(path for path in paper.FOLDER.iterdir() if path.suffix in (".csv", ".json")):
        digest.update(file.read_bytes())
    assert digest.hexdigest()[:32] == paper.CONTENT


def test_the_same_run_with_other_content_is_a_conflict(database):
    database.put(run("a"))
    database.put(run("b", layers="fast", head="ip2"))
    for other in (
        run("a", status="failed"),
        run("a", measurements=[at(100, 91.0)]),
        run("a", test_interval=50),
        run("b", layers="stock"),
        run("b", head="ip1"),
    ):
        with pytest.raises(
            ConflictError, match="uid: '[ab]' is in the database with other content: its "
        ):
            database.put(other)
    assert database.put(run("a", measurements=[at(100, 90.0)])) is False  # less of the same
    assert (
        database.put(run("a", ended=1.0, measurements=[at(100, 91.0)])) is False
    )  # an earlier state
    assert database.get("a") == run("a")


def test_what_an_older_version_did_not_record_is_added(database):
    tests = [at(100, 90.0, outputs={"accuracy": 0.9}), at(200, 95.0)]
    whole = run("a", measurements=tests, layers="fast", head="ip2")
    bare = [dataclasses.replace(m, outputs={}) for m in tests]
    old = dataclasses.replace(whole, measurements=bare, layers=None, head=None, epoch=None)
    database.put(old)
    assert database.put(whole) is True
    assert database.get("a") == whole
    for one in (old, whole):
        assert database.put(one) is False
        assert database.get("a") == whole


def test_a_test_that_was_done_again_may_have_taken_longer(database):
    database.put(run("a", measurements=[at(100, 90.0, seconds=1.5)]))
    assert database.put(run("a", measurements=[at(100, 90.0, seconds=2.5)])) is False


def test_a_reason_of_several_lines_becomes_one(database):
    database.put(run("a", status="failed", reason="Check failed:\nx"))
    assert database.get("a").reason == "Check failed: x"


def test_a_value_that_only_the_database_refuses_is_a_record_error(database, monkeypatch):
    monkeypatch.setattr("lrbench_caffe.database.store.checked_run", lambda record: record)
    with pytest.raises(RecordError):
        database.put(run("refused", max_iter=-5))
    assert database.uids("refused") == []


def test_it_can_be_used_by_two_at_a_time(url, database):
    with Database.open(url) as second:
        iterator = second.runs()
        next(iterator)
        database.put(run("a"))
        second.put(run("b"))
        assert database.get("b") == run("b")
        assert second.get("a") == run("a")
        list(iterator)
