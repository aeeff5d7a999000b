"""Logs of forks, and of nets that glog cut: LRs, GPUs, layers, and what this Caffe does not know."""

from __future__ import annotations

import re
from types import SimpleNamespace

import numpy as np
import pytest

from lrbench_caffe.importing.rates import as_printed, find_policy
from lrbench_caffe.lr import parse
from lrbench_caffe.prototxt.task import open_task
from tests.caffe import nets
from tests.importing.logs import until

# -- LRs -------------------------------------------------------------------------------------------


def with_policy(log: str, fields: str, rate) -> str:
    """The log of a solver with these fields instead of its policy, and with the LRs of ``rate``."""
    log = log.replace('lr_policy: "inv"\ngamma: 0.01\npower: 0.75\n', fields)
    return re.sub(
        r"Iteration (\d+), lr = \S+", lambda m: f"Iteration {m[1]}, lr = {rate(int(m[1])):.6g}", log
    )


def test_nvcaffes_min_lr(log, reader):
    """rate = (base_lr - min_lr) (1 - t/max_iter)^power + min_lr"""
    text = with_policy(
        log, 'lr_policy: "poly"\npower: 1\nmin_lr: 0.001\n', lambda t: 0.049 * (1 - t / 200) + 0.001
    )
    record = reader.one(text)
    assert record.policy.text == "POLY(k0=0.05, k1=0.001, p=1)"
    assert reader.noted("min_lr")
    assert [m.lr for m in record.measurements] == pytest.approx(
        [0.05, 0.03775, 0.0255, 0.01325, 0.001]
    )


def test_min_lr_that_cuts_a_policy_off(log, reader):
    text = with_policy(
        log,
        'lr_policy: "step"\ngamma: 0.1\nstepsize: 50\nmin_lr: 0.0004\n',
        lambda t: max(0.0004, 0.05 * 0.1 ** (t // 50)),
    )
    record = reader.one(text)
    assert record.policy.text == "STEP(k0=0.05, gamma=0.1, l=50) ; 150: FIX(k0=0.0004)"


def test_a_linear_ramp(log, reader):
    text = with_policy(
        log,
        'lr_policy: "poly"\npower: 2\nrampup_interval: 40\nrampup_lr: 0.01\n',
        lambda t: 0.01 + 0.04 * t / 40 if t < 40 else 0.05 * (1 - t / 200) ** 2,
    )
    record = reader.one(text)
    assert record.policy.text == "TRI(k0=0.01, k1=0.05, l=40) ; 40: POLY(k0=0.032, p=2)"
    assert reader.noted("rampup_interval")


def test_nvcaffes_curved_ramp(log, reader):
    """0.17: rampup_lr + (base_lr - rampup_lr) (t / rampup_interval)^2"""
    text = with_policy(
        log,
        'lr_policy: "poly"\npower: 1\nmin_lr: 0.001\nrampup_interval: 80\nrampup_lr: 0.01\n',
        lambda t: 0.01 + 0.04 * (t / 80) ** 2 if t < 80 else 0.049 * (1 - t / 200) + 0.001,
    )
    record = reader.one(text)
    rates = parse(record.policy.text, strict=False).bind(200)(np.arange(200))
    t = np.arange(200)
    wanted = np.where(t < 80, 0.01 + 0.04 * (t / 80) ** 2, 0.049 * (1 - t / 200) + 0.001)
    assert np.abs(rates - wanted).max() < 0.05 / 200
    assert reader.noted("nearly")


def test_intels_warm_up(log, reader):
    text = with_policy(
        log,
        'lr_policy: "multistep"\ngamma: 0.1\nstepvalue: 100\nwarmup_iter: 50\nwarmup_start_lr: 0.005\n',
        lambda t: 0.005 + 0.045 * t / 50 if t < 50 else 0.05 if t < 100 else 0.005,
    )
    assert reader.one(text).policy.text == (
        "TRI(k0=0.005, k1=0.05, l=50) ; 50: NSTEP(k0=0.05, gamma=0.1, l=[50])"
    )


def test_intels_multifixed(log, reader):
    text = with_policy(
        log,
        'lr_policy: "multifixed"\nstagelr: 0.05\nstagelr: 0.01\nstageiter: 100\nstageiter: 200\n',
        lambda t: 0.05 if t <= 100 else 0.01,
    )
    assert reader.one(text).policy.text == "FIX(k0=0.05) ; 101: FIX(k0=0.01)"


def test_a_policy_that_nobody_knows(log, reader):
    """What was printed is the policy, as far as lines of ten iterations tell it."""
    text = with_policy(
        log, 'lr_policy: "plateau"\ngamma: 0.1\n', lambda t: 0.05 if t < 130 else 0.005
    )
    record = reader.one(text)
    assert record.policy.text == "FIX(k0=0.05) ; 130: FIX(k0=0.005)"
    assert reader.noted("lr_policy 'plateau'")
    assert record.policy.text in record.origin


def test_printed_lrs_win_over_the_solvers(log, reader):
    """Another base_lr than the solver says."""
    text = re.sub(r"lr = (\S+)", lambda m: f"lr = {float(m[1]) / 5:.6g}", log)
    record = reader.one(text)
    assert record.policy.text == "INV(k0=0.01, gamma=0.01, p=0.75)"
    assert reader.noted("the solver says lr_policy 'inv' and base_lr 0.05")


def test_a_known_policy_under_another_name(log, reader):
    record = reader.one(log.replace('lr_policy: "inv"', 'lr_policy: "inverse"'))
    assert record.policy.text == "INV(k0=0.05, gamma=0.01, p=0.75)"


def test_without_printed_lrs_the_solver_is_believed(log, reader):
    text = re.sub(r"(?m)^.*, lr = .*\n", "", log).replace('"inv"', '"poly"') + ""
    text = text.replace("gamma: 0.01\npower: 0.75", "power: 1\nmin_lr: 0.001")
    assert reader.one(text).policy.text == "POLY(k0=0.05, k1=0.001, p=1)"


@pytest.mark.parametrize(
    ("lrs", "text"),
    [
        ({0: 0.1, 10: 0.1, 20: 0.1}, "FIX(k0=0.1)"),
        ({0: 0.1, 10: 0.1, 20: 0.01, 30: 0.01}, "FIX(k0=0.1) ; 20: FIX(k0=0.01)"),
        ({0: 0.1, 10: 0.2, 20: 0.3}, "TRI(k0=0.1, k1=0.31, l=21)"),
        ({50: 0.1, 60: 0.1}, "FIX(k0=0.1)"),
    ],
)
def test_pieces_through_printed_lrs(lrs, text):
    assert str(as_printed(lrs)) == text


def test_printed_lrs_that_no_line_follows():
    random = np.random.default_rng(1)
    assert as_printed(dict(enumerate(random.uniform(0.01, 1, 500).tolist()))) is None


def test_an_adaptive_rise_and_fall_is_followed():
    """One cycle of a cosine, printed every 20 iterations."""
    lrs = {t: 0.05 + 0.04 * np.cos(2 * np.pi * t / 1000) for t in range(0, 1000, 20)}
    policy = as_printed(lrs)
    assert policy is not None
    rates = policy(np.arange(1000))
    assert np.abs(rates - (0.05 + 0.04 * np.cos(2 * np.pi * np.arange(1000) / 1000))).max() < 0.003


@pytest.mark.parametrize(
    "lr_policy", ["fixed", "step", "exp", "inv", "multistep", "poly", "sigmoid"]
)
def test_each_policy_of_caffe_after_a_ramp(messages, lr_policy):
    """A segment counts from its own start; the LRs are those of the policy that counts from 0."""
    solver = messages.new("SolverParameter")
    solver.lr_policy, solver.base_lr, solver.gamma, solver.power = lr_policy, 0.1, 0.97, 0.8
    solver.stepsize, solver.max_iter = 30, 100
    solver.stepvalue.extend([10, 60])
    plain = find_policy(solver, {}, {}).policy
    t = np.arange(100)
    wanted = np.where(t < 25, 0.1 * t / 25, plain(t))
    fields = {"rampup_interval": ["25"]}
    found = find_policy(solver, fields, dict(zip(t.tolist(), wanted.tolist())))
    assert np.allclose(found.policy.bind(100)(t), wanted, rtol=1e-5)
    assert found.remark is not None and "rampup_interval" in found.remark


# -- NVCaffe ---------------------------------------------------------------------------------------


def nvcaffe(log: str, gpus: str = "0") -> str:
    """The log as NVCaffe 0.16 would have written it."""
    log = log.replace("Use CPU.", f"Using GPUs {gpus}", 1)
    log = re.sub(r"(Iteration (\d+) \(.*)iters\), loss", r"\1iter), 0.\2/2.0ep, loss", log)
    log = re.sub(r"(lr = \S+)", r"\1, m = 0.9, lrm = 0.5, wd = 0.0005, gs = 1", log)
    layer = ""
    lines = []
    for line in log.splitlines():
        if found := re.search(r"Setting up (\S+)", line):
            layer = found[1]
        lines.append(line.replace("Top shape: ", f"TRAIN Top shape for layer 3 '{layer}' "))
    log = "\n".join(lines) + "\n"
    return log.replace("Optimization Done.", "Optimization Done in 2h 8m 22s")


def test_nvcaffes_log(log, reader):
    whole = reader.one(log)
    record = reader.one(nvcaffe(log))
    assert (record.status, record.reason) == ("finished", None)
    assert record.measurements == whole.measurements
    assert (record.network, record.dataset, record.solver) == (
        whole.network,
        whole.dataset,
        whole.solver,
    )
    assert record.framework.device == "GPU"


def test_nvcaffes_version(log, reader):
    text = nvcaffe(log)
    first = text.splitlines()[0]
    hello = first[: first.index("]") + 2] + "This is NVCaffe 0.17.3 started at Tue Nov 28"
    assert reader.one(f"{hello}\n{text}").framework.version == "NVCaffe 0.17.3"


@pytest.mark.parametrize(
    ("line", "gpus"),
    [
        ("Using GPUs 0", 1),
        ("Using GPUs 0, 1, 2, 3", 4),
        ("Using GPUs 0,1", 2),
        ("Use GPU with device ID 3", 1),
        ("Use GPU with device ID 0, 2", 2),
    ],
)
def test_gpus(log, reader, line, gpus):
    """BVLC's Caffe trains one batch on each GPU in an iteration, and tests on the first one alone."""
    whole = reader.one(log)
    record = reader.one(log.replace("Use CPU.", line))
    assert record.framework.device == "GPU"
    assert record.solver.batch == 20 * gpus
    assert record.epoch == pytest.approx(1297 / (20 * gpus))
    assert (
        {m.samples for m in record.measurements} == {m.samples for m in whole.measurements} == {500}
    )


def test_nvcaffe_prints_the_batch_of_one_gpu(log, reader):
    """It divides the batch of the net's file, in training and in tests."""
    record = reader.one(nvcaffe(log, "0, 1"))
    assert record.solver.batch == 40
    assert {m.samples for m in record.measurements} == {1000}


def test_nvcaffes_batch_in_the_file_is_that_of_all_gpus(log, reader, tmp_path):
    (tmp_path / "solver.prototxt").write_text(nets.solver(max_iter=200, net='"net.prototxt"'))
    text = nvcaffe(log)
    began = until(text, "Iteration 0, Testing")
    gpus = text.splitlines()[0].replace("Using GPUs 0", "Using GPUs 0, 1")
    record = reader.one(f"{gpus}\n{text[len(began) :]}")
    assert record.solver.batch == 20
    assert record.start.kind == "unknown"


# -- Intel's Caffe ---------------------------------------------------------------------------------


def intel(log: str) -> str:
    """The net comes behind a message without text: it goes to stdout, and with its Split layers."""
    return re.sub(r"(?m)^((I.*\] )Initializing net from parameters: )\n", r"\1\n\2\n", log)


def test_intels_log(log, reader):
    whole = reader.one(log)
    record = reader.one(intel(log))
    assert (record.network, record.dataset) == (whole.network, whole.dataset)
    assert record.measurements == whole.measurements


def test_intels_log_without_stdout(log, reader, monkeypatch, tmp_path):
    """The nets are missing: their file is asked, and where there is none, the set-up."""
    whole = reader.one(log)
    without = re.sub(
        r"(?ms)^(I[^\n]*Initializing net from parameters: \n)(.*?)^(?=I\d{4} )", r"\1", intel(log)
    )
    without = re.sub(r'(?ms)^name: "tiny"\n.*?^(?=I\d{4} )', "", without)
    assert "layer {" not in without
    record = reader.one(without)
    assert record.network == whole.network
    monkeypatch.chdir(tmp_path)
    record = reader.one(without)
    assert record.network.name == "unknown (partial)"
    assert (record.head, record.dataset.classes) == ("ip2", 10)
    assert [m.top1 for m in record.measurements] == [m.top1 for m in whole.measurements]
    assert [m.top5 for m in record.measurements] == [m.top5 for m in whole.measurements]


def test_split_layers_in_the_text_are_caffes_own(log, reader):
    whole = reader.one(log)
    split = (
        'layer {\n  name: "ip2_ip1_0_split"\n  type: "Split"\n  bottom: "ip1"\n'
        '  top: "ip1_split_0"\n  top: "ip1_split_1"\n}\n'
    )
    text = re.sub(
        r'(?s)(layer \{\n  name: "ip2"\n.*?)bottom: "ip1"',
        lambda m: split + m[1] + 'bottom: "ip1_split_0"',
        log,
    )
    assert text != log
    assert reader.one(text).network == whole.network


# -- what this Caffe does not know -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "left_out"),
    [
        (
            '  type: "InnerProduct"\n',
            '  type: "InnerProduct"\n  forward_type: FLOAT16\n',
            "forward_type",
        ),
        ("    backend: LMDB\n", "    backend: LMDB\n    threads: 2\n    cache: true\n", "threads"),
        (
            'name: "tiny"\n',
            'name: "tiny"\ndefault_forward_type: FLOAT16\nengine: "MKLDNN"\n',
            "default_forward",
        ),
        (
            '  type: "ReLU"\n',
            '  type: "ReLU"\n  relu_param {\n    engine: MKL2017\n  }\n',
            "engine: MKL2017",
        ),
    ],
)
def test_fields_and_values_of_forks(log, reader, old, new, left_out):
    whole = reader.one(log)
    text = log.replace(old, new)
    assert text != log
    record = reader.one(text)
    assert record.measurements == whole.measurements
    assert not record.network.name.endswith("(partial)")
    assert record.network.layers == whole.network.layers
    assert reader.noted(left_out)


def test_a_solver_with_fields_of_a_fork(log, reader):
    more = 'clip_gradients_type: "l2"\nlocal_lr_auto: true\n'
    record = reader.one(log.replace("display: 10\n", f"display: 10\n{more}"))
    assert record.policy.text == "INV(k0=0.05, gamma=0.01, p=0.75)"
    assert reader.noted("does not know: clip_gradients_type, local_lr_auto")


def test_a_layer_of_a_fork_is_known_by_its_type(log, reader):
    record = reader.one(log.replace('type: "ReLU"', 'type: "Swoosh"'))
    assert record.network.layers["Swoosh"] == 1
    assert record.network.parameters is None


# -- nets that glog cut ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def deep(shared_workspace):
    """The log of a net whose text is longer than what glog prints of a message."""
    long = "a_layer_with_a_very_long_name_as_generated_nets_have_them_" * 3
    blob = "data"
    middle = ""
    for number in range(30):
        middle += nets.inner_product(f"{long}{number}", blob, 8) + nets.relu(f"{long}{number}")
        blob = f"{long}{number}"
    middle += nets.inner_product("ip2", blob, 10)
    shared_workspace.write("deep.prototxt", nets.net(middle=middle))
    shared_workspace.write(
        "deep_solver.prototxt", nets.solver(net='"deep.prototxt"', max_iter=20, display=5)
    )
    log = shared_workspace.caffe("train", "--solver=deep_solver.prototxt").succeeded().err
    return SimpleNamespace(log=log, path=shared_workspace.path)


def test_the_net_that_glog_cut_comes_from_its_file(deep, reader, monkeypatch):
    assert deep.log.count('name: "loss"') == 0  # neither net is printed to its end
    monkeypatch.chdir(deep.path)
    record = reader.one(deep.log)
    _, task = open_task(deep.path / "deep_solver.prototxt")
    assert (record.network, record.dataset) == (task.network, task.dataset)
    assert record.status == "finished"
    assert [m.top1 for m in record.measurements] == [
        pytest.approx(100 * float(v)) for v in re.findall(r"accuracy = (\S+)", deep.log)
    ]
    assert reader.noted("the net is that of deep.prototxt")


def test_the_file_beside_the_log_and_beside_the_solver(deep, reader, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    whole = (deep.path / "deep.prototxt").read_text()
    (tmp_path / "deep.prototxt").write_text(whole)
    assert not reader.one(deep.log).network.name.endswith("(partial)")
    (tmp_path / "deep.prototxt").unlink()
    solver = deep.path / "deep_solver.prototxt"
    assert not reader.one(deep.log, solver_file=solver).network.name.endswith("(partial)")


def test_without_its_file_the_net_is_partial(deep, reader, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    record = reader.one(deep.log)
    assert record.network.name == "tiny (partial)"
    assert record.network.parameters is None
    assert 10 < record.network.depth < 31
    assert (record.task_type, record.head, record.dataset.classes) == ("classification", "ip2", 10)
    assert record.solver.batch == 20
    assert [m.top5 for m in record.measurements] == [
        pytest.approx(100 * float(v)) for v in re.findall(r"top5 = (\S+)", deep.log)
    ]
    assert all(m.test_loss is not None for m in record.measurements)
    assert reader.noted("stored as partial")
    assert "partial" in record.origin


def test_a_partial_net_equals_no_other(deep, reader, monkeypatch, tmp_path):
    """Nor one whose text begins alike."""
    monkeypatch.chdir(tmp_path)
    one = reader.one(deep.log).network.digest
    wider = re.sub(r"(Setting up ip2\n.*Top shape: \d+) 10 \(\d+\)", r"\1 12 (240)", deep.log)
    assert wider != deep.log
    assert reader.one(wider).network.digest != one
    monkeypatch.chdir(deep.path)
    assert reader.one(deep.log).network.digest != one


@pytest.mark.parametrize("change", [('"ip2"', '"ip3"'), ("num_output: 8", "num_output: 9")])
def test_a_file_of_another_net_is_not_taken(deep, reader, monkeypatch, tmp_path, change):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deep.prototxt").write_text(
        (deep.path / "deep.prototxt").read_text().replace(*change)
    )
    assert reader.one(deep.log).network.name.endswith("(partial)")


def test_a_log_of_2014(log, reader):
    """Its net is of the format of 2014, and is upgraded by Caffe itself."""
    whole = reader.one(log)
    types = {
        "Data": "DATA",
        "InnerProduct": "INNER_PRODUCT",
        "ReLU": "RELU",
        "Accuracy": "ACCURACY",
    }
    types["SoftmaxWithLoss"] = "SOFTMAX_LOSS"
    text = log.replace("layer {\n", "layers {\n")
    for new, old in types.items():
        text = text.replace(f'  type: "{new}"\n', f"  type: {old}\n")
    text = re.sub(r"(Iteration \d+) \([^)]*\), loss", r"\1, loss", text)
    record = reader.one(text)
    assert record.network == whole.network
    assert [m.top1 for m in record.measurements] == [m.top1 for m in whole.measurements]


def test_printed_lrs_that_fall_to_zero_are_named_poly():
    """As of lr_policy poly, resumed with twice the max_iter: k1 is 0, and no rounding error."""
    lrs = {t: 0.01 * (1 - t / 400) for t in range(0, 400, 20)}
    lrs.update((t, 0.01 * (1 - t / 800)) for t in range(400, 800, 20))
    lrs = {t: float(f"{lr:.6g}") for t, lr in lrs.items()}
    assert str(as_printed(lrs)).startswith("POLY(k0=0.01, p=1, l=400) ; 400: POLY(k0=0.005,")


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_poly_that_was_resumed_with_another_max_iter(messages, power):
    solver = messages.new("SolverParameter")
    solver.base_lr, solver.lr_policy, solver.power, solver.max_iter = 0.01, "poly", power, 800
    lrs = {t: 0.01 * (1 - t / (400 if t < 300 else 800)) ** power for t in range(0, 800, 20)}
    found = find_policy(solver, {}, lrs, [(0, 400), (300, 800)])
    first = 0.01 * 0.625**power  # 1 - 300/800
    assert str(found.policy) == (
        f"POLY(k0=0.01, p={power:g}, l=400) ; 300: POLY(k0={first:g}, p={power:g}, l=500)"
    )
    assert found.remark is None
