"""One trial: a folder, a random generator, the commands that are typed, and the looks at what they left."""

from __future__ import annotations

import random
import shutil
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from chaoslab import results
from chaoslab.lab import Lab, Reference, command, database_of, deadline
from chaoslab.processes import Done, Running, end_all, marked, remaining
from chaoslab.registry import Scenario
from chaoslab.setups import SETUPS, Setup
from chaoslab.verdicts import LEFT, TRACEBACK, WRONG, Skip, TrialError, TrialVerdict, Wrong
from lrbench_caffe.runs.directory import RunDirectory
from lrbench_caffe.runtime.liveness import parent_of

GONE_SECONDS = 15.0  # in which what a trial started must have ended
# In the command lines of a Caffe, and of a training that another command started.
WORKER, CHILD = "runtime/worker.py", "lrbench_caffe.jobs"
OTHERS = "others-"  # begins the names of the logs of programs that are not this project's
LOGS = ("*.log", "*.out", "*.err")
TRACES = ("Traceback (most recent call last)", "Fatal Python error", "Exception ignored in")
LARGEST_LOG = 1 << 26  # bytes of a log that are looked at


class Trial:
    """What a scenario works with.

    Attributes:
        rng: the only source of chance, made of the trial's seed.
        folder: where the commands are typed; empty at first (see ``furnish``).
        lab: what all trials share.
        notes: what was done, for people who look into a failure.
        killed: whether a command was killed: then it may leave its temporary folder.
    """

    def __init__(self, lab: Lab, scenario: str, seed: int) -> None:
        self.lab = lab
        self.rng = random.Random(f"{scenario} {seed}")
        self._place = lab.new_folder(scenario)
        self.folder = self._place / "w"
        self.folder.mkdir()
        self._said = self._place / "said"
        self._said.mkdir()
        self.mark = f"{lab.name}/{self._place.name}"
        self.notes: list[str] = []
        self.running: list[Running] = []
        self.killed = False

    def note(self, text: str) -> None:
        self.notes.append(text)

    # -- commands -------------------------------------------------------------------------------

    def start(
        self, args: tuple[str, ...], more: Mapping[str, str] | None = None, *, others: bool = False
    ) -> Running:
        """Start a command in the trial's folder, with ``more`` in its environment.

        Args:
            others: it is not a program of this project, whose tracebacks are not ours.
        """
        if self.lab.closed:
            raise Skip("interrupted")
        said = self._said / f"{OTHERS if others else ''}{len(self.running)}"
        running = Running(
            args, self.folder, self.lab.environment(self.folder, self.mark, more), said
        )
        self.running.append(running)
        return running

    def run(
        self, args: tuple[str, ...], seconds: float = 5.0, more: Mapping[str, str] | None = None
    ) -> Done:
        """Run a command to its end.

        Args:
            args: the command.
            seconds: how long it takes when nothing disturbs it.
            more: for its environment.

        Raises:
            Hang: it takes very much longer.
        """
        done = self.start(args, more).wait(deadline(seconds))
        self.note(done.summary)
        return done

    def choose_setup(self, *names: str) -> Setup:
        """One of the setups with these names, or of all."""
        setup = SETUPS[self.rng.choice(sorted(names or SETUPS))]
        self.note(f"setup {setup.name}")
        return setup

    def furnish(self, setup: Setup) -> Reference:
        """Put a setup into the trial's folder; returns its untouched training."""
        reference = self.lab.reference(setup)
        self.lab.furnish(self.folder, setup)
        return reference

    def train_command(self, setup: Setup, out: str = "out") -> tuple[str, ...]:
        """The command that trains a setup; or, where that has begun, the one that continues it."""
        if RunDirectory(
            self.folder / out
        ).exists:  # killed before run.json it is in the journal alone
            return command("train", "--resume", "--out", out, *_repeatable(setup.flags))
        return command("train", "solver.prototxt", "--out", out, "--layers", "stock", *setup.flags)

    def wait_for_workers(self) -> None:
        """Wait until no Caffe of the trial lives: it ends when its driver does."""
        end = time.monotonic() + GONE_SECONDS
        while processes(self, WORKER) and time.monotonic() < end:
            time.sleep(0.02)

    # -- looks ----------------------------------------------------------------------------------

    @property
    def database(self) -> str:
        return database_of(self.folder)

    def finish(self, reference: Reference, out: str = "out") -> None:
        """Continue a training until it is finished, undisturbed.

        Raises:
            Wrong: it does not finish.
        """
        done = self.run(self.train_command(reference.setup, out), reference.seconds)
        done.success()

    def bring_in(self) -> None:
        """Open the LR database if results wait for it: any command brings them in then."""
        if any((self.folder / "share").rglob("waiting/*")):
            self.run(command("db", "info")).success()

    def check_equal(self, reference: Reference, out: str = "out") -> None:
        """Check that a training has the results of the untouched one, also in the LR database, and that its
        folder holds nothing else.

        Raises:
            Wrong: it has not.
        """
        self.bring_in()
        words = results.differences(reference.run, self.folder / out)
        words += results.stored_differences(reference.database, self.database)
        words += [f"left: {path.relative_to(self.folder)}" for path in temporary_files(self.folder)]
        words += unrecorded_snapshots(self.folder / out)
        if words:
            raise Wrong(results.first(words))

    # -- the end --------------------------------------------------------------------------------

    def tracebacks(self) -> list[str]:
        """Where a command printed a traceback, or left one in a log."""
        found = []
        for path in _logs(self._place):
            with path.open("rb") as file:
                text = file.read(LARGEST_LOG).decode("utf-8", "replace")
            trace = next((trace for trace in TRACES if trace in text), None)
            if trace:
                last = text[text.index(trace) :].strip().splitlines()
                error = next((line for line in last[1:] if not line.startswith(" ")), last[-1])
                found.append(f"{path.name}: {error[:300]}")
        return found

    def end(self) -> dict[int, str]:
        """End the trial's own commands; returns other processes that did not end with them."""
        for running in self.running:
            running.end()
        left = remaining(self.mark, GONE_SECONDS)
        end_all(self.mark)
        return left

    def left_files(self) -> list[str]:
        """What commands that were not killed left in the place for temporary files."""
        folder = self.folder / "tmp"
        if self.killed or not folder.exists():
            return []
        return [f"left: tmp/{path.name}" for path in sorted(folder.iterdir())]

    def close(self, keep: bool) -> None:
        if not keep:
            shutil.rmtree(self._place, ignore_errors=True)

    @property
    def place(self) -> Path:
        return self._place


@dataclass(frozen=True)
class Ended:
    """A trial that has ended.

    Attributes:
        scenario, seed: what ``tools/chaos SCENARIO --seed SEED`` repeats.
        verdict: what it came to.
        seconds: how long it took.
        notes: what was done in it.
    """

    scenario: str
    seed: int
    verdict: TrialVerdict
    seconds: float
    notes: tuple[str, ...]


def perform(lab: Lab, scenario: Scenario, seed: int, keep: bool = False) -> Ended:
    """Do one trial.

    Args:
        keep: leave the trial's folder if it ends badly.
    """
    began = time.monotonic()
    trial = Trial(lab, scenario.name, seed)
    try:
        try:
            verdict = TrialVerdict(scenario.body(trial))
        except TrialError as error:
            verdict = TrialVerdict(error.kind, str(error))
        except Exception as error:  # of the scenario itself: nothing was compared then
            last = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(last.filename).name}:{last.lineno}"
            verdict = TrialVerdict(
                WRONG, f"the scenario ended with {type(error).__name__}: {error} ({where})"
            )
        finally:
            left = trial.end()
        traces = trial.tracebacks()
        if traces:
            verdict = TrialVerdict(TRACEBACK, results.first([*traces, verdict.detail][:2]))
        elif not verdict.bad:
            words = [f"{pid}: {what[:200]}" for pid, what in left.items()] + trial.left_files()
            verdict = TrialVerdict(LEFT, results.first(words)) if words else verdict
    finally:
        trial.end()
        bad = "verdict" in locals() and verdict.bad
        if keep and bad:
            trial.note(f"kept: {trial.place}")
        trial.close(keep and bad)
    return Ended(scenario.name, seed, verdict, time.monotonic() - began, tuple(trial.notes))


def processes(trial: Trial, word: str) -> list[int]:
    """The trial's processes with ``word`` in their command line, without the servers that fork them.

    A fork has the command line of its server, whose parent has another one.
    """
    lines = marked(trial.mark)

    def is_server(pid: int) -> bool:
        parent = parent_of(pid) or 0
        return f"{word} serve " in lines[pid] and lines.get(parent) != lines[pid]

    return sorted(pid for pid, line in lines.items() if word in line and not is_server(pid))


def temporary_files(folder: Path) -> list[Path]:
    """What should be gone when nothing runs any more: files that get another name when they are complete."""
    found = []
    for path in folder.rglob("*"):
        hidden = path.name.startswith(".") and path.name.rpartition(".")[2].isdigit()
        if "tmp" not in path.relative_to(folder).parts[:1] and (path.suffix == ".tmp" or hidden):
            found.append(path)
    return found


def unrecorded_snapshots(run: Path) -> list[str]:
    """Files of a run's snapshots that snapshots.jsonl does not name."""
    files = results.read_run(run)
    known = {
        path for pair in [*files.snapshots.values(), *files.automatic.values()] for path in pair
    }
    return [
        f"left: snapshots/{path.name} is in no line of snapshots.jsonl"
        for path in sorted((run / "snapshots").iterdir())
        if path not in known
    ]


def _logs(place: Path) -> Iterator[Path]:
    for pattern in LOGS:
        for path in place.rglob(pattern):
            if path.is_file() and not path.is_symlink() and not path.name.startswith(OTHERS):
                yield path


def _repeatable(flags: tuple[str, ...]) -> tuple[str, ...]:
    """The flags that a resumed training takes again: it knows its policy."""
    pairs = list(flags)
    if "--lr" in pairs:
        at = pairs.index("--lr")
        del pairs[at : at + 2]
    return tuple(pairs)
