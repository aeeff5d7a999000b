"""The command on a small task: rows of Table VII, trained on the digits. A program for the tests."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from lrbench_caffe.prototxt.solver import Solver
from lrbench_caffe.prototxt.task import open_task, solver_settings
from lrbench_caffe.records import SolverSettings, Task
from lrbench_caffe.reproduce import main
from lrbench_caffe.reproduction.plan import ExperimentPlan, Setup, plan, select
from lrbench_caffe.terminal import cli

SOLVER = "solvers/lenet_digits_solver.prototxt"


@cache
def opened() -> tuple[Solver, Task]:
    return open_task(Path(SOLVER))


@dataclass(frozen=True)
class Digits(Setup):
    """A task of the paper's kind that the paper does not have."""

    @property
    def task(self) -> Task:
        return opened()[1]

    @property
    def settings(self) -> SolverSettings:
        return solver_settings(opened()[0])


SETUP = Digits(SOLVER, 2000, 100, "lenet_digits", "LeNet on digits", "digits")


def find(name: str) -> ExperimentPlan:
    of_paper = select(plan(name), "inv,poly,sin2")
    return replace(
        of_paper, title="Table VII on digits", setup=SETUP, max_iter=2000, test_interval=100
    )


if __name__ == "__main__":
    sys.exit(cli.run(lambda argv: main(argv, find)))
