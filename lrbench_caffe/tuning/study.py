"""One tuning: its stages, and the files it keeps.

    study.json     what was asked for, and what was found before the first training
    trainings/     a run directory for each policy and seed
    also/          a folder for each combination of other settings, with a solver and trainings
    holdout/       the held-out records, while they are needed (see ``holdout``)
    report.md      the result, with tuning.png and range.png

A study keeps no other state. Its decisions are a function of the results, so one that was killed
makes them again when it is started again: existing trainings are not repeated, interrupted ones
continue.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from lrbench_caffe.errors import InputError, ParameterError, TrainingError
from lrbench_caffe.jobs import Job, JobResult, Pool, RetryingPool
from lrbench_caffe.jobs.naming import directory_name
from lrbench_caffe.jobs.opening import TRUST_DATA
from lrbench_caffe.jobs.training import read_result
from lrbench_caffe.lr import Policy, parse
from lrbench_caffe.runs import waiting
from lrbench_caffe.runs.directory import RunDirectory
from lrbench_caffe.runs.snapshots import drop_branch_points, recorded
from lrbench_caffe.runtime.client import HANG_SECONDS
from lrbench_caffe.tabular import count_of
from lrbench_caffe.tuning.beginnings import Beginnings, Branch
from lrbench_caffe.tuning.composing import compositions
from lrbench_caffe.tuning.curves import Curve
from lrbench_caffe.tuning.holdout import Holdout
from lrbench_caffe.tuning.levels import Ladder, Rung
from lrbench_caffe.tuning.observer import TuningObserver
from lrbench_caffe.tuning.packing import Ends, pack
from lrbench_caffe.tuning.plan import FEW, TuningPlan
from lrbench_caffe.tuning.reuse import EarlierTrainings
from lrbench_caffe.tuning.search import PolicySearch, Step
from lrbench_caffe.tuning.space import GoodRange
from lrbench_caffe.tuning.trainings import (
    ALSO,
    FINAL,
    HELD_OUT,
    OWN,
    RANGE_TEST,
    SEARCH,
    Lost,
    PolicyTrainings,
)

T = TypeVar("T")

WAIT = 0.5  # seconds between two looks at what still runs


class Study:
    """The trainings of a tuning.

    Args:
        folder: where they are kept.
        plan: what is asked for.
        pool: where they are trained.
        db: URL of the LR database, None for the user's own, "" for none.
        hang_seconds: see ``Job``.
        watch: told of each training that is begun and each result, for people to see.
        trust_data: whether no training looks at all records of its data.
        holdout: the records that policies are chosen by, None for the test set.
        beside: the study of the solver itself, where this one is of another combination of
            settings; both use one pool.
        earlier: trainings that are taken over where this study would make the same ones.
        settings: the other settings of its trainings, for people.
        scale: iterations of the solver itself that read as many records as one of its own.

    Attributes:
        known: the trainings that policies are chosen by, by the policies' texts.
        final: those on all training records, tested on the test set; with nothing held out the
            same ones.
        lost: trainings that were tried again and given up, so that a decision may be another one.
        all: this study and those beside it. They have one pool, and their iterations and losses
            are counted together.
    """

    def __init__(
        self,
        folder: Path,
        plan: TuningPlan,
        pool: Pool,
        *,
        db: str | None = None,
        hang_seconds: float = HANG_SECONDS,
        watch: TuningObserver | None = None,
        trust_data: bool = False,
        holdout: Holdout | None = None,
        earlier: EarlierTrainings | None = None,
        beside: Study | None = None,
        settings: str = "",
        scale: float = 1.0,
    ) -> None:
        self.folder = folder
        self.plan = plan
        self.holdout = holdout
        self._earlier = earlier
        self.known: dict[str, PolicyTrainings] = {}
        self.final: dict[str, PolicyTrainings] = {} if holdout else self.known
        self.settings = settings
        self.scale = scale
        self._latest: dict[str, JobResult] = {}  # by run directory; of several parts the longest
        self._baseline: Job | None = None  # while it is being trained
        self._trained = False  # whether this command trained anything
        self._seedless = False  # whether another seed was seen to change nothing
        self._beginnings = Beginnings(plan.max_iter)
        if beside is None:
            self.all: list[Study] = [self]
            self.lost: list[Lost] = []
            self.watch = watch or TuningObserver()
            self.watch.compares(plan.measure)
            self._pool = RetryingPool(pool, self.watch.say, self._ready)
            # What was not asked for yet, and whose it is.
            self._ended: dict[Job, tuple[Study, JobResult]] = {}
            # What was begun and has not ended, in this order: whose it is, and where it branches.
            self._under_way: dict[Job, tuple[Study, Branch | None]] = {}
        else:
            self.all, self.lost, self.watch = beside.all, beside.lost, beside.watch
            self._pool, self._ended = beside._pool, beside._ended
            self._under_way = beside._under_way
            self.all.append(self)
        self.pool, self.db, self.trusts_data = pool, db, trust_data
        self.hang_seconds = hang_seconds
        self._flags = (*plan.flags, *([TRUST_DATA] if trust_data else []))

    # -- trainings ------------------------------------------------------------------------------

    def begin(self, policy: Policy, seed: int, until: int, *, final: bool = False) -> Job:
        """Train a policy as soon as there is room; ``result`` tells what comes out.

        Args:
            final: train it on all records.
        """
        training = self._training(policy, seed, until, final)
        new = PolicyTrainings(policy, settings=self.settings, scale=self.scale)
        self._home(training).setdefault(str(policy), new)
        training, branch = self._planned(training, policy)
        self._submit(training, branch)
        return training

    def _home(self, training: Job) -> dict[str, PolicyTrainings]:
        """Where a training's result belongs."""
        return self.final if training.solver == self.plan.solver else self.known

    def _planned(self, training: Job, policy: Policy) -> tuple[Job, Branch | None]:
        """The training, with the place where it branches from another one."""
        like = (training.solver, training.seed, training.flags)
        branches = (branch for _, branch in self._under_way.values())
        wanted = [b.at for b in branches if b and b.origin == training.out]
        until = training.until or self.plan.max_iter
        branch, points = self._beginnings.plan(policy, training.out, until, like, wanted)
        training = replace(training, branch_points=points)
        if branch is not None:
            training = replace(training, branch=branch.origin, branch_at=branch.at)
        return training, branch

    def _ready(self, training: Job) -> bool:
        """Whether the snapshot is there that a training branches from, or will not come."""
        _, branch = self._under_way.get(training, (self, None))
        before = list(itertools.takewhile(lambda other: other != training, self._under_way))
        # A later part would train the beginning that the first one, which still waits, takes over.
        if not all(self._ready(other) for other in before if other.out == training.out):
            return False
        if branch is None:
            return True
        if not any(other.out == branch.origin for other in before):
            return True
        with contextlib.suppress(InputError):
            made = recorded(RunDirectory(Path(branch.origin)))
            return any(snapshot.iteration == branch.at for snapshot in made)
        return False

    def result(self, training: Job, stage: str, counts: str) -> JobResult:
        """Wait for a training that was begun.

        Args:
            stage, counts: where its result counts (see ``Lost``).
        """
        while training not in self._ended:
            result = self._pool.next(timeout=WAIT)
            if result is None:
                self.watch.waiting(self.iterations)
                continue
            owner, _ = self._under_way.pop(result.training, (self, None))
            self._ended[result.training] = owner, result
            owner._take(result)
            self.watch.ended(result, self.iterations)
        owner, ended = self._ended.pop(training)
        # It may have come back, or the part of it that was lost has been made up for.
        self.lost[:] = [
            one
            for one in self.lost
            if one.result.training != training
            and (ended.lost or one.result.training.out != training.out)
        ]
        if ended.lost:
            self.lost.append(Lost(ended, stage, counts))
        trained = owner._home(training).get(str(training.policy))
        if trained is not None:
            trained.results[training.seed] = ended
        return ended

    def _take(self, result: JobResult) -> None:
        self._trained = self._trained or result.seconds > 0
        before = self._latest.get(result.training.out)
        if before is None or before.iteration <= result.iteration:
            self._latest[result.training.out] = result

    def run(self, trainings: Sequence[Job]) -> list[JobResult]:
        """Any trainings of a range test, all at the same time where there is room."""
        for training in trainings:
            self._submit(training)
        return [
            self.result(training, RANGE_TEST, "the range is a mean over it")
            for training in trainings
        ]

    def _submit(self, training: Job, branch: Branch | None = None) -> None:
        self._check_place(training)
        self._take_over(training)
        if self.holdout and training.solver == self.holdout.solver:
            before = read_result(training)
            if before is None or before.lost:
                self.holdout.make(self.watch.say)
        self._under_way[training] = self, branch
        self._pool.submit(training)
        self.watch.begun(training, self.scale)

    def _take_over(self, training: Job) -> None:
        """Put an earlier training in the place of one that is yet to begin, where there is the same."""
        if self._earlier is None or training.run.exists or training.solver != self.plan.solver:
            return
        try:
            earlier = self._earlier.take_over(training)
        except OSError as error:  # no room for it, or it is gone meanwhile
            self.watch.say(
                f"{training.policy}, seed {training.seed}: nothing is taken over: {error}"
            )
            return
        if earlier is None:
            return
        self.watch.say(f"{training.policy}, seed {training.seed}: taken over from {earlier.path}")
        if self.db != "":  # which need not be the one that it was recorded in
            uid = training.run.read()["record"]["uid"]
            with contextlib.suppress(OSError):
                waiting.add(waiting.note_of(self.db, training.run.path, uid))

    def _check_place(self, training: Job) -> None:
        """Raise an InputError for a training to continue that knows its solver in another folder.

        That is so where the solver is in the study's folder, and this was moved.
        """
        folder, solver = self.all[0].folder.resolve(), Path(training.solver).resolve()
        if folder not in solver.parents or not training.run.exists:
            return
        before = Path(training.run.read()["solver"])
        if before.resolve() != solver and read_result(training) is None:
            raise ParameterError(
                "{0}: the study was begun in {1} and cannot be continued elsewhere; allowed: move it "
                "back, or another {out}",
                self.all[0].folder,
                before.parents[len(solver.relative_to(folder).parts) - 1],
            )

    def _training(self, policy: Policy, seed: int, until: int, final: bool) -> Job:
        plan, solver, name = self.plan, self.plan.solver, directory_name(policy, seed)
        if self.holdout and not final:
            solver, name = self.holdout.solver, name + HELD_OUT
        return self.training(
            solver, name, seed, policy=str(policy), max_iter=plan.max_iter,
            until=min(until, plan.max_iter), test_interval=plan.test_interval,
        )  # fmt: skip

    def training(self, solver: str, name: str, seed: int, **more: Any) -> Job:
        """A training in the folder of this study; ``more`` as for ``Job``."""
        options = {
            "db": self.db, "hang_seconds": self.hang_seconds, "flags": self._flags,
            "beginning": self.plan.beginning, **more,
        }  # fmt: skip
        out = str(self.folder / "trainings" / name)
        return Job(solver, seed=seed, out=out, retry=True, **options)

    @property
    def slots(self) -> int:
        """The number of trainings that can run at a time; a cluster's changes."""
        return self._pool.slots

    def say_what_is_there(self) -> None:
        """Say of a study that is continued how far it has come."""
        folders = [self.folder, *sorted((self.folder / ALSO).glob("*"))]
        done = [iterations for folder in folders for _, iterations, _ in _recorded(folder)]
        self.watch.say(
            f"continuing the study in {self.folder}: {count_of(len(done), 'training')} with "
            f"{sum(done):,} iterations so far"
        )

    def say_if_finished_before(self) -> None:
        """Say of a study that has ended if there was nothing left to train."""
        if not any(study._trained for study in self.all):
            self.watch.say("nothing was left to train: the result is of earlier trainings")

    @property
    def epoch(self) -> float | None:
        """Iterations of a candidate for one pass over the records that it is trained on; None if unknown."""
        if self.holdout is None or self.plan.epoch is None:
            return self.plan.epoch
        return self.plan.epoch * (1 - self.holdout.held / self.holdout.records)

    @property
    def iterations(self) -> int:
        """Iterations trained so far, for everything."""
        return self._total(lambda study: sum(result.iteration for result in study._latest.values()))

    @property
    def iterations_asked_for(self) -> int:
        """Iterations of the policies' trainings whose results were asked for."""
        return self._total(
            lambda study: sum(
                result.iteration
                for home in study.homes
                for one in home.values()
                for result in one.results.values()
            )
        )

    @property
    def homes(self) -> list[dict[str, PolicyTrainings]]:
        """``known``, and ``final`` if that is another one."""
        return [self.known, self.final] if self.holdout else [self.known]

    def _total(self, iterations: Callable[[Study], int]) -> int:
        """Iterations of all studies together, as those of the solver that read as many records."""
        return round(sum(study.scale * iterations(study) for study in self.all))

    @property
    def taken_over(self) -> int:
        """Iterations that were not trained, as another training with the same beginning had them."""
        return self._total(
            lambda study: sum(branch["at"] - branch["after"] for branch in study._branches())
        )

    def _branches(self) -> Iterator[dict[str, Any]]:
        """The branches of the trainings that were asked for."""
        for out, _, run in self._recorded():
            if out in self._latest:
                yield from run.read().get("branches", [])

    @property
    def repeated(self) -> int:
        """Iterations that were trained again, as they were lost behind the last snapshot."""
        return self._total(lambda study: sum(run.repeated for _, _, run in study._recorded()))

    @property
    def needless(self) -> int:
        """Iterations of trainings in the folder that no decision needs: earlier ones were made without what
        was lost, or with other flags."""
        return self._total(Study._needless)

    def _needless(self) -> int:
        needed = {out: result.iteration for out, result in self._latest.items()}
        return sum(max(0, done - needed.get(out, 0)) for out, done, _ in self._recorded())

    def _recorded(self) -> Iterator[tuple[str, int, RunDirectory]]:
        """Each run directory's path, and its iterations."""
        return _recorded(self.folder)

    @property
    def seconds(self) -> float:
        """The time of all trainings, as they measured it, one after the other."""
        return sum(study._seconds() for study in self.all)

    def _seconds(self) -> float:
        # Rounded once: trainings end in another order each time.
        whole = math.fsum(
            r.measurements[-1].seconds or 0.0 for r in self._latest.values() if r.measurements
        )
        elsewhere = math.fsum(float(branch["seconds"]) for branch in self._branches())
        return max(0.0, whole - elsewhere)

    def drop_branch_points(self) -> None:
        """Remove the snapshots that were there for other trainings to branch from."""
        for run in (run for study in self.all for _, _, run in study._recorded()):
            with contextlib.suppress(InputError, OSError):  # another command is at it
                drop_branch_points(run)

    def check_losses(self) -> None:
        """Raise a TrainingError if a training was lost, which may have changed a decision."""
        if self.lost:
            them = "them" if len(self.lost) > 1 else "it"
            raise TrainingError(
                f"{count_of(len(self.lost), 'training')} failed; the same command tries {them} again"
            )

    # -- stages ---------------------------------------------------------------------------------

    def find_range(
        self,
        ladder: Ladder,
        until: int,
        followers: Callable[[float], Sequence[Policy]] = lambda lr: (),
    ) -> GoodRange:
        """The LR range test: constant LRs for ``until`` iterations each.

        Args:
            followers: policies that may be trained later, and begin with a constant LR.

        Raises:
            TrainingError: all trainings failed, or no LR learned anything.
        """

        def begin(lr: float) -> Job:
            self._beginnings.expected = followers(lr)
            return self.begin(parse(f"FIX(k0={lr!r})"), self.plan.seed, until)

        def tell(lr: float, result: JobResult) -> None:
            diverged, failed = result.status == "diverged", result.status == "failed"
            ladder.add(Rung(lr, result.measurements, diverged, failed))
            if len(ladder.rungs) >= len(ladder.first) and all(
                rung.failed for rung in ladder.rungs.values()
            ):
                last = self.lost[-1].result
                raise TrainingError(f"all trainings failed: {last.reason}; see {last.training.out}")

        def counts(lr: float) -> tuple[str, str]:
            return RANGE_TEST, f"whether an LR of {lr:g} is good is unknown"

        self.carry_out(ladder.ask, begin, tell, counts)
        return ladder.result()

    def search(self, search: PolicySearch, baseline: Policy | None = None) -> None:
        """Train what the search asks for until it asks for nothing more.

        Args:
            baseline: a policy that is begun, to be trained to the end, as soon as there is a slot
                for it.
        """
        self._beginnings.expected = self._followers(search.policies)
        self._beginnings.opening = search.opening

        def begin(step: Step) -> Job:
            return self.begin(search.policies[step.index], self.plan.seed, step.until)

        def tell(step: Step, result: JobResult) -> None:
            reached, status = result.iteration, result.status
            search.tell(step, Curve.of(result.measurements, reached, status, search.measure))

        def begin_baseline() -> None:
            if baseline is None or self._baseline is not None:
                return
            out = self._training(baseline, self.plan.seed, self.plan.max_iter, False).out
            # A part of it may be under way, for the search.
            if all(other.out != out for other in (*self._under_way, *self._ended)):
                self._baseline = self.begin(baseline, self.plan.seed, self.plan.max_iter)

        def counts(step: Step) -> tuple[str, str]:
            return (
                SEARCH,
                f"the search wanted it up to iteration {step.until}, and decided without it",
            )

        self.carry_out(
            search.ask, begin, tell, counts, lambda: begin_baseline() if search.over else None
        )
        begin_baseline()

    def _followers(self, policies: Sequence[Policy]) -> list[Policy]:
        """The policies of a search, and the compositions that may follow it."""
        if not self.plan.compose:
            return list(policies)
        composed = [c.policy for p in policies for c in compositions([p], self.plan.max_iter)]
        return [*policies, *composed]

    def carry_out(
        self,
        ask: Callable[[], T | None],
        begin: Callable[[T], Job],
        tell: Callable[[T, JobResult], None],
        counts: Callable[[T], tuple[str, str]],
        idle: Callable[[], object] = lambda: None,
    ) -> None:
        """Train what is asked for until nothing more is, a few trainings ahead of the results.

        These are told in an order that follows from what was asked for (see ``packing.Ends``),
        whichever ends first: so all decisions are a function of the results, not of the time that
        they took. ``idle`` is called where nothing is asked for though there is room.
        """
        begun: Ends[tuple[T, Job]] = Ends()
        # With two slots neither waits long, and taking turns finds as much for less.
        in_turn = self.plan.ahead <= FEW
        while True:
            while len(begun) < self.plan.ahead and (wanted := ask()) is not None:
                training = begin(wanted)
                owner, _ = self._under_way[training]
                until = training.until or owner.plan.max_iter
                scale = 0.0 if in_turn else owner.scale
                begun.begin((wanted, training), training.out, until, scale)
            if len(begun) < self.plan.ahead:
                idle()
            if not begun:
                return
            asked, training = begun.next()
            tell(asked, self.result(training, *counts(asked)))

    def repeat(
        self, policies: Sequence[Policy], own: Policy | None = None
    ) -> list[PolicyTrainings]:
        """Train the finalists to the end with all seeds, and the solver's own policy to compare with.

        With records held out, the training that each was chosen by ends first. One that diverges
        there, or is lost, is trained no further.

        Returns:
            The finalists.
        """
        seeds = range(self.plan.seed, self.plan.seed + self.plan.seeds)
        if self.holdout is None:
            self._complete_all(policies, own, seeds)
            return [self.known[str(policy)] for policy in policies]
        self._complete(policies, own, seeds[:1], later=len(seeds))
        alive = [policy for policy in policies if self.known[str(policy)].reliable]
        if alive or not policies:
            self._complete_all(alive, own, seeds, final=True)
        for text, trained in self.final.items():
            trained.held_out = self.known[text]
        home = {**self.known, **self.final}
        return [home[str(policy)] for policy in policies]

    def _complete_all(
        self,
        policies: Sequence[Policy],
        own: Policy | None,
        seeds: Sequence[int],
        *,
        final: bool = False,
    ) -> None:
        """Complete policies and the solver's own with all seeds, or with the first where the others change
        nothing.

        That can be where weights fill all layers. It is seen from one policy with two seeds.
        """
        named, start = [*policies, *([] if own is None else [own])], self.plan.start
        if start.pretrained and start.filled == start.layers and len(seeds) > 1 and named:
            home = self.final if final else self.known
            others = 0 if self._seedless else len(seeds) - 1
            self._complete(policies, own, seeds[:1], final=final, later=others)
            if not self._seedless:
                self._complete(named[:1], None, seeds[:2], final=final)
                self._seedless = home[str(named[0])].alike
                if self._seedless:
                    self.watch.say(
                        "another seed changes nothing: each policy is trained with one seed"
                    )
            if self._seedless:
                for policy in named:
                    home[str(policy)].seedless = True
                return
        self._complete(policies, own, seeds, final=final)

    def _complete(
        self,
        policies: Sequence[Policy],
        own: Policy | None,
        seeds: Sequence[int],
        *,
        final: bool = False,
        later: int = 0,
    ) -> None:
        """Train policies and the solver's own to the end with these seeds; see ``begin`` for ``final``.

        Args:
            later: trainings of each that are expected to follow.
        """
        plan, running = self.plan, None if final else self._baseline
        named = dict.fromkeys([*policies, *([] if own is None else [own])])
        self._beginnings.expected = list(named)
        wanted = [(policy, seed) for policy in named for seed in seeds]
        if running is not None:  # it has a slot already
            wanted = [pair for pair in wanted if pair != (own, running.seed)]
        home = self.final if final else self.known
        done = [self._done(home, policy, seed) for policy, seed in wanted]
        left = [plan.max_iter - iterations for iterations in done]
        before = [] if running is None else [plan.max_iter]
        pieces = pack([*before, *left], plan.ahead, plan.test_interval)
        pieces = [(i - len(before), until) for i, until in pieces if i >= len(before)]
        still = sum(left) + len(named) * later * plan.max_iter
        if running is not None and own is not None:  # it may have trained a part already
            still += plan.max_iter - self._done(home, own, running.seed)
        self.watch.expect(self.iterations + round(self.scale * still))
        begun = [self.begin(*wanted[i], done[i] + until, final=final) for i, until in pieces]
        for training in begun:
            self.result(training, *self._place(training, own))
        if running is not None:
            self.result(running, *self._place(running, own))
            self._baseline = None

    def _place(self, training: Job, own: Policy | None) -> tuple[str, str]:
        """The place of a finalist's training in the decisions."""
        is_own = own is not None and training.policy == str(own)
        if self._home(training) is not self.final:
            chooses = "held-out records were to choose the iteration at which it counts"
            return (OWN, chooses) if is_own else (FINAL, "held-out records were to choose it")
        if is_own:
            return (
                OWN,
                f"the finalists are compared with your own policy without seed {training.seed}",
            )
        return FINAL, f"this finalist is judged without seed {training.seed}"

    def _done(self, home: dict[str, PolicyTrainings], policy: Policy, seed: int) -> int:
        """Iterations that a policy needs no more training for: all of them where it diverged."""
        result = home[str(policy)].results.get(seed) if str(policy) in home else None
        if result is None or result.lost:
            return 0
        return self.plan.max_iter if result.status in ("finished", "diverged") else result.iteration


def _recorded(folder: Path) -> Iterator[tuple[str, int, RunDirectory]]:
    """The path of each run directory of a study's folder, and its iterations."""
    for path in sorted(folder.glob("trainings/*/run.json")):
        run = RunDirectory(path.parent)
        with contextlib.suppress(InputError, ValueError, TypeError):  # a damaged one counts nothing
            yield str(run.path), int(run.read().get("iteration") or 0), run
