"""SMAC3's multi-fidelity facade: Hyperband with a random forest, asked and told.

A configuration that is promoted is the same one with a larger budget: Caffe's snapshots let it
continue, and so it does here. SMAC proposes no configuration twice, and ends when it finds no new
one.
"""

from __future__ import annotations

import logging
from functools import partial

from .curves import CurveSet
from .ledger import Ledger
from .peers import Optimiser, SearchOutcome, Setting, in_a_folder, train_tests
from .space import FUNCTION, Space


def smac_facade(setting: Setting) -> Optimiser:
    """SMAC with a smallest budget in tests and a reduction factor (its eta)."""
    return in_a_folder(partial(_search, setting))


def _search(
    setting: Setting, task: CurveSet, ledger: Ledger, seed: int, folder: str
) -> SearchOutcome:
    from smac import MultiFidelityFacade, Scenario
    from smac.main.exceptions import ConfigurationSpaceExhaustedException
    from smac.runhistory import TrialValue

    space = Space(task.policies)
    scenario = Scenario(
        config_space(space, seed),
        output_directory=folder,
        deterministic=True,
        seed=seed,
        min_budget=setting.min_resource,
        max_budget=task.tests,
    )
    facade = MultiFidelityFacade(
        scenario,
        lambda config, seed=0, budget=0: 0.0,  # SMAC wants one, and calls it in optimize() only
        intensifier=MultiFidelityFacade.get_intensifier(scenario, eta=setting.reduction),
        logging_level=logging.ERROR,
        overwrite=True,
    )
    outcome = SearchOutcome()
    while not ledger.over:
        try:
            trial = facade.ask()
        except (StopIteration, ConfigurationSpaceExhaustedException):
            break
        index = space.index(trial.config)
        outcome.trials += not ledger.knows(index)  # a promotion is no proposal
        best = train_tests(task, ledger, index, trial.budget)
        facade.tell(trial, TrialValue(cost=100 - best), save=False)
    return outcome


def config_space(space: Space, seed: int):  # type: ignore[no-untyped-def]  # of ConfigSpace
    """The pool as a space of ConfigSpace: SMAC's and DEHB's."""
    from ConfigSpace import CategoricalHyperparameter, ConfigurationSpace, InCondition

    found = ConfigurationSpace(seed=seed)
    function = CategoricalHyperparameter(FUNCTION, space.functions)
    found.add(function)
    for name, choices in space.choices.items():
        parameter = CategoricalHyperparameter(name, choices)
        found.add(parameter)
        found.add(InCondition(parameter, function, space.functions_with(name)))
    return found
