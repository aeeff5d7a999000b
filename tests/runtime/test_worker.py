"""The worker's protocol with a fake caffe, whose numbers can be worked out by hand, on Python 3 and 2.7."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lrbench_caffe.runtime import worker
from lrbench_caffe.runtime.worker import MAGIC, PROTOCOL, mapped_path, pack, unpack
from tests.runtime.conftest import has_numpy

# -- messages --------------------------------------------------------------------------------------


def reader(data: bytes):
    """``read(size)`` over bytes that must be used up to the last one; returns it and the rest's length."""
    left = [data]

    def read(size: int) -> bytes:
        assert size <= len(left[0]), "reads past the message"
        part, left[0] = left[0][:size], left[0][size:]
        return part

    return read, lambda: len(left[0])


dtypes = st.sampled_from(["<f4", "<f8", "<i4", "<i8", "|u1", "|b1", ">f4"])
arrays = hnp.arrays(dtypes, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
names = st.text(min_size=1).filter(lambda name: name not in ("kind", "arrays"))


@given(
    kind=st.text(),
    fields=st.dictionaries(names, json_values, max_size=4),
    named=st.dictionaries(st.text(), arrays, max_size=3),
)
def test_messages_round_trip(kind, fields, named):
    read, left = reader(pack(kind, list(named.items()), **fields))
    found, found_arrays = unpack(read)
    assert left() == 0
    assert found == {"kind": kind, **fields}
    assert list(found_arrays) == list(named)
    for name, array in named.items():
        assert (found_arrays[name].dtype, found_arrays[name].shape) == (array.dtype, array.shape)
        assert (
            found_arrays[name].tobytes() == array.tobytes()
        )  # bits, so that NaN is equal to itself


def test_messages_follow_each_other():
    read, left = reader(pack("a", [("x", np.arange(3.0))]) + pack("b", n=1))
    assert unpack(read)[1]["x"].tolist() == [0, 1, 2]
    assert unpack(read) == ({"kind": "b", "n": 1}, {})
    assert left() == 0


def test_a_message_by_hand():
    header = b'{"kind": "run", "arrays": [["lrs", "<f4", [1]]]}'
    assert (
        pack("run", [("lrs", np.array([1], "<f4"))])
        == b"\0\0\0" + bytes([len(header)]) + header + b"\0\0\x80?"
    )


# -- the whole protocol ----------------------------------------------------------------------------


def test_the_file_compiles(interpreter, tmp_path):
    from lrbench_caffe.runtime import worker

    code = "import py_compile, sys; py_compile.compile(sys.argv[1], sys.argv[2], doraise=True)"
    done = subprocess.run(
        [interpreter, "-c", code, worker.__file__, str(tmp_path / "out.pyc")],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "out.pyc").stat().st_size > 0


def test_hello(start, tmp_path):
    fields, arrays = start().expect("hello")
    assert arrays["descriptor"].tobytes() == (tmp_path / "descriptor").read_bytes()
    assert fields["protocol"] == PROTOCOL
    assert fields["caffe"] == "1.0.0-fake"
    assert fields["layers"] == ["Data", "InnerProduct", "SoftmaxWithLoss"]
    assert fields["python"][:2] in ("2.", "3.")
    assert os.path.basename(fields["path"]) == "caffe"
    known = {
        name: fields[name]
        for name in ("writable_base_lr", "callbacks", "layer_callbacks", "cuda", "gpus")
    }
    assert known == {
        "writable_base_lr": True, "callbacks": True, "layer_callbacks": True, "cuda": False, "gpus": 0
    }  # fmt: skip


@pytest.mark.parametrize(
    ("version", "writable", "callbacks", "layers"),
    [("1.0", False, True, False), ("ancient", True, False, True)],
)
def test_what_older_caffes_cannot_do(start, version, writable, callbacks, layers):
    fields, _ = start(version).expect("hello")
    found = (fields["writable_base_lr"], fields["callbacks"], fields["layer_callbacks"])
    assert found == (writable, callbacks, layers)


def test_what_is_for_pictures_is_not_waited_for(start):
    """Caffe.io loads scipy and skimage; tests/caffe/test_python_layers.py has a layer that uses it."""
    talk = start()
    fields, _ = talk.expect("hello")
    is_old = fields["python"].startswith("2.")  # it cannot put it off
    assert ("loaded: caffe.io" in talk.log.read_text()) == is_old


def test_an_lr_beyond_float32_is_infinite_to_caffe():
    solver = SimpleNamespace(param=SimpleNamespace(base_lr=math.inf))
    way = worker.BaseLR.__new__(worker.BaseLR)
    way.solver = solver
    way.check(1e39)
    with pytest.raises(RuntimeError, match="base_lr was set to 1e\\+38"):
        way.check(1e38)


def test_a_library_in_a_folder_with_a_space():
    line = "7f12-7f13 r-xp 00002000 fe:01 1234   /opt/my caffe/libcaffe.so.1.0.0\n"
    assert mapped_path(line) == "/opt/my caffe/libcaffe.so.1.0.0"


def test_no_caffe(interpreter, tmp_path):
    from lrbench_caffe.runtime import worker

    done = subprocess.run(
        [interpreter, "-S", worker.__file__], stdin=subprocess.DEVNULL, capture_output=True
    )
    assert done.stdout.startswith(MAGIC)
    fields, _ = unpack(reader(done.stdout[len(MAGIC) :])[0])
    assert fields["kind"] == "error"
    assert fields["text"].startswith("cannot import caffe: No module named")
    assert done.returncode == 1


def test_open(opened):
    talk = opened()
    assert talk.events() == ["mode CPU", "open solver.json"]
    talk = opened(gpu=2)
    assert talk.events() == ["device 2", "mode GPU", "open solver.json"]


def test_open_says_what_there_is(start, tmp_path):
    solver = tmp_path / "solver.json"
    batch = {"scores": [[1, 2, 3], [4, 5, 6]], "labels": [0, 1], "loss": 0}
    # A BatchNorm's blobs are statistics, and a shared parameter is one parameter: 2 + 1 are learnt.
    weights = {"ip": [[3, -4], [2]], "norm": [[1, 2, 3]]}
    options = {"weights": weights, "types": {"norm": "BatchNorm"}, "shared": {"twin": "ip"}}
    solver.write_text(json.dumps({"iter": 7, "test_batches": [[batch]], **options}))
    talk = start()
    talk.expect("hello")
    talk.ask("open", solver=str(solver), stop=10, iter_size=1, gpu=None)
    fields, _ = talk.expect("opened")
    assert fields["parameters"] == 3
    net = [
        ["data", []],
        ["ip", [[0, [2]], [1, [1]]]],
        ["norm", [[2, [3]]]],
        ["twin", [[0, [2]], [1, [1]]]],
    ]
    assert fields["nets"] == [[*net, ["loss", []]]] * 2
    assert fields["test_shapes"] == [{"s": [2, 3], "y": [2], "loss": [1]}]


def test_restore_and_weights(opened):
    batch = {"scores": [[1, 2]], "labels": [0], "loss": 0}
    talk = opened({"test_batches": [[batch]]})
    talk.ask("load", snapshot=None, weights=["a.caffemodel", "b.caffemodel"])
    assert talk.expect("loaded") == ({"iteration": 0}, {})
    copies = [line for line in talk.events() if "copies" in line]
    assert copies == [
        f"{net} copies {name}.caffemodel" for name in "ab" for net in ("train", "test0")
    ]
    talk = opened(stop=2000)
    talk.ask("load", snapshot="x_iter_1000.solverstate", weights=[])
    assert talk.expect("loaded") == ({"iteration": 1000}, {})
    assert "restore x_iter_1000.solverstate" in talk.events()
    assert talk.run(0.5) == ([1000.0], 1001)


def test_run(opened):
    talk = opened()
    assert talk.run(0.5, 0.25) == ([0.0, 1.0], 2)
    assert talk.run(0.125) == ([2.0], 3)
    updates = [line for line in talk.events() if line.startswith("update")]
    assert updates == [
        "update 0 with base_lr 0.5",
        "update 1 with base_lr 0.25",
        "update 2 with base_lr 0.125",
    ]
    # w - lr * gradient, with the LRs' sum 0.875 and the gradients 1, 2 and 0.5
    assert talk.weights() == [[3 - 0.875, -4 - 1.75], [2 - 0.4375]]
    # All of it is one solver.step: as long as the training.
    assert [line for line in talk.events() if line.startswith("step")] == ["step 1000"]


def test_the_end_of_the_training(opened):
    talk = opened(stop=2)
    assert talk.run(0.5, 0.5) == ([0.0, 1.0], 2)
    talk.ask("snapshot")
    assert talk.expect("snapshotted") == ({"iteration": 2}, {})


def test_losses_come_while_it_runs(opened):
    talk = opened({"seconds": 0.15})
    talk.ask("run", [("lrs", np.full(8, 0.5))])
    counts = []
    while sum(counts) < 8:
        counts.append(len(talk.expect("losses")[1]["losses"]))
    assert len(counts) >= 3  # every 0.2 seconds
    assert talk.expect("ran") == ({"iteration": 8}, {})


@pytest.mark.parametrize(("version", "expected"), [("", 5.375), ("1.0", 5.75)])
def test_loss_of_an_iteration_with_sub_batches(opened, version, expected):
    # 5, 5.25, 5.5, 5.75: their mean, where pycaffe can tell; Caffe 1.0's tells the last one only.
    gradients = None
    if version == "1.0":
        gradients = {
            "weight_decay": 0,
            "clip_gradients": -1,
            "regularization_type": "L2",
            "decay_mult": {},
        }
    talk = opened({"iter_size": 4, "iter": 5}, version, iter_size=4, gradients=gradients)
    assert talk.run(0.5) == ([expected], 6)


def test_pause(opened):
    talk = opened({"seconds": 0.05})
    talk.ask("run", [("lrs", np.full(900, 0.5))])
    talk.expect("losses")
    talk.ask("pause")
    _, iteration = talk.ran()
    assert 1 <= iteration < 100
    assert talk.run(0.25) == ([float(iteration)], iteration + 1)  # goes on where it stopped
    updates = [line for line in talk.events() if line.startswith("update")]
    assert len(updates) == iteration + 1


def test_pause_that_comes_late(opened):
    talk = opened()
    talk.run(0.5)
    talk.ask("pause")  # it was meant for the stretch that had just ended
    assert talk.run(0.5, 0.5) == ([1.0, 2.0], 3)


def test_pause_before_the_first_update(opened):
    talk = opened()
    talk.send(pack("run", [("lrs", np.full(3, 0.5))]), pack("pause"))
    assert talk.ran() == ([], 0)
    assert talk.run(0.5) == ([0.0], 1)


def test_requests_between_stretches_are_answered_inside_the_step(opened):
    talk = opened({"test_batches": [TWO_BATCHES]})
    talk.run(0.5)
    talk.ask("test", net=0, passes=1, heads=[], detections={})
    talk.expect("batch")
    talk.expect("tested")
    talk.ask("log", text="between")
    talk.ask("replay", nets=[])
    talk.expect("replayed")
    talk.weights()
    talk.run(0.5)
    events = talk.events()
    assert events.count("step 1000") == 1
    order = [
        "update 0 with base_lr 0.5",
        "test0 forward 0 to 2",
        "log between",
        "update 1 with base_lr 0.5",
    ]
    assert [events.index(line) for line in order] == sorted(events.index(line) for line in order)


TWO_BATCHES = [
    {"scores": [[1.5, 2.5], [0.0, -1.0]], "labels": [1, 0], "loss": 0.5},
    {"scores": [[-3.0, 2.0], [7.0, 1.0]], "labels": [0, 1], "loss": 1.5},
]


def test_a_test_pass(opened):
    talk = opened({"test_batches": [TWO_BATCHES], "test_loss_weight": 2.0})
    talk.ask("test", net=0, passes=3, heads=[], detections={})
    for _ in range(3):  # the data goes round
        assert talk.expect("batch") == ({}, {})
    fields, _ = talk.expect("tested")
    # The output's mean is (0.5 + 1.5 + 0.5) / 3, the loss twice that.
    assert fields["outputs"]["loss"] == pytest.approx([2.5 / 3])
    assert fields["loss"] == pytest.approx(5 / 3)
    events = talk.events()
    assert events.index("test0 shares with train") < events.index("test0 forward 0 to 2")
    assert "log Iteration 0, Testing net (#0)" in events
    assert "log     Test net output #0: loss = 0.833333 (* 2 = 1.66667 loss)" in events


HEAD = {"scores": "s", "labels": "y", "how": {"form": "logits", "axis": 1}}


def test_what_is_counted(opened, interpreter):
    if not has_numpy(interpreter):
        pytest.skip("the stand-in for numpy cannot count")
    talk = opened({"test_batches": [TWO_BATCHES]})
    talk.ask("test", net=0, passes=2, heads=[HEAD], detections={})
    for _ in range(2):
        talk.expect("batch")
    fields, arrays = talk.expect("tested")
    # Right are 2.5 over 1.5 and 0 over -1, of two classes; then -3 under 2 and 1 under 7 are wrong.
    assert [fields["heads"][0][name] for name in ("samples", "top1", "top5")] == [4, 2, 4]
    assert fields["heads"][0]["problem"] is None
    own = 1 / (1 + math.exp(-1))
    assert arrays["count0"].tolist() == [1, 1]
    assert arrays["mean0"].tolist() == pytest.approx([own, own])
    assert arrays["m20"].tolist() == pytest.approx([0, 0])


def test_a_further_training_pass(opened):
    talk = opened()
    talk.run(0.5, 0.5)
    before = talk.weights()
    talk.ask("forward")
    assert (
        talk.expect("forwarded")[0]["loss"] == 1.0
    )  # the stand-in keeps the loss of its last update
    assert talk.weights() == before


def test_several_test_nets(opened):
    other = [{"scores": [[1, 2, 3]], "labels": [2], "loss": 4.0}]
    talk = opened({"test_batches": [TWO_BATCHES, other]})
    talk.ask("test", net=1, passes=1, heads=[], detections={})
    talk.expect("batch")
    assert talk.expect("tested")[0]["loss"] == 4.0
    assert "test0 forward 0 to 2" not in talk.events()


def test_a_test_net_without_a_loss(opened):
    talk = opened({"test_batches": [TWO_BATCHES], "test_loss_weight": 0.0})
    talk.ask("test", net=0, passes=1, heads=[], detections={})
    assert talk.expect("batch") == ({}, {})
    fields, _ = talk.expect("tested")
    assert fields == {"outputs": {"loss": [0.5]}, "loss": None, "heads": []}


def test_replay(opened):
    talk = opened({"test_batches": [TWO_BATCHES]})
    nets = [
        {"net": 0, "layers": [["data", 0], ["ip", 0]], "passes": 2},
        {"net": 1, "layers": [["data", 0]], "passes": 1},
    ]
    talk.ask("replay", nets=nets)
    fields, _ = talk.receive()
    while fields["kind"] == "progress":
        assert 1 <= fields["done"] <= fields["total"] == 3
        fields, _ = talk.receive()
    assert fields == {"kind": "replayed"}
    forwards = [line for line in talk.events() if "forward" in line]
    train = ["train forward 0 to 0", "train forward 1 to 1"]
    assert forwards == [*train, *train, "test0 forward 0 to 0"]
    # The test net's data stands at its second batch.
    talk.ask("test", net=0, passes=1, heads=[], detections={})
    talk.expect("batch")
    assert talk.expect("tested")[0]["outputs"]["loss"] == [TWO_BATCHES[1]["loss"]]


@pytest.mark.parametrize("stopped", [False, True])
def test_a_replay_leaves_the_statistics_of_layers_as_they_were(opened, stopped):
    talk = opened({"weights": {"norm": [[1.0, 2.0]]}, "types": {"norm": "BatchNorm"}})
    nets = [{"net": 0, "layers": [["norm", 0]], "passes": 10**6 if stopped else 3}]
    talk.ask("replay", nets=nets)
    fields, _ = talk.receive()
    if stopped:
        assert fields["kind"] == "progress" and fields["done"] > 0
        talk.ask("pause")
    while fields["kind"] == "progress":
        fields, _ = talk.receive()
    assert fields == {"kind": "replayed"}
    assert talk.weights() == [[1.0, 2.0]]


def test_log(opened):
    talk = opened()
    talk.ask("log", text="Optimization Done.")
    talk.weights()
    assert "log Optimization Done." in talk.events()


def test_log_of_a_caffe_without_one_looks_like_glogs(opened):
    talk = opened(version="1.0", gradients=PLAIN)
    talk.ask("log", text="Optimization Done.")
    talk.weights()
    line = next(line for line in talk.log.read_text().splitlines() if "Optimization" in line)
    stamp, clock, pid, place, text = line.split(maxsplit=4)
    assert (stamp[0], len(stamp), len(clock)) == ("I", 5, len("20:55:10.588922"))
    assert (int(pid), place, text) == (talk.process.pid, "worker.py:1]", "Optimization Done.")


def test_names_outside_ascii(start, tmp_path):
    folder = tmp_path / "Größe"
    folder.mkdir()
    (folder / "solver.json").write_text("{}")
    talk = start()
    talk.expect("hello")
    talk.ask("open", solver=str(folder / "solver.json"), stop=10, iter_size=1, gpu=None)
    talk.expect("opened")
    talk.ask("log", text="Solving Größe")
    talk.weights()
    assert "log Solving Größe" in talk.events()


@pytest.mark.parametrize(
    ("multipliers", "expected"), [([2.0, 0.0], [[3 - 1.25, -4.0], [2 - 0.25]])]
)
def test_a_layers_name_outside_ascii(opened, multipliers, expected):
    # Its decay_mult: the weights decay twice as fast, the bias not at all.
    solver = {"weights": {"größe": [[3, -4], [2]]}, "gradients": {"größe": [[1, 2], [0.5]]}}
    gradients = {**PLAIN, "weight_decay": 0.25, "decay_mult": {"größe": [multipliers]}}
    talk = opened(solver, "1.0", gradients=gradients)
    talk.run(0.5)
    assert talk.weights() == expected
    talk.ask("replay", nets=[{"net": 0, "layers": [["größe", 0]], "passes": 1}])
    talk.expect("replayed")
    assert "train forward 1 to 1" in talk.events()


def test_a_blobs_name_outside_ascii(start, tmp_path):
    solver = tmp_path / "solver.json"
    solver.write_text(json.dumps({"test_batches": [TWO_BATCHES], "scores": "分数"}))
    talk = start()
    talk.expect("hello")
    talk.ask("open", solver=str(solver), stop=10, iter_size=1, gpu=None)
    fields, _ = talk.expect("opened")
    assert fields["test_shapes"] == [{"分数": [2, 2], "y": [2], "loss": [1]}]
    talk.ask("test", net=0, passes=0, heads=[{**HEAD, "scores": "分数"}], detections={})
    assert talk.expect("tested")[0]["heads"][0]["samples"] == 0


def test_an_exception_with_words_outside_ascii(opened):
    talk = opened({"trouble_at": 0, "trouble": "raise unicode"})
    talk.ask("run", [("lrs", np.full(5, 0.5))])
    check_error(talk, "ValueError: layer 'größe' has had enough")


def test_prints_do_not_disturb_the_messages(opened):
    talk = opened({"trouble_at": 1, "trouble": "print"})
    assert talk.run(0.5, 0.5, 0.5) == ([0.0, 1.0, 2.0], 3)
    assert "this is no message" in talk.log.read_text().splitlines()


# -- the end ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("trained", [False, True])
def test_close(opened, trained):
    talk = opened()
    if trained:
        talk.run(0.5)
    talk.ask("close")
    assert talk.process.wait(10) == 0


@pytest.mark.parametrize(
    "when", ["before open", "before run", "between stretches", "while running"]
)
def test_end_of_input_ends_the_process(start, opened, when):
    if when == "before open":
        talk = start()
        talk.expect("hello")
    else:
        talk = opened({"seconds": 0.02})
    if when == "between stretches":
        talk.run(0.5)
    elif when == "while running":
        talk.ask("run", [("lrs", np.full(900, 0.5))])
        talk.expect("losses")
    assert talk.process.stdin
    talk.process.stdin.close()
    assert talk.process.wait(10) == 0
    assert len([line for line in talk.events() if line.startswith("update")]) < 500


def test_a_driver_that_is_gone_before_the_first_word(interpreter):
    from lrbench_caffe.runtime import worker

    reads, writes = os.pipe()
    os.close(reads)
    with open(writes, "wb") as nobody:
        command = [interpreter, "-S", worker.__file__]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=nobody, stderr=subprocess.PIPE
        )
    assert (done.returncode, done.stderr) == (0, b"")


def test_ctrl_c_is_for_the_driver(opened):
    talk = opened()
    talk.run(0.5)
    talk.process.send_signal(signal.SIGINT)
    assert talk.run(0.5) == ([1.0], 2)


def check_error(talk, text: str) -> None:
    fields, _ = talk.expect("error")
    assert fields["text"] == text
    assert talk.process.wait(10) == 1
    assert "Traceback (most recent call last)" in talk.log.read_text()


def test_an_exception_in_training(opened):
    talk = opened({"trouble_at": 2, "trouble": "raise"})
    talk.ask("run", [("lrs", np.full(5, 0.5))])
    fields, _ = talk.receive()
    if fields["kind"] == "losses":  # those before it may have been sent already
        check_error(talk, "RuntimeError: layer 'ip' has had enough")
    else:
        assert fields["text"] == "RuntimeError: layer 'ip' has had enough"
        assert talk.process.wait(10) == 1


def test_an_exception_in_a_snapshot(opened):
    talk = opened({"trouble": "snapshot"})
    talk.ask("snapshot")
    check_error(talk, "RuntimeError: layer 'ip' has had enough")


def test_a_request_it_does_not_know(opened):
    talk = opened()
    talk.ask("dance")
    check_error(talk, "ValueError: unknown request: dance")


def test_a_request_in_the_middle_of_a_stretch(opened):
    talk = opened({"seconds": 0.3})
    talk.ask("run", [("lrs", np.full(50, 0.5))])
    talk.expect("losses")
    talk.ask("snapshot")
    while True:
        fields, _ = talk.receive()
        if fields["kind"] != "losses":
            break
    assert fields == {
        "kind": "error",
        "text": "ValueError: unexpected request while running: snapshot",
    }


# -- how Caffe gets the LR -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "words"),
    [
        # Setting an attribute succeeds on both, and changes nothing.
        ("1.0", "this Caffe cannot set base_lr from Python (its solver.param has no setter)"),
        ("copies", "base_lr was set to 3 from Python, but the solver has 1"),
    ],
)
def test_a_base_lr_that_cannot_be_set_is_noticed_before_the_training(
    start, tmp_path, version, words
):
    solver = tmp_path / "solver.json"
    solver.write_text("{}")
    talk = start(version)
    talk.expect("hello")
    talk.ask("open", solver=str(solver), stop=10, iter_size=1, gpu=None)
    check_error(talk, "RuntimeError: " + words)


@pytest.mark.parametrize("version", ["", "1.0"])
def test_the_solvers_own_policy_is_caffes(opened, version):
    talk = opened({"base_lr": 0.25}, version, own_policy=True)
    assert talk.run(0.5, 0.125)[1] == 2
    updates = [line for line in talk.events() if line.startswith("update")]
    assert updates == ["update 0 with base_lr 0.25", "update 1 with base_lr 0.25"]


# -- the way for Caffe 1.0 -------------------------------------------------------------------------

PLAIN = {"weight_decay": 0.0, "clip_gradients": -1.0, "regularization_type": "L2", "decay_mult": {}}


@pytest.mark.parametrize(
    ("options", "solver", "expected"),
    [
        # w = [3, -4] and [2], gradient = [1, 2] and [0.5], LR 0.5: w - LR * g
        ({}, {}, [[3 - 0.5, -4 - 1], [2 - 0.25]]),
        # g + 0.25 w = [1.75, 1] and [1]
        ({"weight_decay": 0.25}, {}, [[3 - 0.875, -4 - 0.5], [2 - 0.5]]),
        # L1: g + 0.25 sign(w) = [1.25, 1.75] and [0.75]
        (
            {"weight_decay": 0.25, "regularization_type": "L1"},
            {},
            [[3 - 0.625, -4 - 0.875], [2 - 0.375]],
        ),
        # The weights decay twice as fast, [1 + 0.5 * 3, 2 - 0.5 * 4] = [2.5, 0]; the bias not at
        # all.
        (
            {"weight_decay": 0.25, "decay_mult": {"ip": [[2.0, 0.0]]}},
            {},
            [[3 - 1.25, -4.0], [2 - 0.25]],
        ),
        # decay_mult is given for the weights alone: the bias has Caffe's 1.
        ({"weight_decay": 0.25, "decay_mult": {"ip": [[0.0]]}}, {}, [[3 - 0.5, -4 - 1], [2 - 0.5]]),
        # The norm of all gradients, sqrt(9 + 16 + 144) = 13, is clipped to 6.5: half of each, ...
        (
            {"clip_gradients": 6.5},
            {"gradients": {"ip": [[3, 4], [12]]}},
            [[3 - 0.75, -4 - 1], [2 - 3]],
        ),
        # ... before the decay is added: [1.5 + 0.75, 2 - 1] and [6 + 0.5].
        (
            {"clip_gradients": 6.5, "weight_decay": 0.25},
            {"gradients": {"ip": [[3, 4], [12]]}},
            [[3 - 1.125, -4 - 0.5], [2 - 3.25]],
        ),
        # 13 is not above 13.
        (
            {"clip_gradients": 13},
            {"gradients": {"ip": [[3, 4], [12]]}},
            [[3 - 1.5, -4 - 2], [2 - 6]],
        ),
        # iter_size 4: Caffe divides the summed gradient [4, 8], [2] by 4; the decay must outlive
        # that: [4 + 4 * 0.25 * 3, 8 - 4 * 0.25 * 4] / 4 = [1.75, 1] and [1], as without.
        (
            {"weight_decay": 0.25},
            {"iter_size": 4, "gradients": {"ip": [[4, 8], [2]]}},
            [[3 - 0.875, -4 - 0.5], [2 - 0.5]],
        ),
    ],
)
def test_gradients_carry_the_learning_rate(opened, options, solver, expected):
    talk = opened(
        solver, "1.0", gradients={**PLAIN, **options}, iter_size=solver.get("iter_size", 1)
    )
    talk.run(0.5)
    assert talk.weights() == expected
    assert "update 0 with base_lr 1" in talk.events()


def test_the_log_names_the_rate_that_counts(opened):
    talk = opened(version="1.0", gradients={**PLAIN, "display": 2, "clip_gradients": 1.0})
    talk.run(0.5, 0.25, 0.0001220703125)
    talk.weights()
    lines = [
        line.partition("] ")[2] for line in talk.log.read_text().splitlines() if "worker.py" in line
    ]
    # The norm is sqrt(1 + 4 + 0.25).
    clipped = (
        "Gradient clipping: scaling down gradients (L2 norm 2.29129 > 1) by scale factor 0.436436"
    )
    assert lines == [
        "Iteration 0, lr = 0.5", clipped, clipped, "Iteration 2, lr = 0.00012207", clipped
    ]  # fmt: skip


def test_every_update_has_its_own_rate(opened):
    talk = opened(version="1.0", gradients=PLAIN)
    talk.run(0.5, 0.25, 0.125)
    assert talk.weights() == [[3 - 0.875, -4 - 1.75], [2 - 0.4375]]


def test_a_shared_parameter_is_updated_once(opened):
    talk = opened({"shared": {"twin": "ip"}}, "1.0", gradients={**PLAIN, "weight_decay": 0.25})
    talk.run(0.5)
    once = [[3 - 0.875, -4 - 0.5], [2 - 0.5]]
    assert talk.weights() == once + once


def test_a_shared_parameter_is_clipped_once(opened):
    solver = {"shared": {"twin": "ip"}, "gradients": {"ip": [[3, 4], [12]]}}
    talk = opened(solver, "1.0", gradients={**PLAIN, "clip_gradients": 13})
    talk.run(0.5)
    assert talk.weights()[:2] == [[3 - 1.5, -4 - 2], [2 - 6]]
