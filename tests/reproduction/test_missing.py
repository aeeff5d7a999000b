"""What is missing of a plan, and how long it takes: by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from lrbench_caffe.database import Database
from lrbench_caffe.errors import InputError, TrainingError
from lrbench_caffe.reproduction.missing import (
    Options,
    check_files,
    known_runs,
    missing,
    provide_files,
)
from lrbench_caffe.reproduction.plan import LENET, plan, scale, select
from lrbench_caffe.reproduction.runner import seconds_of, unique
from lrbench_caffe.reproduction.speed import Prober, Speed
from tests.reproduction.runs import measured, run

ROOT = Path(__file__).resolve().parents[2]
VII = plan("table7")
OPTIONS = Options(Path("out"), "sqlite:///x.sqlite", ("--layers", "auto"))


def wanted(of, records=(), options=OPTIONS):
    return missing(of, of.rows, records, options)


def names(items) -> list[tuple[str, int]]:
    return [(item.row.key, item.training.seed) for item in items]


def test_seed_by_seed():
    assert names(wanted(select(VII, "inv,sin2")))[:3] == [("INV", 1), ("SIN2", 1), ("INV", 2)]
    assert len(wanted(VII)) == 10 * 5


def test_what_finished_or_diverged_is_there():
    of = select(VII, "inv,sin2")
    records = [
        run(of, of.row("INV").trained, 1, [measured(10_000, 99.0)]),
        run(of, of.row("SIN2").trained, 1, [measured(0, 10.0)], status="diverged"),
        run(of, of.row("INV").trained, 2, [measured(500, 98.0)], status="failed"),
        run(of, of.row("SIN2").trained, 2, [measured(500, 98.0)], status="stopped"),
        run(of, of.row("INV").trained, 3, [measured(0, 10.0)], status="running"),
        run(of, of.row("INV").trained, 4, [measured(5000, 99.0)], max_iter=5000),
    ]
    assert names(wanted(of, records))[:4] == [("INV", 2), ("SIN2", 2), ("INV", 3), ("SIN2", 3)]
    assert ("INV", 4) in names(wanted(of, records))


def test_a_training_is_what_the_plan_says():
    item = wanted(VII)[1]
    training = item.training
    assert (training.solver, training.seed, training.retry) == (LENET.solver, 1, True)
    assert training.policy == "INV(k0=0.01, gamma=0.0001, p=0.75)"
    assert (training.max_iter, training.test_interval, training.until) == (10_000, 500, None)
    assert training.out.startswith("out/lenet_mnist-10000-500/inv-")
    assert (item.end, item.left) == (10_000, 10_000)


def test_scales_have_folders_of_their_own_and_parts_have_not():
    whole = {item.training.out for item in wanted(VII)}
    assert whole.isdisjoint(item.training.out for item in wanted(scale(VII, 0.1)))
    parts = wanted(VII, options=Options(Path("out"), "", until=200))
    assert whole == {item.training.out for item in parts}  # the whole training goes on from there
    assert {item.left for item in parts} == {200}


def test_what_two_plans_want_is_trained_once():
    figure5, table6, table8 = (
        wanted(plan("figure5")),
        wanted(plan("table6")),
        wanted(plan("table8")),
    )
    assert len(figure5) == 1 and figure5[0].training in {item.training for item in table6}
    both = unique([figure5, table6, table8])
    # Table VI: 3 rows; Table VIII: 11, of which NSTEP is in Table VI.
    assert len(both) == 5 * (3 + len(plan("table8").rows) - 1)
    assert both[0].plan.name == "figure5"


def test_what_a_run_has_already_is_not_counted(tmp_path):
    item = wanted(VII, options=Options(tmp_path, ""))[0]
    folder = Path(item.training.out)
    folder.mkdir(parents=True)
    (folder / "iterations.csv").write_text("iteration,lr,loss\n5998,0.01,0.1\n5999,0.01,0.1\n")
    assert item.left == 4000


def test_runs_of_the_database_count_wherever_they_were_trained(tmp_path, new_database):
    record = run(VII, VII.row("SIN2").trained, 1, [measured(10_000, 99.3)], uid="a" * 32)
    other = run(
        plan("table6"), plan("table6").rows[0].trained, 1, [measured(70_000, 80.0)], uid="b" * 32
    )
    with Database.open(new_database) as database:
        database.put_many([record, other])
        found = known_runs([VII], database, tmp_path / "none")
    assert [r.uid for r in found] == [record.uid]  # without the paper's
    assert ("SIN2", 1) not in names(wanted(VII, found))


def test_missing_files_are_named_with_what_makes_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        InputError, match=r"no such file: solvers/lenet_mnist_solver.prototxt; .*init \. writes"
    ):
        check_files(LENET)
    Path("solvers").mkdir()
    Path(LENET.solver).touch()
    for name in ("mnist_train_lmdb", "mnist_test_lmdb"):
        with pytest.raises(
            InputError, match=rf"no data: data/{name}; python -m lrbench_caffe.data mnist"
        ):
            check_files(LENET)
        Path("data", name).mkdir(parents=True)
    check_files(LENET)


def test_solver_and_net_are_written_where_they_are_missing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said: list[str] = []
    provide_files(LENET, said.append)
    net = "prototxt/lenet_mnist_train_test.prototxt"
    assert said == [f"written because they were missing: {net} and {LENET.solver}"]
    for name in (net, LENET.solver):
        assert Path(name).read_bytes() == (ROOT / name).read_bytes()
    Path(LENET.solver).write_text("mine")
    provide_files(LENET, said.append)
    assert len(said) == 1 and Path(LENET.solver).read_text() == "mine"


# -- time ------------------------------------------------------------------------------------------


def test_seconds():
    speed = Speed(iteration=0.02, test=1.5)
    assert speed.seconds(10_000, 500) == pytest.approx(
        200 + 21 * 1.5
    )  # tests at 0, 500, ..., 10,000
    assert speed.seconds(200, 250) == pytest.approx(4 + 1.5)
    assert seconds_of(wanted(VII)[:2], {"lenet_mnist": speed}) == {
        "lenet_mnist": pytest.approx(2 * 231.5)
    }


def test_nothing_is_measured_where_the_trainings_run_elsewhere():
    with pytest.raises(TrainingError, match="other machines"):
        Prober("auto", None, None, elsewhere=True).speeds([LENET])
    with pytest.raises(TrainingError, match="GPU-4f has no number"):
        Prober("auto", "GPU-4f,1", None, elsewhere=False).speeds([LENET])
