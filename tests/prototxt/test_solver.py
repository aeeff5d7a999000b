"""Reading a solver with its nets, and patching it for a run."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from google.protobuf import text_format

from lrbench_caffe.errors import InputError
from lrbench_caffe.prototxt.patch import NEVER, gradient_options, write_prototxts
from lrbench_caffe.prototxt.solver import load_solver

NET = """
name: "tiny"
layer { name: "train" type: "Data" top: "x" top: "y" include { phase: TRAIN }
        data_param { source: "train_lmdb" batch_size: 4 backend: LMDB } }
layer { name: "test" type: "Data" top: "x" top: "y" include { phase: TEST }
        data_param { source: "test_lmdb" batch_size: 5 backend: LMDB } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "s" inner_product_param { num_output: 3 }
        param { decay_mult: 1 } param { decay_mult: 0 } }
layer { name: "extra" type: "ReLU" bottom: "s" top: "s" include { stage: "extra" } }
layer { name: "deep" type: "ReLU" bottom: "s" top: "s" include { min_level: 2 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "s" bottom: "y" top: "loss" }
"""
TRAIN_ONLY = NET.replace("include { phase: TRAIN }", "")
TESTS = "test_iter: 2 test_interval: 100 "
BASE = "base_lr: 0.01 lr_policy: 'fixed' max_iter: 1000 "


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch, write_images):
    """A folder with the net and 20 training and 10 test images of 1 x 4 x 4; the working directory."""
    monkeypatch.chdir(tmp_path)
    write_images("train_lmdb", 20, (1, 4, 4))
    write_images("test_lmdb", 10, (1, 4, 4))
    Path("net.prototxt").write_text(NET)
    Path("other.prototxt").write_text(NET.replace("tiny", "other").replace('"s"', '"scores"'))
    return tmp_path


@pytest.fixture
def load(messages, caffe_info):
    def load(text: str, info=caffe_info, **options):
        Path("solver.prototxt").write_text(text)
        return load_solver(Path("solver.prototxt"), messages, info, **options)

    return load


def names(net) -> list[str]:
    return [layer.name for layer in net.layers]


def test_one_net_for_both_phases(load):
    solver = load(BASE + TESTS + 'net: "net.prototxt"')
    assert list(solver.nets) == ["net"]
    assert (solver.train.title, solver.train.origin, solver.train.name) == (
        "training net",
        "net.prototxt",
        "tiny",
    )
    assert names(solver.train) == ["train", "ip", "loss"]
    assert (solver.source.batch, solver.source.samples, solver.source.shape) == (4, 20, (1, 4, 4))
    (test,) = solver.tests
    assert (test.net.title, names(test.net)) == ("test net #0", ["test", "ip", "loss"])
    assert (test.passes, test.source.samples) == (2, 10)
    assert (test.head.scores, test.head.labels) == ("s", "y")
    assert solver.remarks == []  # 2 batches of 5 are all 10
    assert (solver.type, solver.iter_size, solver.epoch) == ("SGD", 1, 5.0)


def test_iter_size_counts_for_the_epoch(load):
    solver = load(BASE + 'net: "net.prototxt" iter_size: 2')
    assert (solver.iter_size, solver.epoch) == (2, 2.5)


def test_without_test_nets(load):
    solver = load(BASE + 'net: "net.prototxt"')
    assert solver.tests == []
    (remark,) = solver.remarks
    assert "solver.prototxt has no test nets" in remark


@pytest.mark.parametrize(
    ("fields", "train", "tests"),
    [
        ('net: "net.prototxt" test_iter: 2', "tiny", ["tiny"]),
        ('net: "net.prototxt" test_iter: [2, 1]', "tiny", ["tiny", "tiny"]),
        ('train_net: "net.prototxt" test_net: "other.prototxt" test_iter: 2', "tiny", ["other"]),
        (
            'train_net: "net.prototxt" test_net: "other.prototxt" test_net: "net.prototxt" test_iter: [2, 1]',
            "tiny",
            ["other", "tiny"],
        ),
        # The generic net takes the test_iters that are left over.
        (
            'net: "net.prototxt" test_net: "other.prototxt" test_iter: [2, 1]',
            "tiny",
            ["other", "tiny"],
        ),
        # Caffe's order: test_net_param before test_net.
        (
            'train_net: "net.prototxt" test_net: "other.prototxt" test_net_param { name: "given" %s } '
            "test_iter: [1, 2]",
            "tiny",
            ["given", "other"],
        ),
        ('net_param { name: "given" %s } test_iter: 2', "given", ["given"]),
        (
            'train_net_param { name: "given" %s } test_net: "other.prototxt" test_iter: 2',
            "given",
            ["other"],
        ),
        ('train_net: "net.prototxt"', "tiny", []),
    ],
)
def test_ways_to_give_nets(load, tmp_path, fields, train, tests):
    fields = fields.replace("%s", NET.replace('name: "tiny"', ""))
    text = BASE + fields + (" test_interval: 100" if tests else "")
    solver = load(text)
    assert solver.train.name == train
    assert [test.net.name for test in solver.tests] == tests
    assert [test.passes for test in solver.tests] == list(solver.message.test_iter)

    # What is written for Caffe is the same solver in other words.
    written = write_prototxts(
        solver, tmp_path / "out", snapshot_prefix=tmp_path / "snap", max_iter=5, seed=1, gpu=None,
        level=0, stages=[], lr_by="base_lr",
    )  # fmt: skip
    again = load(written.read_text())
    assert again.train.layers == solver.train.layers
    assert [t.net.layers for t in again.tests] == [t.net.layers for t in solver.tests]
    assert [t.passes for t in again.tests] == [t.passes for t in solver.tests]


def test_stages_and_levels(load):
    text = BASE + TESTS + 'net: "net.prototxt"'
    assert "extra" in names(load(text, stages=["extra"]).train)
    assert "extra" not in names(
        load(text, stages=["extra"]).tests[0].net
    )  # the flag is for training alone
    # Without the flag caffe train has a stage whose name is empty.
    Path("net.prototxt").write_text(NET.replace('stage: "extra"', 'stage: ""'))
    assert "extra" in names(load(text).train)
    assert "extra" not in names(load(text, stages=["other"]).train)
    assert "extra" not in names(load(text).tests[0].net)
    Path("net.prototxt").write_text(NET)
    assert "deep" in names(load(text, level=2).train)
    assert "deep" not in names(load(text, level=1).train)
    solver = load(text + " train_state { stage: 'extra' level: 5 } test_state { level: 3 }")
    assert "extra" in names(solver.train)
    assert "deep" not in names(
        solver.train
    )  # as in caffe train, the flag's level (0) is the one that counts
    assert "deep" in names(solver.tests[0].net)
    Path("net.prototxt").write_text(NET + "state { stage: 'extra' }")
    solver = load(text)
    assert "extra" in names(solver.train)
    assert "extra" in names(solver.tests[0].net)


@pytest.mark.parametrize(
    ("test_iter", "remark"),
    [
        (1, "leaves some of its data out: test_iter 1 x batch 5 = 5 of 10 samples (test_iter 2)"),
        (3, "uses some of its data twice: test_iter 3 x batch 5 = 15 of 10 samples"),
    ],
)
def test_remark_on_what_a_test_pass_covers(load, test_iter, remark):
    solver = load(
        BASE + f'net: "net.prototxt" test_interval: 1 test_iter: 2 test_iter: {test_iter}'
    )
    assert solver.remarks == [f"a test pass of the test net #1 {remark}"]


def test_the_wished_test_iter_covers_everything(load, write_images):
    write_images("test_lmdb", 12, (1, 4, 4))  # 5 + 5 + 2
    (remark,) = load(BASE + TESTS + 'net: "net.prototxt"').remarks
    assert remark.endswith("= 10 of 12 samples (test_iter 3)")


@pytest.mark.parametrize(
    ("old", "new"),
    [("SGD", "SGD"), ("NESTEROV", "Nesterov"), ("ADAGRAD", "AdaGrad"), ("ADAM", "Adam")],
)
def test_solver_type_of_old_files(load, old, new):
    assert load(BASE + f'net: "net.prototxt" solver_type: {old}').type == new


# -- mistakes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            'net: "net.prototxt" type: "Sgd"',
            "type is 'Sgd'; did you mean 'SGD'\\? allowed: SGD, Nesterov, AdaGrad, ",
        ),
        ('net: "net.prototxt" average_loss: 0', "average_loss is 0; allowed: 1 or more"),
        (
            'net: "net.prototxt" weight_decay: 0.1 regularization_type: "L3"',
            "regularization_type is L3; allowed: L1 or L2",
        ),
        (
            'net: "net.prototxt" type: "SGD" solver_type: SGD',
            "has type and solver_type, its older name",
        ),
        (
            'net: "net.prototxt" test_iter: 1 test_interval: -1',
            "test_interval is -1; allowed: 1 or more, since test_iter is given",
        ),
        (
            'net: "net.prototxt" momentum: 0.5 type: "AdaGrad"',
            "momentum is 0.5; allowed: 0 with AdaGrad",
        ),
        (
            'net: "net.prototxt" momentum: 0.5 type: "RMSProp"',
            "momentum is 0.5; allowed: 0 with RMSProp",
        ),
        (
            'net: "net.prototxt" rms_decay: 1.5 type: "RMSProp"',
            "rms_decay is 1.5; allowed: 0 to 1, 1 excluded",
        ),
        ("", "exactly one of net, net_param, train_net, train_net_param is needed; given: none"),
        (
            'net: "net.prototxt" train_net: "net.prototxt"',
            "exactly one of .* is needed; given: net, train_net",
        ),
        ('net: "none.prototxt"', r"net: no such file: none.prototxt \(looked for in .*\)"),
        (
            'train_net: "net.prototxt" test_net: "none" test_iter: 1 test_interval: 1',
            r"test_net\[0\]: no such file: none \(looked for in .*\)",
        ),
        (
            'train_net: "net.prototxt" test_net: "net.prototxt" test_interval: 1',
            "test_iter is given 0 times for 1 test nets; allowed: once for each",
        ),
        (
            'train_net: "net.prototxt" test_iter: 2 test_interval: 1',
            "test_iter is given 1 times for 0 test nets; allowed: once for each",
        ),
        (
            'net: "net.prototxt" test_net: ["net.prototxt", "net.prototxt"] test_iter: 2 test_interval: 1',
            "test_iter is given 1 times for 2 test nets",
        ),
        (
            'net: "net.prototxt" test_iter: 2',
            "test_interval is missing; allowed: 1 or more, since test_iter is given",
        ),
        (
            'net: "net.prototxt" test_iter: [2, 2, 2] test_interval: 1 test_state {} test_state {}',
            "test_state is given 2 times for 3 test nets; allowed: never, or once for each",
        ),
    ],
)
def test_mistakes_in_the_solver(load, text, message):
    with pytest.raises(InputError, match=f"^solver.prototxt: {message}"):
        load(BASE + text)


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("momentum: 1", "momentum is 1: "),
        ("momentum: -0.5", "momentum is -0.5: "),
        ("weight_decay: -0.1", "weight_decay is -0.1: "),
        ("base_lr: -0.01", "base_lr is -0.01: "),
        ("iter_size: 0", "iter_size is 0: "),
        ("test_iter: 0 test_interval: 1", "test_iter of the test net #0 is 0: it measures nothing"),
        ("", "max_iter is missing: Caffe trains nothing"),
        ("max_iter: 0", "max_iter is 0: Caffe trains nothing"),
        ("max_iter: -3", "max_iter is -3: Caffe trains nothing"),
        (
            "train_state { level: 2 }",
            "train_state.level 2 does not count: caffe train replaces it by ",
        ),
        ('type: "Lion"', None),  # a fork's: its Caffe knows
        ("snapshot: -1", None),
        ("test_interval: -1", None),  # without test nets it has no meaning
        ('regularization_type: "L3"', None),  # nor has this without weight decay
    ],
)
def test_what_caffe_takes_is_taken(load, text, note):
    """Tried with ``caffe train`` of BVLC 99bd997, all but the type."""
    base = BASE.replace("max_iter: 1000", "" if "max_iter" in (note or "") else "max_iter: 1000")
    base = re.sub(r"base_lr: \S+", "", base) if "base_lr" in text else base
    solver = load(base + f'net: "net.prototxt" {text}')
    remarks = solver.remarks
    assert note is None or any(note in remark for remark in remarks), remarks


def test_a_level_of_the_flag_is_that_of_the_solver(load):
    text = BASE + 'net: "net.prototxt" train_state { level: 2 }'
    assert load(text, level=2).remarks == load(BASE + 'net: "net.prototxt"').remarks


def test_misspelt_field(load):
    with pytest.raises(
        InputError,
        match=r"^solver.prototxt:3: unknown field 'mometum' in .*; did you mean 'momentum'\?$",
    ):
        load(f'{BASE}\nnet: "net.prototxt"\nmometum: 0.9')


def test_missing_solver(messages, caffe_info):
    with pytest.raises(
        InputError, match=r"^cannot read nowhere.prototxt: No such file or directory$"
    ):
        load_solver(Path("nowhere.prototxt"), messages, caffe_info)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (
            "inner_product_param",
            "inner_produkt_param",
            ":7: unknown field 'inner_produkt_param' in LayerParameter; did",
        ),
        (
            '"InnerProduct"',
            '"InerProduct"',
            ": layer 'ip': unknown layer type 'InerProduct'; did you mean 'InnerProduct'?",
        ),
        (
            "test_lmdb",
            "test_lmbd",
            ": layer 'test' of the test net #0: data_param.source: test_lmbd: no such LMDB",
        ),
        (
            "train_lmdb",
            "nowhere",
            ": layer 'train' of the training net: data_param.source: nowhere: no such LMDB",
        ),
        (
            'bottom: "x"',
            'bottom: "X1"',
            ": layer 'ip': no layer of the training net before it has the top 'X1'",
        ),
    ],
)
def test_mistakes_in_the_net(load, before, after, message):
    Path("net.prototxt").write_text(NET.replace(before, after))
    with pytest.raises(InputError, match="^" + re.escape("net.prototxt" + message)):
        load(BASE + TESTS + 'net: "net.prototxt"')


def test_older_formats_within_a_solver_are_not_read(load):
    """``caffe train`` upgrades files; of a net_param it reads the layers of today alone."""
    old = 'layers { name: "x" type: DATA top: "x" } input: "x"'
    solver = load(BASE + f'net_param {{ {old} layer {{ name: "d" type: "Input" top: "x" }} }}')
    assert names(solver.train) == ["d"]
    assert "net_param has the layers of 2014" in solver.remarks[0]
    (net,) = solver.nets.values()
    assert (len(net.layers), len(net.input), len(net.layer)) == (0, 0, 1)


def test_test_images_of_another_shape(load, write_images):
    """Caffe reshapes: it is for Caffe to say whether the weights fit both. A note says what may be wrong."""
    write_images("test_lmdb", 10, (3, 4, 4))
    note = (
        "the test net #0 reads 'x' of 3 x 4 x 4 from test_lmdb, "
        "the training net of 1 x 4 x 4: Caffe aborts"
    )
    assert any(note in remark for remark in load(BASE + TESTS + 'net: "net.prototxt"').remarks)
    Path("net.prototxt").write_text(NET.replace("InnerProduct", "Convolution"))
    assert any(note in remark for remark in load(BASE + TESTS + 'net: "net.prototxt"').remarks)
    write_images("test_lmdb", 10, (1, 8, 6))  # to a convolution heights and widths do not matter
    assert not any(
        "reads 'x'" in remark for remark in load(BASE + TESTS + 'net: "net.prototxt"').remarks
    )


def test_cropping_may_make_the_shapes_equal(load, write_images):
    write_images("train_lmdb", 20, (1, 8, 8))
    crop = NET.replace('source: "train_lmdb"', 'source: "train_lmdb"').replace(
        "include { phase: TRAIN }", "include { phase: TRAIN } transform_param { crop_size: 4 }"
    )
    Path("net.prototxt").write_text(crop)
    solver = load(BASE + TESTS + 'net: "net.prototxt"')
    assert solver.source.shape == solver.tests[0].source.shape == (1, 4, 4)


# -- patching --------------------------------------------------------------------------------------

FULL = (
    'net: "net.prototxt" test_iter: 2 test_interval: 100 base_lr: 0.05 lr_policy: "multistep" '
    "gamma: 0.5 power: 2 "
    "stepvalue: 10 stepvalue: 20 max_iter: 1000 momentum: 0.9 weight_decay: 0.004 clip_gradients: 35 "
    'snapshot: 50 snapshot_prefix: "mine/x" average_loss: 7 iter_size: 3 display: 20 random_seed: 5 '
    'solver_mode: GPU device_id: 3 train_state { stage: "own" } type: "Nesterov" regularization_type: "L1" '
    'snapshot_format: HDF5 weights: "w.caffemodel"'
)


@pytest.fixture
def patch(messages, tmp_path):
    def patch(solver, **options):
        given = {
            "max_iter": 500,
            "seed": 77,
            "gpu": None,
            "level": 0,
            "stages": [],
            "lr_by": "base_lr",
        }
        path = write_prototxts(
            solver, tmp_path / "out", snapshot_prefix=tmp_path / "snap/x", **{**given, **options}
        )
        assert path == tmp_path / "out" / "solver.prototxt"
        return messages.read_text("SolverParameter", path)

    return patch


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ("lr_policy: 'step' gamma: 0.1 stepsize: 30", "lr_policy: 'step' gamma: 1 stepsize: 30"),
        ("lr_policy: 'step' gamma: 0.1", "lr_policy: 'fixed'"),  # which Caffe could not train with
        ("lr_policy: 'poly' power: 2 gamma: 0.1 stepsize: 30 stepvalue: 10", "lr_policy: 'fixed'"),
    ],
)
def test_caffe_counts_the_steps_of_the_solvers_policy(
    load, patch, messages, tmp_path, own, expected
):
    wanted = messages.new("SolverParameter")
    text_format.Parse(expected, wanted)
    found = patch(load("net: 'net.prototxt' base_lr: 0.01 max_iter: 1000 " + own))
    for field in ("lr_policy", "gamma", "power", "stepsize", "stepvalue"):
        assert getattr(found, field) == getattr(wanted, field), field


def test_patched_solver(load, patch, messages, tmp_path):
    found = patch(load(FULL))
    # The LR is base_lr at every iteration, and Caffe counts the steps.
    assert (found.lr_policy, found.gamma, list(found.stepvalue)) == ("multistep", 1, [10, 20])
    assert found.base_lr == pytest.approx(0.05)
    for field in ("power", "device_id"):
        assert not found.HasField(field)
    assert list(found.weights) == []
    # The driver tests and takes snapshots.
    assert (found.test_interval, found.test_initialization, list(found.test_iter)) == (
        NEVER,
        False,
        [2],
    )
    assert not found.HasField("snapshot")
    assert found.snapshot_after_train is False
    assert found.snapshot_prefix == str(tmp_path / "snap/x")
    assert (found.max_iter, found.random_seed) == (500, 77)
    assert found.solver_mode == found.CPU
    # What the solver says of the update stays.
    assert (found.type, found.iter_size, found.average_loss, found.display) == (
        "Nesterov",
        3,
        7,
        20,
    )
    kept = (found.momentum, found.weight_decay, found.clip_gradients)
    assert kept == pytest.approx((0.9, 0.004, 35))
    assert (found.regularization_type, found.snapshot_format) == ("L1", found.HDF5)
    assert list(found.train_state.stage) == ["own", ""]
    assert messages.read_text("NetParameter", Path(found.net)).name == "tiny"
    assert Path(found.net).parent == tmp_path / "out"


def test_a_folder_whose_name_is_not_utf8_is_refused(load, tmp_path):
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    options = {"max_iter": 1, "seed": 1, "gpu": None, "level": 0, "stages": (), "lr_by": "base_lr"}
    with pytest.raises(InputError, match="a name that is not UTF-8; allowed: one that is"):
        write_prototxts(load(FULL), folder, snapshot_prefix=folder / "x", **options)
    assert not folder.exists()


def test_the_files_of_the_user_stay_as_they_are(load, patch):
    solver = load(FULL)
    patch(solver)
    assert Path("solver.prototxt").read_text() == FULL
    assert solver.message.lr_policy == "multistep"
    assert solver.message.base_lr == pytest.approx(0.05)


def test_patched_level_stages_and_gpu(load, patch):
    found = patch(load(FULL), level=2, stages=["a", "b"], gpu=1)
    assert (found.train_state.level, list(found.train_state.stage)) == (2, ["own", "a", "b"])
    assert (found.solver_mode, found.device_id) == (found.GPU, 1)


def test_the_solvers_own_policy_is_left_to_caffe(load, patch):
    found = patch(load(FULL), lr_by="lr_policy")
    own = load(FULL).message
    for name in ("lr_policy", "base_lr", "gamma", "weight_decay", "clip_gradients"):
        assert getattr(found, name) == getattr(own, name), name
    assert list(found.stepvalue) == list(own.stepvalue)
    assert found.test_interval == NEVER  # tests are the driver's all the same


def test_patched_for_caffe_1_0(load, patch):
    solver = load(FULL)
    found = patch(solver, lr_by="gradients")
    # All of this is done in the worker, on the gradients.
    assert (found.base_lr, found.weight_decay, found.clip_gradients) == (1, 0, -1)
    options = gradient_options(solver)
    assert options["weight_decay"] == pytest.approx(0.004)
    assert options["clip_gradients"] == 35
    assert options["regularization_type"] == "L1"
    assert options["decay_mult"]["ip"] == [[1.0, 0.0]]
