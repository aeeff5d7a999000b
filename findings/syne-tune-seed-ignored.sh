#!/bin/sh
# Syne Tune 0.16.0: random_seed is documented as the seed of the random number generators, but random search draws
# from numpy's global generator. RandomSearch with the same seed proposes other configurations each time, and ASHA
# after its first five; both repeat themselves only if the program also calls np.random.seed. In 0.13.0 the seed works.
set -eu
FOLDER=$(mktemp -d)
trap 'rm -rf "$FOLDER"' EXIT
cd "$FOLDER"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check syne-tune==0.16.0 numpy==2.4.6
cat >seeds.py <<'PYTHON'
import datetime
import sys

import numpy as np
from syne_tune.backend.trial_status import Trial
from syne_tune.config_space import uniform
from syne_tune.optimizer.baselines import ASHA, RandomSearch

SPACE = {"x": uniform(0, 1)}


def random_search():
    scheduler = RandomSearch(SPACE, metrics=["y"], random_seed=1)
    return [scheduler.suggest().config["x"] for _ in range(20)]


def asha():
    scheduler = ASHA(SPACE, metric="y", time_attr="step", max_t=27, random_seed=1)
    proposed = []
    for number in range(20):
        trial = Trial(number, scheduler.suggest().config, datetime.datetime.now())
        proposed.append(trial.config["x"])
        scheduler.on_trial_add(trial)
        scheduler.on_trial_result(trial, {"y": trial.config["x"], "step": 1})
    return proposed


def equal(propose, seed=None):
    """How many of 20 proposals are equal in two runs."""
    runs = []
    for _ in range(2):
        if seed is not None:
            np.random.seed(seed)
        runs.append(propose())
    return sum(a == b for a, b in zip(*runs))


found = [equal(random_search), equal(asha), equal(random_search, 5), equal(asha, 5)]
print("equal proposals, of 20, in two runs with random_seed=1")
print("RandomSearch %d, ASHA %d; with np.random.seed as well: %d and %d" % tuple(found))
sys.exit(found != [0, 5, 20, 20])
PYTHON
env/bin/python seeds.py 2>errors || { cat errors >&2; echo "NOT AS FOUND" >&2; exit 1; }
