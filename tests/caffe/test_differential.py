"""What ``caffe train`` takes, trains here: both accept or both refuse, with the same losses and test outputs.

The cases are in ``differential_cases``: every layer type of this Caffe, every field of a solver,
every data layer, and what Caffe's text format allows. Each is trained by real ``caffe train`` and
by the train command with Caffe's own layers; some also in two parts, which must end as the whole
one did.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest

from lrbench_caffe.runtime.info import caffe_info
from lrbench_caffe.runtime.locate import find_caffe_python
from tests.caffe.differential_cases import (
    CASES,
    DATA,
    FIELDS,
    LAYERS,
    LOSSES,
    TEST_PART,
    TRAIN_PART,
    Case,
    write_files,
)
from tests.caffe.harness import Done, Workspace, assert_same_weights, messages

pytestmark = pytest.mark.ci

DISPLAYED = re.compile(r"Iteration (\d+)(?: \(.*?\))?, loss = (\S+)")
TESTING = re.compile(r"Iteration (\d+), Testing net \(#(\d+)\)")
TEST_LOSS = re.compile(r"Test loss: (\S+)")
OUTPUT = re.compile(r"Test net output #\d+: (\S+) = (\S+)")
PRINTED = 1e-5  # Caffe prints six digits
# Caffe opens these nets, and aborts in their first forward pass.
REFUSED_IN_TRAINING = ("layer: Pooling, stochastic", "data: MemoryData")

Tests = dict[tuple[int, int], list[tuple[str, str]]]


class Log:
    """What Caffe's log says of a training.

    Attributes:
        losses: by iteration, as printed; where an iteration is printed twice, both.
        test_losses: what ``test_compute_loss`` adds, as printed.
        tests: names and values of the outputs, as printed, by iteration and test net.
    """

    def __init__(self, text: str) -> None:
        self.losses: list[tuple[int, str]] = []
        self.test_losses: list[str] = []
        self.tests: Tests = {}
        current: list[tuple[str, str]] = []
        for line in text.splitlines():
            if found := DISPLAYED.search(line):
                self.losses.append((int(found[1]), found[2]))
            elif found := TESTING.search(line):
                current = self.tests.setdefault((int(found[1]), int(found[2])), [])
            elif found := TEST_LOSS.search(line):
                self.test_losses.append(found[1])
            elif found := OUTPUT.search(line):
                current.append((found[1], found[2]))


@pytest.fixture
def folder(workspace: Workspace) -> Workspace:
    write_files(workspace.path)
    for name, text in (("train", TRAIN_PART), ("test", TEST_PART)):
        workspace.write(f"{name}.prototxt", text)
    return workspace


def prepare(folder: Workspace, case: Case) -> None:
    if case.net is not None:
        folder.write("net.prototxt", case.net)
    (folder.path / "solver.prototxt").write_text(case.solver_text, errors="surrogateescape")
    if 'type: "Python"' in (case.net or ""):  # its module is in the folder
        folder.environment["PYTHONPATH"] += f":{folder.path}"
    if "start.caffemodel" in case.solver_text:
        start = Case(case.net, {"max_iter": 1, "snapshot_prefix": '"start"', "snapshot": None})
        folder.write("start.prototxt", start.solver_text)
        folder.caffe("train", "--solver=start.prototxt").succeeded()
        (folder.path / "start_iter_1.caffemodel").rename(folder.path / "start.caffemodel")


def theirs(folder: Workspace, case: Case) -> Done:
    done = folder.caffe("train", "--solver=solver.prototxt", *case.flags)
    kept = folder.path / "theirs"
    kept.mkdir()
    for file in folder.path.glob("snap_iter_*"):
        file.rename(kept / file.name)
    return done


def same_measurements(run: Path, tests: Tests) -> None:
    """The outputs that are stored are those that Caffe printed."""
    stored = {}
    for line in (run / "measurements.jsonl").read_text().splitlines():
        row = json.loads(line)
        stored[row["iteration"], row["net"]] = row["outputs"]
    for place, printed in tests.items():
        values = [math.nan if value is None else value for value in stored[place].values()]
        assert [float(value) for _, value in printed] == pytest.approx(
            values[: len(printed)], rel=PRINTED, abs=1e-12, nan_ok=True
        ), place


def models(folder: Path) -> dict[str, Path]:
    return {file.name: file for file in folder.glob("snap_iter_*.caffemodel")}


@pytest.mark.parametrize("name", CASES)
def test_as_caffe_train(folder: Workspace, name: str) -> None:
    case = CASES[name]
    prepare(folder, case)
    done = theirs(folder, case)
    assert (done.code != 0) == case.refused, f"caffe train: {done.code}\n{done.err[-3000:]}"
    # Without --out, so that snapshots go where caffe train writes them.
    where = [] if case.refused else ["--out", "out"]
    code = folder.train("solver.prototxt", *where, *case.flags).code
    refusal = 1 if name in REFUSED_IN_TRAINING else 2
    assert code == (refusal if case.refused else 0), f"exit code {code}"
    if case.refused:
        return
    run = folder.path / "out"
    wanted, found = Log(done.err), Log((run / "caffe.log").read_text(errors="replace"))
    assert found.losses == wanted.losses
    assert found.test_losses[: len(wanted.test_losses)] == wanted.test_losses
    assert bool(wanted.test_losses) == bool(found.test_losses) == ("test_compute_loss" in name)
    # There is a test at the end here, also where no interval asks for it.
    assert {place: found.tests[place] for place in wanted.tests} == wanted.tests
    if any(wanted.tests.values()):  # not of test_iter 0
        same_measurements(run, wanted.tests)
    own = models(run / "snapshots")
    for file, model in models(folder.path / "theirs").items():
        assert_same_weights(model, own[file])
    if case.resumed:
        in_two_parts(folder, case, wanted)


def in_two_parts(folder: Workspace, case: Case, wanted: Log) -> None:
    """Stopped at iteration 4 and resumed, it ends as the whole training did."""
    folder.train("solver.prototxt", "--out", "parts", "--until", "4", *case.flags).succeeded()
    folder.train("--resume", "--out", "parts").succeeded()
    run = folder.path / "parts"
    if any(wanted.tests.values()):  # not of test_iter 0
        same_measurements(run, wanted.tests)
    own = models(run / "snapshots")
    for file, model in models(folder.path / "theirs").items():
        assert_same_weights(model, own[file])


# -- that nothing is left out ----------------------------------------------------------------------


def test_every_layer_type_of_this_caffe_has_a_case() -> None:
    info = caffe_info(find_caffe_python(None))
    text = "".join(case.net or "" for group in (LAYERS, LOSSES, DATA) for case in group.values())
    assert set(info.layers) - set(re.findall(r'type: "(\w+)"', text)) == set()


def test_every_field_of_a_solver_has_a_case() -> None:
    text = "".join(case.solver_text for case in FIELDS.values())
    fields = {field.name for field in messages().new("SolverParameter").DESCRIPTOR.fields}
    assert fields - set(re.findall(r"\b(\w+)(?::| \{)", text)) == set()
