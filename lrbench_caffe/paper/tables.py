"""The paper's results as runs: every row of Tables III to IX of Wu et al. 2019.

The tables are in the folder ``paper`` beside this file; its README says what is printed there and
what not.
"""

from __future__ import annotations

import csv
import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from lrbench_caffe.lr import FunctionPolicy
from lrbench_caffe.metrics import Measurement
from lrbench_caffe.records import (
    Dataset,
    Framework,
    Network,
    PolicyRecord,
    RunRecord,
    SolverSettings,
    Task,
)

FOLDER = Path(__file__).parent
# Goes up by 1 when a table changes, and never with the program's version: of two programs on one
# database the one with the later edition has its way. A test holds CONTENT, a digest of the tables,
# against them.
EDITION = 1
CONTENT = "49b6eba5bf96798a071eef807bf6dec3"
PAPER = "Wu et al. 2019"
REPEATS = 5  # of Tables VII to IX (section V-C)
FRAMEWORK = Framework("Caffe", "unknown", "GPU")
MACHINE = "Intel Xeon E5-1620, NVIDIA GeForce GTX 1080 Ti"  # section V
ASSUMED_L = 2000  # of TRI2 in Tables IV and V, which do not print it

_TABLES = (
    ("III", "table3_resnet32_fix_step.csv", "resnet32_cifar10"),
    ("IV", "table4_cnn3_tri2_step.csv", "cnn3_cifar10"),
    ("V", "table5_resnet32_tri2.csv", "resnet32_cifar10"),
    ("VI", "table6_cnn3_nstep.csv", "cnn3_cifar10"),
    ("VII", "table7_mnist_lenet.csv", "lenet_mnist"),
    ("VIII", "table8_cifar10_cnn3.csv", "cnn3_cifar10"),
    ("IX", "table9_cifar10_resnet32.csv", "resnet32_cifar10"),
)
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://arxiv.org/abs/1908.06477")


@dataclass(frozen=True)
class PaperRow:
    """One row of a table.

    Attributes:
        record: what it says, as a run.
        part: "a" or "b" of a table in two parts, else "".
        source: where the policy's parameters come from, by the paper: "Default", "LRBench", "Smith
            2015"; "" where it does not.
    """

    record: RunRecord
    part: str
    source: str


def paper_records() -> Iterator[RunRecord]:
    """Every row of Tables III to IX, in the paper's order. The same records, uids included, every time."""
    for table, _, _ in _TABLES:
        for row in paper_rows(table):
            yield row.record


def paper_rows(table: str) -> list[PaperRow]:
    """The rows of one table, "III" to "IX", in the paper's order."""
    file, task = next((file, task) for number, file, task in _TABLES if number == table)
    return [
        PaperRow(_record(table, row, task), row.get("part", ""), row.get("source", ""))
        for row in _rows(file)
    ]


def paper_task(key: str) -> Task:
    """One of the paper's tasks: "lenet_mnist", "cnn3_cifar10" or "resnet32_cifar10"."""
    return Task(FRAMEWORK, "classification", _dataset(_settings(key)), _network(key))


def paper_solver(key: str) -> SolverSettings:
    """The settings that one of the paper's tasks is trained with (Table II)."""
    return _solver(_settings(key))


def _rows(file: str) -> list[dict[str, str]]:
    with (FOLDER / file).open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


@cache
def _settings(key: str) -> dict[str, str]:
    """The row of Table II."""
    return next(row for row in _rows("table2_settings.csv") if row["key"] == key)


def _dataset(settings: dict[str, str]) -> Dataset:
    numbers: dict[str, Any] = {
        name: int(settings[name])
        for name in ("channels", "height", "width", "classes", "train_samples", "test_samples")
    }
    return Dataset(settings["dataset"], **numbers)


@cache
def _network(key: str) -> Network:
    networks = json.loads((FOLDER / "networks.json").read_text(encoding="utf-8"))
    return Network(**networks[key])


def _solver(settings: dict[str, str]) -> SolverSettings:
    return SolverSettings(
        type=settings["optimizer"],
        batch=int(settings["batch"]),
        iter_size=1,
        base_lr=float(settings["base_lr"]),
        momentum=float(settings["momentum"]),
        weight_decay=float(settings["weight_decay"]),
    )


def _record(table: str, row: dict[str, str], key: str) -> RunRecord:
    task, settings = paper_task(key), _settings(key)
    policy, assumed = _policy(row)
    max_iter = int(settings["max_iter"])
    top1_sd = _number(row, "top1_sd")
    return RunRecord(
        uid=str(
            uuid.uuid5(_NAMESPACE, f"Table {table}: {policy} {row['iterations']} {row['top1']}")
        ),
        source="paper",
        origin=f"{PAPER}, Table {table}" + (f" (l={ASSUMED_L} assumed)" if assumed else ""),
        framework=task.framework,
        task_type=task.task_type,
        dataset=task.dataset,
        network=task.network,
        policy=PolicyRecord.of(policy),
        solver=_solver(settings),
        seed=None,
        max_iter=max_iter,
        test_interval=None,
        epoch=int(settings["train_samples"]) / int(settings["batch"]),
        machine=MACHINE,
        started=None,
        ended=None,
        status="finished",
        repeats=REPEATS if top1_sd is not None else 1,
        top1_sd=top1_sd,
        measurements=[_measurement(row, policy.bind(max_iter), task.dataset)],
    )


def _policy(row: dict[str, str]) -> tuple[FunctionPolicy, bool]:
    """The row's policy, and whether its l is assumed."""
    params: dict[str, Any] = {
        name: float(row[name]) for name in ("k0", "k1", "gamma", "p") if row.get(name)
    }
    steps = [int(step) for step in row.get("l", "").split()]
    if steps:
        params["l"] = steps if row["lr"] == "NSTEP" else steps[0]
    assumed = row["lr"] == "TRI2" and not steps
    if assumed:
        params["l"] = ASSUMED_L
    return FunctionPolicy(row["lr"], params), assumed


def _measurement(row: dict[str, str], policy: FunctionPolicy, dataset: Dataset) -> Measurement:
    iteration = int(row["iterations"])
    return Measurement(
        iteration=iteration,
        lr=policy(iteration),
        top1=float(row["top1"]),
        top5=_number(row, "top5"),
        ac=_number(row, "ac"),
        cd=_number(row, "cd"),
        cdac=_number(row, "cdac"),
        ld=_number(row, "ld"),
        samples=dataset.test_samples or 0,
    )


def _number(row: dict[str, str], name: str) -> float | None:
    return float(row[name]) if row.get(name) else None
