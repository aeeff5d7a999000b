"""In the place of `caffe train`: its flags, its signals, and files that go from one to the other."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from tests.caffe import nets
from tests.caffe.harness import Done, Run, Workspace, assert_same_weights, difference, weights

LONG = 100_000_000  # iterations that no test waits for


@pytest.fixture(scope="module")
def trained(shared_workspace: Workspace) -> tuple[Workspace, Run]:
    """100 iterations with a snapshot at 50, without --out."""
    shared_workspace.write(
        "solver.prototxt", nets.solver(snapshot=50, snapshot_prefix='"kept/tiny"')
    )
    shared_workspace.train("solver.prototxt").succeeded()
    run = (shared_workspace.path / "runs" / "latest").resolve()
    return shared_workspace, Run(run)


def test_snapshots_lie_at_the_solvers_snapshot_prefix(trained: tuple[Workspace, Run]) -> None:
    workspace, run = trained
    kept = sorted(path.name for path in (workspace.path / "kept").iterdir())
    assert kept == [
        "tiny_iter_100.caffemodel", "tiny_iter_100.solverstate",
        "tiny_iter_50.caffemodel", "tiny_iter_50.solverstate",
    ]  # fmt: skip
    assert_same_weights(workspace.path / "kept" / "tiny_iter_100.caffemodel", run.model(100))


def test_snapshot_starts_a_new_run_that_ends_as_the_old_one(trained: tuple[Workspace, Run]) -> None:
    workspace, run = trained
    state = "kept/tiny_iter_50.solverstate"
    done = workspace.train("solver.prototxt", "-snapshot", state, "--out", "again").succeeded()
    again = workspace.run("again")
    assert list(again.iterations()) == list(range(50, 100)), done.out
    assert_same_weights(again.model(100), run.model(100))
    assert again.measurements()[-1]["top1"] == run.measurements()[-1]["top1"]


@pytest.mark.parametrize("max_iter", [100, 50])
def test_a_snapshot_at_or_past_the_end_is_only_tested(
    trained: tuple[Workspace, Run], max_iter: int
) -> None:
    """As by Caffe, from which the expected lines come; its own layers, so that they are equal."""
    workspace, _ = trained
    workspace.write(
        "done.prototxt", nets.solver(max_iter=max_iter, snapshot=50, snapshot_prefix='"done"')
    )
    state = ("--snapshot", "kept/tiny_iter_100.solverstate")
    caffe = workspace.caffe("train", "--solver=done.prototxt", *state).succeeded()
    out = f"done{max_iter}"
    done = workspace.train(
        "done.prototxt", *state, "--out", out, "--db", f"{out}.sqlite", "--layers", "stock"
    ).succeeded()
    assert (
        f"is at iteration 100, max_iter is {max_iter}" in done.out
        and "nothing is recorded" in done.out
    )
    assert not (workspace.path / f"{out}.sqlite").exists()
    run = workspace.run(out)
    assert [row["iteration"] for row in run.measurements()] == [100]
    printed = re.compile(r"\] (Iteration 100, Testing.*|  +Test net output.*|Optimization Done\.)")
    theirs = printed.findall(caffe.err)[:-1]  # it says twice that it is done
    assert len(theirs) >= 3 and printed.findall(run.log.read_text()) == theirs


def test_caffe_train_goes_on_from_our_snapshot_as_from_its_own(
    trained: tuple[Workspace, Run],
) -> None:
    workspace, _ = trained
    solver = nets.solver(snapshot=50, snapshot_prefix='"theirs"')
    workspace.write("theirs.prototxt", solver)
    workspace.caffe("train", "--solver=theirs.prototxt").succeeded()
    models = []
    for state in ("kept/tiny_iter_50.solverstate", "theirs_iter_50.solverstate"):
        done = workspace.caffe(
            "train", "--solver=theirs.prototxt", f"--snapshot={state}"
        ).succeeded()
        assert "Iteration 50, lr = " in done.err
        model = workspace.path / "theirs_iter_100.caffemodel"
        models.append(model.rename(workspace.path / f"went_on_{len(models)}"))
    assert difference(*models) <= 1e-6


MULTISTEP = {"gamma": 0.5, "stepvalue": [10, 40, 49, 50, 70]}
# An epoch is 25 iterations: at iteration 50 Caffe's data stands at the first record, as after a
# start.
WHOLE_EPOCHS = nets.net(train=nets.data_layer("TRAIN", source="data/digits_test_lmdb"))


def displayed(done: Done) -> list[str]:
    """The iterations that Caffe has displayed, with their losses and LRs."""
    lines = (line.partition("] ")[2] for line in done.err.splitlines())
    # The speed stands in brackets.
    return [
        re.sub(r" \(.*\)", "", line)
        for line in lines
        if re.match(r"Iteration \d+.*(lr|loss) = ", line)
    ]


@pytest.mark.parametrize(
    ("policy", "flags"),
    [
        (nets.policy("multistep", **MULTISTEP, snapshot=50, display=1), ()),
        (nets.policy("step", gamma=0.5, stepsize=7, snapshot=50, display=1), ()),
        (nets.policy("multistep", **MULTISTEP, snapshot=50, display=1, snapshot_format="HDF5"), ()),
        # The LR of the solver's file is what `caffe train` continues with, whatever has trained
        # before.
        (nets.policy("multistep", **MULTISTEP, snapshot=50, display=1), ("--lr", "sin2")),
        (
            nets.policy("multistep", **MULTISTEP, snapshot=50, display=1),
            ("--set-lr-by", "gradients"),
        ),
    ],
    ids=["multistep", "step", "hdf5", "another policy", "gradients"],
)
def test_caffe_train_continues_a_policy_of_steps(
    workspace: Workspace, policy: str, flags: tuple[str, ...]
) -> None:
    workspace.write("net.prototxt", WHOLE_EPOCHS)
    workspace.write("solver.prototxt", policy)
    whole = workspace.caffe("train", "--solver=solver.prototxt").succeeded()
    workspace.train("solver.prototxt", *flags, "--out", "ours", "--max-iter", "60").succeeded()
    (state,) = (workspace.path / "ours" / "snapshots").glob("*_iter_50.solverstate*")
    done = workspace.caffe("train", "--solver=solver.prototxt", f"--snapshot={state}").succeeded()
    expected = [line for line in displayed(whole) if int(line.split()[1].rstrip(",")) >= 50]
    assert len(expected) >= 100
    if flags:
        assert [line for line in displayed(done) if "lr = " in line] == [
            line for line in expected if "lr = " in line
        ]
    else:
        assert displayed(done) == expected


@pytest.mark.parametrize(
    ("stepvalue", "steps", "rates"),
    [
        ([20, 55], 1, {50: 0.05, 54: 0.05, 55: 0.025}),
        ([55], 0, {50: 0.1, 54: 0.1, 55: 0.05}),
        ([10, 20, 30], 3, {50: 0.0125, 55: 0.0125}),
    ],
    ids=["added later", "postponed", "added before"],
)
def test_steps_are_those_of_the_solver_not_of_the_snapshot(
    workspace: Workspace, stepvalue: list[int], steps: int, rates: dict[int, float]
) -> None:
    """Caffe goes on from the snapshot's number (findings/caffe-multistep-counts-in-snapshot.sh)."""
    fields = {"gamma": 0.5, "base_lr": 0.1, "snapshot_prefix": '"steps"', "display": 1}
    workspace.write(
        "began.prototxt", nets.policy("multistep", stepvalue=[20], **fields, max_iter=50)
    )
    workspace.caffe("train", "--solver=began.prototxt").succeeded()
    solver = nets.policy("multistep", stepvalue=stepvalue, **fields, max_iter=60)
    workspace.write("went_on.prototxt", solver)
    flags = ("--snapshot=steps_iter_50.solverstate", "--out", "ours")
    done = workspace.train("went_on.prototxt", *flags).succeeded()
    log = workspace.run("ours").log.read_text()
    shown = {int(at): float(lr) for at, lr in re.findall(r"Iteration (\d+), lr = (\S+)", log)}
    assert {iteration: shown[iteration] for iteration in rates} == pytest.approx(rates)
    remark = f"at step 1 of multistep; iteration 50 is at step {steps} by this solver's stepvalues"
    assert (remark in done.out) == (steps != 1)


def test_we_go_on_from_caffes_snapshot(trained: tuple[Workspace, Run]) -> None:
    workspace, run = trained
    solver = nets.solver(max_iter=50, snapshot_prefix='"began"')
    # inv does not depend on max_iter, so this is the first half of the same training.
    workspace.caffe("train", "--solver=" + workspace.write("began.prototxt", solver)).succeeded()
    flags = ("--snapshot=began_iter_50.solverstate", "--out", "went_on")
    workspace.train("solver.prototxt", *flags).succeeded()
    assert difference(workspace.run("went_on").model(100), run.model(100)) <= 1e-6


@pytest.mark.slow
def test_hdf5_snapshots_as_well(workspace: Workspace) -> None:
    workspace.write("solver.prototxt", nets.solver(snapshot=50, snapshot_format="HDF5"))
    workspace.train("solver.prototxt").succeeded()
    run = (workspace.path / "runs" / "latest").resolve()
    last = Run(run).last_measurements()[100, 0]
    state = "tiny_iter_50.solverstate.h5"
    workspace.train("solver.prototxt", "--snapshot", state, "--out", "again").succeeded()
    assert workspace.run("again").last_measurements()[100, 0] == last
    (workspace.path / run / "snapshots" / "tiny_iter_100.solverstate.h5").unlink()
    assert (
        "resumed at iteration 50" in workspace.train("solver.prototxt", "--resume").succeeded().out
    )
    assert Run(run).last_measurements()[100, 0] == last
    workspace.caffe("train", "--solver=solver.prototxt", f"--snapshot={state}").succeeded()
    (workspace.path / state).write_bytes(b"no HDF5 file")
    workspace.train("solver.prototxt", "--snapshot", state, "--out", "no").failed(
        2, f"--snapshot: {state} cannot be read as HDF5"
    )


def test_weights_start_a_new_run(trained: tuple[Workspace, Run]) -> None:
    workspace, run = trained
    flags = ("--weights", "kept/tiny_iter_100.caffemodel", "--max-iter", "1", "--out", "tuned")
    workspace.train("solver.prototxt", *flags).succeeded()
    tuned = workspace.run("tuned").measurements()[0]
    assert tuned["iteration"] == 0
    assert tuned["top1"] == run.measurements()[-1]["top1"]


def test_a_resumed_run_may_be_made_longer(trained: tuple[Workspace, Run]) -> None:
    workspace, run = trained
    workspace.train("solver.prototxt", "--out", "longer", "--max-iter", "60").succeeded()
    workspace.train("--resume", "--out", "longer", "--max-iter", "100").succeeded()
    assert_same_weights(workspace.run("longer").model(100), run.model(100))


# What a resumed run is told again is compared with what it was told when it began.


@pytest.fixture(scope="module")
def begun(shared_workspace: Workspace) -> Workspace:
    """A run of 60 iterations in begun/, of a solver and a net of their own."""
    shared_workspace.write("begun_net.prototxt", nets.net())
    restore(shared_workspace)
    shared_workspace.train("begun.prototxt", "--out", "begun").succeeded()
    return shared_workspace


def restore(workspace: Workspace, **fields: object) -> str:
    return workspace.write("begun.prototxt", nets.solver(**{**BEGUN, **fields}))


BEGUN = {"net": '"begun_net.prototxt"', "max_iter": 60, "snapshot_prefix": '"begun"'}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"momentum": 0.5}, ("momentum: 0.5, was momentum: 0.9",)),
        (
            {"iter_size": 2, "weight_decay": None},
            ("iter_size: 2, was no iter_size", "no weight_decay, was"),
        ),
        ({"test_iter": 3}, ("test_iter: 3, was test_iter: 5",)),
        ({"net": '"small_net.prototxt"'}, ("the net of net",)),
    ],
)
def test_a_run_does_not_go_on_with_another_solver(
    begun: Workspace, fields: dict[str, object], words: tuple[str, ...]
) -> None:
    begun.write("small_net.prototxt", nets.net(middle=nets.inner_product("ip2", "data", 10)))
    restore(begun, **fields)
    done = begun.train("--resume", "--out", "begun")
    done.failed(
        2, "begun.prototxt has changed since the run began", "allowed: the original solver", *words
    )


def test_a_run_does_not_go_on_with_another_net(begun: Workspace) -> None:
    restore(begun)
    begun.write("begun_net.prototxt", nets.net().replace("num_output: 16", "num_output: 17"))
    done = begun.train("--resume", "--out", "begun")
    begun.write("begun_net.prototxt", "# the same net\n" + nets.net())
    done.failed(2, "begun.prototxt has changed since the run began", "the net of net")
    begun.train("--resume", "--out", "begun").succeeded()


def test_flags_may_be_repeated(begun: Workspace) -> None:
    restore(begun)
    flags = "--gpu none --level 0 --stage= --test-interval 50 --seed 7 --set-lr-by base_lr --max-iter 60"
    begun.train("begun.prototxt", "--resume", "--out", "begun", *flags.split()).succeeded()


@pytest.mark.parametrize(
    "flags",
    [
        ["--lr", "INV(k0=0.05, gamma=0.01, p=0.75)"],
        ["--lr", "inv", "--k0", "0.05"],
        ["--k0", "0.05", "--p", "0.75"],
    ],
)
def test_the_solvers_policy_may_be_repeated_as_it_is_shown(
    begun: Workspace, flags: list[str]
) -> None:
    """It is trained with the float32 numbers, 0.05000000074505806 for 0.05."""
    restore(begun)
    done = begun.train("begun.prototxt", "--resume", "--out", "begun", *flags)
    assert "INV(k0=0.05, gamma=0.01, p=0.75)" in done.succeeded().out


def test_a_resumed_run_cannot_end_before_it_stands(begun: Workspace) -> None:
    restore(begun)
    begun.train("--resume", "--out", "begun", "--max-iter", "59").failed(
        2, "--max-iter: 59", "has reached iteration 60", "allowed: 60 or more"
    )


def test_a_larger_max_iter_in_the_solver_makes_the_run_longer(workspace: Workspace) -> None:
    workspace.write("solver.prototxt", nets.solver(max_iter=100, snapshot=40))
    workspace.train("solver.prototxt", "--out", "whole").succeeded()
    workspace.write("solver.prototxt", nets.solver(max_iter=60))
    workspace.train("solver.prototxt", "--out", "longer").succeeded()
    workspace.write("solver.prototxt", nets.solver(max_iter=100, test_interval=20))
    done = workspace.train("solver.prototxt", "--out", "longer", "--resume").succeeded()
    assert "solver.prototxt: test_interval: 20, was test_interval: 50: has no effect" in done.out
    assert "max_iter: 100, was" not in done.out
    run = workspace.run("longer")
    assert [row["iteration"] for row in run.measurements()] == [0, 50, 60, 100]
    assert_same_weights(run.model(100), workspace.run("whole").model(100))
    # Taken once: a run that was then made longer still keeps its length.
    workspace.train("--out", "longer", "--resume", "--max-iter", "110").succeeded()
    workspace.train("--out", "longer", "--resume").succeeded()
    assert workspace.run("longer").record["iteration"] == 110


def test_a_policy_that_ends_at_max_iter_is_not_made_longer(workspace: Workspace) -> None:
    workspace.write("solver.prototxt", nets.policy("poly", power=1, max_iter=20))
    workspace.train("solver.prototxt", "--out", "poly").succeeded()
    workspace.write("solver.prototxt", nets.policy("poly", power=1, max_iter=40))
    workspace.train("--out", "poly", "--resume").failed(
        2, "solver.prototxt: max_iter: 40", "POLY(", "ends at"
    )


def test_max_iter_as_a_flag_alone(workspace: Workspace) -> None:
    workspace.write("solver.prototxt", nets.solver(max_iter=None))
    database = ("--db", "lr.sqlite")  # which is asked for what sin2 lacks
    flags = ("--lr", "sin2", "--max-iter", "5", "--out", "out", *database)
    workspace.train("solver.prototxt", *flags).succeeded()
    assert workspace.run("out").record["iteration"] == 5
    workspace.train("solver.prototxt", "--resume", "--out", "out", "--lr", "sin2").succeeded()


@pytest.mark.parametrize(
    ("flags", "dropped"),
    [
        (
            "-solver solver.prototxt -log_dir logs -alsologtostderr -minloglevel 1 -v 2",
            "-log_dir logs -minloglevel 1 -v 2",
        ),
        (
            "--logtostderr=1 --log_dir=logs --stderrthreshold=3 --nologtostderr -v=1 solver.prototxt",
            "--log_dir=logs --stderrthreshold=3 -v=1",
        ),
    ],
)
def test_glogs_other_flags_are_ignored(workspace: Workspace, flags: str, dropped: str) -> None:
    done = workspace.train(*flags.split(), "--lr", "sin2", "--preview").succeeded()
    (note,) = [line for line in done.out.splitlines() if "ignored" in line]
    assert note == f"note: {dropped}: ignored; Caffe's log is caffe.log in the run directory"


@pytest.mark.parametrize(
    ("flags", "on"),
    [
        ("-logtostderr", True),
        ("--alsologtostderr=TRUE", True),
        ("--log-to-stderr", True),
        ("-logtostderr -nologtostderr", False),
        ("-logtostderr=false -alsologtostderr=0", False),
        ("", False),
    ],
)
def test_caffes_log_on_stderr(workspace: Workspace, flags: str, on: bool) -> None:
    """parse_log.py reads what a script catches with 2>&1."""
    workspace.write("solver.prototxt", nets.solver(max_iter=20, test_interval=10))
    done = workspace.train("solver.prototxt", *flags.split(), "--out", "out").succeeded()
    assert done.err == (workspace.run("out").log.read_text() if on else "")
    assert on == ("Iteration 10, lr = " in done.err)


def test_preview_writes_the_file_that_it_names(workspace: Workspace) -> None:
    done = workspace.train(
        "solver.prototxt", "--lr", "plateau", "--preview", "--out", "plot"
    ).succeeded()
    assert "plot: plot.png" in done.out
    assert (workspace.path / "plot.png").read_bytes().startswith(b"\x89PNG")
    assert "plateau(n=3): the next part begins when the plateau is found" in done.out
    workspace.train("solver.prototxt", "--lr", "fix", "--preview", "--out", "plot.svg").succeeded()
    assert "<svg" in (workspace.path / "plot.svg").read_text()


def test_each_of_several_test_nets_has_a_table(workspace: Workspace) -> None:
    workspace.write("solver.prototxt", nets.solver(max_iter=2, test_iter=[5, 2]))
    several = workspace.train("solver.prototxt", "--out", "out").succeeded().out
    assert [several.count(f"\nof test net #{net} ") for net in (0, 1)] == [1, 1]
    workspace.write("solver.prototxt", nets.solver(max_iter=2))
    assert "\nof test net" not in workspace.train("solver.prototxt", "--out", "one").succeeded().out


def test_help_names_what_the_flags_take(workspace: Workspace) -> None:
    text = " ".join(workspace.train("--help").succeeded().out.split())
    for words in (
        "auto: the LR database's best one",
        "none: the CPU",
        "with --preview the plot's file",
        "-log_dir",
    ):
        assert words in text


LEVELS = nets.net(
    middle=nets.inner_product("ip1", "data", 16)
    + nets.relu("ip1")
    + nets.inner_product("deep", "ip1", 12, 'include { stage: "deep" min_level: 2 }')
    + nets.inner_product("ip2", "ip1", 10)
)


@pytest.mark.parametrize(
    "flags",
    [
        "-solver solver.prototxt -gpu none -level 2 -stage deep,more -sigint_effect none -sighup_effect stop",
        "--solver=solver.prototxt --level=2 --stage=deep,other --sigint_effect=none --sighup_effect=stop",
        pytest.param(
            "-solver=solver.prototxt -gpu=none -level=2 -stage=deep,other", marks=pytest.mark.slow
        ),
        pytest.param(
            "solver.prototxt --level 2 --stage deep --sigint-effect none", marks=pytest.mark.slow
        ),
    ],
)
def test_caffes_flags_in_all_spellings(workspace: Workspace, flags: str) -> None:
    workspace.write("net.prototxt", LEVELS)
    workspace.write("solver.prototxt", nets.solver(max_iter=5))
    workspace.train(*flags.split(), "--out", "out").succeeded()
    assert "deep[0]" in weights(workspace.run("out").model(5))


def test_without_the_level_its_layers_are_left_out(workspace: Workspace) -> None:
    workspace.write("net.prototxt", LEVELS)
    workspace.write("solver.prototxt", nets.solver(max_iter=5))
    workspace.train(
        "solver.prototxt", "--level", "1", "--stage", "deep", "--out", "out"
    ).succeeded()
    assert "deep[0]" not in weights(workspace.run("out").model(5))


def endless(workspace: Workspace, **fields: object) -> str:
    """A solver whose training goes on until it is stopped."""
    return workspace.write("solver.prototxt", nets.solver(max_iter=LONG, display=0, **fields))


def test_sigint_stops_with_a_snapshot_and_exit_code_0(workspace: Workspace) -> None:
    with workspace.training(endless(workspace), out="out") as training:
        training.wait_for_test(100)
        training.send(signal.SIGINT)
        done = training.finish().succeeded()
    run = workspace.run("out")
    reached = run.record["iteration"]
    assert run.state(reached).is_file()
    assert run.record["status"] == "stopped"
    assert f"--resume --out {Path('out')}" in done.out
    assert (run.path / "training.png").stat().st_size > 10_000
    assert list(run.iterations()) == list(range(reached))
    assert done.err == ""


def test_sigint_without_snapshot_after_train(workspace: Workspace) -> None:
    """Nothing is published; the run has a snapshot of its own to continue from."""
    solver = endless(workspace, snapshot_after_train="false")
    with workspace.training(solver, "--publish", out="out") as training:
        training.wait_for_test(100)
        training.send(signal.SIGINT)
        done = training.finish().succeeded()
    run = workspace.run("out")
    reached = run.record["iteration"]
    assert f"stopped at iteration {reached}; continue with: --resume --out out" in done.out
    assert list(workspace.path.glob("tiny*")) == []
    assert run.state(reached).is_file()
    done = workspace.train("--resume", "--out", "out", "--until", str(reached + 10)).succeeded()
    assert f"resumed at iteration {reached}, from" in done.out
    assert list(run.iterations()) == list(range(reached + 10))


def test_sighup_snapshots_and_goes_on_and_sigterm_stops(workspace: Workspace) -> None:
    with workspace.training(endless(workspace), out="out") as training:
        training.wait_for_test(100)
        training.send(signal.SIGHUP)
        training.wait_for_snapshot(100)
        (saved,) = training.run.rows("snapshots.jsonl")
        training.wait_for_test(saved["iteration"] + 100)
        training.send(signal.SIGTERM)
        training.finish().succeeded()
    assert len(workspace.run("out").rows("snapshots.jsonl")) == 2


def test_effects_of_signals_can_be_exchanged(workspace: Workspace) -> None:
    flags = ("-sigint_effect", "snapshot", "-sighup_effect", "none")
    with workspace.training(endless(workspace), *flags, out="out") as training:
        training.wait_for_test(100)
        training.send(signal.SIGHUP)
        training.send(signal.SIGINT)
        training.wait_for_snapshot(100)
        (saved,) = training.run.rows("snapshots.jsonl")
        training.wait_for_test(saved["iteration"] + 100)
        assert len(training.run.rows("snapshots.jsonl")) == 1
        training.send(signal.SIGTERM)
        training.finish().succeeded()


@pytest.mark.slow
def test_sigint_effect_none_and_sighup_effect_stop(workspace: Workspace) -> None:
    flags = ("--sigint_effect=none", "--sighup_effect=stop")
    with workspace.training(endless(workspace), *flags, out="out") as training:
        training.wait_for_test(50)
        training.send(signal.SIGINT)
        training.wait_for_test(training.run.measurements()[-1]["iteration"] + 200)
        training.send(signal.SIGHUP)
        training.finish().succeeded()
    assert workspace.run("out").record["status"] == "stopped"


def test_caffes_own_test_and_log_end_as_in_caffe_train(workspace: Workspace) -> None:
    """max_iter is no multiple of test_interval: there is a test at the end all the same."""
    workspace.write("solver.prototxt", nets.solver(max_iter=70))
    workspace.train("solver.prototxt", "--out", "out").succeeded()
    run = workspace.run("out")
    assert [row["iteration"] for row in run.measurements()] == [0, 50, 70]
    assert re.search(r"\] Optimization Done\.$", run.log.read_text().rstrip())
    # With --out all of it is there, and nothing elsewhere.
    assert run.state(70).is_file()
    assert list(workspace.path.glob("*iter*")) == []
    assert not (workspace.path / "runs").exists()


@pytest.mark.slow
def test_test_initialization_false_leaves_out_the_first_test(workspace: Workspace) -> None:
    workspace.write("solver.prototxt", nets.solver(max_iter=60, test_initialization="false"))
    workspace.train("solver.prototxt", "--out", "out", "--test-interval", "30").succeeded()
    assert [row["iteration"] for row in workspace.run("out").measurements()] == [30, 60]


def test_the_seed_is_the_flags_else_the_solvers_else_a_new_one(
    trained: tuple[Workspace, Run],
) -> None:
    workspace, run = trained
    assert run.record["seed"] == 7
    workspace.write("unseeded.prototxt", nets.solver(random_seed=None))
    workspace.train("unseeded.prototxt", "--out", "seed7", "--seed", "7").succeeded()
    assert_same_weights(workspace.run("seed7").model(100), run.model(100))
    workspace.train("unseeded.prototxt", "--out", "unseeded").succeeded()
    assert workspace.run("unseeded").record["seed"] != 7
    assert difference(workspace.run("unseeded").model(100), run.model(100)) > 0.1
