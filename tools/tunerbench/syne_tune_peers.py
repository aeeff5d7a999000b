"""Syne Tune's ASHA and MOBSTER: its schedulers, driven as its tuner drives them with one worker.

Version 0.13.0 has MOBSTER and a promoting ASHA, which 0.14 has in its legacy modules only, and 0.15
in none; 0.16.0 ignores its random_seed (findings/syne-tune-seed-ignored.sh). A space of Syne Tune
has no conditions: a parameter that the function does not use is ignored.
"""

from __future__ import annotations

import contextlib
import datetime
import io
import logging
import warnings
from collections.abc import Mapping
from typing import Any

from .curves import CurveSet
from .ledger import Ledger
from .peers import TRIALS, Optimiser, SearchOutcome, Setting
from .space import FUNCTION, Space

TOP1, TEST = "top1", "test"


def asha(setting: Setting) -> Optimiser:
    """Asynchronous successive halving of randomly drawn policies."""
    return _peer("ASHA", setting)


def mobster(setting: Setting) -> Optimiser:
    """Asynchronous successive halving with a Gaussian process over policies and tests."""
    return _peer("MOBSTER", setting)


def _peer(name: str, setting: Setting) -> Optimiser:
    def run(task: CurveSet, ledger: Ledger, seed: int) -> SearchOutcome:
        with contextlib.redirect_stdout(io.StringIO()):  # prints what it could also have
            from syne_tune.optimizer import baselines

        logging.getLogger("syne_tune").setLevel(logging.ERROR)
        space = Space(task.policies)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scheduler = getattr(baselines, name)(
                _config_space(space),
                metric=TOP1,
                mode="max",
                resource_attr=TEST,
                max_t=task.tests,
                grace_period=setting.min_resource,
                reduction_factor=setting.reduction,
                type=setting.kind,
                random_seed=seed,
                search_options={"debug_log": False},
            )
            return _Tuner(task, ledger, scheduler, space).run()

    return run


def _config_space(space: Space) -> Mapping[str, Any]:
    from syne_tune.config_space import choice

    return {
        FUNCTION: choice(space.functions),
        **{name: choice(choices) for name, choices in space.choices.items()},
    }


class _Tuner:
    """What syne_tune.Tuner does with a scheduler and one worker."""

    def __init__(self, task: CurveSet, ledger: Ledger, scheduler: Any, space: Space) -> None:
        self.task, self.ledger, self.scheduler, self.space = task, ledger, scheduler, space
        self.trials: list[Any] = []
        self.reported: dict[int, int] = {}  # tests of each trial so far

    def run(self) -> SearchOutcome:
        outcome = SearchOutcome()
        while not self.ledger.over and len(self.trials) < TRIALS * len(self.task.policies):
            suggestion = self.scheduler.suggest(trial_id=len(self.trials))
            if suggestion is None:
                break
            if suggestion.spawn_new_trial_id:
                trial = self._begin(suggestion.config)
                outcome.trials += 1
                outcome.repeats += self.ledger.knows(self.space.index(trial.config))
            else:
                trial = self.trials[suggestion.checkpoint_trial_id]
            self._train(trial)
        return outcome

    def _begin(self, config: Mapping[str, Any]) -> Any:
        from syne_tune.backend.trial_status import Trial

        trial = Trial(len(self.trials), dict(config), datetime.datetime.now())
        self.trials.append(trial)
        self.scheduler.on_trial_add(trial)
        return trial

    def _train(self, trial: Any) -> None:
        """Train test by test until the scheduler stops or pauses the trial, or it ends."""
        from syne_tune.optimizer.scheduler import SchedulerDecision

        index, interval = self.space.index(trial.config), self.task.test_interval
        first, result = self.reported.get(trial.trial_id, 0) + 1, {}
        for test in range(first, self.task.tests + 1):
            curve = self.ledger.train(index, test * interval)
            result = {TOP1: curve.best, TEST: test}
            self.reported[trial.trial_id] = test
            decision = self.scheduler.on_trial_result(trial, result)
            if decision != SchedulerDecision.CONTINUE:
                self.scheduler.on_trial_remove(trial)
                return
            if curve.iterations[-1] < test * interval:  # diverged before it
                break
        self.scheduler.on_trial_complete(trial, result)
