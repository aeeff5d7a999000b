"""Settings, however they are said: flags, the solver, or the record of a run."""

from __future__ import annotations

import dataclasses
import os
import signal
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from google.protobuf import text_format

from lrbench_caffe.errors import InputError
from lrbench_caffe.importing.rates import find_policy
from lrbench_caffe.lr import PolicyError
from lrbench_caffe.prototxt.messages import shortest
from lrbench_caffe.prototxt.nets import PhaseNet
from lrbench_caffe.prototxt.patch import LR_WAYS
from lrbench_caffe.prototxt.solver import Solver
from lrbench_caffe.prototxt.task import solver_settings
from lrbench_caffe.training.settings import (
    Origin,
    RunSettings,
    check_weights,
    choose_gpu,
    choose_policy,
    choose_seed,
)
from lrbench_caffe.training.signals import Signals
from lrbench_caffe.training.ways import choose_way, resumed_way

NONE = dict.fromkeys(("k0", "k1", "gamma", "p", "l"))


@pytest.fixture
def solver(messages):
    def build(text: str) -> Solver:
        message = text_format.Parse(text, messages.new("SolverParameter"))
        return Solver(Path("s.prototxt"), message, {}, PhaseNet("", "", "TRAIN", "", ()), None, [])

    return build


# -- policy ----------------------------------------------------------------------------------------


def test_the_solvers_own_policy(solver):
    own = solver('base_lr: 0.01 lr_policy: "step" gamma: 0.1 stepsize: 5000 max_iter: 10000')
    chosen = choose_policy(None, NONE, own, 10_000)
    assert chosen.origin is Origin.SOLVER
    assert chosen.policy(4999) == pytest.approx(0.01)
    assert chosen.policy(5000) == pytest.approx(0.001)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            'lr_policy: "sigmoid" gamma: -0.5 stepsize: 3',
            "gamma is -0.5; allowed: 0 or more",
        ),
        ('lr_policy: "multistep" gamma: -1', "gamma is -1; allowed: 0 or more"),
        ('lr_policy: "inv" gamma: nan', "gamma is nan; allowed: 0 or more"),
        ('lr_policy: "sigmoid" gamma: 0.1', "stepsize is missing; allowed: 1 or more"),
        ('lr_policy: "step" gamma: 0.1 stepsize: -2', "stepsize is -2; allowed: 1 or more"),
        ('lr_policy: "fixed" base_lr: inf', "base_lr is inf; allowed: a finite number"),
        ('lr_policy: "poly" base_lr: nan', "base_lr is nan; allowed: a finite number"),
    ],
)
def test_values_of_the_solvers_policy_that_caffe_checks(solver, text, words):
    with pytest.raises(InputError) as error:
        choose_policy(None, NONE, solver(text), 100)
    assert str(error.value) == f"s.prototxt: {' '.join(text.split()[:2])}: {words}"


@pytest.mark.parametrize(
    "text", ['lr_policy: "fixed" gamma: -1', 'lr_policy: "poly" gamma: -1 power: 1']
)
def test_values_of_the_solvers_policy_that_caffe_does_not_read(solver, text):
    choose_policy(None, NONE, solver("base_lr: 0.1 " + text), 100)


@pytest.mark.parametrize("base_lr", ["inf", "-inf", "nan"])
def test_a_base_lr_that_is_no_k0(solver, base_lr):
    with pytest.raises(
        InputError, match=f"s.prototxt: base_lr is {base_lr}; allowed: a finite number"
    ):
        choose_policy("fix", NONE, solver(f"base_lr: {base_lr}"), 100)


@pytest.mark.parametrize("max_iter", [100, 1000])
def test_what_is_chosen_is_what_the_record_trains_with(solver, max_iter):
    # With --max-iter the training may be longer than the solver's own 100 iterations.
    own = solver('base_lr: 0.01 lr_policy: "poly" power: 1 max_iter: 100')
    chosen = choose_policy(None, NONE, own, max_iter).policy
    settings = RunSettings("s", str(chosen), "the solver's lr_policy", 1, max_iter, 10, 0)
    assert settings.bound_policy()(50) == chosen(50)


def test_the_ssd_forks_plateau_points_to_ours(solver):
    own = solver('base_lr: 0.001 lr_policy: "plateau" gamma: 0.1')
    with pytest.raises(
        InputError,
        match=r'lr_policy: "plateau" is a fork.* policy "PLATEAU\(k0=0.001, gamma=0.1, n=N',
    ):
        choose_policy(None, NONE, own, 100)


class Fork:
    """A solver message of a fork with fields of its own."""

    def __init__(self, message, names):
        self._message, self._names = message, names

    def __getattr__(self, name):
        return getattr(self._message, name)

    def ListFields(self):
        return [(SimpleNamespace(name=name), 1) for name in self._names] + list(
            self._message.ListFields()
        )


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["min_lr"], "min_lr"),  # NVCaffe
        (["rampup_interval", "rampup_lr"], "rampup_interval, rampup_lr"),
        (["warmup_iter", "warmup_start_lr"], "warmup_iter, warmup_start_lr"),  # Intel Caffe
        (["plateau_winsize"], "plateau_winsize"),  # weiliu89's SSD
        (["local_lr_auto", "eval_type"], None),  # nothing of the schedule
    ],
)
def test_an_lr_that_a_fork_decides_is_not_told_wrong(solver, names, told):
    own = solver('base_lr: 0.1 lr_policy: "poly" power: 1')
    own = dataclasses.replace(own, message=Fork(own.message, names))
    if told is None:
        assert choose_policy(None, NONE, own, 100).policy(50) == pytest.approx(0.05)
    else:
        with pytest.raises(
            InputError,
            match=f"^s.prototxt: {told}: specific to a fork, .*; allowed: a policy with policy",
        ):
            choose_policy(None, NONE, own, 100)
    assert choose_policy("FIX(k0=0.1)", NONE, own, 100).policy(0) == 0.1


# -- how Caffe gets the LR -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flag", "own_policy", "kind", "writable", "way"),
    [
        ("auto", True, "SGD", True, "lr_policy"),
        ("auto", True, "Adam", False, "lr_policy"),
        ("auto", False, "Adam", True, "base_lr"),
        ("auto", False, "Nesterov", False, "gradients"),
        ("base_lr", True, "SGD", True, "base_lr"),
        ("gradients", True, "SGD", True, "gradients"),
        ("auto", False, "Adam", False, "cannot set base_lr from Python"),
        ("lr_policy", False, "SGD", True, "only for the solver's own lr_policy"),
        ("base_lr", False, "SGD", False, "cannot set it from Python"),
        ("gradients", False, "RMSProp", True, "works with SGD and Nesterov only"),
    ],
)
def test_the_way_that_caffe_gets_the_lr(solver, caffe_info, flag, own_policy, kind, writable, way):
    own, info = (
        solver(f'type: "{kind}"'),
        dataclasses.replace(caffe_info, writable_base_lr=writable),
    )
    if way in LR_WAYS:
        assert choose_way(flag, own_policy, own, info) == way
    else:
        with pytest.raises(InputError, match=way):
            choose_way(flag, own_policy, own, info)


@pytest.mark.parametrize(
    ("flag", "before", "kind", "writable", "way", "note"),
    [
        ("auto", "base_lr", "SGD", True, "base_lr", None),
        ("auto", "base_lr", "SGD", False, "gradients", "cannot set base_lr"),
        ("auto", "gradients", "SGD", True, "gradients", None),
        ("auto", "lr_policy", "Adam", False, "lr_policy", None),
        ("base_lr", "gradients", "SGD", True, "base_lr", "now set by base_lr, before by gradients"),
        ("auto", "base_lr", "Adam", False, None, "cannot set it from Python"),
        ("base_lr", "gradients", "SGD", False, None, "cannot set it from Python"),
    ],
)
def test_the_way_of_a_run_that_is_resumed(
    solver, caffe_info, flag, before, kind, writable, way, note
):
    own, info = (
        solver(f'type: "{kind}"'),
        dataclasses.replace(caffe_info, writable_base_lr=writable),
    )
    if way is None:
        with pytest.raises(InputError, match=note):
            resumed_way(flag, before, True, own, info)
        return
    found, said = resumed_way(flag, before, True, own, info)
    assert found == way
    assert said is None if note is None else note in said


@pytest.mark.parametrize(("gradients", "way"), [(True, "gradients"), (False, "base_lr")])
def test_a_run_from_before_there_were_three_ways(gradients, way):
    record = RunSettings("s", "FIX(k0=0.1)", "given", 1, 100, 10, 0).as_json()
    del record["lr_by"]
    assert RunSettings.from_json({**record, "gradients": gradients}).lr_by == way


# -- policy again ----------------------------------------------------------------------------------


def test_a_policy_with_flags(solver):
    chosen = choose_policy(
        "sin2", {**NONE, "k1": "0.06", "l": "2000"}, solver("base_lr: 0.01 max_iter: 100"), 10_000
    )
    assert str(chosen.policy) == "SIN2(k0=0.01, k1=0.06, l=2000)"  # 0.01, not 0.009999999776
    assert [filled.parameter for filled in chosen.filled] == ["k0"]


@pytest.mark.parametrize(
    ("text", "flags", "solver_text", "error", "message"),
    [
        (
            None,
            {},
            "base_lr: 1",
            InputError,
            "s.prototxt: lr_policy is missing; give one there or a policy with policy",
        ),
        (None, {"k0": "1", "l": "2"}, "base_lr: 1", InputError, "k0, l require policy"),
        (None, {}, 'lr_policy: "stepp" base_lr: 1', InputError, "s.prototxt: .*stepp"),
        ("fix", {}, "base_lr: 0", InputError, "^s.prototxt: FIX: k0 is missing, and base_lr=0"),
        ("sine2", {}, "base_lr: 0", PolicyError, "^unknown LR function 'sine2'"),
        ("sine2", {}, "base_lr: 1", PolicyError, "sine2"),
    ],
)
def test_mistakes_with_policies(solver, text, flags, solver_text, error, message):
    with pytest.raises(error, match=rf"(?i){message}"):
        choose_policy(text, {**NONE, **flags}, solver(solver_text), 1000)


@pytest.mark.parametrize("text", ["0.01", "0.1", "0.0001", "1e-07", "0.75", "3.0"])
def test_float32_fields_as_they_were_written(solver, text):
    assert shortest(solver(f"base_lr: {text}").message.base_lr) == float(text)


def test_a_policy_has_the_numbers_that_were_written_wherever_it_comes_from(solver):
    """Eight digits: more than the seven that every float32 keeps, and few enough for this one."""
    own = solver('base_lr: 0.012345678 lr_policy: "fixed" max_iter: 100')
    written = "FIX(k0=0.012345678)"

    def settings(text: str | None) -> RunSettings:
        chosen = choose_policy(text, NONE, own, 100)
        return RunSettings(
            "s.prototxt",
            str(chosen.policy),
            chosen.origin.value,
            1,
            100,
            10,
            0,
            own_policy=chosen.own,
        )

    assert str(settings(None).recorded_policy()) == written  # from the solver
    assert str(settings(written).recorded_policy()) == written  # given
    assert str(own.lr_policy(100)) == written  # what a tuning compares with
    assert str(find_policy(own.message, {}, {}, []).policy) == written  # from a log
    assert solver_settings(own).base_lr == 0.012345678
    assert (
        settings(None).bound_policy()(0) == float(np.float32(0.012345678)) != 0.012345678
    )  # trained with


def test_a_run_of_version_0_1_keeps_the_rounded_policy_that_it_was_recorded_with(solver):
    own = solver('base_lr: 0.012345678 lr_policy: "fixed" max_iter: 100')
    chosen = choose_policy(None, NONE, own, 100)
    settings = RunSettings(
        "s.prototxt", str(chosen.policy), chosen.origin.value, 1, 100, 10, 0, own_policy=chosen.own
    )
    assert str(settings.recorded_policy("FIX(k0=0.01234568)")) == "FIX(k0=0.01234568)"
    assert str(settings.recorded_policy("FIX(k0=0.5)")) == "FIX(k0=0.012345678)"


# -- GPU, seed, weights ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flag", "text", "gpu"),
    [
        (None, "", None),  # caffe train's rule: without --gpu and solver_mode it is the CPU
        (None, "solver_mode: CPU", None),
        (None, "solver_mode: GPU device_id: 1", 1),
        ("0", "solver_mode: CPU", 0),
        ("none", "solver_mode: GPU", None),
    ],
)
def test_gpu(solver, caffe_info, flag, text, gpu):
    two = dataclasses.replace(caffe_info, cuda=True, gpus=2)
    assert choose_gpu(flag, solver(text), two) == gpu


@pytest.mark.parametrize(
    ("flag", "gpus", "message"),
    [
        ("2", 2, r"^gpu 2: no such GPU; this machine has 2$"),
        ("-1", 2, r"^gpu -1: no such GPU"),
        ("0,1", 2, r"^gpu 0,1: 2 GPUs; allowed: one for each training"),
        ("all", 2, r"^gpu all: 2 GPUs"),
        ("all", 0, r"^gpu all: no such GPU; this machine has 0$"),
        ("first", 2, r"^gpu: 'first'; allowed: a GPU's number, all, or none for the CPU$"),
    ],
)
def test_gpus_that_are_not_there(solver, caffe_info, flag, gpus, message):
    with pytest.raises(InputError, match=message):
        choose_gpu(flag, solver(""), dataclasses.replace(caffe_info, cuda=True, gpus=gpus))


def test_gpu_on_a_caffe_without_cuda(solver, caffe_info):
    cpu = dataclasses.replace(caffe_info, cuda=False, gpus=0)
    with pytest.raises(InputError, match=r"^gpu 0: the Caffe in .* is CPU-only"):
        choose_gpu("0", solver(""), cpu)
    with pytest.raises(
        InputError, match=r"^s.prototxt: solver_mode: GPU: the Caffe in .* is CPU-only"
    ):
        choose_gpu(None, solver("solver_mode: GPU"), cpu)


def test_seed(solver):
    assert choose_seed(7, solver("random_seed: 5")) == 7
    assert choose_seed(None, solver("random_seed: 5")) == 5
    new = {choose_seed(None, solver("")) for _ in range(5)}
    assert len(new) > 1
    assert all(0 <= seed < 2**31 for seed in new)
    for bad in (-1, 2**31):
        with pytest.raises(InputError, match=f"^seed: {bad}; allowed: 0 to 2147483647$"):
            choose_seed(bad, solver(""))


def test_weights(solver, messages, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = messages.new("NetParameter")
    model.layer.add(name="ip")
    for name in ("a", "b", "c"):
        Path(name).write_bytes(model.SerializeToString())
    assert check_weights("a,b", solver("weights: 'c'"), messages) == ["a", "b"]
    assert check_weights(None, solver("weights: 'c,a' weights: 'b'"), messages) == ["c", "a", "b"]
    assert check_weights(None, solver(""), messages) == []
    with pytest.raises(InputError, match=r"^weights: no such file: d$"):
        check_weights("a,d", solver(""), messages)
    with pytest.raises(InputError, match=r"^s.prototxt: weights: no such file: d$"):
        check_weights(None, solver("weights: 'd'"), messages)
    Path("empty").touch()
    with pytest.raises(InputError, match=r"^weights: empty holds no layers"):
        check_weights("empty", solver(""), messages)
    Path("cut").write_bytes(model.SerializeToString()[:-1])
    with pytest.raises(InputError, match=r"^weights: cut is not a complete NetParameter"):
        check_weights("cut", solver(""), messages)


# -- the record ------------------------------------------------------------------------------------


def test_record_round_trip():
    settings = RunSettings(
        "s", "SIN(k0=0.1, k1=0.2, l=50)", "given", 1, 100, 10, 0, stages=["a"], lr_by="gradients"
    )
    assert RunSettings.from_json({**settings.as_json(), "something": "else"}) == settings
    assert settings.bound_policy()(50) == pytest.approx(0.2)
    record = settings.as_json()
    del record["seed"]
    with pytest.raises(InputError, match="^run.json has no field 'seed'$"):
        RunSettings.from_json(record)


# -- signals ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "effects", "stop", "snapshot"),
    [
        (signal.SIGINT, {}, True, False),
        (signal.SIGHUP, {}, False, True),
        (signal.SIGTERM, {}, True, False),
        (signal.SIGINT, {"sigint": "snapshot"}, False, True),
        (signal.SIGINT, {"sigint": "none"}, False, False),
        (signal.SIGHUP, {"sighup": "stop"}, True, False),
        (signal.SIGHUP, {"sighup": "none"}, False, False),
    ],
)
def test_signals(number, effects, stop, snapshot):
    before = signal.getsignal(number)
    with Signals(**effects) as signals:
        assert not signals.pending()
        os.kill(os.getpid(), number)
        assert (signals.stop, signals.snapshot, signals.pending()) == (
            stop,
            snapshot,
            stop or snapshot,
        )
        assert signals.take_snapshot_request() == snapshot
        assert not signals.take_snapshot_request()  # a request is served once
    assert signal.getsignal(number) == before


def test_a_second_ctrl_c_does_not_wait():
    with Signals() as signals:
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.stop
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
