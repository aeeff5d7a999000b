"""Trainings and the LR database: recorded as they go, brought in later, and asked for policies."""

from __future__ import annotations

import hashlib
import shutil
import signal
import socket
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from lrbench_caffe.database import Database
from lrbench_caffe.metrics import Measurement
from lrbench_caffe.records import Contribution, RunRecord, Start
from tests.caffe import nets
from tests.caffe.harness import Run, Workspace, assert_same_weights

POLICY = "SIN2(k0=0.01, k1=0.06, l=50)"
AWAY = "postgresql://somebody:secret-word@127.0.0.1:1/lr"  # nothing listens on port 1


def measured(path: Path) -> list[RunRecord]:
    """The runs in a database that were measured here."""
    with Database.open(str(path)) as database:
        return [r for r in database.runs(measurements=True) if r.source == "measured"]


def of_file(run: Run) -> list[Measurement]:
    return [Measurement.from_json(row) for row in run.measurements()]


def test_a_training_is_recorded(workspace: Workspace) -> None:
    workspace.train(
        "solver.prototxt", "--lr", POLICY, "--out", "out", "--db", "lr.sqlite"
    ).succeeded()
    (record,) = measured(workspace.path / "lr.sqlite")
    assert record.status == "finished"
    assert record.reason is None
    assert record.policy.text == POLICY
    assert record.policy.num_params == 3
    assert record.seed == 7
    assert (record.max_iter, record.test_interval) == (100, 50)
    # 1,297 digits in batches of 20; 64 x 16 + 16 + 16 x 10 + 10 parameters in two inner products.
    assert record.epoch == pytest.approx(1297 / 20)
    assert (record.network.parameters, record.network.depth) == (1210, 2)
    data = record.dataset
    assert (data.channels, data.height, data.width, data.classes) == (1, 8, 8, 10)
    assert (data.train_samples, data.test_samples) == (1297, 500)
    assert (record.framework.name, record.framework.device) == ("Caffe", "CPU")
    assert (record.solver.type, record.solver.batch, record.solver.weight_decay) == (
        "SGD",
        20,
        0.0005,
    )
    assert record.measurements == of_file(workspace.run("out"))
    assert [m.iteration for m in record.measurements] == [0, 50, 100]


def test_a_training_of_no_iterations_is_not_recorded(workspace: Workspace) -> None:
    """Caffe takes a solver without max_iter, and tests the net it begins with."""
    workspace.write("none.prototxt", nets.solver(max_iter=None))
    done = workspace.train("none.prototxt", "--out", "out", "--db", "lr.sqlite").succeeded()
    assert "nothing is recorded" in done.out
    assert "wait" not in done.out + done.err
    assert [row["iteration"] for row in workspace.run("out").measurements()] == [0]
    assert measured(workspace.path / "lr.sqlite") == []


def test_a_record_says_what_the_training_began_with_whatever_becomes_of_the_files(
    workspace: Workspace,
) -> None:
    """A run of each start, and two that are resumed after their files were changed."""
    database = ("--db", "lr.sqlite", "--layers", "stock")
    workspace.train(
        "solver.prototxt", "--out", "scratch", "--max-iter", "40", *database
    ).succeeded()
    kept = workspace.run("scratch").path / "snapshots"
    model, state = kept / "tiny_iter_40.caffemodel", kept / "tiny_iter_40.solverstate"
    given = workspace.path / "given.caffemodel"
    shutil.copy(model, given)
    digest = hashlib.sha256(given.read_bytes()).hexdigest()[:32]
    tuned = ("solver.prototxt", "--weights", "given.caffemodel", "--out", "tuned", *database)
    workspace.train(*tuned, "--max-iter", "60", "--until", "30").succeeded()
    from_state = (
        "--snapshot",
        str(state),
        "--out",
        "continued",
        "--max-iter",
        "80",
        "--until",
        "60",
    )
    workspace.train("solver.prototxt", *from_state, *database).succeeded()
    given.unlink()
    model.write_bytes(b"something else")
    for out in ("tuned", "continued"):
        workspace.train("solver.prototxt", "--resume", "--out", out, *database).succeeded()
    found = {Path(record.origin).name: record for record in measured(workspace.path / "lr.sqlite")}
    assert {record.status for record in found.values()} == {"finished"}
    assert {record.layers for record in found.values()} == {"stock"}
    assert found["scratch"].start == Start("scratch")
    assert found["tuned"].start == Start("weights", digest, 2, 2)  # two inner products
    assert found["tuned"].start.name == "given.caffemodel"
    start = found["continued"].start
    assert (start.kind, start.iteration, start.name) == ("snapshot", 40, state.name)
    assert start.known
    with Database.open(str(workspace.path / "lr.sqlite")) as opened:
        task = next(task for task in opened.tasks() if task.dataset == found["scratch"].dataset)
        assert task.id is not None
        assert len(opened.summaries(task.id)) == 3


def test_a_solver_edited_before_resume_does_not_make_another_run(workspace: Workspace) -> None:
    """base_lr is the run's own: the edit has no effect on the training, nor on its record."""
    policy = ("--lr", "FIX(k0=0.05)", "--db", "lr.sqlite")
    workspace.train("solver.prototxt", *policy, "--until", "50", "--out", "runs/a").succeeded()
    (before,) = measured(workspace.path / "lr.sqlite")
    text = (workspace.path / "solver.prototxt").read_text()
    assert "base_lr: 0.05" in text
    workspace.write("solver.prototxt", text.replace("base_lr: 0.05", "base_lr: 0.005"))
    done = workspace.train(
        "solver.prototxt", "--resume", "--out", "runs/a", "--db", "lr.sqlite"
    ).succeeded()
    assert "has no effect on a resumed run" in done.out
    (after,) = measured(workspace.path / "lr.sqlite")
    assert (after.uid, after.status, after.solver) == (before.uid, "finished", before.solver)
    assert after.solver.base_lr == 0.05
    assert "0 new or completed, 1 already there" in sync(workspace)
    record = workspace.run("runs/a").record
    assert record["status"] == "finished"
    assert "status" not in record["record"]


def test_the_seed_is_recorded_as_caffe_takes_it(workspace: Workspace) -> None:
    """Its low 32 bits: ``caffe train`` makes the same weights of 1 and of 2^32 + 1, and so do we."""
    for name, seed in (("one", 1), ("long", 2**32 + 1)):
        workspace.write(
            f"{name}.prototxt", nets.solver(random_seed=seed, snapshot_prefix=f'"{name}"')
        )
        workspace.caffe("train", f"--solver={name}.prototxt").succeeded()
        ours = ("--layers", "stock", "--out", f"ours-{name}", "--db", "lr.sqlite")
        workspace.train(f"{name}.prototxt", *ours).succeeded()
        theirs = workspace.path / f"{name}_iter_100.caffemodel"
        assert_same_weights(theirs, workspace.path / "one_iter_100.caffemodel")
        assert_same_weights(workspace.run(f"ours-{name}").model(100), theirs)
    assert [record.seed for record in measured(workspace.path / "lr.sqlite")] == [1, 1]


def test_the_solvers_own_policy_is_recorded_as_it_was_written(workspace: Workspace) -> None:
    workspace.train("solver.prototxt", "--out", "out", "--db", "lr.sqlite").succeeded()
    (record,) = measured(workspace.path / "lr.sqlite")
    assert record.policy.text == "INV(k0=0.05, gamma=0.01, p=0.75)"


def test_without_the_database(workspace: Workspace) -> None:
    command = ("solver.prototxt", "--lr", POLICY, "--out", "out", "--db", "lr.sqlite", "--no-db")
    workspace.train(*command).succeeded()
    assert not (workspace.path / "lr.sqlite").exists()


@pytest.mark.ci
def test_a_stopped_and_resumed_training_is_one_run(workspace: Workspace) -> None:
    workspace.write("long.prototxt", nets.solver(max_iter=20_000, test_interval=1000, display=0))
    with workspace.training("long.prototxt", "--db", "lr.sqlite", out="out") as training:
        training.wait_for_test(1000)
        training.send(signal.SIGINT)
        assert training.finish().code == 0
    (record,) = measured(workspace.path / "lr.sqlite")
    assert record.status == "stopped"
    workspace.train("--resume", "--out", "out", "--db", "lr.sqlite").succeeded()
    (again,) = measured(workspace.path / "lr.sqlite")
    assert again.uid == record.uid
    assert again.status == "finished"
    assert [m.iteration for m in again.measurements] == list(range(0, 20_001, 1000))


def test_a_killed_training_is_brought_in_by_sync(workspace: Workspace) -> None:
    workspace.write("long.prototxt", nets.solver(max_iter=10_000_000, test_interval=500, display=0))
    with workspace.training("long.prototxt", "--db", AWAY, out="runs/killed") as training:
        training.wait_for_test(500)
        training.send(signal.SIGKILL)
        training.finish()
    sync(workspace)
    (record,) = measured(workspace.path / "lr.sqlite")
    assert record.status == "failed"
    assert record.reason
    assert record.measurements == of_file(workspace.run("runs/killed"))


def test_a_diverged_training_is_recorded_with_its_reason(workspace: Workspace) -> None:
    done = workspace.train(
        "solver.prototxt", "--lr", "FIX(k0=1e6)", "--out", "out", "--db", "lr.sqlite"
    )
    done.failed(1, "diverged")
    (record,) = measured(workspace.path / "lr.sqlite")
    assert record.status == "diverged"
    assert record.reason and record.reason in done.err


def sync(workspace: Workspace) -> str:
    command = [sys.executable, "-m", "lrbench_caffe.db", "sync", "--db", "lr.sqlite"]
    return workspace.command(command).succeeded().out


@pytest.mark.ci
def test_a_database_out_of_reach_stops_nothing_and_is_told_later_once(workspace: Workspace) -> None:
    done = workspace.train(
        "solver.prototxt", "--lr", POLICY, "--out", "runs/a", "--db", AWAY
    ).succeeded()
    assert done.out.count("the results wait in") == 1
    assert "db sync" in done.out
    run = workspace.run("runs/a")
    assert len(run.measurements()) == 3
    sync(workspace)
    (record,) = measured(workspace.path / "lr.sqlite")
    assert record.status == "finished"
    assert record.measurements == of_file(run)
    sync(workspace)
    assert measured(workspace.path / "lr.sqlite") == [record]


def test_the_password_is_nowhere(workspace: Workspace) -> None:
    done = workspace.train(
        "solver.prototxt", "--lr", POLICY, "--out", "runs/a", "--db", AWAY
    ).succeeded()
    assert "secret-word" not in done.out + done.err
    written = [path.read_bytes() for path in (workspace.path / "runs").rglob("*") if path.is_file()]
    assert written
    assert not any(b"secret-word" in content for content in written)


def test_a_wrong_url_is_bad_input(workspace: Workspace) -> None:
    done = workspace.train(
        "solver.prototxt", "--lr", POLICY, "--out", "out", "--db", "mysql://host/lr"
    )
    done.failed(2, "mysql", "allowed")


@pytest.mark.ci
def test_auto_and_a_bare_name_take_what_the_database_knows(workspace: Workspace) -> None:
    """A new database knows the paper's results: the most similar task is LeNet on MNIST."""
    workspace.write("long.prototxt", nets.solver(max_iter=1000, test_interval=1000))
    command = ("long.prototxt", "--db", "lr.sqlite")
    done = workspace.train(*command, "--lr", "auto", "--out", "auto").succeeded()
    assert "Table VII" in done.out
    assert "similar task" in done.out
    assert workspace.run("auto").record["policy_from"] == "the LR database"
    done = workspace.train(
        *command, "--lr", "triexp", "--k0", "0.002", "--out", "triexp"
    ).succeeded()
    policy = workspace.run("triexp").record["policy"]
    assert policy.startswith("TRIEXP(k0=0.002, ")
    assert "k1 = " in done.out
    assert "the LR database" in done.out
    known = ("long.prototxt", "--db", "known.sqlite", "--seed", "1")
    workspace.train(*known, "--lr", "DSIN(k0=0.01, k1=0.05, l=100)", "--out", "known").succeeded()
    done = workspace.train(*known, "--lr", "dsin", "--preview").succeeded()
    assert "expected: Top-1" in done.out
    done = workspace.train(*known, "--lr", "dsin", "--k1", "0.04", "--preview").succeeded()
    assert "expected Top-1: not known, since the policy is adapted" in done.out
    assert "as given: k1=0.04" in done.out


@pytest.mark.ci
def test_auto_and_a_bare_name_use_only_the_results_of_chosen_contributors(
    workspace: Workspace,
) -> None:
    workspace.write("long.prototxt", nets.solver(max_iter=1000, test_interval=1000))
    known = ("long.prototxt", "--db", "known.sqlite", "--seed", "1")
    policies = {"own": "DSIN(k0=0.01, k1=0.05, l=100)", "ada": "DSIN(k0=0.02, k1=0.03, l=200)"}
    for name, policy in policies.items():
        workspace.train(*known, "--lr", policy, "--out", name).succeeded()
    file = workspace.path / "known.sqlite"
    (record,) = (r for r in measured(file) if r.policy.text == policies["ada"])
    with Database.open(str(file)) as database:
        database.delete([record.uid])
        database.put(replace(record, contribution=Contribution("b", "ada", None, None, 5.0)))
    for name, policy in policies.items():
        for wanted in ("auto", "dsin"):
            done = workspace.train(*known, "--lr", wanted, "--contributors", name, "--preview")
            assert f"LR policy: {policy} " in done.succeeded().out, (name, wanted)
    for wanted in ("auto", "dsin"):
        done = workspace.train(*known, "--lr", wanted, "--contributors", "adda")
        done.failed(2, "--contributors: 'adda' has contributed nothing; did you mean 'ada'?")
    done = workspace.train(
        *known, "--lr", "upcos", "--contributors", "ada", "--preview"
    ).succeeded()
    assert "no result of ada with UPCOS" in done.out
    for others in (("--lr", POLICY), (), ("--lr", "sin2", "--no-db")):
        done = workspace.train("long.prototxt", *others, "--contributors", "ada")
        done.failed(2, "--contributors: ada: the LR database is not asked")


@pytest.mark.ci
def test_rules_where_the_database_knows_nothing_or_is_away(workspace: Workspace) -> None:
    done = workspace.train(
        "solver.prototxt", "--lr", "upcos", "--out", "a", "--db", "lr.sqlite"
    ).succeeded()
    assert "no result with UPCOS" in done.out
    assert "6 x base_lr" in done.out
    done = workspace.train(
        "solver.prototxt", "--lr", "sin2", "--out", "b", "--db", AWAY
    ).succeeded()
    assert "simple rules" in done.out
    done = workspace.train("solver.prototxt", "--lr", "sin2", "--out", "c", "--no-db").succeeded()
    assert "6 x base_lr" in done.out


def test_auto_without_a_database(workspace: Workspace) -> None:
    workspace.train("solver.prototxt", "--lr", "auto", "--no-db").failed(2, "--no-db")
    workspace.train("solver.prototxt", "--lr", "auto", "--db", AWAY).failed(1, "127.0.0.1")
    workspace.train("solver.prototxt", "--lr", "auto", "--k0", "0.1").failed(2, "--k0", "auto")
    assert not (workspace.path / "runs").exists()


@pytest.mark.ci
def test_a_database_that_hangs_holds_nothing_up(workspace: Workspace) -> None:
    """A server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"postgresql://somebody@127.0.0.1:{server.getsockname()[1]}/lr"
        with workspace.training(
            "solver.prototxt", "--lr", POLICY, "--db", url, out="out"
        ) as training:
            training.wait_for_test(100)
            assert workspace.run("out").iterations()[99]
            done = training.finish().succeeded()
    assert "db sync" in done.out
    assert workspace.run("out").record["status"] == "finished"


def test_the_policy_is_recorded_to_the_last_digit(workspace: Workspace) -> None:
    policy = "SINEXP(k0=0.01, k1=0.06, gamma=0.99999996, l=50)"
    workspace.train(
        "solver.prototxt", "--lr", policy, "--out", "out", "--db", "lr.sqlite"
    ).succeeded()
    assert measured(workspace.path / "lr.sqlite")[0].policy.text == policy
