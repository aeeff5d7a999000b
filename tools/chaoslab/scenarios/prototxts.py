"""Mutated prototxts: what ``caffe train`` makes of them is what is wanted."""

from __future__ import annotations

import contextlib
import re
import shutil
from functools import cache
from pathlib import Path

from google.protobuf import text_format

from chaoslab import results
from chaoslab.damage.prototxts import Mutator
from chaoslab.lab import Lab, command
from chaoslab.processes import Done
from chaoslab.registry import scenario
from chaoslab.trial import Trial
from chaoslab.verdicts import EQUAL, REFUSED, Hang, Skip, Wrong
from lrbench_caffe.runtime.info import caffe_info
from lrbench_caffe.runtime.locate import caffe_binary, find_caffe_python
from tests.caffe import differential_cases
from tests.caffe.differential_cases import CASES, Case

MEMORY = 6 << 20  # kB of address space: a huge layer is refused, and not the machine brought down
DISPLAYED = re.compile(r"Iteration (\d+)(?: \(.*?\))?, loss = (\S+)")
TESTING = re.compile(r"Iteration (\d+), Testing net \(#(\d+)\)")
OUTPUT = re.compile(r"Test net output #\d+: .* = (\S+)(?: \(\* .*\))?$")
SECONDS = 5.0  # in which such a training ends when it is not disturbed
LONGEST = 60.0  # seconds that caffe train gets
STDERR_ALONE = {"GLOG_logtostderr": "1"}  # no log files in the temporary folder
NOT_FINITE = re.compile(r"-?(nan|inf)")
Tests = dict[tuple[str, str], list[str]]


@scenario("mutated-prototxt", weight=3)
def mutated_prototxt(trial: Trial) -> str:
    """Train a mutated solver or net: as caffe train does, or refused in one line that names the file."""
    program = caffe_binary()
    if program is None:
        raise Skip("there is no caffe binary")
    case = prepare(trial)
    theirs = by_caffe(trial, (str(program), "train", "--solver=solver.prototxt", *case.flags))
    ours = train(trial, case)
    if theirs.succeeded and ours.succeeded:
        check_same(trial, theirs)
        return EQUAL
    if ours.succeeded and "snapshot prefix" not in fatal(
        theirs
    ):  # with --out it has no meaning here
        raise Wrong(f"caffe train ends otherwise: {fatal(theirs)}")
    if ours.succeeded:
        return EQUAL
    line = ours.refusal().error_lines[0]
    if theirs.succeeded and not departs(line, theirs):
        raise Wrong(f"caffe train succeeds; here: {line}")
    if not theirs.succeeded and ".prototxt" not in line:
        raise Wrong(f"no file is named: {line}; caffe train: {fatal(theirs)}")
    return REFUSED


def prepare(trial: Trial) -> Case:
    """A mutant of one of the nets and solvers of the differential test, in the trial's folder."""
    name = trial.rng.choice(
        sorted(name for name, case in CASES.items() if not case.refused and "Python" not in name)
    )
    case = CASES[name]
    files = trial.lab.once("mutants' files", lambda: _write_files(trial.lab))
    shutil.copytree(files, trial.folder, symlinks=True, dirs_exist_ok=True)
    texts = {"solver": case.solver_text} | ({"net": case.net} if case.net is not None else {})
    chosen = "net" if "net" in texts and trial.rng.random() < 0.65 else "solver"
    root = "NetParameter" if chosen == "net" else "SolverParameter"
    texts[chosen], what = mutator().mutate(texts[chosen], root, trial.rng)
    trial.note(f"{name}, {chosen}: {what}")
    for file, text in texts.items():
        path = trial.folder / f"{file}.prototxt"
        path.write_text(text, encoding="utf-8", errors="surrogateescape", newline="")
    return case


@cache
def mutator() -> Mutator:
    return Mutator(results.messages(), caffe_info(find_caffe_python(None)).layers)


def _write_files(lab: Lab) -> Path:
    """The files that the nets of the differential test read."""
    folder = lab.new_folder("mutants")
    (folder / "data").symlink_to(lab.data)
    differential_cases.write_files(folder)
    for name, text in (
        ("train", differential_cases.TRAIN_PART),
        ("test", differential_cases.TEST_PART),
    ):
        (folder / f"{name}.prototxt").write_text(text, encoding="utf-8")
    start = Case(
        differential_cases.SMALL, {"max_iter": 1, "snapshot_prefix": '"start"', "snapshot": None}
    )
    (folder / "solver.prototxt").write_text(start.solver_text, encoding="utf-8")
    (folder / "net.prototxt").write_text(str(start.net), encoding="utf-8")
    lab.untouched(folder, (str(caffe_binary()), "train", "--solver=solver.prototxt"))
    (folder / "start_iter_1.caffemodel").rename(folder / "start.caffemodel")
    for file in (*folder.glob("start_iter_*"), *folder.glob("untouched.*")):
        file.unlink()
    shutil.rmtree(folder / "tmp")
    return folder


def by_caffe(trial: Trial, args: tuple[str, ...]) -> Done:
    """The real ``caffe train``; its snapshots are put aside, into theirs/."""
    try:
        done = trial.start(limited(*args), STDERR_ALONE).wait(LONGEST)
    except Hang:
        raise Skip("caffe train itself takes too long") from None
    (trial.folder / "theirs").mkdir()
    for file in trial.folder.glob("snap_iter_*"):
        file.rename(trial.folder / "theirs" / file.name)
    return done


def train(trial: Trial, case: Case) -> Done:
    args = ("solver.prototxt", "--layers", "stock", "--out", "out", "--no-db", *case.flags)
    return trial.run(limited(*command("train", *args)), SECONDS)


def limited(*args: str) -> tuple[str, ...]:
    """A command with bounded memory."""
    return ("sh", "-c", f'ulimit -c 0; ulimit -v {MEMORY}; exec "$@"', "sh", *args)


# -- comparing -------------------------------------------------------------------------------------


def seeded(trial: Trial) -> bool:
    """Whether two trainings of the trial's solver draw the same random numbers."""
    solver = results.messages().new("SolverParameter")
    text = (trial.folder / "solver.prototxt").read_text(encoding="utf-8", errors="replace")
    with contextlib.suppress(
        text_format.ParseError
    ):  # what only Caffe's parser reads; then so far as read
        text_format.Parse(text, solver)
    return bool(solver.random_seed >= 0)


def check_same(trial: Trial, theirs: Done) -> None:
    """Check losses and test outputs as both printed them, and the weights of Caffe's snapshots.

    Raises:
        Wrong: they differ.
    """
    if not seeded(trial):
        return
    log = (trial.folder / "out" / "caffe.log").read_text(encoding="utf-8", errors="replace")
    words = []
    if losses(log) != losses(theirs.err):
        words.append(f"losses {losses(log)[:3]} instead of {losses(theirs.err)[:3]}")
    printed = tests(log)
    for place, outputs in tests(theirs.err).items():
        if printed.get(place) != outputs:
            words.append(f"test {place}: {printed.get(place)} instead of {outputs}")
    for file in sorted((trial.folder / "theirs").glob("*.caffemodel*")):
        words += results.snapshot_differences(file, trial.folder / "out" / "snapshots" / file.name)
    if words:
        raise Wrong(results.first(words))


def losses(log: str) -> list[tuple[str, str]]:
    """Iteration and loss of each display. Whether a NaN has a sign says nothing."""
    return [(iteration, loss.replace("-nan", "nan")) for iteration, loss in DISPLAYED.findall(log)]


def tests(log: str) -> Tests:
    """The outputs as they are printed, by iteration and test net."""
    found: Tests = {}
    current: list[str] = []
    for line in log.splitlines():
        if match := TESTING.search(line):
            current = found.setdefault((match[1], match[2]), [])
        elif match := OUTPUT.search(line):
            current.append(match[1].replace("-nan", "nan"))
    return found


def departs(line: str, theirs: Done) -> bool:
    """Whether a refusal is one of those that the docs say, although Caffe continues.

    It trains with weights that are not numbers, and with labels that the net has no score for.
    """
    if "the training diverged" in line:
        shown = losses(theirs.err)
        return not shown or any(NOT_FINITE.fullmatch(loss) for _, loss in shown)
    return "base_lr" in line or "label" in line or "--trust-data" in line


def fatal(done: Done) -> str:
    """Caffe's last words."""
    words = [line for line in done.err.splitlines() if line.startswith("F") or "ERROR" in line]
    return words[-1][:300] if words else f"exit code {done.code}"
