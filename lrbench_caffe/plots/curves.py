"""The picture of a run directory; the curves of several, and what they are called in one picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from lrbench_caffe.errors import ParameterError, did_you_mean
from lrbench_caffe.knowledge.criteria import direction, first_output, output, own_direction
from lrbench_caffe.metrics import METRICS, Measurement, of_first_net, scalar_names, value_of
from lrbench_caffe.plots.files import policy_label
from lrbench_caffe.plots.training import Compared, RunCurves, training_figure
from lrbench_caffe.runs.directory import RunDirectory
from lrbench_caffe.runs.runjson import task_title

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class HasTests(Protocol):
    """A training with its tests: ``RunCurves``, or a record of the database."""

    @property
    def measurements(self) -> Sequence[Measurement]: ...


def distinct(paths: Sequence[Path]) -> list[Path]:
    """Each folder once, and under its own name: runs/* has runs/latest in it."""
    folders: dict[Path, Path] = {}
    for path in sorted(paths, key=Path.is_symlink):
        folders.setdefault(path.resolve(), path)
    return list(folders.values())


def read_curves(directory: Path) -> RunCurves:
    """A run's curves: of the first test net. Its label has policy, seed, and an unusual start or status."""
    run = RunDirectory(directory)
    record = run.read()
    policy = record.get("policy_short") or record.get("policy") or "?"
    seed = f"seed {record['seed']}" if record.get("seed") is not None else ""
    status = str(record.get("status"))
    parts = (policy_label(str(policy)), seed, _start(record), _state(run, status))
    label = ", ".join(part for part in parts if part)
    tests = of_first_net(run.measurements())
    return RunCurves(label, run.iterations(), tests, diverged=status == "diverged")


def compared(
    runs: Sequence[HasTests], by: str | None = None, higher: bool | None = None
) -> Compared:
    """What runs are compared by.

    Args:
        by: a metric, or an output of the test net; None for Top-1, and where none of them has it
            for their first output of which more is better by its name, else the test loss.
        higher: whether more of it is better; None to find out (see ``criteria.direction``).

    Raises:
        InputError: no run has it, or nothing tells which direction is better.
    """
    tests = [test for run in runs for test in of_first_net(run.measurements)]
    metrics = [name for name in METRICS if any(value_of(m, name) is not None for m in tests)]
    outputs = [name for name in scalar_names(m.outputs for m in tests) if name not in METRICS]
    if by is None:
        return Compared(*_usual(metrics, outputs, higher))
    if by not in outputs and by.lower() in metrics:
        return Compared(by.lower(), own_direction(METRICS[by.lower()], higher))
    if by not in outputs:
        known = [*metrics, *outputs]
        raise ParameterError(
            "{by}: unknown output {0!r}{1} measured in these runs: {2}",
            by,
            did_you_mean(by, known) or ";",
            ", ".join(known) or "nothing",
        )
    pairs = [
        (test.outputs[by], test.test_loss)
        for test in tests
        if by in test.outputs and test.test_loss is not None
    ]
    return Compared(by, output(by, higher, pairs).higher)


def _usual(metrics: Sequence[str], outputs: Sequence[str], higher: bool | None) -> tuple[str, bool]:
    """What runs are compared by where nothing is asked for, and whether more of it is better."""
    gains = [name for name in outputs if direction(name)]
    for name, is_wanted in (("top1", True), ("test_loss", not gains)):
        if name in metrics and is_wanted:
            return name, own_direction(METRICS[name], higher)
    if not outputs:
        return "test_loss", METRICS["test_loss"].higher
    first = output(gains[0]) if gains else first_output(outputs)
    return first.name, first.higher if higher is None else higher


def run_figure(run: RunDirectory, policy: str, tests: Sequence[Measurement]) -> Figure:
    """A run's picture: ``training_figure`` of its iterations, under its policy, task and seed."""
    record = run.read()
    seed = "" if record.get("seed") is None else f", seed {record['seed']}"
    decisions = [row["iteration"] for row in run.rows("decisions.jsonl")]
    title = f"{policy}\n{task_title(record)}{seed}"
    return training_figure(title, run.iterations(), list(tests), decisions)


def _start(record: dict[str, Any]) -> str:
    """ "from weights", "from snapshot at 300"; nothing for scratch, or where it is not known."""
    start = record.get("start")
    kind = start.get("kind") if isinstance(start, dict) else None
    if kind == "weights":
        return "from weights"
    if kind == "snapshot":
        iteration = start.get("iteration") if isinstance(start, dict) else None
        return "from snapshot" if iteration is None else f"from snapshot at {iteration}"
    return ""


def _state(run: RunDirectory, status: str) -> str:
    """Nothing for a run that finished; one that says it is running while nobody holds its lock was killed."""
    if run.running:
        return "running"
    return {"finished": "", "running": "interrupted"}.get(status, status)


def told_apart(curves: Sequence[RunCurves], directories: Sequence[Path]) -> list[RunCurves]:
    """With the names of their folders where several would be called alike."""
    alike: dict[str, list[int]] = {}
    for number, run in enumerate(curves):
        alike.setdefault(run.label, []).append(number)
    named = list(curves)
    for label, numbers in alike.items():
        if len(numbers) == 1:
            continue
        names = short_names([directories[number] for number in numbers])
        for number, name in zip(numbers, names):
            named[number] = replace(curves[number], label=f"{label}, {name}")
    return named


def short_names(folders: Sequence[Path]) -> list[str]:
    """The shortest ends of paths that tell them apart, without what is the same at all ends.

    "a/x/run" and "b/x/run" are "a" and "b". The folders are different ones.
    """
    parts = [folder.resolve().parts for folder in folders]
    while len({path[-1] for path in parts}) == 1 and all(len(path) > 2 for path in parts):
        parts = [path[:-1] for path in parts]

    def shortest(path: tuple[str, ...]) -> str:
        for length in range(1, len(path)):
            if sum(other[-length:] == path[-length:] for other in parts) == 1:
                return "/".join(path[-length:])
        return "/".join(path)

    return [shortest(path) for path in parts]


def title_of(directories: Sequence[Path]) -> str:
    """ "digits / LeNet_digits, seeds 1, 2": data, net and seeds of the runs, as far as they are known."""
    records = [RunDirectory(directory).read() for directory in directories]
    tasks = list(dict.fromkeys(task_title(record) for record in records))
    seeds = sorted({record["seed"] for record in records if isinstance(record.get("seed"), int)})
    text = "; ".join(tasks) if len(tasks) < 3 else f"{len(tasks)} tasks"
    if len(seeds) > 5:
        return f"{text}, {len(seeds)} seeds"
    named = ", ".join(map(str, seeds))
    return f"{text}, seed{'s' * (len(seeds) > 1)} {named}" if seeds else text
