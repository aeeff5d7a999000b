"""Chooses the combination to try next, by Optuna.

The sampler is TPE: with few trials it learns for each name by itself which values do well, so it
needs not see all combinations. It may propose one again; that is told what is known of it, and
costs nothing. Where all combinations are wanted, its order changes nothing but the order.
"""

from __future__ import annotations

import importlib.util
import logging
import warnings
from typing import TYPE_CHECKING

from lrbench_caffe.errors import ParameterError
from lrbench_caffe.tuning.also import Combination, Combinations

if TYPE_CHECKING:
    import optuna

PATIENCE = 50  # proposals in a row of what was tried already; then the first one that was not is
RANDOM_SHARE = 0.5  # of the trials are drawn at random before the sampler's model decides


def check_installed() -> None:
    """Raise a ParameterError if Optuna is not installed."""
    if importlib.util.find_spec("optuna") is None:
        raise ParameterError("{also} needs the package optuna: pip install 'lrbench-caffe[also]'")


class CombinationChooser:
    """Asked for combinations, and told what became of them. The solver's own one is the first.

    The order is a function of the seed, of what was told, and of when it was.

    Args:
        combinations: all that there are.
        most: how many are tried.
        seed: of the sampler.
    """

    def __init__(self, combinations: Combinations, most: int, seed: int) -> None:
        self._combinations = combinations
        self._most = min(most, len(combinations))
        self._trials: dict[Combination, optuna.trial.Trial] = {}
        self._scores: dict[Combination, float | None] = {}
        self._study = _new_study(self._most, seed)
        self._study.enqueue_trial(self._indices(combinations.own))

    def ask(self) -> Combination | None:
        """The next combination; None where enough were asked for."""
        if len(self._trials) >= self._most:
            return None
        for _ in range(PATIENCE):
            trial = self._study.ask()
            chosen = self._of(trial)
            if chosen not in self._trials:
                self._trials[chosen] = trial
                return chosen
            self._finish(trial, self._scores.get(chosen))
        chosen = next(one for one in self._combinations if one not in self._trials)
        self._study.enqueue_trial(self._indices(chosen))
        trial = self._study.ask()
        self._trials[self._of(trial)] = trial
        return chosen

    def tell(self, combination: Combination, score: float | None) -> None:
        """What came out, in points; None where nothing is known of it."""
        self._scores[combination] = score
        self._finish(self._trials[combination], score)

    def _finish(self, trial: optuna.trial.Trial, score: float | None) -> None:
        from optuna.trial import TrialState

        if score is None:
            self._study.tell(trial, state=TrialState.FAIL)
        else:
            self._study.tell(trial, score)

    # Optuna keeps the places of the values: their texts would be those of its own.

    def _indices(self, combination: Combination) -> dict[str, int]:
        values = self._combinations.values
        return {name: values[name].index(value) for name, value in combination.values}

    def _of(self, trial: optuna.trial.Trial) -> Combination:
        values = self._combinations.values
        return Combination(
            tuple(
                (name, of_name[int(trial.suggest_categorical(name, range(len(of_name))))])
                for name, of_name in values.items()
            )
        )


def _new_study(most: int, seed: int) -> optuna.Study:
    """A study in memory: what is on disk are the trainings, from which it is told again."""
    import optuna

    logging.getLogger("optuna").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that these options may change
        sampler = optuna.samplers.TPESampler(
            seed=seed,
            n_startup_trials=max(2, round(RANDOM_SHARE * most)),
            multivariate=False,  # each name by itself: there are too few trials for more
            constant_liar=True,
        )
    return optuna.create_study(direction="maximize", sampler=sampler)
