"""The LR functions beside Caffe's own C++ policies, at every iteration, in float32."""

from __future__ import annotations

import json

import numpy as np
import pytest

from lrbench_caffe.lr import from_caffe
from lrbench_caffe.runtime.locate import find_caffe_python
from tests.caffe.harness import Workspace

ITERATIONS = 4000

# The gradient of the only weight is 1, there is no momentum and no decay: set to 0 before an
# update, the weight is minus the LR after it.
NET = """
net_param {
  layer { name: "one" type: "DummyData" top: "one"
          dummy_data_param { shape { dim: 1 dim: 1 } data_filler { type: "constant" value: 1 } } }
  layer { name: "ip" type: "InnerProduct" bottom: "one" top: "ip" loss_weight: 1
          inner_product_param { num_output: 1 bias_term: false } }
}
"""
PROBE = """
import json, sys
import caffe
rates = {}
for name in sys.argv[2:]:
    solver = caffe.SGDSolver(name)
    weight = solver.net.params["ip"][0]
    rates[name] = [[], []]
    for _ in range(int(sys.argv[1])):
        # Caffe's multistep moves on by one step whenever it is asked: only the update may ask it.
        if not name.startswith("multistep"):
            rates[name][0].append(float(solver.lr))
        weight.data[...] = 0
        solver.step(1)
        rates[name][1].append(-float(weight.data[0, 0]))
json.dump(rates, open("rates.json", "w"))
"""

POLICIES = {
    "fixed": {"base_lr": 0.03},
    "step": {"base_lr": 0.1, "gamma": 0.9, "stepsize": 333},
    "step of 1": {"base_lr": 0.1, "gamma": 0.999, "stepsize": 1},
    "step up": {"base_lr": 0.001, "gamma": 1.5, "stepsize": 500},
    "exp": {"base_lr": 0.1, "gamma": 0.999},
    "inv": {"base_lr": 0.01, "gamma": 0.0001, "power": 0.75},
    "inv steep": {"base_lr": 0.7, "gamma": 0.03, "power": 1.5},
    "multistep": {"base_lr": 0.1, "gamma": 0.3, "stepvalue": [500, 1000, 1001, 3999]},
    "multistep from 0": {"base_lr": 0.1, "gamma": 0.3, "stepvalue": [0, 1, 3000]},
    "multistep repeated": {"base_lr": 0.1, "gamma": 0.3, "stepvalue": [200, 200, 100, 3000]},
    "multistep without steps": {"base_lr": 0.1, "gamma": 0.3},
    "poly": {"base_lr": 0.1, "power": 1.2},
    "poly root": {"base_lr": 0.1, "power": 0.5},
    "sigmoid": {"base_lr": 0.1, "gamma": 0.004, "stepsize": 2000},
}


@pytest.fixture(scope="module")
def rates(shared_workspace: Workspace) -> dict[str, list[list[float]]]:
    """Of each policy the LRs that the solver names, and those that it applies."""
    names = []
    for name, fields in POLICIES.items():
        lines = [f'lr_policy: "{name.split()[0]}"', f"max_iter: {ITERATIONS}", "momentum: 0"]
        for field, value in fields.items():
            lines += [
                f"{field}: {item}" for item in (value if isinstance(value, list) else [value])
            ]
        names.append(shared_workspace.write(name.replace(" ", "_"), NET + "\n".join(lines)))
    probe = shared_workspace.write("probe.py", PROBE)
    python = find_caffe_python(None).command
    shared_workspace.command([*python, probe, str(ITERATIONS), *names]).succeeded()
    return json.loads((shared_workspace.path / "rates.json").read_text())


@pytest.mark.parametrize("name", POLICIES)
def test_our_function_is_caffes_policy(rates: dict[str, list[list[float]]], name: str) -> None:
    fields = {
        field: float(np.float32(value)) if isinstance(value, float) else value
        for field, value in POLICIES[name].items()
    }
    ours = from_caffe(name.split()[0], max_iter=ITERATIONS, **fields)(np.arange(ITERATIONS))
    named, applied = (np.array(rates[name.replace(" ", "_")][i]) for i in (0, 1))
    tolerance = np.full(ITERATIONS, 1e-6)
    if name.startswith("poly"):
        # Caffe rounds 1 - t/max_iter to float32, which tells where it is almost 0.
        left = 1 - np.arange(ITERATIONS) / ITERATIONS
        tolerance += fields["power"] * 2**-23 / left
    for theirs in (applied, named) if len(named) else (applied,):
        errors = np.abs(theirs - ours) / ours
        print(f"{name}: largest relative difference {errors.max():.3g}")
        assert len(errors) == ITERATIONS
        assert (errors <= tolerance).all()
