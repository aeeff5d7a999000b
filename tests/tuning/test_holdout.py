"""Held-out records: what is split and kept, what they decide, and by how much a choice flatters."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lmdb
import numpy as np
import pytest

from lrbench_caffe.datasets.datum import Datum
from lrbench_caffe.datasets.lmdb_writer import write_lmdb
from lrbench_caffe.errors import InputError
from lrbench_caffe.jobs import Job, JobResult
from lrbench_caffe.lr import parse
from lrbench_caffe.metrics import Measurement
from lrbench_caffe.prototxt.solver import Solver, load_solver
from lrbench_caffe.terminal.tuning_tables import train_line
from lrbench_caffe.tuning import folder, holdout
from lrbench_caffe.tuning.curves import decisive
from lrbench_caffe.tuning.holdout import Holdout, choose_holdout
from lrbench_caffe.tuning.holdout_report import holdout_json, holdout_text, optimism_of
from lrbench_caffe.tuning.measure import Measure
from lrbench_caffe.tuning.plan import TuningPlan
from lrbench_caffe.tuning.prior import Prior
from lrbench_caffe.tuning.report import finalist_rows, ladder_figure, range_text, training_rows
from lrbench_caffe.tuning.request import TuningRequest
from lrbench_caffe.tuning.study import Study
from lrbench_caffe.tuning.trainings import HELD_OUT, PolicyTrainings
from lrbench_caffe.tuning.tuner import MAY_CHANGE, Tuner
from lrbench_caffe.tuning.verdict import judge, ranked, tops
from tests.tuning.rule_pool import MAX_ITER, RulePool, measurement, plan

SOLVER = """
net: "net.prototxt" test_iter: 1 test_interval: 100
base_lr: 0.01 lr_policy: "fixed" max_iter: 1000
"""
NET = """
layer { name: "train" type: "Data" top: "x" top: "y" include { phase: TRAIN }
        data_param { source: "a_train_lmdb" batch_size: 4 backend: LMDB } }
layer { name: "test" type: "Data" top: "x" top: "y" include { phase: TEST }
        data_param { source: "a_test_lmdb" batch_size: 50 backend: LMDB } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "s" inner_product_param { num_output: 4 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "s" bottom: "y" top: "loss" }
"""


TOP1 = Measure.of_top1(10.0)


# -- the records -----------------------------------------------------------------------------------


def write_data(name: str, labels: Sequence[int]) -> None:
    images = np.arange(len(labels) * 4, dtype=np.uint32).astype(np.uint8).reshape(-1, 1, 2, 2)
    write_lmdb(Path(name), images, labels, (1, 2, 2))


def labels_of(path: Path) -> dict[bytes, int]:
    environment = lmdb.open(str(path), readonly=True, lock=False)
    with environment.begin() as transaction:
        found = {bytes(k): Datum.FromString(bytes(v)).label for k, v in transaction.cursor()}
    environment.close()
    return found


@pytest.fixture
def solver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, messages: Any, caffe_info: Any
) -> Callable[[int], Solver]:
    """``solver(n)``: a solver with n training records of four labels; the working directory."""
    monkeypatch.chdir(tmp_path)
    Path("solver.prototxt").write_text(SOLVER)
    Path("net.prototxt").write_text(NET)
    write_data("a_test_lmdb", [0] * 50)

    def make(records: int = 2000) -> Solver:
        shutil.rmtree("a_train_lmdb", ignore_errors=True)
        write_data("a_train_lmdb", [n % 4 for n in range(records)])
        return load_solver(Path("solver.prototxt"), messages, caffe_info)

    return make


def chosen(solver: Solver, asked: float | None = None, kept: float | None = None) -> Any:
    return choose_holdout(asked, kept, solver, 1, Path("study"))


def test_the_parts_are_disjoint_complete_and_have_equal_shares(
    solver: Callable[..., Solver],
) -> None:
    found, why = chosen(solver())
    assert why == "" and (found.share, found.held, found.records) == (0.1, 200, 2000)
    said: list[str] = []
    found.make(said.append)
    (line,) = said
    assert line.startswith("200 of 2,000 training records are held out to judge by; copying ")
    whole = labels_of(Path("a_train_lmdb"))
    rest = labels_of(Path("study/holdout/a_holdout_train_lmdb"))
    held = labels_of(Path("study/holdout/a_holdout_test_lmdb"))
    assert not rest.keys() & held.keys() and {**rest, **held} == whole
    assert [list(held.values()).count(label) for label in range(4)] == [50] * 4
    assert list(held) != sorted(whole)[:200]
    assert found.solver == "study/holdout/solver.prototxt" and Path(found.solver).is_file()


def test_the_parts_are_made_once_and_again_when_they_are_needed(
    solver: Callable[..., Solver],
) -> None:
    found, _ = chosen(solver())
    said: list[str] = []
    found.make(said.append)
    held = labels_of(Path("study/holdout/a_holdout_test_lmdb"))
    again, _ = chosen(solver_of(found), kept=0.1)
    again.make(said.append)
    assert len(said) == 1 and again.digest == found.digest != ""
    again.remove()  # the other command still trains on them
    assert labels_of(Path("study/holdout/a_holdout_test_lmdb")) == held
    found.remove()
    assert not list(Path("study/holdout").glob("*_lmdb"))
    again.make(said.append)
    assert len(said) == 2 and labels_of(Path("study/holdout/a_holdout_test_lmdb")) == held


def test_images_and_labels_in_two_lmdbs_stay_together(
    solver: Callable[..., Solver], messages: Any, caffe_info: Any
) -> None:
    """As of segmentation: the records of one place are held out together, in one order."""
    solver()
    write_data("b_train_lmdb", [n % 7 for n in range(2000)])
    layer = """layer {{ name: "{0}" type: "Data" top: "{0}" include {{ phase: {1} }}
               data_param {{ source: "{2}_lmdb" batch_size: 4 backend: LMDB }} }}"""
    words = ("x TRAIN a_train", "y TRAIN b_train", "x TEST a_test", "y TEST a_test")
    layers = "".join(layer.format(*one.split()) for one in words)
    Path("net.prototxt").write_text(layers + NET[NET.index('layer { name: "ip"') :])
    found, _ = chosen(load_solver(Path("solver.prototxt"), messages, caffe_info))
    found.make(lambda _: None)
    for part, size in (("test", 200), ("train", 1800)):
        images, labels = (
            labels_of(Path(f"study/holdout/{name}_holdout_{part}_lmdb")) for name in "ab"
        )
        assert list(images) == list(labels) and len(images) == size
        assert all(labels[key] == int(key) % 7 for key in labels)


def solver_of(found: Holdout) -> Solver:
    return found.split.solver


def test_what_a_kill_left_is_made_again(solver: Callable[..., Solver]) -> None:
    found, _ = chosen(solver())
    Path("study/holdout").mkdir(parents=True)
    for name in ("train", "test"):  # a part that looks whole, without the mark
        write_data(f"study/holdout/a_holdout_{name}_lmdb", [3])
    found.make(lambda _: None)
    assert len(labels_of(Path("study/holdout/a_holdout_test_lmdb"))) == 200
    (Path("study/holdout") / "split.json").write_text('{"made_of": ')
    again, _ = chosen(solver_of(found))
    said: list[str] = []
    again.make(said.append)
    assert len(said) == 1


def test_other_data_than_the_study_began_with(solver: Callable[..., Solver]) -> None:
    found, _ = chosen(solver())
    found.make(lambda _: None)
    other, _ = chosen(solver(1600))
    other.digest = found.digest
    with pytest.raises(InputError, match="a_train_lmdb: other records would be held out than when"):
        other.make(lambda _: None)


def test_a_full_disk_is_said_before_anything_is_copied(
    solver: Callable[..., Solver], monkeypatch: pytest.MonkeyPatch
) -> None:
    found, _ = chosen(solver(), 0.1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000, total=1 << 40))
    with pytest.raises(InputError, match=r"study/holdout: the held-out records and the rest take"):
        found.make(lambda _: None)
    assert not list(Path("study/holdout").glob("*_lmdb"))


def test_a_copy_that_fails_leaves_nothing(
    solver: Callable[..., Solver], monkeypatch: pytest.MonkeyPatch
) -> None:
    found, _ = chosen(solver(), 0.1)
    split_lmdb = holdout.split_lmdb

    def interrupted(*arguments: Any) -> None:
        split_lmdb(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(holdout, "split_lmdb", interrupted)
    with pytest.raises(KeyboardInterrupt):
        found.make(lambda _: None)
    assert not list(Path("study/holdout").iterdir())


def test_an_edited_net_is_written_again(
    solver: Callable[..., Solver], messages: Any, caffe_info: Any
) -> None:
    """As after a kill before study.json, which then cannot refuse it."""
    found, _ = chosen(solver())
    found.make(lambda _: None)
    Path("net.prototxt").write_text(NET.replace("num_output: 4", "num_output: 5"))
    again, _ = chosen(load_solver(Path("solver.prototxt"), messages, caffe_info))
    said: list[str] = []
    again.make(said.append)
    assert not said and "num_output: 5" in Path("study/holdout/nets/train.prototxt").read_text()


@pytest.mark.parametrize(
    ("records", "limits", "words"),
    [
        (10, {}, "they would be 1 record, too few to judge by"),
        (900, {}, "they would be 90 records, too few to judge by"),
        (2000, {"LARGEST": 1000}, "would be copies of 0.0 GB"),
        (2000, {"_FREE": 1 << 50}, "MB are free"),
        (1, {}, "1 training record"),
    ],
)
def test_the_usual_share_is_not_held_out_where_it_says_nothing_or_costs_much(
    solver: Callable[..., Solver],
    monkeypatch: pytest.MonkeyPatch,
    records: int,
    limits: dict[str, int],
    words: str,
) -> None:
    for name, value in limits.items():
        monkeypatch.setattr(holdout, name, value)
    small = solver(records)
    none, why = chosen(small)
    assert none is None
    assert why.startswith("candidates are judged by the test set, as no records can be held out: ")
    assert words in why
    if records > 1:  # who asks for it gets it
        assert chosen(small, 0.1)[0].held == records // 10
    else:
        with pytest.raises(InputError, match="holdout 0.1: 1 training record; allowed: holdout 0,"):
            chosen(small, 0.1)


def test_a_study_keeps_its_share(solver: Callable[..., Solver]) -> None:
    given = solver()
    assert chosen(given, None, 0.0) == (None, "")
    assert chosen(given, 0.0) == (None, "")
    assert chosen(given, None, 0.25)[0].share == 0.25


@pytest.mark.parametrize("value", [-0.1, 0.001, 0.6, 1, float("nan"), "a", True])
def test_impossible_shares(value: Any) -> None:
    with pytest.raises(InputError, match="holdout: .*; allowed: 0, or a share from 0.01 to 0.5"):
        TuningRequest(Path("x.prototxt"), holdout=value)


def test_studies_of_earlier_versions_have_nothing_held_out(tmp_path: Path) -> None:
    own = plan()
    folder.write(tmp_path, own, Prior())
    content = json.loads((tmp_path / "study.json").read_text())
    del content["plan"]["holdout"], content["plan"]["split"]
    (tmp_path / "study.json").write_text(json.dumps(content))
    kept = folder.read(tmp_path)
    assert kept is not None and folder.kept_holdout(kept) == 0
    folder.check_plan(tmp_path, own, kept, MAY_CHANGE)
    with pytest.raises(InputError, match="holds a study with holdout 0.0, not 0.1"):
        folder.check_plan(tmp_path, replace(own, holdout=0.1), kept, MAY_CHANGE)
    assert folder.kept_holdout(None) is None


# -- decisions -------------------------------------------------------------------------------------


class Split:
    """Stands for held-out records: their solver is told apart by its path alone."""

    solver, records, held, seed = "study/holdout/solver.prototxt", 1000, 100, 1

    def __init__(self) -> None:
        self.digest = ""
        self.made = 0

    def make(self, say: object) -> None:
        self.digest = "made"
        self.made += 1


class HeldOutPool(RulePool):
    """As RulePool, but trainings on all records end five points lower, cyclic ones ten."""

    def _train(self, training: Job) -> JobResult:
        result = super()._train(training)
        if training.solver == Split.solver:
            return result
        less = 10.0 if str(training.policy).startswith(("TRI", "SIN", "COS")) else 5.0
        tests = [replace(m, top1=(m.top1 or 0.0) - less) for m in result.measurements]
        return replace(result, measurements=tests)


def tune(
    where: Path, pool: RulePool, db: str | None = None, base_lr: float = 0.01, **more: Any
) -> tuple[Study, Any]:
    message = SimpleNamespace(
        lr_policy="fixed", base_lr=base_lr, gamma=0.0, power=0.0, stepsize=0, stepvalue=[], max_iter=MAX_ITER,
    )  # fmt: skip
    from lrbench_caffe.prototxt.solver import caffe_policy

    given: Any = SimpleNamespace(
        message=message, path=Path("solver.prototxt"), epoch=25.0,
        lr_policy=lambda max_iter: caffe_policy(message, max_iter),
    )  # fmt: skip
    records: Any = Split()
    study = Study(where, plan(holdout=0.1, **more), pool, db="", holdout=records)
    wanted: Any = SimpleNamespace(start=SimpleNamespace(kind="scratch"))
    return study, Tuner(study, wanted, given, db).tune()


def test_held_out_records_judge_and_the_test_set_measures(tmp_path: Path) -> None:
    pool = HeldOutPool()
    study, outcome = tune(tmp_path, pool)
    final = [t for t in pool.submitted if t.solver == "solver.prototxt"]
    judged = [t for t in pool.submitted if t.solver == Split.solver]
    assert len(final) + len(judged) == len(pool.submitted)
    # What is trained on all records was judged to its end before, and is trained with each seed.
    for one in final:
        before = pool.submitted[: pool.submitted.index(one)]
        assert [t.until for t in before if t.policy == one.policy and t in judged][-1] == MAX_ITER
        later = pool.submitted[len(before) :]
        assert not any(t.policy == one.policy and t.until != MAX_ITER for t in later)
    policies = {str(t.policy) for t in outcome.finalists} | {"FIX(k0=0.01)"}
    assert {(t.policy, t.seed) for t in final} == {(p, s) for p in policies for s in (1, 2)}
    assert {t.seed for t in judged} == {1}
    assert all(t.out.endswith(HELD_OUT) for t in judged)
    assert not any(t.out.endswith(HELD_OUT) for t in final)
    split: Any = study.holdout
    assert split.made and study.plan.split == "made"
    assert json.loads((tmp_path / "study.json").read_text())["plan"]["split"] == "made"
    assert sum(outcome.spent.values()) == study.iterations_asked_for == study.iterations


def test_the_finalists_are_ranked_by_held_out_records(tmp_path: Path) -> None:
    """On the test set cyclic policies lose more, which must not count."""
    study, outcome = tune(tmp_path, HeldOutPool(), functions=("SIN", "POLY"), top=3)
    order = ranked(study.plan, outcome.finalists)
    values = [t.decisive(study.plan.measure).top1 for t in order if t.reliable]
    assert values == sorted(values, reverse=True)
    verdict = judge(study.plan, outcome.finalists, outcome.baseline)
    assert verdict.best == order[0].policy
    texts = {str(t.policy) for t in study.final.values()}
    assert {str(t.policy) for t in order if t.reliable} <= texts
    best_known = max(
        (t for t in study.known.values() if t.reliable),
        key=lambda t: max(m.top1 or 0.0 for m in t.results[1].measurements),
    )
    assert order[0].policy == best_known.policy


def test_a_finalist_that_diverges_gives_way_to_one_that_was_judged_to_its_end(
    tmp_path: Path,
) -> None:
    pool = HeldOutPool()
    study, outcome = tune(tmp_path, pool, functions=("TRI", "FIX"))
    unreliable = [t for t in outcome.finalists if not t.reliable]
    assert unreliable, "the rule of the pool must produce the case"
    assert all(t.results[2].status == "diverged" for t in unreliable)
    reliable = [t for t in outcome.finalists if t.reliable]
    assert len(reliable) == 2
    for finalist in reliable:
        assert finalist.held_out is study.known[str(finalist.policy)]
        assert finalist.held_out.results[1].status == "finished"


def test_one_that_diverges_on_the_rest_is_trained_no_further(tmp_path: Path) -> None:
    _, untouched = tune(tmp_path / "untouched", HeldOutPool(), functions=("POLY",), top=1)
    best = untouched.finalists[-1].policy

    class Late(HeldOutPool):
        """The best policy diverges at its end on the rest of the records."""

        def _train(self, training: Job) -> JobResult:
            result = super()._train(training)
            late = training.solver == Split.solver and training.until == MAX_ITER
            if late and training.policy == str(best):
                return replace(result, status="diverged", reason="the loss is nan", iteration=900)
            return result

    pool = Late()
    _, outcome = tune(tmp_path, pool, functions=("POLY",), top=1)
    final = {str(t.policy) for t in pool.submitted if t.solver == "solver.prototxt"}
    assert str(best) not in final
    (given_up,) = [t for t in outcome.finalists if t.policy == best]
    assert given_up.diverged and outcome.finalists[-1].reliable


def test_the_own_policy_is_measured_where_all_finalists_diverge_on_the_rest(tmp_path: Path) -> None:
    class AllLate(HeldOutPool):
        """All but the solver's own policy diverge at their end on the rest of the records."""

        def _train(self, training: Job) -> JobResult:
            result = super()._train(training)
            late = training.solver == Split.solver and training.until == MAX_ITER
            if late and training.policy != "FIX(k0=0.0001)":
                return replace(result, status="diverged", reason="the loss is nan", iteration=900)
            return result

    pool = AllLate()
    study, outcome = tune(tmp_path, pool, base_lr=0.0001, functions=("POLY",), target_top1=20.0)
    assert outcome.finalists and not any(one.reliable for one in outcome.finalists)
    measured = {(t.policy, t.seed) for t in pool.submitted if t.solver == "solver.prototxt"}
    assert measured == {("FIX(k0=0.0001)", 1), ("FIX(k0=0.0001)", 2)}
    verdict = judge(study.plan, outcome.finalists, outcome.baseline)
    assert str(verdict.own) == "FIX(k0=0.0001)" and verdict.text.startswith("keep your own policy")


def test_the_same_study_again_makes_the_same_decisions(tmp_path: Path) -> None:
    first, second = HeldOutPool(), HeldOutPool(next_one=0)
    tune(tmp_path, first)
    tune(tmp_path, second)
    assert first.submitted == second.submitted


def test_known_results_on_the_test_set_choose_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lrbench_caffe.tuning import tuner

    worst = "FIX(k0=0.0001)"
    prior = Prior(((worst, "from the LR database"),), None, ((worst, 99.9),))
    monkeypatch.setattr(tuner, "look_up", lambda *_: prior)
    pool = HeldOutPool()
    _, outcome = tune(tmp_path, pool, db="sqlite://")
    assert worst in {t.policy for t in pool.submitted}  # it is tried
    assert worst not in {str(t.policy) for t in outcome.finalists}


def test_the_tables_tell_what_was_tested_on_what(tmp_path: Path) -> None:
    study, outcome = tune(tmp_path, HeldOutPool())
    rows = training_rows(study, outcome)
    assert rows[0][2] == "tested on"
    assert {row[2] for row in rows[1:]} == {"held-out records", "test set"}
    assert len(rows) - 1 == sum(
        len(t.results) for t in (*study.known.values(), *study.final.values())
    )
    text = "".join(holdout_text(study, outcome))
    assert "100 of 1,000 training records (10 %, drawn with seed 1) were held out." in text
    content = holdout_json(study, outcome)
    assert content is not None and content["share"] == 0.1 and content["held_out"] == 100
    # Top-1 of the finalists is that of the test set.
    for row, trained in zip(
        finalist_rows(study, outcome)[1:], ranked(study.plan, outcome.finalists)
    ):
        assert trained.held_out is not None
        at = trained.counts_at(study.plan.measure)
        values = [
            m.top1 for r in trained.results.values() for m in r.measurements if m.iteration == at
        ]
        assert row[4].startswith(f"{np.mean([v for v in values if v is not None]):.2f}")


def test_the_picture_of_the_range_test_is_of_held_out_records(tmp_path: Path) -> None:
    study, outcome = tune(tmp_path, HeldOutPool())
    figure = ladder_figure("digits", study, outcome.ladder, outcome.good)
    assert {axes.get_ylabel() for axes in figure.axes} == {"Top-1 (%) on held-out records"}
    # 900 of the 1,000 records are trained on: 22.5 iterations an epoch.
    (legend,) = figure.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert outcome.ladder.tests[:2] == [50, 100] and names[:2] == ["2.22 epochs", "4.44 epochs"]
    assert "Top-1 (%) on held-out records:" in range_text(study.plan, outcome)


def test_the_goal_of_cost(tmp_path: Path) -> None:
    study, outcome = tune(tmp_path, HeldOutPool(), goal="cost", target_top1=60.0)
    assert optimism_of(study, outcome) is None
    content = holdout_json(study, outcome)
    assert content is not None and content["text"] == [] and "flattery" not in content
    assert judge(study.plan, outcome.finalists, outcome.baseline).text


# -- what counts -----------------------------------------------------------------------------------


def curve(*top1: float, samples: int = 1000) -> list[Measurement]:
    return [replace(measurement(100 * n, t), samples=samples) for n, t in enumerate(top1)]


@pytest.mark.parametrize(
    ("top1", "samples", "at"),
    [
        # sqrt(0.9 * 0.1 / 1000) = 0.95 %: what differs by less is noise.
        ((10.0, 90.0, 89.2), 1000, 200),
        ((10.0, 90.0, 89.0), 1000, 100),
        ((10.0, 90.0, 89.2), 100_000, 100),
        ((10.0, 80.0, 90.0), 1000, 200),
        # All of 100 right: (101 / 102) (1 / 102) / 102, of which the root is 0.98 %.
        ((10.0, 100.0, 99.1), 100, 200),
        ((10.0, 100.0, 99.0), 100, 100),
        ((99.0, 50.0, 40.0), 1000, 100),  # the test before the first update does not count
    ],
)
def test_the_last_test_within_a_standard_error_counts(
    top1: tuple[float, ...], samples: int, at: int
) -> None:
    found = decisive(curve(*top1, samples=samples), TOP1)
    assert found is not None and found.iteration == at


def test_the_best_test_counts_where_the_noise_is_not_known() -> None:
    loss = Measure.of("test_loss", False, 2.3)
    tests = [replace(m, test_loss=v) for m, v in zip(curve(0, 1, 2, 3), (0.1, 0.9, 0.4, 0.41))]
    found = decisive(tests, loss)
    assert found is not None and found.iteration == 200
    even = decisive([replace(m, test_loss=0.4) for m in tests], loss)
    assert even is not None and even.iteration == 300


def test_without_a_test_nothing_counts() -> None:
    assert decisive([], TOP1) is None and decisive(curve(99.0), TOP1) is None


def trained(policy: str, held: Sequence[float], *test: Sequence[float]) -> PolicyTrainings:
    """A policy with these tests on held-out records, and on the test set of seeds 1, 2, ..."""

    def results(*curves: Sequence[float]) -> dict[int, JobResult]:
        jobs = (Job("s", seed=seed, out="", policy=policy) for seed in range(1, 1 + len(curves)))
        return {
            job.seed: JobResult(job, "finished", None, 200, 1.0, curve(0.0, *tests, samples=10_000))
            for job, tests in zip(jobs, curves)
        }

    own = PolicyTrainings(parse(policy))
    own.results = results(held)
    return PolicyTrainings(parse(policy), results(*test), own)


def test_by_how_much_the_choice_flatters() -> None:
    first = trained("FIX(k0=0.1)", (99.0, 90.0), (95.0, 96.0), (94.0, 97.0))
    other = trained("FIX(k0=0.2)", (90.0, 98.0), (90.0, 97.0), (97.5, 97.0))
    own = trained("FIX(k0=0.3)", (90.0, 93.0), (91.0, 90.0), (90.0, 91.0))
    assert [m.top1 for m in tops(first, TOP1)] == [95.0, 94.0]  # both at iteration 100
    split: Any = SimpleNamespace(held=200, records=2000, seed=1)
    plan_of = TuningPlan("s", 200, 100, None, 10.0, 1, holdout=0.1)
    study: Any = SimpleNamespace(holdout=split, known=dict.fromkeys("abcdefg"), plan=plan_of)
    study.all = [study]
    outcome: Any = SimpleNamespace(finalists=[other, first], baseline=own)
    found = optimism_of(study, outcome)
    assert found is not None
    # The held-out records have the first before the other; the test set would choose the other
    # with (97.0 + 97.5) / 2 where the first has (95 + 94) / 2 at its iteration.
    assert [str(one.policy) for one in found.chosen] == ["FIX(k0=0.1)", "FIX(k0=0.2)"]
    assert found.flattery == pytest.approx(97.25 - 94.5)
    # 99 - 94.5, less 93 - (90 + 91) / 2 of what nothing chose.
    assert found.optimism == pytest.approx(4.5 - 2.5)
    assert found.flattered(found.chosen[0]) == pytest.approx(96.5 - 94.5)
    text = " ".join(found.lines())
    assert (
        "200 held-out records chose FIX(k0=0.1) among 7 policies, and iteration 100: 99.00 %"
        in text
    )
    assert "would have reported 97.25 ± 0.25 % (FIX(k0=0.2)): flattered by 2.75 points" in text
    assert (
        "on the held-out records it is 4.50 points better than on the test set, your own policy, "
        "which was not chosen, 2.50 points better: they flatter the best of 7 by 2.00 points (one "
        "of them is 0.50 points)"
    ) in text
    content = found.as_json()
    assert (content["judged"], content["flattery"]) == (7, pytest.approx(2.75))
    # One that diverged would not have been chosen by the test set, either.
    broken = trained("FIX(k0=0.4)", (99.5, 99.5), (99.5, 99.5), (99.5, 99.5))
    broken.results[2] = replace(broken.results[2], status="diverged")
    outcome.finalists.append(broken)
    assert optimism_of(study, outcome) == found
    alone = optimism_of(study, SimpleNamespace(finalists=[first], baseline=None))  # type: ignore[arg-type]
    assert alone is not None and alone.optimism is None and len(alone.lines()) == 2
    verdict = judge(study.plan, [other, first], own)
    assert verdict.difference == pytest.approx(94.5 - 90.5)


def test_the_command_stops_where_held_out_records_say() -> None:
    own = plan()
    assert train_line(own, None, 700).endswith("--max-iter 1000 --test-interval 50 --until 700")
