"""The stages of a tuning, from a solver to a ranking, and what each may cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from lrbench_caffe.database.errors import DamagedDatabase
from lrbench_caffe.errors import TrainingError
from lrbench_caffe.knowledge.evidence import Wanted
from lrbench_caffe.lr import Policy, PolicyError, parse
from lrbench_caffe.prototxt.solver import Solver
from lrbench_caffe.tabular import count_of
from lrbench_caffe.tuning import folder
from lrbench_caffe.tuning.composing import compositions, is_cyclic
from lrbench_caffe.tuning.curves import cost_order
from lrbench_caffe.tuning.levels import Ladder
from lrbench_caffe.tuning.measure import Measure
from lrbench_caffe.tuning.plan import TuningPlan
from lrbench_caffe.tuning.prior import Prior, look_up, range_source
from lrbench_caffe.tuning.search import FRESH, PolicySearch, opening
from lrbench_caffe.tuning.space import GoodRange, TuningCandidate, candidates
from lrbench_caffe.tuning.study import Study
from lrbench_caffe.tuning.trainings import PolicyTrainings
from lrbench_caffe.tuning.verdict import unsoundness

if TYPE_CHECKING:
    from lrbench_caffe.tuning.outer import OuterOutcome

Entrant = tuple[Study, Policy]  # a policy that may become a finalist, and the study that trains it
SHARE = 0.15  # of training all candidates in full: the default budget of a tuning
RANGE_SHARE = 0.1  # of a training: length of the range test's trainings
LAST_CHANCES = 3  # times as many finalists as are wanted are tried, where some diverge
USUAL_RANGE = GoodRange(0.001, 0.1, 0.01)
COMPOSING_SHARE = 0.2  # of the search's budget, for compositions
MAY_CHANGE = (
    "budget",
    "top",
    "seeds",
    "target_top1",
    "target",
    "compose",
    "slots",
    "split",
)  # when a study continues


@dataclass
class TuningOutcome:
    """The outcome of a tuning.

    Attributes:
        good: the range of good LRs; ladder: its test, None where the database knew it.
        candidates: what could be tried, the baseline first; full: iterations of training them all
            in full.
        finalists: the best, trained with all seeds.
        known: policies that were given or that the LR database knows, which were tried first.
        baseline: the solver's own policy, trained with the same seeds; None where it has none.
        spent: iterations of each stage.
        composed: the compositions that were tried.
        budget: iterations that the tuning was meant to cost.
        untried: candidates that were never begun; why_untried: the reason in words, empty where all
            were.
        outer: the choice of other settings; None where they were the solver's own.
    """

    good: GoodRange
    ladder: Ladder | None
    candidates: list[TuningCandidate]
    full: int
    finalists: list[PolicyTrainings]
    baseline: PolicyTrainings | None
    spent: dict[str, int] = field(default_factory=dict)
    composed: list[TuningCandidate] = field(default_factory=list)
    known: list[TuningCandidate] = field(default_factory=list)
    budget: int = 0
    untried: list[TuningCandidate] = field(default_factory=list)
    why_untried: str = ""
    outer: OuterOutcome | None = None


class Tuner:
    """Runs a study.

    Args:
        study: where trainings are made and kept.
        wanted, solver: what is trained, and what it begins with.
        db: the LR database to ask for experience, None to ask none.
        fresh: whether the study must have begun without experience.
    """

    def __init__(
        self, study: Study, wanted: Wanted, solver: Solver, db: str | None, fresh: bool = False
    ) -> None:
        self._study, self._fresh = study, fresh
        self._wanted, self._solver, self._db = wanted, solver, db
        self._say = study.watch.say
        self._spent: dict[str, int] = {}
        self._openings = (
            0  # iterations that the known policies, and a few others beside them, begin with
        )
        self._recorded: dict[str, float] = {}  # values of known policies, trained in full before
        self._ended = ""  # why the search ended
        self._reached = False  # whether the search found what is good enough
        self._top = study.plan.top  # finalists, of so many candidates as there are
        self._for_compositions = 0  # iterations that are kept for them
        self._for_settings = 0  # iterations that are kept for the choice of other settings

    @property
    def _plan(self) -> TuningPlan:
        return self._study.plan

    def tune(self) -> TuningOutcome:
        """Run all stages.

        Raises:
            InputError: the study's directory holds another one.
            TrainingError: no policy could be trained.
        """
        experience = self._begin()
        own = self._own_policy()
        known = experience.candidates(self._plan.max_iter)
        tests = max(1, self._plan.max_iter // self._plan.test_interval)
        openings = len(known) + FRESH if known else 0
        self._openings = openings * opening(tests) * self._plan.test_interval
        if not self._plan.holdout:  # else what was measured on the test set must not choose
            self._recorded = dict(experience.results)
        self._study.watch.expect(self._expected(self._plan.budget or self._usual_budget(), own))
        good, ladder = self._find_range(experience)
        self._account("range test")
        pool = self._candidates(own, known, good)
        self._top = min(self._plan.top, len(pool))
        full = len(pool) * self._plan.max_iter
        budget = self._plan.budget or self._usual_share(full)
        self._say(
            f"{count_of(len(pool), 'candidate')}; all in full: {full:,} iterations; "
            f"budget: {budget:,} ({budget / full:.0%})"
        )
        self._warn(budget, own)
        best, composed = self._find(pool, [c.policy for c in known], budget, own)
        entrants = self._entrants(best, [c.policy for c in pool], good, own)
        untried = [c for c in pool if str(c.policy) not in self._study.known]
        why = ""
        if untried:
            were = "was" if len(untried) == 1 else "were"
            why = f"{len(untried)} of {count_of(len(pool), 'candidate')} {were} not tried: {self._ended}"
            self._say(why)
        trained = self._finals(entrants, own)
        self._account("finalists")
        baseline = self._study.final.get(str(own)) if own else None
        return TuningOutcome(
            good,
            ladder,
            pool,
            full,
            trained,
            baseline,
            self._spent,
            composed,
            known,
            budget,
            untried,
            why,
        )

    # -- before ---------------------------------------------------------------------------------

    def _find_range(self, experience: Prior) -> tuple[GoodRange, Ladder | None]:
        """The range of good LRs: the one that is known, else that of a range test, with the test."""
        known = experience.good
        if known:
            self._say(
                f"range of good LRs, {range_source(self._plan)}: {known.low:g} to {known.high:g}"
            )
            return known, None
        ladder = Ladder(self._plan.measure, pretrained=self._plan.start.pretrained)
        good = self._study.find_range(ladder, range_length(self._plan), self._followers)
        self._say(
            f"range of good LRs: {good.low:g} to {good.high:g}, best constant LR {good.best:g}"
        )
        folder.write(self._study.folder, self._plan, experience, good)
        return good, ladder

    def _followers(self, lr: float) -> list[Policy]:
        """The candidates that begin with a constant LR, if it becomes the best or the highest good one."""
        good, plan = GoodRange(lr, lr, lr), self._plan
        found = candidates(good, plan.functions, max_iter=plan.max_iter, epoch=plan.epoch)
        return [candidate.policy for candidate in found]

    def _begin(self) -> Prior:
        """Begin the study, or find out with what it was begun."""
        where, plan = self._study.folder, self._plan
        kept = folder.read(where)
        folder.check_solver(where, plan, kept)
        if kept is not None:
            folder.check_plan(where, plan, kept, MAY_CHANGE)
            if self._fresh:
                folder.check_fresh(where, kept, plan.try_first)
            slots, split = int(kept["plan"].get("slots", 1)), str(kept["plan"].get("split", ""))
            self._study.plan = replace(plan, slots=slots, split=split)
            self._study.say_what_is_there()
            experience = Prior.from_json(kept["experience"])
            folder.write(where, self._study.plan, experience)  # with what has changed
            self._hold_out(experience)
            return experience
        experience = Prior()
        if self._db is not None:
            experience = self._look_up(self._db)
        experience = experience.with_given(self._plan.try_first, self._plan.lr_range)
        for text, why in experience.policies:
            self._say(f"tried first: {text} ({why})")
        self._study.plan = replace(plan, slots=self._study.slots)
        # Before the copies of the data, which are part of the study.
        folder.write(where, self._plan, experience)
        self._hold_out(experience)
        return experience

    def _hold_out(self, experience: Prior) -> None:
        """Learn which records are held out, by choosing them where the study has not chosen yet."""
        holdout, split = self._study.holdout, self._plan.split
        if holdout is None:
            return
        holdout.digest = split
        if not split:
            holdout.make(self._say)
            self._study.plan = replace(self._plan, split=holdout.digest)
            folder.write(self._study.folder, self._plan, experience)

    def _look_up(self, db: str) -> Prior:
        """The database's knowledge; nothing if it is damaged, which does not prevent a tuning."""
        plan = self._plan
        try:
            warn = self._study.watch.warn
            return look_up(
                db, self._wanted, self._solver, plan.max_iter, plan.functions, warn, plan.measure
            )
        except DamagedDatabase as error:
            where = self._study.folder
            self._say(
                f"the LR database: {error}; the tuning does not use it; results wait in {where}"
            )
            return Prior()

    def _own_policy(self) -> Policy | None:
        """The solver's own lr_policy, to compare with; None where it has none that can be used."""
        max_iter = self._plan.max_iter
        try:
            return parse(str(self._solver.lr_policy(max_iter))).bind(max_iter)
        except PolicyError:
            return None

    def _candidates(
        self, own: Policy | None, known: Sequence[TuningCandidate], good: GoodRange
    ) -> list[TuningCandidate]:
        """Without repetitions: the baseline, what the database proposes, what the heuristics propose."""
        plan = self._plan
        all_of_them = [TuningCandidate(own, "the solver's own lr_policy")] if own else []
        all_of_them += known
        all_of_them += candidates(good, plan.functions, max_iter=plan.max_iter, epoch=plan.epoch)
        return list({str(c.policy): c for c in reversed(all_of_them)}.values())[::-1]

    # -- what it costs --------------------------------------------------------------------------

    def _usual_share(self, full: int) -> int:
        """The budget where none was given, by the iterations of training all candidates in full."""
        return round(SHARE * full)

    def _reserve(self, own: Policy | None) -> int:
        """Iterations for the finalists and the solver's own policy, if none of them has been trained far."""
        plan = self._plan
        trainings = plan.seeds + (plan.holdout > 0)  # of each: the one that it is chosen by
        return (self._top + (own is not None)) * trainings * plan.max_iter

    def _room(self, budget: int, own: Policy | None) -> int:
        """Iterations for the search."""
        left = budget - self._reserve(own) - self._study.iterations_asked_for
        return max(left, self._least_room(budget))

    def _least_room(self, budget: int) -> int:
        """Iterations that a search has in any case."""
        # Known policies are opened in any case; they must not be all that is.
        return max(budget // 4, self._openings, 1)

    def _expected(self, budget: int, own: Policy | None) -> int:
        """Iterations in all, for the time that is left."""
        return self._study.iterations_asked_for + self._room(budget, own) + self._reserve(own)

    def _warn(self, budget: int, own: Policy | None) -> None:
        """Say it where the budget is too small for what is not cut short."""
        expected = self._expected(budget, own)
        if expected > budget:
            self._say(
                f"this takes up to {expected:,} iterations: the range test, known policies, finalists and "
                f"your own policy are not cut short"
            )

    def _usual_budget(self) -> int:
        """About what it will be, before the range is known: the number of candidates depends little on it."""
        plan = self._plan
        usual = candidates(USUAL_RANGE, plan.functions, max_iter=plan.max_iter, epoch=plan.epoch)
        return self._usual_share(len(usual) * plan.max_iter)

    # -- the search -----------------------------------------------------------------------------

    def _find(
        self,
        pool: Sequence[TuningCandidate],
        known: Sequence[Policy],
        budget: int,
        own: Policy | None,
    ) -> tuple[list[Policy], list[TuningCandidate]]:
        """All trained policies, the best first, and the compositions that were tried.

        The solver's own policy is begun before the last results are in, to leave no slot idle.
        """
        plan = self._plan
        room = self._divided(self._room(budget, own))
        self._study.watch.expect(self._expected(budget, own))
        share = COMPOSING_SHARE if self._composes(pool) else 0.0
        self._for_compositions = round(share * room)
        policies = [c.policy for c in pool]
        known_before = self._iterations_of(known)
        search = self._search(policies, round((1 - share) * room), None if share else own, known)
        self._reached = search.target_reached
        self._ended = self._how_it_ended(search, budget, known, own, known_before)
        self._account("search")
        best = self._with_recorded([search.policies[i] for i in search.ranking()])
        if not best:
            raise TrainingError(
                f"no candidate could be trained; see the logs in {self._study.folder}"
            )
        composed = []
        if share:
            composed = compositions(best, plan.max_iter)
            more = self._search([c.policy for c in composed] + best[:1], round(share * room), own)
            self._account("compositions")
            best = self._by_result([*best, *(more.policies[i] for i in more.ranking())])
        return best, composed

    def _composes(self, pool: Sequence[TuningCandidate]) -> bool:
        """Whether there is anything to compose: what is continued is cyclic."""
        if not self._plan.compose:
            return False
        if any(is_cyclic(candidate.policy) for candidate in pool):
            return True
        self._say("no compositions: no candidate is cyclic")
        return False

    def _divided(self, room: int) -> int:
        """The part of this search in what there is for searches."""
        return room

    def _begins_own(self) -> bool:
        """Whether the solver's own policy begins when a search ends, as nothing but finalists follows."""
        return True

    def _entrants(
        self, best: Sequence[Policy], pool: Sequence[Policy], good: GoodRange, own: Policy | None
    ) -> list[Entrant]:
        """What may become a finalist, the best first."""
        return [(self._study, policy) for policy in best]

    def _how_it_ended(
        self,
        search: PolicySearch,
        budget: int,
        known: Sequence[Policy],
        own: Policy | None,
        known_before: int,
    ) -> str:
        """Why the search asked for nothing more though some candidates were not tried, in words.

        Args:
            known_before: iterations that the known policies had in the range test.
        """
        if search.target_reached or search.won:
            assert self._plan.goal_value is not None
            return f"the target of {self._plan.target_text} was reached"
        range_test = self._spent.get("range test", 0)
        of_known = self._iterations_of(known) - known_before
        others = self._study.iterations_asked_for - of_known - range_test
        users = {
            "the range test": range_test,
            f"{len(known)} known polic{'y' if len(known) == 1 else 'ies'}": of_known,
            "other candidates": others,
            "other settings": self._for_settings,
            "compositions": self._for_compositions,
            "the reserve for the finalists and your own policy": self._reserve(own),
        }
        named = [f"{name} ({iterations:,})" for name, iterations in users.items() if iterations > 0]
        whole = f"{budget:,} iteration{'s' * (budget != 1)}"
        return f"the budget of {whole} was used up by {', '.join(named[:-1])} and {named[-1]}"

    def _iterations_of(self, policies: Sequence[Policy]) -> int:
        """Iterations that policies were trained for until now."""
        trained = [self._study.known.get(str(policy)) for policy in policies]
        return sum(result.iteration for one in trained if one for result in one.results.values())

    def _finals(self, best: Sequence[Entrant], own: Policy | None) -> list[PolicyTrainings]:
        """The finalists, with all seeds; one that diverges with another seed gives way to the next.

        With it go all of its study whose LR rises as high: they live at the same edge. One without
        a finite value where it counts is as bad as one that diverged.
        """
        finalists = self._standing(best, self._plan.top, own)
        if len(finalists) < self._plan.top:
            self._say(
                f"only {count_of(len(finalists), 'finalist')}: no other candidate is eligible"
            )
        if own is not None and str(own) not in self._study.final:  # no finalist was worth it
            self._study.repeat([], own)
        return finalists

    def _standing(
        self, best: Sequence[Entrant], top: int, own: Policy | None
    ) -> list[PolicyTrainings]:
        """Train the first ones with all seeds, until so many of them stand (see ``_finals``)."""
        waiting = list(best)
        finalists: list[tuple[Study, PolicyTrainings]] = []
        while waiting and (missing := top - sum(self._stands(trained) for _, trained in finalists)):
            if len(finalists) >= LAST_CHANCES * top:
                break
            chosen = waiting[:missing]
            names = (study.known[str(policy)].name for study, policy in chosen)
            gone = sum(not self._stands(trained) for _, trained in finalists)
            instead = f", instead of {gone} that diverged or could not be trained" if gone else ""
            self._say(f"finalists{instead}: " + ", ".join(names))
            finalists += self._repeat(chosen, own)
            edges: dict[Study, float] = {}
            for study, trained in finalists:
                if unsoundness(trained, self._plan.measure):
                    peak = self._peak(study, trained.policy)
                    edges[study] = min(peak, edges.get(study, math.inf))
            waiting = [
                (study, policy)
                for study, policy in waiting[missing:]
                if self._peak(study, policy) < edges.get(study, math.inf)
            ]
        return [trained for _, trained in finalists]

    def _stands(self, trained: PolicyTrainings) -> bool:
        """Whether a finalist needs no other one in its place."""
        return trained.reliable and not unsoundness(trained, self._plan.measure)

    def _repeat(
        self, chosen: Sequence[Entrant], own: Policy | None
    ) -> list[tuple[Study, PolicyTrainings]]:
        """Train finalists, and the solver's own policy, with all seeds."""
        trained = []
        for study in dict.fromkeys([self._study, *(study for study, _ in chosen)]):
            policies = [policy for of, policy in chosen if of is study]
            mine = own if study is self._study else None
            if policies or mine is not None:
                trained += [(study, one) for one in study.repeat(policies, mine)]
        return trained

    def _peak(self, study: Study, policy: Policy) -> float:
        """The highest LR of a training."""
        return float(np.max(policy(np.arange(study.plan.max_iter))))

    def _search(
        self, policies: list[Policy], budget: int, own: Policy | None, known: Sequence[Policy] = ()
    ) -> PolicySearch:
        """Search these, the known ones first; the solver's own policy is begun when that ends."""
        plan = self._plan
        search = PolicySearch(
            policies, max_iter=plan.max_iter, test_interval=plan.test_interval, budget=budget, seed=plan.seed,
            measure=self._measure(), goal=plan.goal, target=plan.goal_value, first=known,
        )  # fmt: skip
        for trained in self._study.known.values():  # of the range test
            curve = trained.curve(plan.seed, search.measure)
            if curve is not None:
                search.know(trained.policy, curve)
        self._study.search(search, own if self._begins_own() else None)
        return search

    def _with_recorded(self, ranking: Sequence[Policy]) -> list[Policy]:
        """Known policies at the places of what they ended with before, where that is more than now.

        A Top-1 of 15 % of a training does not justify dropping one. For cost nothing like it is
        known. Nor is it for held-out records; where Top-1 on them is equal, the loss decides.
        """
        return list(ranking) if self._plan.goal != "accuracy" else sorted(ranking, key=self.rating)

    def rating(self, policy: Policy) -> tuple[float, ...]:
        """What to sort trained policies by, the best first."""
        if self._plan.goal == "cost":
            return self._cost(policy)
        if self._plan.holdout:
            return self._on_held_out(policy)
        return (-max(self._best_score(policy), self._recorded_score(policy)),)

    def _cost(self, policy: Policy) -> tuple[float, float]:
        """Iterations to the target, where there is one, and then the score: as in a search's ranking."""
        measure, target = self._plan.measure, self._plan.goal_value
        curve = self._study.known[str(policy)].curve(self._plan.seed, measure)
        if curve is None:
            return math.inf, 0.0
        return cost_order(curve, None if target is None else measure.score(target))

    def can_win(self, trained: PolicyTrainings) -> bool:
        """Whether a policy has a result, and may become a finalist."""
        curve = trained.curve(self._plan.seed, self._plan.measure)
        return curve is not None and curve.alive and len(curve.scores) > 0

    def _on_held_out(self, policy: Policy) -> tuple[float, float]:
        """What to sort policies by, the best first, where held-out records judge them."""
        measure, result = (
            self._plan.measure,
            self._study.known[str(policy)].results[self._plan.seed],
        )
        tests = [
            (m, v) for m in result.measurements if m.iteration > 0 for v in measure.values([m])
        ]
        best = max((measure.score(value) for _, value in tests), default=-math.inf)
        losses = [m.test_loss for m, value in tests if measure.score(value) == best]
        return -best, min((x for x in losses if x is not None and x == x), default=math.inf)

    def _best_score(self, policy: Policy) -> float:
        """The best score of its training with the first seed so far, 0 without one."""
        curve = self._study.known[str(policy)].curve(self._plan.seed, self._plan.measure)
        return curve.best if curve else 0.0

    def _recorded_score(self, policy: Policy) -> float:
        """The score that a known policy ended with before; the lowest where none is known."""
        value = self._recorded.get(str(policy))
        return -math.inf if value is None else self._plan.measure.score(value)

    def _measure(self) -> Measure:
        """The measure, and how good values of it are known before a search."""
        measure, trained = self._plan.measure, self._study.known.values()
        known = [m for one in trained for r in one.results.values() for m in r.measurements]
        return measure.knowing([*measure.values(known), *self._recorded.values()])

    def _by_result(self, policies: Sequence[Policy]) -> list[Policy]:
        """The candidates by their results so far, the first of equal ones first."""
        return sorted(dict.fromkeys(policies), key=self.rating)

    def _account(self, stage: str) -> None:
        self._spent[stage] = self._study.iterations_asked_for - sum(self._spent.values())


def range_length(plan: TuningPlan) -> int:
    """Iterations of each training of a range test: a tenth of a whole one, but two tests."""
    return max(2, round(RANGE_SHARE * plan.max_iter / plan.test_interval)) * plan.test_interval
