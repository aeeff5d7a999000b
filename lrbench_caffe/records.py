"""A run as the LR database keeps it and as it is shared: what was trained, how, and what came out.

Everything that brings runs in (a training, the paper's tables, Caffe's logs, other databases) makes
``RunRecord`` objects; everything that takes them out reads them. Their JSON form is the exchange format.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from lrbench_caffe.lr import Policy
from lrbench_caffe.metrics import Measurement

SCHEMA = 1  # of the JSON form; a reader refuses a newer one

SOURCES = ("measured", "paper", "imported")
STATUSES = ("running", "finished", "failed", "diverged", "stopped")
BROKEN = ("diverged", "failed")  # those that ended before their time


@dataclass(frozen=True)
class Framework:
    """What trained: name and version ("Caffe", "1.0.0") and device ("CPU", "GPU")."""

    name: str
    version: str
    device: str


@dataclass(frozen=True)
class Dataset:
    """The training and test data.

    Attributes:
        name: for people; derived from the source's path.
        channels, height, width: of what the net gets.
        classes: number of classes, None where the net does not classify.
        train_samples, test_samples: None where unknown.
        digest: tells data sets of the same form apart; None where the data is not at hand (the paper's).
    """

    name: str
    channels: int | None
    height: int | None
    width: int | None
    classes: int | None
    train_samples: int | None
    test_samples: int | None
    digest: str | None = None


@dataclass(frozen=True)
class Network:
    """The net without its data layers.

    Attributes:
        name: the net's own name.
        digest: of the canonical net: layers and their parameters, without names, data and accuracy layers.
        layers: how many layers there are of each type, e.g. {"Convolution": 2, ...}.
        parameters: learnable parameters.
        depth: number of layers with weights: convolutions and inner products.
    """

    name: str
    digest: str
    layers: dict[str, int]
    parameters: int | None
    depth: int


@dataclass(frozen=True)
class PolicyRecord:
    """An LR policy.

    Attributes:
        text: canonical text, shortest digits; parses back.
        function: "SIN2", or the functions of a composition joined.
        params: the parameters of a single function; empty for a composition.
        num_params: the paper's #Param.
    """

    text: str
    function: str
    params: dict[str, Any]
    num_params: int

    @classmethod
    def of(cls, policy: Policy) -> PolicyRecord:
        params = {name: list(v) if isinstance(v, tuple) else v for name, v in policy.params.items()}
        return cls(str(policy), policy.function, params, policy.num_params)


@dataclass(frozen=True)
class SolverSettings:
    """What else decides a training, besides the LR."""

    type: str
    batch: int | None
    iter_size: int
    base_lr: float | None
    momentum: float | None
    weight_decay: float | None


@dataclass
class RunRecord:
    """One training.

    Attributes:
        uid: unique for ever; made when the run begins.
        source: one of ``SOURCES``: measured here, taken from the paper, imported from a log.
        origin: where it comes from: a run directory, "Wu et al. 2019, Table VII", a log file.
        task_type: "classification", or "other".
        seed: None where unknown. repeats: how many trainings the numbers are a mean of (the paper: 5).
        max_iter, test_interval: iterations; epoch: iterations in an epoch, None where unknown.
        machine: where; started, ended: seconds since 1970.
        status, reason: one of ``STATUSES``, and why, unless it finished.
        measurements: the tests. top1_sd: standard deviation of Top-1 over repeats, for the paper's means.
    """

    uid: str
    source: str
    origin: str
    framework: Framework
    task_type: str
    dataset: Dataset
    network: Network
    policy: PolicyRecord
    solver: SolverSettings
    seed: int | None
    max_iter: int
    test_interval: int | None
    epoch: float | None
    machine: str | None
    started: float | None
    ended: float | None
    status: str
    reason: str | None = None
    repeats: int = 1
    top1_sd: float | None = None
    measurements: list[Measurement] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """The exchange form, with its schema version and content digest."""
        record = {"schema": SCHEMA, **asdict(self)}
        return {**record, "digest": digest(record)}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> RunRecord:
        """The record of an exchange form that has been validated.

        Raises:
            KeyError, TypeError: a field is missing or unknown.
        """
        parts = {
            "framework": Framework,
            "dataset": Dataset,
            "network": Network,
            "policy": PolicyRecord,
            "solver": SolverSettings,
        }
        values = {f.name: record[f.name] for f in fields(cls)}
        values.update({name: make(**record[name]) for name, make in parts.items()})
        values["measurements"] = [Measurement.from_json(row) for row in record["measurements"]]
        return cls(**values)


@dataclass(frozen=True)
class Task:
    """What runs are compared within: the same data set and network, trained by the same framework.

    Attributes:
        id: the database's number for it; None for one that is not in a database.
    """

    framework: Framework
    task_type: str
    dataset: Dataset
    network: Network
    id: int | None = None

    @property
    def title(self) -> str:
        """ "mnist / LeNet_MNIST"."""
        return f"{self.dataset.name} / {self.network.name}"


@dataclass(frozen=True)
class Spread:
    """Mean and population standard deviation over trainings.

    Attributes:
        sd: None for a single training.
        n: how many trainings have the value; None where that is not known and all are taken to.
    """

    mean: float
    sd: float | None
    n: int | None = field(default=None, compare=False)


@dataclass(frozen=True)
class PolicySummary:
    """One policy on one task: its runs of one length, each reduced to its metrics at its first highest Top-1.

    Attributes:
        task_id: the task.
        policy: the policy.
        source: where its numbers come from, one of ``SOURCES``; runs of different sources are never mixed.
        max_iter: length of the trainings.
        epoch: iterations in an epoch, None where unknown.
        solver: the other settings of the trainings.
        runs: number of runs that finished; repeats: trainings behind them (5 for a row of the paper).
        failed, diverged: numbers of runs that did not finish, with the same settings.
        iterations: #Iterations at the highest Top-1.
        top1, top5, ac, cd, cdac, ld: the metrics there; None where no run has them.
        origin: of the newest run.
        id: the database's number for it; None for one that is not in a database.
    """

    task_id: int
    policy: PolicyRecord
    source: str
    max_iter: int
    epoch: float | None
    solver: SolverSettings
    runs: int
    repeats: int
    failed: int
    diverged: int
    iterations: Spread | None
    top1: Spread | None
    top5: Spread | None
    ac: Spread | None
    cd: Spread | None
    cdac: Spread | None
    ld: Spread | None
    origin: str
    id: int | None = None

    def trainings(self, spread: Spread | None = None) -> int:
        """How many are behind a metric of it, by default Top-1."""
        known = spread or self.top1
        return self.repeats if known is None or known.n is None else known.n


def digest(value: Any) -> str:
    """SHA-256 over canonical JSON, 32 hexadecimal digits."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]
