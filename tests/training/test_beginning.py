"""What a run begins with: Caffe's rules of what fits, with files of 2013, 2014, today and HDF5."""

from __future__ import annotations

import re
from pathlib import Path

import h5py
import numpy as np
import pytest

from lrbench_caffe.errors import InputError
from lrbench_caffe.records import SCRATCH
from lrbench_caffe.runtime.replies import LayerParameters
from lrbench_caffe.training.beginning import check_start, find_state

# Two parameters in ip1, and ip2, which shares its first with ip1 and has a bias of its own.
NET = [
    LayerParameters("data", (), ()),
    LayerParameters("ip1", (0, 1), ((5, 10), (5,))),
    LayerParameters("ip2", (0, 2), ((5, 10), (5,))),
]


@pytest.fixture
def model(messages, tmp_path):
    """``model(name, {layer: [shape of each blob]})``: a caffemodel of a form, "" for today's."""

    def write(name: str, layers: dict[str, list[tuple[int, ...]]], form: str = "") -> Path:
        path = tmp_path / name
        net = messages.new("NetParameter")
        for layer, shapes in layers.items():
            if form in ("V1", "V0"):
                stored = net.layers.add()
                stored = stored.layer if form == "V0" else stored
            else:
                stored = net.layer.add()
            stored.name = layer
            for shape in shapes:
                blob = stored.blobs.add()
                blob.data.extend([0.5] * int(np.prod(shape)))
                if form:
                    four = (1,) * (4 - len(shape)) + shape
                    blob.num, blob.channels, blob.height, blob.width = four
                else:
                    blob.shape.dim.extend(shape)
        path.write_bytes(net.SerializeToString())
        return path

    return write


IP1, IP2 = [(5, 10), (5,)], [(5, 10), (5,)]


@pytest.mark.parametrize("form", ["", "legacy", "V1", "V0"])
def test_layers_are_filled_by_their_names(model, messages, form):
    path = model("w.caffemodel", {"ip1": IP1, "other": [(7,)]}, form)
    start, remarks = check_start([NET], "SGD", messages, weights=[path])
    assert (start.kind, start.filled, start.layers, start.name) == ("weights", 1, 2, "w.caffemodel")
    assert start.known
    assert remarks == ["weights: 1 of 2 layers filled"]


def test_a_start_from_scratch(messages):
    assert check_start([NET], "SGD", messages) == (SCRATCH, [])


def test_several_models_fill_together_and_are_known_by_their_content(model, messages, tmp_path):
    one, other = model("a.caffemodel", {"ip1": IP1}), model("b.caffemodel", {"ip2": IP2})
    both, _ = check_start([NET], "SGD", messages, weights=[one, other])
    assert (both.filled, both.layers) == (2, 2)
    single, _ = check_start([NET], "SGD", messages, weights=[one])
    assert single.digest not in (None, both.digest)
    copy = tmp_path / "copy.caffemodel"
    copy.write_bytes(one.read_bytes())
    assert check_start([NET], "SGD", messages, weights=[copy])[0] == single


def test_weights_none_of_which_is_taken(model, messages):
    start, (remark,) = check_start(
        [NET], "SGD", messages, weights=[model("w.caffemodel", {"conv1": IP1})]
    )
    assert start.filled == 0
    assert remark.startswith("WARNING: weights: 0 of 2 layers filled: w.caffemodel has no layer")


@pytest.mark.parametrize(
    ("layers", "form", "words"),
    [
        ({"ip1": [(4, 10), (5,)]}, "", "layer 'ip1': blob 0 is 4 x 10 there and 5 x 10 in the net"),
        ({"ip1": [(5, 10)]}, "", "layer 'ip1' has 1 parameter blobs there and 2 in the net"),
        (
            {"ip2": [(5, 10), (5,), (5,)]},
            "",
            "layer 'ip2' has 3 parameter blobs there and 2 in the net",
        ),
        ({"data": [(3,)]}, "", "layer 'data' has 1 parameter blobs there and 0 in the net"),
        (
            {"ip1": [(10, 5), (5,)]},
            "V1",
            "layer 'ip1': blob 0 is 1 x 1 x 10 x 5 there and 5 x 10 in the net",
        ),
    ],
)
def test_weights_of_another_form(model, messages, layers, form, words):
    path = model("w.caffemodel", layers, form)
    with pytest.raises(
        InputError, match=re.escape(f"weights: {path}: {words}; allowed: the same, or")
    ):
        check_start([NET], "SGD", messages, weights=[path])


def test_test_nets_must_fit_as_well(model, messages):
    test = [LayerParameters("ip1", (0, 1), ((6, 10), (6,)))]
    with pytest.raises(InputError, match="blob 0 is 5 x 10 there and 6 x 10 in the net"):
        check_start([NET, test], "SGD", messages, weights=[model("w.caffemodel", {"ip1": IP1})])


def test_of_two_layers_with_one_name_caffe_fills_the_first(model, messages):
    twins = [LayerParameters("ip", (0,), ((5, 10),)), LayerParameters("ip", (1,), ((7,),))]
    start, _ = check_start(
        [twins], "SGD", messages, weights=[model("w.caffemodel", {"ip": [(5, 10)]})]
    )
    assert (start.filled, start.layers) == (1, 2)


def write_hdf5(stem: str, histories: int = 3, learned_net: str | None = None) -> tuple[Path, Path]:
    """Model and state; of a shared parameter there is one, with its owner."""
    model, state = Path(f"{stem}.caffemodel.h5"), Path(f"{stem}.solverstate.h5")
    shapes = [(5, 10), (5,), (5,)]
    with h5py.File(model, "w") as file:
        file.create_group("data/data")
        for name, shape in zip(["ip1/0", "ip1/1", "ip2/1"], shapes):
            file[f"data/{name}"] = np.ones(shape, dtype="f4")
    with h5py.File(state, "w") as file:
        file["iter"], file["current_step"] = 40, 0
        file["learned_net"] = np.array((learned_net or str(model)).encode() + b"\0")
        for number in range(histories):
            file[f"history/{number}"] = np.zeros(shapes[number % 3], dtype="f4")
    return model, state


def test_hdf5_weights(messages, tmp_path):
    model, state = write_hdf5(f"{tmp_path}/w")
    start, _ = check_start([NET], "SGD", messages, weights=[model])
    assert (start.filled, start.layers) == (2, 2)
    with pytest.raises(InputError, match=r"holds no layers \(a .caffemodel file is needed\)"):
        check_start([NET], "SGD", messages, weights=[state])


@pytest.fixture
def snapshot(messages, model, tmp_path):
    """``snapshot(stem, shapes of the history)``: a state at iteration 40 with its model beside it."""

    def write(
        stem: str = "x_iter_40", shapes=((5, 10), (5,), (5,)), learned_net: str | None = None
    ) -> Path:
        weights = model(f"{stem}.caffemodel", {"ip1": IP1, "ip2": IP2})
        state = messages.new("SolverState")
        state.iter = 40
        state.learned_net = learned_net or str(weights)
        for shape in shapes:
            blob = state.history.add()
            blob.shape.dim.extend(shape)
            blob.data.extend([0.0] * int(np.prod(shape)))
        path = tmp_path / f"{stem}.solverstate"
        path.write_bytes(state.SerializeToString())
        return path

    return write


def test_a_snapshot(snapshot, messages):
    given = find_state(snapshot(), messages)
    assert (given.stored.iteration, given.remark) == (40, None)
    start, remarks = check_start([NET], "SGD", messages, state=given)
    assert (start.kind, start.iteration, start.name, remarks) == (
        "snapshot",
        40,
        "x_iter_40.solverstate",
        [],
    )
    assert start.known


THREE = ((5, 10), (5,), (5,))


@pytest.mark.parametrize(
    ("kind", "shapes", "words"),
    [
        ("SGD", THREE * 2, "has 6 history blobs for 3 parameters, as AdaDelta and Adam write them"),
        (
            "Adam",
            THREE,
            "has 3 history blobs for 3 parameters, as SGD, Nesterov, AdaGrad and RMSProp write",
        ),
        (
            "SGD",
            THREE[:2],
            "is of another net: its 2 history blobs do not fit the net's 3 parameters",
        ),
        # Caffe looks at the number alone.
        ("SGD", ((5, 11), (5,), (5,)), "is of another net: its 3 history blobs do not fit"),
    ],
)
def test_a_snapshot_of_another_solver_type_or_net(snapshot, messages, kind, shapes, words):
    given = find_state(snapshot(shapes=shapes), messages)
    with pytest.raises(InputError, match=re.escape(words)):
        check_start([NET], kind, messages, state=given)


def test_hdf5_snapshots_are_checked_as_well(messages, tmp_path):
    _, state = write_hdf5(f"{tmp_path}/x", histories=6)
    given = find_state(state, messages)
    assert given.stored.iteration == 40
    assert check_start([NET], "Adam", messages, state=given)[0].known
    with pytest.raises(InputError, match="as AdaDelta and Adam write them"):
        check_start([NET], "SGD", messages, state=given)


@pytest.mark.parametrize("hdf5", [False, True])
def test_the_weights_beside_a_snapshot_come_before_those_at_the_old_place(
    snapshot, messages, tmp_path, monkeypatch, hdf5
):
    """A backup of a training that went on: the old place has other weights by now, or none."""
    suffix = ".h5" if hdf5 else ""
    old = tmp_path / "old" / f"x.caffemodel{suffix}"
    if hdf5:
        model, state = write_hdf5(f"{tmp_path}/x", learned_net=str(old))
    else:
        state = snapshot("x", learned_net=str(old))
        model = state.with_name("x.caffemodel")
    given = find_state(state, messages)  # the old place is gone
    assert given.model == model
    assert f"names the weights {old}; those beside it are used, {model}" in (given.remark or "")
    before = check_start([NET], "SGD", messages, state=given)[0]
    old.parent.mkdir()
    old.write_bytes(model.read_bytes())
    assert find_state(state, messages).model == model
    renamed = [state.rename(tmp_path / f"best.solverstate{suffix}")]
    model.rename(tmp_path / f"best.caffemodel{suffix}")
    given = find_state(renamed[0], messages)
    assert given.model == tmp_path / f"best.caffemodel{suffix}"
    # The start is the same one, wherever its files are.
    assert check_start([NET], "SGD", messages, state=given)[0] == before
    given.model.unlink()
    assert find_state(renamed[0], messages).model == old
    assert find_state(renamed[0], messages).remark is None
    old.unlink()
    words = f"snapshot: {renamed[0]} belongs to {old}, which does not exist"
    with pytest.raises(InputError, match=re.escape(words)):
        find_state(renamed[0], messages)


def test_no_solver_states(model, messages, tmp_path):
    path = model("x.caffemodel", {"ip1": IP1})
    with pytest.raises(InputError, match=re.escape(f"snapshot: {path} is not a solver state")):
        find_state(path, messages)
    with pytest.raises(InputError, match=r"snapshot: no such file: .*gone"):
        find_state(tmp_path / "gone", messages)
    (tmp_path / "x.solverstate.h5").write_bytes(b"no HDF5")
    with pytest.raises(InputError, match=r"snapshot: .*x.solverstate.h5 cannot be read as HDF5"):
        find_state(tmp_path / "x.solverstate.h5", messages)
