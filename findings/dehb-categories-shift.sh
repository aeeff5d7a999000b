#!/bin/sh
# DEHB 0.1.2 keeps a configuration as a vector: the n-th of N choices of a categorical parameter as n / N. On the
# way back it compares with np.arange(0, 1, 1 / N), whose n-th value may be the next larger number. With 5, 10, 11,
# 13, 20 and many other numbers of choices some come back as the one before, so that, of 5 choices, the fourth is
# never in an initial population: it can only come up by mutation or crossover. An ordinal parameter does the same.
set -eu
FOLDER=$(mktemp -d)
trap 'rm -rf "$FOLDER"' EXIT
cd "$FOLDER"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check DEHB==0.1.2 ConfigSpace==1.2.2 numpy==1.26.4
cat >shift.py <<'PYTHON'
import sys
from ConfigSpace import CategoricalHyperparameter, Configuration, ConfigurationSpace
from dehb import DEHB

wrong = 0
for number, expected in ((4, []), (5, [3]), (8, []), (10, [3, 6, 7]), (13, [7, 11])):
    space = ConfigurationSpace(seed=1)
    space.add(CategoricalHyperparameter("choice", list(range(number))))
    optimiser = DEHB(cs=space, min_fidelity=1, max_fidelity=9, n_workers=1, seed=1, output_path="out", save_freq="end")
    vectors = [optimiser.configspace_to_vector(Configuration(space, {"choice": i})) for i in range(number)]
    found = [int(optimiser.vector_to_configspace(vector)["choice"]) for vector in vectors]
    shifted = [i for i in range(number) if found[i] != i]
    print(number, "choices: back as", found)
    wrong += shifted != expected
sys.exit(wrong)
PYTHON
env/bin/python shift.py || { echo "NOT AS FOUND" >&2; exit 1; }
