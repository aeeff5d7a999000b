"""The optimisers that the tuner is compared with, each given what is fairest to it.

Each spends iterations through a ledger until nothing more can be found or it has nothing more to
try. TPE is multivariate with constant_liar, Optuna 5.0's defaults, named here so that every version
does the same. Neither matters on these pools: the function is the only parameter that all trials
have, so what is sampled jointly is one parameter, and no two trials run side by side. Without both
the figures are the same. A trial of Optuna that repeats a policy is trained no second time: what is
known of it is free, and only counted. Its pruner is asked after every test, as users of Optuna do
it.
"""

from __future__ import annotations

import random
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

from lrbench_caffe.errors import InputError

from .curves import CurveSet
from .ledger import Ledger
from .space import FUNCTION, Space, place

if TYPE_CHECKING:
    import optuna

TRIALS = 3  # a peer may repeat itself: it ends after so many proposals for each policy of the pool


@dataclass
class SearchOutcome:
    """How often a policy was proposed that had been trained before."""

    trials: int = 0
    repeats: int = 0


@dataclass(frozen=True)
class Setting:
    """How a peer that stops trainings early is set up.

    Attributes:
        min_resource: tests before a training may be stopped.
        reduction: of so many trainings, one continues.
        kind: of ASHA: "stopping" or "promotion".
    """

    min_resource: int
    reduction: int
    kind: str = ""

    def __str__(self) -> str:
        kind = f", {self.kind}" if self.kind else ""
        return f"min_resource {self.min_resource}, reduction {self.reduction}{kind}"


Optimiser = Callable[[CurveSet, Ledger, int], SearchOutcome]


def in_a_folder(search: Callable[[CurveSet, Ledger, int, str], SearchOutcome]) -> Optimiser:
    """An optimiser that wants a folder to write to, which nobody reads, and warns of this and that."""

    def run(task: CurveSet, ledger: Ledger, seed: int) -> SearchOutcome:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return search(task, ledger, seed, folder)

    return run


def train_tests(task: CurveSet, ledger: Ledger, index: int, budget: float) -> float:
    """Train a policy up to the test nearest to a budget in tests; returns its best Top-1."""
    return ledger.train(index, max(1, round(budget)) * task.test_interval).best


def random_search(task: CurveSet, ledger: Ledger, seed: int) -> SearchOutcome:
    """Train policies in full, in random order, none twice."""
    order = list(range(len(task.policies)))
    random.Random(seed).shuffle(order)
    return _in_full(task, ledger, order)


def grid_search(task: CurveSet, ledger: Ledger, seed: int) -> SearchOutcome:
    """Train policies in full in nested loops over function, k and l: the loops' order, and the order of each
    one's values (up or down; functions at random), are drawn by the seed."""
    chance = random.Random(seed)
    axes = [_ranks([key[axis] for key in map(place, task.policies)], chance) for axis in range(3)]
    chance.shuffle(axes)
    order = sorted(range(len(task.policies)), key=lambda i: [axis[i] for axis in axes])
    return _in_full(task, ledger, order)


def _ranks(values: Sequence[Any], chance: random.Random) -> list[int]:
    """The place of each value among the distinct ones, which are put in a random order or direction."""
    distinct = sorted(set(values))
    if isinstance(distinct[0], str):
        chance.shuffle(distinct)
    elif chance.random() < 0.5:
        distinct.reverse()
    return [distinct.index(value) for value in values]


def _in_full(task: CurveSet, ledger: Ledger, order: Sequence[int]) -> SearchOutcome:
    outcome = SearchOutcome()
    for index in order:
        if ledger.over:
            break
        ledger.train(index, task.max_iter)
        outcome.trials += 1
    return outcome


# -- Optuna ----------------------------------------------------------------------------------------


def _quiet_optuna() -> ModuleType:
    """Optuna, without a line on each trial.

    Raises:
        InputError: it is not installed.
    """
    try:
        import optuna
    except ModuleNotFoundError:
        raise InputError(
            "optuna is not installed; tools/setup installs what the tools need"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    return optuna


def tpe_hyperband(setting: Setting) -> Optimiser:
    """Optuna's TPESampler with its HyperbandPruner."""

    optuna = _quiet_optuna()

    def run(task: CurveSet, ledger: Ledger, seed: int) -> SearchOutcome:
        sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True)
        pruner = optuna.pruners.HyperbandPruner(setting.min_resource, task.tests, setting.reduction)
        return _optuna(task, ledger, seed, sampler, pruner)

    return run


def random_halving(setting: Setting) -> Optimiser:
    """Optuna's RandomSampler with its SuccessiveHalvingPruner."""

    optuna = _quiet_optuna()

    def run(task: CurveSet, ledger: Ledger, seed: int) -> SearchOutcome:
        sampler = optuna.samplers.RandomSampler(seed=seed)
        pruner = optuna.pruners.SuccessiveHalvingPruner(setting.min_resource, setting.reduction)
        return _optuna(task, ledger, seed, sampler, pruner)

    return run


def _optuna(
    task: CurveSet,
    ledger: Ledger,
    seed: int,
    sampler: optuna.samplers.BaseSampler,
    pruner: optuna.pruners.BasePruner,
) -> SearchOutcome:
    import optuna

    # Hyperband deals trials to brackets by the study's name.
    study = optuna.create_study(
        study_name=f"seed {seed}", direction="maximize", sampler=sampler, pruner=pruner
    )
    space, outcome = Space(task.policies), SearchOutcome()
    while not ledger.over and outcome.trials < TRIALS * len(task.policies):
        trial = study.ask()
        index = suggest(space, trial)
        outcome.trials += 1
        outcome.repeats += ledger.knows(index)
        value = _trial(task, ledger, trial, index)
        state = optuna.trial.TrialState
        study.tell(trial, value, state.PRUNED if value is None else state.COMPLETE)
    return outcome


def _trial(task: CurveSet, ledger: Ledger, trial: optuna.Trial, index: int) -> float | None:
    """Train test by test; returns the best Top-1, or None if the pruner stopped it.

    Reported is the best Top-1 so far: that of a single test depends on where in a cycle of the LR
    it falls.
    """
    best = 0.0
    for test, until in enumerate(
        range(task.test_interval, task.max_iter + 1, task.test_interval), 1
    ):
        curve = ledger.train(index, until)
        best = curve.best
        if curve.iterations[-1] < until:  # diverged before it
            break
        trial.report(best, test)
        if until < task.max_iter and trial.should_prune():
            return None
    return best


def suggest(space: Space, trial: optuna.Trial) -> int:
    """The index of the policy that a trial is for."""
    values = {FUNCTION: trial.suggest_categorical(FUNCTION, space.functions)}
    for name in space.open[values[FUNCTION]]:
        values[name] = trial.suggest_categorical(name, space.choices[name])
    return space.index(values)
