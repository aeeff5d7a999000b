"""The same seed and the same net: the weights after 100 iterations beside those of `caffe train`."""

from __future__ import annotations

import pytest

from tests.caffe import nets
from tests.caffe.harness import Workspace, difference

# Measured: 0 to 5.5e-7. Caffe computes some powers in float32, the LR module all of them in
# float64.
POLICY = 1e-6
# Measured: 9e-8 to 1e-6. The LR is multiplied into the gradient instead of into Caffe's update.
GRADIENTS = 2e-6

LENET = '"prototxt/lenet_digits_train_test.prototxt"'

POLICIES = {
    "fixed": nets.policy("fixed"),
    "step": nets.policy("step", gamma=0.5, stepsize=30),
    "exp": nets.policy("exp", gamma=0.98),
    "inv": nets.solver(net=LENET, base_lr=0.01),
    "multistep": nets.policy("multistep", gamma=0.5, stepvalue=[20, 50, 51, 90]),
    "poly": nets.policy("poly", power=1.2),
    "sigmoid": nets.policy("sigmoid", gamma=0.1, stepsize=50),
}


def compare(workspace: Workspace, solver: str, *flags: str) -> float:
    """Train with both; the largest relative difference of a parameter."""
    workspace.write("ours.prototxt", solver)
    workspace.write("theirs.prototxt", solver.replace('"tiny"', '"theirs"'))
    workspace.caffe("train", "--solver=theirs.prototxt").succeeded()
    workspace.train("ours.prototxt", "--out", "out", *flags).succeeded()
    theirs, ours = workspace.path / "theirs_iter_100.caffemodel", workspace.run("out").model(100)
    largest = difference(theirs, ours)
    print(f"largest relative difference: {largest:.3g}")
    return largest


@pytest.mark.parametrize("name", POLICIES)
def test_without_lr_it_trains_as_caffe_train_to_the_bit(workspace: Workspace, name: str) -> None:
    assert compare(workspace, POLICIES[name]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", POLICIES)
def test_the_solvers_policy_as_one_of_the_lr_module(workspace: Workspace, name: str) -> None:
    assert compare(workspace, POLICIES[name], "--set-lr-by", "base_lr") <= POLICY


def test_a_longer_poly_trains_as_caffe_train_with_that_max_iter(workspace: Workspace) -> None:
    solver = POLICIES["poly"]
    workspace.write("ours.prototxt", solver.replace("max_iter: 100", "max_iter: 60"))
    workspace.write("theirs.prototxt", solver.replace('"tiny"', '"theirs"'))
    workspace.caffe("train", "--solver=theirs.prototxt").succeeded()
    workspace.train(
        "ours.prototxt", "--max-iter", "100", "--until", "50", "--out", "out"
    ).succeeded()
    workspace.train("ours.prototxt", "--resume", "--out", "out").succeeded()
    theirs = workspace.path / "theirs_iter_100.caffemodel"
    assert difference(theirs, workspace.run("out").model(100)) == 0


@pytest.mark.slow
def test_lr_given_as_policy_trains_as_caffe_train_with_the_same_function(
    workspace: Workspace,
) -> None:
    solver = nets.policy("exp", gamma=0.98)
    assert compare(workspace, solver, "--lr", "EXP(k0=0.05, gamma=0.98)") <= POLICY


@pytest.mark.slow
def test_the_comparison_notices_a_learning_rate_that_is_slightly_wrong(
    workspace: Workspace,
) -> None:
    """A check of the check: 1 part in 10,000 of the LR is 100 times the tolerance."""
    assert compare(workspace, POLICIES["fixed"], "--lr", "FIX(k0=0.050005)") > 10 * POLICY


MULTIPLIERS = "param { lr_mult: 1 decay_mult: 2 } param { lr_mult: 2 decay_mult: 0 }"
WITH_MULTIPLIERS = nets.net(
    middle=nets.inner_product("ip1", "data", 16, MULTIPLIERS)
    + nets.relu("ip1")
    + nets.inner_product("ip2", "ip1", 10, "param { lr_mult: 0.5 }")
)
SHARED = 'param { name: "w" lr_mult: 2 decay_mult: 3 } param { name: "b" }'
WITH_SHARED_PARAMETERS = nets.net(
    middle=nets.inner_product("ip1", "data", 64, SHARED)
    + nets.relu("ip1")
    + nets.inner_product("ip1b", "ip1", 64, 'param { name: "w" } param { name: "b" }')
    + nets.relu("ip1b")
    + nets.inner_product("ip2", "ip1b", 10)
)
DECAY = {"weight_decay": 0.01}
ALL = {
    "base_lr": 0.003,  # with a larger one L1 takes weights to 0, where rounding decides their sign
    "weight_decay": 0.0005,
    "regularization_type": '"L1"',
    "clip_gradients": 1,
    "iter_size": 3,
}

GRADIENT_CASES = {
    "SGD": ("SGD", {}, nets.net()),
    "no weight decay": ("SGD", {"weight_decay": None}, nets.net()),
    "Nesterov": ("Nesterov", DECAY, nets.net()),
    "L1": ("SGD", {**DECAY, "regularization_type": '"L1"'}, nets.net()),
    "clip_gradients": ("Nesterov", {**DECAY, "clip_gradients": 0.5}, nets.net()),
    "iter_size": ("SGD", {**DECAY, "iter_size": 2}, nets.net()),
    "multipliers": ("SGD", DECAY, WITH_MULTIPLIERS),
    "shared": ("Nesterov", DECAY, WITH_SHARED_PARAMETERS),
    "all": ("Nesterov", ALL, WITH_SHARED_PARAMETERS),
}


# The quick ones; "all" has every option of the slow ones.
QUICK = ("SGD", "multipliers", "all")


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, marks=() if case in QUICK else pytest.mark.slow)
        for case in GRADIENT_CASES
    ],
)
def test_the_way_for_caffe_1_trains_as_caffe_train(workspace: Workspace, case: str) -> None:
    kind, fields, net = GRADIENT_CASES[case]
    workspace.write("net.prototxt", net)
    solver = nets.solver(type=f'"{kind}"', **fields)
    assert compare(workspace, solver, "--set-lr-by", "gradients") <= GRADIENTS
    patched = (workspace.path / "out" / "prototxt" / "solver.prototxt").read_text()
    assert "base_lr: 1.0" in patched  # it really went that way


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fields", "net"),
    [
        ({**ALL, "weight_decay": 0}, WITH_SHARED_PARAMETERS),
        ({**ALL, "regularization_type": '"L2"'}, WITH_SHARED_PARAMETERS),
        ({**ALL, "clip_gradients": None}, WITH_SHARED_PARAMETERS),
        ({**ALL, "iter_size": 2}, WITH_SHARED_PARAMETERS),
        (ALL, WITH_SHARED_PARAMETERS.replace("decay_mult: 3", "")),
    ],
    ids=["weight_decay", "regularization_type", "clip_gradients", "iter_size", "decay_mult"],
)
def test_the_comparison_notices_each_option_of_the_update(
    workspace: Workspace, fields: dict[str, object], net: str
) -> None:
    """A check of the check: with real Caffe alone, each option moves the weights by far more."""
    for prefix, options, text in (("with", ALL, WITH_SHARED_PARAMETERS), ("without", fields, net)):
        workspace.write("net.prototxt", text)
        solver = nets.solver(type='"Nesterov"', **options).replace("tiny", prefix)
        workspace.write(f"{prefix}.prototxt", solver)
        workspace.caffe("train", f"--solver={prefix}.prototxt").succeeded()
    one, other = (
        workspace.path / f"{prefix}_iter_100.caffemodel" for prefix in ("with", "without")
    )
    assert difference(one, other) > 10 * GRADIENTS
