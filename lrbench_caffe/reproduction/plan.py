"""The trainings behind each of the paper's tables and figures: pure data.

    table3 .. table9            the rows of Tables III to IX
    figure3, figure4, figure5   the trainings behind Figures 3 to 5

Figure 1 needs no training (see ``surface``). Where the paper does not state something, it is chosen
here:

- TRI2 in Tables IV (a) and V has l = 2000, as every cyclic policy of Tables VII to IX.
- Figure 3 has 5 curves and k0 from 0 to 0.1 "in a base-10 log scale". The k0 here are the ends of
  its good range, its marks, and values between; the epochs are 10, 20, 40, 80 and 140 (the whole).
  One training of 140 epochs gives all five points of its k0.
- Figure 5 is of one training.
- Figure 4 shows l beyond the 1000 to 10000 of Table IV (b); here from 100 to 35000.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from lrbench_caffe.errors import InputError, ParameterError, did_you_mean
from lrbench_caffe.knowledge.adaptation import CannotAdapt, TrainingContext, adapt, change_between
from lrbench_caffe.lr import FunctionPolicy, Policy, parse
from lrbench_caffe.paper.tables import PaperRow, paper_rows, paper_solver, paper_task
from lrbench_caffe.records import RunRecord, SolverSettings, Task

SEEDS = (1, 2, 3, 4, 5)  # section V-C: "5 repeated experiments"


MOST_SCALED_TESTS = 20
LEAST_SCALED = (
    MOST_SCALED_TESTS  # iterations: with fewer there would be less than one from test to test
)


@dataclass(frozen=True)
class Setup:
    """One of the paper's three tasks.

    Attributes:
        solver: the solver file, relative to the repository's root.
        max_iter, test_interval: iterations.
        key: what ``paper_task`` and ``paper_solver`` know it by.
        title: for people.
        data: what ``python -m lrbench_caffe.data`` makes for it.
    """

    solver: str
    max_iter: int
    test_interval: int
    key: str
    title: str
    data: str

    @property
    def task(self) -> Task:
        return paper_task(self.key)

    @property
    def settings(self) -> SolverSettings:
        return paper_solver(self.key)


LENET = Setup(
    "solvers/lenet_mnist_solver.prototxt", 10_000, 500, "lenet_mnist", "LeNet on MNIST", "mnist"
)
CNN3 = Setup(
    "solvers/cnn3_cifar10_solver.prototxt",
    70_000,
    250,
    "cnn3_cifar10",
    "CNN3 on CIFAR-10",
    "cifar10",
)
RESNET32 = Setup(
    "solvers/resnet32_cifar10_solver.prototxt",
    64_000,
    1000,
    "resnet32_cifar10",
    "ResNet-32 on CIFAR-10",
    "cifar10",
)

TABLES = {
    "table3": ("III", RESNET32),
    "table4": ("IV", CNN3),
    "table5": ("V", RESNET32),
    "table6": ("VI", CNN3),
    "table7": ("VII", LENET),
    "table8": ("VIII", CNN3),
    "table9": ("IX", RESNET32),
}

FIGURE3_K0 = (5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 4e-3, 6e-3, 8e-3, 1e-2, 2e-2, 5e-2, 1e-1)
FIGURE3_EPOCHS = (10, 20, 40, 80, 140)
FIGURE3_GOOD = (0.0005, 0.006)
FIGURE3_MARKS = (0.001, 0.01, 0.1)
FIGURE3_CLOSE_UP = (0.00005, 0.01)
FIGURE3_STATED = {
    0.001: 78.62,
    0.01: 69.63,
}  # section V-A: Top-1 of two FIX policies after the whole training
FIGURE4_L = (100, 200, 500, *range(1000, 10_001, 1000), 15_000, 20_000, 35_000)
FIGURE4_MARKS = (1000, 5000, 10_000)
FIGURE5 = parse("NSTEP(k0=0.001, gamma=0.32, l=[30000, 50000, 60000, 65000])")


@dataclass(frozen=True)
class Row:
    """One policy to train.

    Attributes:
        number: its place in the table, from 1.
        key: what it is called in this table, once only: "SIN2", "TRI (Smith 2015)", or the whole
            policy.
        policy: the LR policy as the paper prints it; POLY without l, which is then max_iter.
        trained: the policy to train with: another one than ``policy`` where the plan is scaled
            down.
        paper: the paper's result; None where it prints none.
        stated: the Top-1 that the paper states in its text, where no table has it.
    """

    number: int
    key: str
    policy: Policy
    trained: Policy
    paper: RunRecord | None
    stated: float | None = None


@dataclass(frozen=True)
class ExperimentPlan:
    """The trainings for a table or figure.

    Attributes:
        name: "table7", "figure3", ...
        title: for people: "Table VII: LeNet on MNIST".
        setup: the task.
        max_iter, test_interval: iterations; those of the setup, unless scaled.
        rows: the policies.
        seeds: one training of each policy for each.
        scale: share of the paper's iterations; 1 for all of them.
    """

    name: str
    title: str
    setup: Setup
    max_iter: int
    test_interval: int
    rows: tuple[Row, ...]
    seeds: tuple[int, ...] = SEEDS
    scale: float = 1.0

    @property
    def scaled(self) -> bool:
        return self.max_iter != self.setup.max_iter

    @property
    def file_name(self) -> str:
        """The beginning of the names of its files: a scaled-down plan has files of its own."""
        return f"{self.name}-scaled-{self.max_iter}" if self.scaled else self.name

    @property
    def share(self) -> float:
        """The iterations as a share of the task's own."""
        return self.max_iter / self.setup.max_iter

    @property
    def note(self) -> str:
        """The remark on every line of a scaled-down run; empty for a full one."""
        return (
            f"SCALED DOWN: {self.max_iter} of {self.setup.max_iter} iterations"
            if self.scaled
            else ""
        )

    def row(self, key: str) -> Row:
        """The row of that key.

        Raises:
            KeyError: there is none.
        """
        for row in self.rows:
            if row.key == key:
                return row
        raise KeyError(key)


def plan(name: str) -> ExperimentPlan:
    """The plan of a table or figure.

    Raises:
        InputError: no such table or figure.

    >>> [row.key for row in plan("table9").rows]
    ['NSTEP', 'TRIEXP', 'SINEXP']
    """
    if name in TABLES:
        number, setup = TABLES[name]
        title = f"Table {number}: {setup.title}"
        return _plan(name, title, setup, _table_rows(paper_rows(number)))
    if name in _FIGURES:
        policies, title = _FIGURES[name]
        figure_plan = _plan(name, title, CNN3, _figure_rows(policies, _known(CNN3)))
        if name == "figure3":
            return replace(figure_plan, rows=tuple(map(_with_stated, figure_plan.rows)))
        return replace(figure_plan, seeds=SEEDS[:1]) if name == "figure5" else figure_plan
    known = plans()
    raise InputError(
        f"unknown table or figure {name!r}{did_you_mean(name, known) or ';'} known: {', '.join(known)}"
    )


def plans() -> list[str]:
    """The names of all plans."""
    return [*TABLES, *_FIGURES]


def _plan(name: str, title: str, setup: Setup, rows: list[Row]) -> ExperimentPlan:
    return ExperimentPlan(name, title, setup, setup.max_iter, setup.test_interval, tuple(rows))


# -- rows ------------------------------------------------------------------------------------------


def _table_rows(paper_rows: Sequence[PaperRow]) -> list[Row]:
    policies = [parse(row.record.policy.text) for row in paper_rows]
    times = Counter(policy.function for policy in policies)
    in_full = any(not row.source for row in paper_rows)  # a table of one function's parameters
    sources = Counter((p.function, row.source) for p, row in zip(policies, paper_rows))
    rows = []
    for number, (policy, row) in enumerate(zip(policies, paper_rows), 1):
        key = policy.function
        if in_full or sources[key, row.source] > 1:
            key = str(policy)
        elif times[key] > 1 and row.source != "LRBench":
            key = f"{key} ({row.source})"
        rows.append(Row(number, key, policy, policy, row.record))
    return rows


def _figure_rows(policies: Sequence[Policy], known: dict[str, RunRecord]) -> list[Row]:
    return [
        Row(number, str(policy), policy, policy, known.get(str(policy)))
        for number, policy in enumerate(policies, 1)
    ]


def _with_stated(row: Row) -> Row:
    assert isinstance(row.policy, FunctionPolicy)
    return replace(row, stated=FIGURE3_STATED.get(float(row.policy.values["k0"])))


def _known(setup: Setup) -> dict[str, RunRecord]:
    """The paper's results of a task in the tables that have no deviation, by policy."""
    numbers = [number for number, of in TABLES.values() if of == setup and number in ("IV", "VI")]
    return {row.record.policy.text: row.record for number in numbers for row in paper_rows(number)}


_FIGURES: dict[str, tuple[list[Policy], str]] = {
    "figure3": (
        [FunctionPolicy("FIX", k0=k0) for k0 in FIGURE3_K0],
        "Figure 3: FIX with varying k0, CNN3 on CIFAR-10",
    ),
    "figure4": (
        [FunctionPolicy("STEP", k0=0.001, gamma=0.85, l=steps) for steps in FIGURE4_L],
        "Figure 4: STEP with varying l, CNN3 on CIFAR-10",
    ),
    "figure5": ([FIGURE5], "Figure 5: NSTEP, CNN3 on CIFAR-10"),
}


# -- some of it, or less of it ---------------------------------------------------------------------


def select(whole: ExperimentPlan, rows: str) -> ExperimentPlan:
    """The rows that a text names, in the table's order: numbers, ranges and function names, "1,3-5,sin2".

    Raises:
        InputError: a number or function that the table does not have.
    """
    wanted: set[int] = set()
    for part in (piece.strip() for piece in rows.split(",")):
        wanted |= _numbers(whole, part)
    return replace(whole, rows=tuple(row for row in whole.rows if row.number in wanted))


def _numbers(whole: ExperimentPlan, part: str) -> set[int]:
    last = len(whole.rows)
    match = re.fullmatch(r"([0-9]{1,9})(?:\s*-\s*([0-9]{1,9}))?", part)
    if match:
        first, end = int(match[1]), int(match[2] or match[1])
        if not 1 <= first <= end <= whole.rows[-1].number:
            raise ParameterError(
                "{rows}: {0}: {1} has rows 1 to {2}",
                part,
                whole.name,
                last,
            )
        return set(range(first, end + 1))
    numbers = {row.number for row in whole.rows if part.upper() == row.policy.function}
    if not numbers:
        names = ", ".join(dict.fromkeys(row.policy.function for row in whole.rows))
        raise ParameterError(
            "{rows}: {0!r}; allowed: numbers 1 to {1}, ranges such as 1-3, or {2}",
            part,
            last,
            names,
        )
    return numbers


def scaled_iterations(iterations: int, share: float) -> int:
    """Iterations of the paper in a plan of that share, as the times in its policies are scaled."""
    return max(1, round(iterations * share))


def check_factor(factor: float) -> None:
    """Raise an InputError for a factor that no plan can be scaled by."""
    if not 0 < factor <= 1:
        raise ParameterError(
            "{iterations_scale}: {0:g}; allowed: above 0, at most 1",
            factor,
        )


def scale(whole: ExperimentPlan, factor: float) -> ExperimentPlan:
    """The plan with fewer iterations: max_iter, test_interval and the times in the policies by one factor.

    There are at most ``MOST_SCALED_TESTS`` tests: else a short training would do nothing but test.

    A scaled training has another max_iter, and so is never mistaken for one of the paper's length.

    Raises:
        InputError: the factor is not above 0 and at most 1, or leaves too few iterations for a
            policy.
    """
    check_factor(factor)
    if factor == 1:
        return whole
    max_iter = round(whole.max_iter * factor)
    if max_iter < LEAST_SCALED:
        least = LEAST_SCALED / whole.max_iter
        raise ParameterError(
            "{iterations_scale}: {0:g}: {1} iterations of {2}; allowed: {3} or more, {4:.2g} here",
            factor,
            max_iter,
            whole.name,
            LEAST_SCALED,
            least,
        )
    test_interval = max(round(whole.test_interval * factor), max_iter // MOST_SCALED_TESTS)
    key, solver = whole.setup.key, whole.setup.settings
    change = change_between(
        TrainingContext(key, solver, whole.max_iter, None),
        TrainingContext(key, solver, max_iter, None),
    )
    try:
        rows = tuple(replace(row, trained=adapt(row.policy, change)) for row in whole.rows)
    except CannotAdapt as error:
        raise ParameterError(
            "{iterations_scale}: {0:g}: {1}",
            factor,
            error,
        ) from error
    return replace(whole, max_iter=max_iter, test_interval=test_interval, rows=rows, scale=factor)
