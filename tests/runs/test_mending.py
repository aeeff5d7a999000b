"""Damaged run directories: a resumed run ends as one that nothing happened to, or is refused.

Caffe's part is played by a chain of numbers in which every update, test and decision has its
effect, so that whatever is lost or done twice changes all that follows.
"""

from __future__ import annotations

import random
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from chaoslab.damage import files as damage
from lrbench_caffe.errors import InputError
from lrbench_caffe.metrics import Measurement
from lrbench_caffe.runs.directory import RunDirectory
from lrbench_caffe.runs.mending import take_up
from lrbench_caffe.runs.snapshots import Snapshots

END, TEST, SNAPSHOT = 60, 10, 20
JOURNALED = ("run.json", "measurements.jsonl", "snapshots.jsonl", "iterations.csv")
JOURNALS = ("records.log", "losses.log")


class Stop(Exception):
    """The training is killed."""


class Chain:
    """A run directory, and a training in it.

    Args:
        old: whether it is of a version without journals.
    """

    def __init__(self, folder: Path, messages, old: bool = False) -> None:
        self.run = RunDirectory(folder)
        self.messages = messages
        self.old = old
        self.id = "0123456789abcdef"
        self.first = 1.0
        self.end = END
        self.was_old = old
        self.notes: list[str] = []

    def train(self, until: int = END + 1, start_over: bool = False) -> None:
        """Begin or continue; ``until`` is the iteration before whose update it is killed."""
        self.start_over = start_over
        self.run.lock()
        try:
            self._train(until)
        except Stop:
            pass
        finally:
            self.run.release()

    def _train(self, until: int) -> None:
        run = self.run
        snapshots = Snapshots(run, self.messages, Path("prefix/chain"), publish=False)
        record, iteration, value = (
            {"solver": "s", "seed": 3, "status": "running", "sessions": []},
            0,
            self.first,
        )
        if run.exists:
            due = lambda t: [(i, 0) for i in range(0, t, TEST)]  # noqa: E731
            taken = take_up(run, snapshots, due, 0, self.end, start_over=self.start_over)
            self.notes = taken.notes
            record = run.read()
            if taken.start:
                iteration = taken.start.iteration
                state = self.messages.read_binary("SolverState", run.snapshots / taken.start.state)
                value = state.history[0].data[0]
        if not self.old:
            record = {"id": self.id, **record}
        sessions = [*record["sessions"], {"began": 1.0, "iteration": iteration}]
        run.begin({**record, "sessions": sessions}) if not self.old else run.write(record)
        past = [m for m in run.measurements() if m.iteration <= iteration]
        tests, since = len(past), past[-1].iteration if past else 0
        tested = bool(past) and since == iteration
        rows = run.iterations()
        losses = list(rows[(rows[:, 0] >= since) & (rows[:, 0] < iteration), 2])
        while True:
            if iteration % TEST == 0 and not tested:
                mean = float(np.mean(losses)) if losses else None
                run.add_measurement(_measured(iteration, value + tests, mean))
                tests, losses, tested = tests + 1, [], True
            if iteration and iteration % SNAPSHOT == 0:
                write = partial(self._write, snapshots.prefix, iteration, value)
                snapshots.take(write, iteration, 1.0)
            if iteration == self.end:
                break
            if iteration >= until:
                raise Stop
            value = float(np.float32((value * 1.37 + 0.01 * tests) % 7))
            losses.append(value / 3)
            run.add_iterations(iteration, np.array([0.01]), np.array([value / 3]))
            iteration, tested = iteration + 1, False
        run.update(status="finished", iteration=self.end)

    def _write(self, prefix: Path, iteration: int, value: float) -> int:
        model, state = self.messages.new("NetParameter"), self.messages.new("SolverState")
        model.layer.add(name="ip").blobs.add().data.extend([value] * 20)
        state.iter = iteration
        state.history.add().data.extend([value] * 20)
        Path(f"{prefix}_iter_{iteration}.caffemodel").write_bytes(model.SerializeToString())
        Path(f"{prefix}_iter_{iteration}.solverstate").write_bytes(state.SerializeToString())
        return iteration

    def outcome(self) -> dict[str, object]:
        """All that it came to, from the files alone."""
        folder = self.run.path
        return {
            "status": self.run.read()["status"],
            "tests": (folder / "measurements.jsonl").read_text(),
            "losses": (folder / "iterations.csv").read_text(),
            "snapshots": {
                p.name: p.read_bytes() for p in self.run.snapshots.iterdir() if p.is_file()
            },
            "recorded": [row["iteration"] for row in self.run.rows("snapshots.jsonl")],
        }


def _measured(iteration: int, value: float, train_loss: float | None) -> Measurement:
    return Measurement(
        iteration=iteration, lr=0.01, top1=value, top5=99.0, ac=0.9, cd=0.1, cdac=0.05, test_loss=value / 9,
        train_loss=train_loss, ld=None, seconds=1.5, samples=200, silent_classes=1, net=0,
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole(messages, tmp_path_factory) -> dict[str, object]:
    """What an untouched run comes to."""
    chain = Chain(tmp_path_factory.mktemp("whole") / "run", messages)
    chain.train()
    return chain.outcome()


@pytest.fixture(scope="module")
def begun(messages, tmp_path_factory) -> dict[str, Path]:
    """Runs that were killed at iteration 53, of this version and of a former one, and one that finished."""
    found = {}
    for name, old, until in (("new", False, 53), ("old", True, 53), ("ended", False, END + 1)):
        chain = Chain(tmp_path_factory.mktemp(name) / "run", messages, old)
        chain.train(until)
        found[name] = chain.run.path
    return found


@pytest.fixture
def copy(begun, messages, tmp_path):
    """``copy(name)``: a copy of one of these runs, to be damaged and continued."""

    def make(name: str = "new") -> Chain:
        shutil.copytree(begun[name], tmp_path / "run")
        chain = Chain(tmp_path / "run", messages)
        chain.was_old = name == "old"
        return chain

    return make


@pytest.mark.parametrize("name", ["new", "old", "ended"])
def test_an_undamaged_run_goes_on_without_a_word(copy, whole, name):
    chain = copy(name)
    before = chain.run.path.joinpath("measurements.jsonl").read_text()
    chain.train(until=57)
    assert chain.run.path.joinpath("measurements.jsonl").read_text() == before
    chain.train()
    assert chain.outcome() == whole
    assert chain.notes == []


@pytest.mark.parametrize("name", ["new", "old"])
@pytest.mark.parametrize("end", [40, 45], ids=["at its last snapshot", "after it"])
def test_a_run_that_is_made_shorter_has_nothing_beyond_its_end(copy, messages, tmp_path, name, end):
    """It was killed at 53; what it comes to is what a run of this length comes to."""
    short = Chain(tmp_path / "short", messages)
    chain = copy(name)
    for one in (short, chain):
        one.end = end
        one.run.path.mkdir(exist_ok=True)
    (chain.run.path / "decisions.jsonl").write_text(
        '{"iteration": 40, "factor": 0.5}\n{"iteration": 50, "factor": 0.25}\n'
    )
    short.train()
    chain.train()
    assert chain.outcome() == short.outcome()
    assert [m.iteration for m in chain.run.measurements()] == [0, 10, 20, 30, 40]
    assert chain.run.damage() == []
    decided = [row["iteration"] for row in chain.run.rows("decisions.jsonl")]
    assert decided == ([40] if name == "new" else [40, 50])
    chain.end = END  # and longer again
    chain.train()
    assert [m.iteration for m in chain.run.measurements()] == [0, 10, 20, 30, 40, 50, 60]


def _damaged(chain: Chain, name: str, seed: int) -> str:
    return damage.damage(chain.run.path / name, random.Random(f"{name} {seed}"))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("name", [*JOURNALED, *JOURNALS])
@pytest.mark.parametrize("which", ["new", "ended"])
def test_one_damaged_file_is_mended(copy, whole, which, name, seed):
    chain = copy(which)
    what = _damaged(chain, name, seed)
    path = chain.run.path / name
    if path.is_symlink() or path.is_dir():
        with pytest.raises(InputError, match=name):
            chain.train()
        return
    chain.train()
    assert chain.outcome() == whole, (what, chain.notes)


@pytest.mark.parametrize(
    "seed", [*range(40), *(pytest.param(n, marks=pytest.mark.slow) for n in range(40, 600))]
)
def test_any_damage_is_mended_or_refused(copy, whole, seed):
    """Two files at once, snapshots too, and runs of a former version."""
    rng = random.Random(seed)
    chain = copy(rng.choice(("new", "new", "old", "ended")))
    files = damage.files_in(chain.run.path)
    hit = [damage.damage(path, rng) for path in rng.sample(files, rng.choice((1, 2, 2, 3)))]
    try:
        chain.train()
    except InputError as error:
        assert "\n" not in str(error)
        return
    found = chain.outcome()
    for what in hit:  # an older snapshot that was damaged stays so; nothing is computed from it
        name = what.replace(":", " ").split()[0]
        if (
            name.startswith("chain_iter_")
            and found["snapshots"].get(name) != whole["snapshots"][name]
        ):
            found["snapshots"][name] = whole["snapshots"][name]
    if any("the record of this snapshot is lost" in note for note in chain.notes):
        found["recorded"] = whole["recorded"]
    if chain.was_old:  # without checksums a number that became another one cannot be told
        found, expected = (
            {name: one[name] for name in ("status", "snapshots")} for one in (found, whole)
        )
    else:
        expected = whole
    assert found == expected, (hit, chain.notes)


# -- what is told ----------------------------------------------------------------------------------


def _change(path: Path, change) -> None:
    path.write_bytes(change(path.read_bytes().splitlines(keepends=True)))


def test_a_line_of_zeros_is_told_and_mended(copy, whole):
    chain = copy()
    _change(
        chain.run.path / "measurements.jsonl",
        lambda lines: b"".join([*lines[:2], b"\0" * 40 + b"\n"]),
    )
    chain.train()
    assert chain.notes == ["damaged records were repaired: measurements.jsonl: line 3 is damaged"]
    assert chain.outcome() == whole


def test_another_runs_files_are_not_taken_for_its_own(copy, messages, whole, tmp_path):
    other = Chain(tmp_path / "other", messages)
    other.id = "fedcba9876543210"
    other.first = 2.0
    other.train()
    for name in (*JOURNALED, *JOURNALS):
        chain = copy()
        shutil.copy(other.run.path / name, chain.run.path / name)
        chain.train()
        assert chain.outcome() == whole, name
        log = "losses.log" if name == "losses.log" else "records.log"
        assert chain.notes[0].startswith(
            f"damaged records were repaired: {log if name in JOURNALS else name}: "
        ), name
        shutil.rmtree(chain.run.path)


def test_run_json_and_journal_of_two_runs(copy, messages, tmp_path):
    other = Chain(tmp_path / "other", messages)
    other.id = "fedcba9876543210"
    other.train(until=5)
    chain = copy()
    shutil.copy(other.run.path / "run.json", chain.run.path)
    (chain.run.path / "losses.log").unlink()
    with pytest.raises(
        InputError, match=r"run.json and records.log there belong to different runs"
    ):
        chain.train()


def test_snapshots_without_a_record_are_not_started_over(copy):
    chain = copy()
    for name in ("snapshots.jsonl", "records.log"):
        (chain.run.path / name).unlink()
    with pytest.raises(
        InputError, match="records.log: is missing; and no snapshot has complete records before it"
    ):
        chain.train()
    assert len(list(chain.run.snapshots.iterdir())) == 4


def test_a_run_without_an_intact_snapshot_begins_again_on_request_alone(copy, whole):
    chain = copy()
    states = sorted(chain.run.snapshots.glob("*.solverstate"))
    for state in states:
        state.write_bytes(b"")
    with pytest.raises(
        InputError, match=r"^resume: none of the snapshots in .* is intact .*start_over"
    ):
        chain.train()
    chain.train(start_over=True)
    assert chain.notes[-1] == "the run begins again: no snapshot can be continued from"
    assert all(state.name in " ".join(chain.notes) for state in states)
    assert chain.outcome() == whole
    assert chain.run.repeated == 53  # the iterations that it had been killed at


def test_a_run_whose_records_are_lost_begins_again_on_request(copy, whole):
    chain = copy()
    for name in ("snapshots.jsonl", "records.log"):
        (chain.run.path / name).unlink()
    chain.train(start_over=True)
    assert chain.notes[-1] == "the run begins again: no snapshot can be continued from"
    assert chain.outcome() == whole


def test_an_older_snapshot_where_the_records_of_the_newest_are_lost(copy, whole):
    """A test between the two is damaged in both places: what comes after the older one is done again."""
    chain = copy()
    _change(
        chain.run.path / "measurements.jsonl",
        lambda lines: b"".join([*lines[:3], b"{}\n", *lines[4:]]),
    )
    _change(
        chain.run.path / "records.log",
        lambda lines: b"".join(line for line in lines if b'{"iteration": 30' not in line),
    )
    chain.train()
    assert (
        "snapshot chain_iter_40.solverstate are lost; those iterations are trained again"
        in chain.notes[1]
    )
    assert chain.outcome() == whole


@pytest.mark.parametrize("name", ["new", "old", "ended"])
def test_tests_are_mended_in_the_order_of_the_schedule(copy, whole, name):
    chain = copy(name)
    _change(
        chain.run.path / "measurements.jsonl",
        lambda lines: b"".join([lines[0], lines[2], lines[1], *lines[3:]]),
    )
    if name != "old":
        _change(chain.run.path / "records.log", lambda lines: b"".join([*lines[:4], *lines[5:]]))
    chain.train()
    assert chain.outcome() == whole


def test_a_former_run_whose_tests_are_lost(copy, whole):
    chain = copy("old")
    _change(chain.run.path / "measurements.jsonl", lambda lines: b"".join([*lines[:3], *lines[4:]]))
    chain.train()  # that of iteration 30 is missing, by the schedule
    assert (
        "snapshot chain_iter_40.solverstate are lost; those iterations are trained again"
        in chain.notes[0]
    )
    assert chain.outcome() == whole


def test_a_former_run_whose_test_at_the_snapshot_is_lost(copy, whole):
    """It is measured again, and stands before those after it."""
    chain = copy("old")
    _change(chain.run.path / "measurements.jsonl", lambda lines: b"".join([*lines[:4], *lines[5:]]))
    chain.train()
    assert chain.notes == [
        "measurements.jsonl: the test at iteration 40 is missing: it is measured again"
    ]
    assert chain.outcome() == whole


def test_a_former_run_without_its_first_test_is_refused(copy):
    chain = copy("old")
    _change(chain.run.path / "measurements.jsonl", lambda lines: b"".join(lines[1:]))
    with pytest.raises(
        InputError, match=r"^resume: .*no snapshot has complete records before it; allowed: restore"
    ):
        chain.train()


def test_what_a_kill_leaves_of_a_snapshot_is_removed(copy, whole):
    chain = copy()
    for name in ("chain_iter_53.caffemodel", ".resume.solverstate.4194399"):
        (chain.run.snapshots / name).write_bytes(b"half")
    (chain.run.path / ".run.json.4194399").write_bytes(b"half")
    (chain.run.snapshots / "mine_iter_7.caffemodel").write_bytes(b"mine")
    chain.train()
    found = chain.outcome()["snapshots"]
    assert found.keys() == {*whole["snapshots"], "mine_iter_7.caffemodel"}
    assert not (chain.run.path / ".run.json.4194399").exists()
