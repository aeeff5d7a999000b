"""The four shipped tasks, and a database in memory, for tests without Caffe or SQL."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from lrbench_caffe.paper.tables import paper_records, paper_task
from lrbench_caffe.records import (
    SCRATCH,
    Dataset,
    Framework,
    PolicySummary,
    SolverSettings,
    Start,
    Task,
)
from tests.knowledge.summaries import of_record

HERE = Framework("Caffe", "1.0.0", "CPU")
MNIST = paper_task("lenet_mnist")
CNN3 = paper_task("cnn3_cifar10")
RESNET = paper_task("resnet32_cifar10")

# As Caffe describes solvers/lenet_digits_solver.prototxt (test_command.py checks it).
DIGITS = replace(
    MNIST,
    framework=HERE,
    dataset=Dataset("digits", 1, 8, 8, 10, 1297, 500, digest="digits"),
    network=replace(MNIST.network, name="LeNet_digits", digest="digits", parameters=131_080),
)
MNIST_HERE = replace(MNIST, framework=HERE, dataset=replace(MNIST.dataset, digest="mnist"))

TITLES = {
    "MNIST, LeNet": MNIST,
    "digits, LeNet": DIGITS,
    "CIFAR-10, CNN3": CNN3,
    "CIFAR-10, ResNet-32": RESNET,
}

LENET = SolverSettings("SGD", 100, 1, 0.01, 0.9, 0.0005)
LENET_DIGITS = replace(LENET, batch=50)


@dataclass
class Memory:
    """What ``recommend`` asks of the database."""

    known: list[Task] = field(default_factory=list)
    results: list[PolicySummary] = field(default_factory=list)
    untrained: dict[int, float] = field(default_factory=dict)
    before: dict[Start, float] = field(default_factory=dict)  # of trained weights
    uploaded: dict[int, dict[str, int]] = field(default_factory=dict)  # by a summary's id

    def add(self, task: Task, *results: PolicySummary) -> Task:
        stored = next(
            (t for t in self.known if replace(t, id=None) == replace(task, id=None)), None
        )
        if stored is None:
            stored = replace(task, id=len(self.known) + 1)
            self.known.append(stored)
        self.results += [replace(result, task_id=stored.id) for result in results]
        return stored

    def tasks(self) -> list[Task]:
        return list(self.known)

    def summaries(
        self,
        task_id: int,
        *,
        functions: Sequence[str] | None = None,
        start: Start | None = None,
        order_by: str = "top1",
        limit: int | None = None,
    ) -> list[PolicySummary]:
        found = [
            s
            for s in self.results
            if s.task_id == task_id
            and (functions is None or s.policy.function in functions)
            and (start is None or s.start.same(start) or not (s.start.known or start.known))
        ]
        if order_by == "test_loss":
            return sorted(found, key=lambda s: s.test_loss.mean if s.test_loss else math.inf)[
                :limit
            ]
        return sorted(found, key=lambda s: -(s.top1.mean if s.top1 else -1))[:limit]

    def starts(self, task_id: int) -> list[Start]:
        return list({s.start for s in self.results if s.task_id == task_id})

    def untrained_loss(self, task_id: int, start: Start) -> float | None:
        return self.untrained.get(task_id) if start == SCRATCH else self.before.get(start)

    def untrained_top1(self, task_id: int, start: Start) -> float | None:
        return self.before.get(start)

    def contributions(self, among: Sequence[PolicySummary]) -> dict[int, dict[str, int]]:
        return {s.id: self.uploaded[s.id] for s in among if s.id in self.uploaded}


def paper_memory() -> Memory:
    """A fresh database: the paper's results."""
    memory = Memory()
    for record in paper_records():
        task = Task(record.framework, record.task_type, record.dataset, record.network)
        memory.add(task, of_record(record))
    return memory
