"""Chooses other settings together with the LR policy: batch size, momentum, weight decay.

1. A first search finds the best policy with the solver's own settings.
2. This policy, moved to each combination by rule, is trained to its end there. Which combinations
   are tried, where the budget does not suffice for all, Optuna decides.
3. A second search follows with the best combination; its candidates come from the range of LRs
   moved by the same rule, and it begins with the best policies of the first search. Where the
   solver's own settings are the best ones, the first search continues instead.
4. Finalists are the best of everything, and the best policy with the solver's own settings: so it
   is known what the settings bring.

All decisions are a function of the results, as in the rest of a tuning: a killed one makes them
again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from lrbench_caffe.jobs import Job, JobResult
from lrbench_caffe.knowledge.evidence import Wanted
from lrbench_caffe.lr import Policy
from lrbench_caffe.prototxt.solver import Solver
from lrbench_caffe.records import UNSUCCESSFUL
from lrbench_caffe.tuning.also import Combination, Combinations
from lrbench_caffe.tuning.chooser import CombinationChooser
from lrbench_caffe.tuning.plan import TuningPlan
from lrbench_caffe.tuning.side_studies import SideStudy
from lrbench_caffe.tuning.space import GoodRange, TuningCandidate, candidates
from lrbench_caffe.tuning.study import Study
from lrbench_caffe.tuning.trainings import COMBINATIONS, PolicyTrainings
from lrbench_caffe.tuning.tuner import Entrant, Tuner, TuningOutcome

TRIALS_SHARE = 2 / 3  # of what there is for searches: at most so much for trying combinations
FEWEST, USUAL = 2, 9  # combinations that are tried at least, and at most without a budget
FIRST_SHARE = 2 / 3  # of what is left for searches: the first one's
MORE_BUDGET = 1.5  # times the usual budget of the searches, without one that was given
MOVED = 3  # the best policies of the first search that the second one begins with
SECOND = "second search"

OpenStudy = Callable[[Study, Combination], SideStudy]


@dataclass(frozen=True)
class OuterTrial:
    """A combination that was tried.

    Attributes:
        combination: its settings; policy: what was trained with them.
        value: the best value; test_loss: the lowest with it; both None where it diverged or was
            lost.
        status: how the training ended.
    """

    combination: Combination
    policy: Policy
    value: float | None
    test_loss: float | None
    status: str


@dataclass
class OuterOutcome:
    """What came out of the choice of settings.

    Attributes:
        combinations: all that there were.
        trials: those that were tried, in this order, the solver's own one first.
        best: the best of them.
        studies: of those that were trained with, besides the solver's own.
    """

    combinations: Combinations
    best: Combination
    trials: list[OuterTrial] = field(default_factory=list)
    studies: dict[Combination, SideStudy] = field(default_factory=dict)

    def combination_of(self, settings: str) -> Combination:
        """The combination of ``PolicyTrainings.settings``."""
        others = (one for one in self.studies if str(one) == settings)
        return next(others, self.combinations.own)

    def plan_of(self, settings: str) -> TuningPlan | None:
        """The plan of the trainings with these settings; None for the solver's own."""
        side = self.studies.get(self.combination_of(settings))
        return side.study.plan if side else None


class OuterTuner(Tuner):
    """Runs a study that chooses other settings, too.

    Args:
        combinations: all that may be chosen.
        open_study: makes the study of a combination.
    """

    def __init__(
        self,
        study: Study,
        wanted: Wanted,
        solver: Solver,
        db: str | None,
        combinations: Combinations,
        open_study: OpenStudy,
        fresh: bool = False,
    ) -> None:
        super().__init__(study, wanted, solver, db, fresh)
        self._combinations = combinations
        self._open_study = open_study
        self._outcome = OuterOutcome(combinations, combinations.own)
        self._second = 0  # iterations for the second search
        self._most = FEWEST
        self._final_search = False

    def tune(self) -> TuningOutcome:
        outcome = super().tune()
        outcome.outer = self._outcome
        return outcome

    # -- what it costs --------------------------------------------------------------------------

    def _usual_share(self, full: int) -> int:
        return round(MORE_BUDGET * super()._usual_share(full)) + self._usual_trials

    @property
    def _usual_trials(self) -> int:
        """Iterations for trying combinations without a budget."""
        return min(USUAL, len(self._combinations)) * self._plan.max_iter

    def _room(self, budget: int, own: Policy | None) -> int:
        """Iterations for the searches and for trying combinations; these are not cut short."""
        room, length = super()._room(budget, own), self._plan.max_iter
        if self._plan.budget is None:
            self._most = USUAL
        else:
            self._most = max(FEWEST, int(TRIALS_SHARE * room / length))
        self._most = min(self._most, len(self._combinations))
        least = math.ceil(self._least_room(budget) / FIRST_SHARE)
        return max(room, self._most * length + max(room // 4, least))

    def _least_room(self, budget: int) -> int:
        """Iterations of the first search in any case: as many as without other settings."""
        if self._plan.budget is None:
            budget = round((budget - self._usual_trials) / MORE_BUDGET)
        return super()._least_room(budget)

    def _reserve(self, own: Policy | None) -> int:
        plan = self._plan
        return super()._reserve(own) + (plan.seeds + (plan.holdout > 0)) * plan.max_iter

    def _divided(self, room: int) -> int:
        left = room - self._most * self._plan.max_iter
        self._second = left - round(FIRST_SHARE * left)
        self._for_settings = room - left + self._second
        return left - self._second

    def _begins_own(self) -> bool:
        return self._final_search

    # -- the stages -----------------------------------------------------------------------------

    def _entrants(
        self, best: Sequence[Policy], pool: Sequence[Policy], good: GoodRange, own: Policy | None
    ) -> list[Entrant]:
        if self._reached:
            self._say("your own settings are good enough: no others are tried")
            return super()._entrants(best, pool, good, own)
        self._try_combinations(best[0])
        self._account(COMBINATIONS)
        chosen = self._outcome.best
        if chosen == self._combinations.own:
            self._say(f"your own settings are the best ones: {chosen}; the search continues")
            self._final_search = True
            self._search(list(pool), self._second, own)
        else:
            self._search_at(self._outcome.studies[chosen], best, good)
        self._account(SECOND)
        return self._all_entrants({str(policy) for policy in (*best, *pool)})

    def _try_combinations(self, policy: Policy) -> None:
        """Train the best policy, moved by rule, with as many combinations as the budget allows."""
        measure = self._measure()
        chooser = CombinationChooser(self._combinations, self._most, self._plan.seed)
        self._say(
            f"{policy:.6g} is tried with {self._most} of {len(self._combinations)} combinations of "
            f"settings, the LRs moved by rule"
        )

        def begin(combination: Combination) -> Job:
            study = self._study_of(combination)
            return study.begin(
                self._moved(combination, policy), self._plan.seed, study.plan.max_iter
            )

        def tell(combination: Combination, result: JobResult) -> None:
            trial = self._trial(combination, policy, result)
            self._outcome.trials.append(trial)
            score = measure.guess if trial.value is None else measure.score(trial.value)
            chooser.tell(combination, None if result.lost else score)

        def counts(combination: Combination) -> tuple[str, str]:
            return COMBINATIONS, f"whether {combination} is better is unknown"

        self._study.carry_out(chooser.ask, begin, tell, counts)
        self._outcome.best = self._best_combination()

    def _finals(self, best: Sequence[Entrant], own: Policy | None) -> list[PolicyTrainings]:
        finalists = super()._finals(best, own)
        tried = [trained for trained in finalists if trained.settings == self._study.settings]
        if not any(map(self._stands, tried)):
            edge = min((self._peak(self._study, t.policy) for t in tried), default=math.inf)
            mine = [
                (study, policy)
                for study, policy in best
                if study is self._study and policy != own and self._peak(study, policy) < edge
            ]
            if mine:
                self._say("a finalist with your own settings, to compare with, is needed")
            finalists += self._standing(mine, 1, own)
        return finalists

    def _study_of(self, combination: Combination) -> Study:
        """The study whose trainings have these settings."""
        if combination == self._combinations.own:
            return self._study
        if combination not in self._outcome.studies:
            side = self._open_study(self._study, combination)
            self._outcome.studies[combination] = side
        return self._outcome.studies[combination].study

    def _moved(self, combination: Combination, policy: Policy) -> Policy:
        """A policy of the solver itself for a combination; the same one where the rule gives none."""
        side = self._outcome.studies.get(combination)
        return (side.moved(policy) if side else None) or policy

    def _trial(self, combination: Combination, policy: Policy, result: JobResult) -> OuterTrial:
        measure = self._plan.measure
        whole = result.status not in UNSUCCESSFUL
        best = measure.best_test(result.measurements) if whole else None
        value = measure.value(best) if best else None
        tests = [m for m in result.measurements if m.iteration > 0 and measure.value(m) == value]
        losses = [m.test_loss for m in tests if m.test_loss is not None and best]
        moved = self._moved(combination, policy)
        return OuterTrial(combination, moved, value, min(losses, default=None), result.status)

    def _best_combination(self) -> Combination:
        """The best one, rated as finalists are; of equal ones the first."""
        rated = []
        for trial in self._outcome.trials:
            if trial.value is not None:
                study = self._study_of(trial.combination)
                tuner = self if study is self._study else self._beside(study)
                rated.append((tuner.rating(trial.policy), trial.combination))
        if not rated:
            return self._combinations.own
        return min(rated, key=lambda pair: pair[0])[1]

    def _search_at(self, side: SideStudy, best: Sequence[Policy], good: GoodRange) -> None:
        """The second search: with a combination's settings."""
        study, factor = side.study, side.change.lr
        plan = study.plan
        limit = None if good.limit is None else good.limit * factor
        range_there = GoodRange(good.low * factor, good.high * factor, good.best * factor, limit)
        first = [moved for policy in best[:MOVED] if (moved := side.moved(policy))]
        pool = [TuningCandidate(policy, "the best of the first search, moved") for policy in first]
        pool += candidates(range_there, plan.functions, max_iter=plan.max_iter, epoch=plan.epoch)
        policies = list({str(c.policy): c.policy for c in pool}.values())
        self._say(
            f"second search with {side.combination}: {len(policies)} candidates; range of good LRs, "
            f"moved by rule: {range_there.low:.3g} to {range_there.high:.3g}"
        )
        budget = round(self._second / study.scale)
        self._beside(study)._search(policies, budget, None, first)

    def _beside(self, study: Study) -> Tuner:
        return Tuner(study, self._wanted, self._solver, None)

    def _all_entrants(self, candidates_here: set[str]) -> list[Entrant]:
        """All candidates that were trained, with whatever settings, the best first.

        Args:
            candidates_here: those of the solver itself; others were trained in the range test.
        """
        rated = []
        for study in self._study.all:
            tuner = self if study is self._study else self._beside(study)
            policies = [
                trained.policy
                for text, trained in study.known.items()
                if tuner.can_win(trained) and (study is not self._study or text in candidates_here)
            ]
            rated += [(tuner.rating(policy), (study, policy)) for policy in policies]
        return [entrant for _, entrant in sorted(rated, key=lambda pair: pair[0])]
