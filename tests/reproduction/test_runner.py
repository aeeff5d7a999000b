"""The command without Caffe: what it trains in which order, what it says, and what it writes."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections import deque
from pathlib import Path

import pytest

from lrbench_caffe.database import Database
from lrbench_caffe.database.errors import DatabaseError
from lrbench_caffe.errors import InputError, TrainingError
from lrbench_caffe.jobs import Job, JobResult, retrying
from lrbench_caffe.lr import parse
from lrbench_caffe.reproduce import main
from lrbench_caffe.reproduction import runner as reproduction
from lrbench_caffe.reproduction.missing import Options
from lrbench_caffe.reproduction.plan import ExperimentPlan, plan, scale, select
from lrbench_caffe.reproduction.runner import Goal, Reproduction
from lrbench_caffe.reproduction.speed import Speed
from lrbench_caffe.terminal import cli
from lrbench_caffe.terminal.console import Console
from lrbench_caffe.terminal.reproduction_progress import ReproductionDisplay
from tests.reproduction.runs import measured, run

VII = select(plan("table7"), "inv,sin2")


class Pool:
    """Trains in no time, and records as real trainings do; a policy with ``failing`` in it fails."""

    slots = 2
    room = 99

    def __init__(self, of: ExperimentPlan, url: str) -> None:
        self.plan = of
        self._database = Database.open(url)
        self._queue: deque[Job] = deque()
        self.submitted: list[Job] = []
        self.failing = "nothing"
        self.keeps = False  # whether there are run directories of trainings that were stopped

    def submit(self, training: Job) -> None:
        self._queue.append(training)
        self.submitted.append(training)

    def next(self, timeout: float | None = None) -> JobResult | None:
        training = self._queue.popleft()
        if self.failing in str(training.policy):
            return JobResult(training, "failed", "Check failed: x", 7, 1.0)
        if training.until is not None:
            if self.keeps:
                Path(training.out).mkdir(parents=True, exist_ok=True)
                state = {
                    "status": "stopped",
                    "reason": "as --until asks",
                    "iteration": training.until,
                }
                state["solver"] = training.solver
                (Path(training.out) / "run.json").write_text(json.dumps(state))
            return JobResult(training, "stopped", "as --until asks", training.until, 1.0)
        top = measured(self.plan.max_iter, 99.0 + training.seed / 100)
        record = run(
            self.plan, parse(str(training.policy)), training.seed, [top], uid=training.out[-40:]
        )
        self._database.put(record)
        return JobResult(training, "finished", None, self.plan.max_iter, 1.0, [top])

    def close(self) -> None:
        pass


class Prober:
    """20 ms an iteration, a second for a test."""

    def speeds(self, setups):
        return {setup.key: Speed(0.02, 1.0) for setup in setups}


class Bench:
    """A folder with a database, and what was printed."""

    def __init__(self, folder: Path, url: str, of: ExperimentPlan = VII) -> None:
        self.url = url
        self.folder = folder / "out"
        self.plan = of
        self.pool = Pool(of, self.url)

    def run(
        self, *, dry: bool = False, until: int | None = None, goals: list[Goal] | None = None
    ) -> str:
        self.text = io.StringIO()
        self.pool.submitted.clear()
        display = ReproductionDisplay(Console(file=self.text, width=200))
        Reproduction(
            display, goals or [Goal(self.plan, self.plan.rows)],
            Options(self.folder, self.url, until=until), self.pool, Prober(),
        ).run(dry)  # fmt: skip
        return self.text.getvalue()


@pytest.fixture
def bench(tmp_path, new_database, monkeypatch) -> Bench:
    monkeypatch.setattr(reproduction, "check_files", lambda setup: None)
    monkeypatch.setattr(reproduction, "provide_files", lambda setup, say: None)
    monkeypatch.setattr(retrying, "PAUSES", (0.0,))
    return Bench(tmp_path, new_database)


def test_all_of_a_table_and_then_nothing(bench):
    said = bench.run()
    assert "Table VII: LeNet on MNIST: 10 of 10 trainings missing, 100,000 iterations" in said
    assert "LeNet on MNIST: 20 ms an iteration, 1.0 s a test, measured now" in said
    # 10 times 10,000 * 0.02 s + 21 tests: 2210 s, two at a time
    assert "about 18 min on this machine, 2 at a time" in said
    assert "10/10 trainings: SIN2(k0=0.01, k1=0.06, l=2000)  seed 5  iteration 10000" in said
    assert "does not hold" in said
    assert [t.seed for t in bench.pool.submitted] == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    again = bench.run()
    assert "0 of 10 trainings missing\n" in again
    assert bench.pool.submitted == []
    assert "measured now" not in again


def test_the_files(bench):
    bench.run()
    names = {path.name for path in bench.folder.iterdir()}
    assert names == {"table7.md", "table7.csv", "table7-conclusions.csv", "table7.png"}
    text = (bench.folder / "table7.md").read_text(encoding="utf-8")
    assert text.startswith("# Table VII: LeNet on MNIST\n")
    ours = (
        "| 8 | SIN2(k0=0.01, k1=0.06, l=2000) | ours, 5 seeds | 10000 ± 0 "
        "| 0.0200 ± 0.0000 | 99.03 ± 0.01 |"
    )
    assert ours in text
    assert "Ours: 10 trainings with Caffe 1.0.0, CPU.\n" in text
    assert "## The paper's conclusions" in text
    rows = list(csv.DictReader((bench.folder / "table7.csv").open(encoding="utf-8")))
    assert len(rows) == 2 * 7
    top1 = next(row for row in rows if (row["row"], row["metric"]) == ("8", "top1"))
    assert (top1["paper"], top1["ours"], top1["seeds"], top1["within"]) == (
        "99.33",
        "99.03",
        "5",
        "no",
    )


def test_a_dry_run_trains_nothing_and_makes_the_table(bench):
    said = bench.run(dry=True)
    assert "10 of 10 trainings missing" in said and "about 18 min" in said
    assert "not trained" in said and "nothing was trained yet" in said
    assert bench.pool.submitted == []
    assert "ours, not trained" in (bench.folder / "table7.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("seeds", "footer"),
    [
        ((1, 2), "Ours: 2 diverged, none finished."),
        ((1,), "Ours: 1 training with Caffe 1.0.0, CPU; 1 more diverged."),
    ],
)
def test_the_footer_counts_what_diverged(bench, seeds, footer):
    policy = VII.row("SIN2").trained
    records = [run(VII, policy, 2, [measured(10_000, 99.0)], uid="f")] if seeds == (1,) else []
    records += [
        run(VII, policy, n, [measured(0, 10.0)], uid=f"d{n}", status="diverged") for n in seeds
    ]
    with Database.open(bench.url) as database:
        database.put_many(records)
    assert footer in bench.run(dry=True)
    assert f"\n{footer}\n" in (bench.folder / "table7.md").read_text(encoding="utf-8")


def test_a_failure_is_one_line_and_the_others_go_on(bench):
    bench.pool.failing = "INV"
    with pytest.raises(
        TrainingError, match="^5 of 10 trainings failed; the same command tries them again$"
    ):
        bench.run()
    said = bench.text.getvalue()
    assert said.count("failed: Check failed: x") == 5
    assert said.count("it is tried again") == 2 * 5
    lost = "INV(k0=0.01, gamma=0.0001, p=0.75), seed 4: lost at iteration 7 "
    lost += "(3 times, the last time: Check failed: x)"
    place = "Table VII: LeNet on MNIST, row 2: "
    assert f"lost: {place}{lost}; this row has one seed fewer\n" in said
    assert f"- {place}{lost}" in (bench.folder / "table7.md").read_text(encoding="utf-8")
    assert "ours, 5 seeds" in said  # SIN2
    bench.pool.failing = "nothing"
    assert "5 of 10 trainings missing" in bench.run()
    assert "Lost trainings" not in (bench.folder / "table7.md").read_text(encoding="utf-8")
    assert {t.policy for t in bench.pool.submitted} == {"INV(k0=0.01, gamma=0.0001, p=0.75)"}


def test_what_cannot_be_measured(bench, monkeypatch):
    def fail(error):
        def speeds(self, setups):
            raise error

        monkeypatch.setattr(Prober, "speeds", speeds)

    fail(InputError("--gpu 0: there is none"))
    assert "not measured: --gpu 0: there is none" in bench.run(dry=True)
    with pytest.raises(InputError, match="--gpu 0"):
        bench.run()
    assert bench.pool.submitted == []
    fail(TrainingError("the trainings run on other machines"))
    assert "the duration was not measured: the trainings run on other machines" in bench.run()
    assert len(bench.pool.submitted) == 10


def test_a_table_that_cannot_be_shown_does_not_end_the_others(bench, monkeypatch):
    table6 = plan("table6")
    report = Reproduction._report

    def away(self, of, records, lost=()):
        if of.name == "table6":
            raise DatabaseError("it is away")
        report(self, of, records, lost)

    monkeypatch.setattr(Reproduction, "_report", away)
    with pytest.raises(TrainingError, match="^table6 could not be shown: it is away$"):
        bench.run(goals=[Goal(table6, table6.rows), Goal(VII, VII.rows)])
    assert (bench.folder / "table7.md").exists()


def test_a_scaled_down_run_says_so_everywhere(tmp_path, new_database, monkeypatch):
    monkeypatch.setattr(reproduction, "check_files", lambda setup: None)
    monkeypatch.setattr(reproduction, "provide_files", lambda setup, say: None)
    bench = Bench(tmp_path, new_database, scale(VII, 0.1))
    said = bench.run()
    note = "SCALED DOWN: 1000 of 10000 iterations"
    trainings = [line for line in said.splitlines() if " trainings: " in line]
    assert len(trainings) == 10 and all(line.endswith(note) for line in trainings)
    assert f"10 of 10 trainings missing, 10,000 iterations, {note}" in said
    table = (bench.folder / "table7-scaled-1000.md").read_text(encoding="utf-8").splitlines()
    rows = [
        line
        for line in table
        if line.startswith("|") and line[2:].startswith(("1 ", "2 ", "8 ", "V-C"))
    ]
    assert rows and all(line.endswith(f"{note} |") for line in rows)
    assert not (bench.folder / "table7.md").exists()
    full = Bench(tmp_path, new_database)
    assert "10 of 10 trainings missing" in full.run(dry=True)


def test_the_first_iterations_only(bench):
    bench.pool.failing = "SIN2"
    with pytest.raises(TrainingError, match="5 of 10 trainings failed"):
        bench.run(until=200)
    said = bench.text.getvalue()
    assert "10 of 10 trainings missing, 2,000 iterations, until iteration 200" in said
    rows = started(bench.folder / "table7-until-200.csv")
    assert len(rows) == 10
    assert (rows[0], rows[5]) == (
        ("2", "1", "200", "started"),
        ("8", "1", "7", "failed: Check failed: x"),
    )
    assert not (bench.folder / "table7.md").exists()  # no results


def started(path: Path) -> list[tuple[str, str, str, str]]:
    rows = csv.DictReader(path.open(encoding="utf-8"))
    return [(row["#"], row["seed"], row["iteration"], row["outcome"]) for row in rows]


def test_first_iterations_of_another_call_stay_in_the_file(bench, tmp_path, monkeypatch):
    of = dataclasses.replace(VII, seeds=(1,))
    bench.pool.keeps = True
    file = bench.folder / "table7-until-200.csv"
    bench.run(until=200, goals=[Goal(of, of.rows[:1])])
    assert started(file) == [("2", "1", "200", "started")]
    bench.run(until=200, goals=[Goal(of, of.rows[1:])])
    both = [("2", "1", "200", "started"), ("8", "1", "200", "started")]
    assert started(file) == both
    bench.run(goals=[Goal(of, of.rows)])  # to the end
    bench.run(until=200, goals=[Goal(of, of.rows)])
    assert bench.pool.submitted == [] and started(file) == both
    short = scale(of, 0.1)
    bench.plan = bench.pool.plan = short
    bench.run(until=200)
    assert started(bench.folder / "table7-scaled-1000-until-200.csv") == both
    assert started(file) == both


def test_rows_limit_what_is_trained_not_what_is_shown(bench):
    bench.run(goals=[Goal(VII, VII.rows[:1])])
    assert {t.policy for t in bench.pool.submitted} == {"INV(k0=0.01, gamma=0.0001, p=0.75)"}
    assert "| 8 | SIN2(k0=0.01, k1=0.06, l=2000) | ours, not trained |" in (
        bench.folder / "table7.md"
    ).read_text(encoding="utf-8")


def test_plans_with_the_same_trainings(tmp_path, new_database, monkeypatch):
    monkeypatch.setattr(reproduction, "check_files", lambda setup: None)
    monkeypatch.setattr(reproduction, "provide_files", lambda setup, say: None)
    of = plan("figure5")
    bench = Bench(tmp_path, new_database, of)
    table6 = plan("table6")
    said = bench.run(goals=[Goal(of, of.rows), Goal(table6, table6.rows)])
    assert "Figure 5: NSTEP, CNN3 on CIFAR-10: 1 of 1 training missing, 70,000 iterations" in said
    assert "in total 15 trainings, 1,050,000 iterations; each is trained once" in said
    assert len(bench.pool.submitted) == 15
    assert {"figure5.png", "figure5.md", "table6.png"} <= {
        path.name for path in bench.folder.iterdir()
    }


# -- the command line ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("tabel7", "argument WHAT: unknown 'tabel7'; did you mean 'table7'? known: table3, "),
        ("xyz", "unknown 'xyz'; known: table3, "),
        ("table7 --rows 11", "--rows: 11: table7 has rows 1 to 10"),
        ("table7 --rows STEP", "--rows: 'STEP'; allowed"),
        ("all --rows 1", "--rows: all has no rows"),
        ("figure1 --rows 1", "--rows: figure1 has no rows"),
        ("table7 --seeds 0", "--seeds: 0; allowed: 1 to 1000"),
        ("table7 --iterations-scale 2", "--iterations-scale: 2; allowed: above 0, at most 1"),
        ("table7 --until 10000", "--until: 10000; allowed: 1 to 9999 for table7"),
        ("table7 --until 0", "--until: 0; allowed: 1 or more"),
        ("figure1 --until -4", "--until: -4; allowed: 1 or more"),
        ("figure1 --iterations-scale 5", "--iterations-scale: 5; allowed: above 0, at most 1"),
        ("figure1 --jobs 0", "--jobs: 0; allowed: 1 or more"),
        (
            "table7 --iterations-scale 0.001",
            "--iterations-scale: 0.001: 10 iterations of table7; allowed: 20 or more, 0.002 here",
        ),
        ("table7 --gpus 0 --layers fast", "--layers fast: only for the CPU"),
        ("table7 --jobs 0", "--jobs: 0; allowed: 1 or more"),
        (
            "table7 --jobs 1 --scheduler tcp://x:1",
            "--scheduler: --jobs and --gpus do not go with it",
        ),
        ("table7", "no data: data/mnist_train_lmdb; python -m lrbench_caffe.data mnist makes it"),
    ],
)
def test_bad_input_is_one_line(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LRBENCH_DB", str(tmp_path / "lr.sqlite"))
    try:
        code = cli.run(main, arguments.split())
    except SystemExit as error:
        code = error.code
    assert code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and words in lines[0]


def test_a_dry_run_of_figure_1_writes_nothing(tmp_path, capsys):
    assert cli.run(main, ["figure1", "--dry-run", "--out", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.startswith("figure1: nothing to train; ")
    assert not (tmp_path / "out").exists()


def test_missing_data_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LRBENCH_DB", str(tmp_path / "lr.sqlite"))
    Path("solvers").symlink_to(Path(reproduction.__file__).parents[2] / "solvers")
    assert cli.run(main, ["table7"]) == 2
    error = "error: no data: data/mnist_train_lmdb; python -m lrbench_caffe.data mnist makes it\n"
    assert capsys.readouterr().err == error
    assert cli.run(main, ["table7", "--dry-run"]) == 0  # says so, and shows the table
    assert "the duration was not measured: no data: data/mnist" in capsys.readouterr().out
