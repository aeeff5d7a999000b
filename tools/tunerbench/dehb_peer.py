"""DEHB: Hyperband with differential evolution, asked and told.

DEHB promotes configurations in its first round of brackets only; later each evaluation is of a new
child. In a pool the child is often a policy that was trained before: what is known of it is free.
"""

from __future__ import annotations

from functools import partial

from .curves import CurveSet
from .ledger import Ledger
from .peers import TRIALS, Optimiser, SearchOutcome, Setting, in_a_folder, train_tests
from .smac_peer import config_space
from .space import Space


def dehb(setting: Setting) -> Optimiser:
    """DEHB with a smallest fidelity in tests and a reduction factor (its eta)."""
    return in_a_folder(partial(_search, setting))


def _search(
    setting: Setting, task: CurveSet, ledger: Ledger, seed: int, folder: str
) -> SearchOutcome:
    from dehb import DEHB
    from loguru import logger

    space = Space(task.policies)
    optimiser = DEHB(
        cs=config_space(space, seed),
        min_fidelity=setting.min_resource,
        max_fidelity=task.tests,
        eta=setting.reduction,
        n_workers=1,
        seed=seed,
        save_freq="end",
        output_path=folder,
        log_level="ERROR",
    )
    outcome = SearchOutcome()
    proposed: set[int] = set()
    while not ledger.over and outcome.trials < TRIALS * len(task.policies):
        job = optimiser.ask()
        index = space.index(job["config"])
        if job["config_id"] not in proposed:  # a promotion is no proposal
            proposed.add(job["config_id"])
            outcome.trials += 1
            outcome.repeats += ledger.knows(index)
        best = train_tests(task, ledger, index, job["fidelity"])
        optimiser.tell(job, {"fitness": 100 - best, "cost": job["fidelity"]})
    logger.remove()  # every DEHB adds a file to the log
    return outcome
