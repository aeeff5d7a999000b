"""A run as the LR database stores it and as it is exchanged.

Everything that brings runs in (a training, the paper's tables, Caffe's logs, other databases) makes
``RunRecord`` objects; everything that takes them out reads them. Their JSON form is the exchange format.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, NamedTuple

from lrbench_caffe.lr import Policy
from lrbench_caffe.metrics import Measurement

SCHEMA = 3  # of the JSON form; a reader takes older ones and refuses a newer one

SOURCES = ("measured", "paper", "imported")
PAPER = "paper"  # the source of the paper's results; beside contributors' names, so are they called
OWN = "own"  # beside contributors' names: the runs that were never uploaded to a platform
STARTS = ("scratch", "weights", "snapshot", "unknown")
STATUSES = ("running", "finished", "failed", "diverged", "stopped")
STANDINGS = ("shown", "unverified", "hidden")  # of a run on a platform
UNSUCCESSFUL = ("diverged", "failed")  # those that ended before their time
AT_PLACE = "at "  # begins the digest of data that is known by its place only
PARTIAL = " (partial)"  # ends the name of a network that a log tells in part


@dataclass(frozen=True)
class Framework:
    """The framework: name and version ("Caffe", "1.0.0") and device ("CPU", "GPU")."""

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
        digest: tells data sets of the same form apart; None if the data is not available (the
            paper's). It begins with ``AT_PLACE`` where only the data's place is known, not its
            content (a LevelDB).
    """

    name: str
    channels: int | None
    height: int | None
    width: int | None
    classes: int | None
    train_samples: int | None
    test_samples: int | None
    digest: str | None = None

    @property
    def content_known(self) -> bool:
        """Whether an equal digest means equal data."""
        return self.digest is not None and not self.digest.startswith(AT_PLACE)


@dataclass(frozen=True)
class Network:
    """The net without its data layers.

    Attributes:
        name: the net's own name.
        digest: of the canonical net: layers and their parameters, without names, data and accuracy
            layers.
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
    """The settings that decide a training, besides the LR."""

    type: str
    batch: int | None
    iter_size: int
    base_lr: float | None
    momentum: float | None
    weight_decay: float | None


@dataclass(frozen=True)
class Start:
    """The start of a training.

    Attributes:
        kind: one of ``STARTS``: random weights, given weights, a solver state, or not known.
        digest: SHA-256 (32 hexadecimal digits) of the content of the caffemodels or of the solver
            state; None if the files are not available.
        filled: how many of the net's layers with weights the caffemodels filled; None unless kind
            is "weights".
        layers: how many layers with weights the net has.
        iteration: the iteration that the solver state is of; None unless kind is "snapshot".
        name: the files' names, for people. Not part of the identity.
    """

    kind: str = "scratch"
    digest: str | None = None
    filled: int | None = None
    layers: int | None = None
    iteration: int | None = None
    name: str | None = field(default=None, compare=False)

    @classmethod
    def of_json(cls, value: Any) -> Start:
        """That of a JSON object; an unknown one where it is damaged, or of a later version."""
        try:
            return cls(**value)
        except TypeError:
            return UNKNOWN_START

    @property
    def known(self) -> bool:
        """False if it cannot be decided whether another start equals this one."""
        return self.kind == "scratch" or (
            self.kind in ("weights", "snapshot") and self.digest is not None
        )

    @property
    def pretrained(self) -> bool:
        """Whether it is weights of which the net takes any."""
        return self.kind == "weights" and self.filled != 0

    @property
    def begins_as(self) -> str:
        """Its kind; "scratch" for weights of which the net takes none."""
        return "scratch" if self.kind == "weights" and not self.pretrained else self.kind

    def same(self, other: Start) -> bool:
        """Whether two trainings provably had the same start; an unknown start equals no other."""
        return self.known and self == other

    def __str__(self) -> str:
        """ "weights x.caffemodel, 6 of 8 layers filled"; "snapshot x.solverstate, iteration 500"."""
        text = f"{self.kind} {self.name}" if self.name else self.kind
        if self.filled is not None and self.layers is not None:
            text += f", {self.filled} of {self.layers} layers filled"
        return text if self.iteration is None else f"{text}, iteration {self.iteration}"


class NotShown(NamedTuple):
    """The standing of a run that does not count: one of ``STANDINGS``, and why."""

    standing: str
    doubt: str | None


@dataclass(frozen=True)
class Contribution:
    """From whom a run comes that was uploaded to a platform.

    Attributes:
        batch: unique identifier of the upload; all runs of one have the same contribution.
        contributor: the name of the token that it was uploaded with.
        note, link: what the contributor says of it; None where nothing.
        sent: seconds since 1970.
    """

    batch: str
    contributor: str
    note: str | None
    link: str | None
    sent: float


SCRATCH = Start()
UNKNOWN_START = Start("unknown")


@dataclass
class RunRecord:
    """One training.

    Attributes:
        uid: globally unique; made when the run begins.
        source: one of ``SOURCES``: measured here, taken from the paper, imported from a log.
        origin: where it comes from: a run directory, "Wu et al. 2019, Table VII", a log file; remarks
            follow in brackets, such as the run that it was branched from.
        task_type: "classification", "other", or "classification of HEAD" where a head other than
            the default one was chosen.
        seed: None where unknown. repeats: how many trainings the numbers are a mean of (the paper:
            5).
        max_iter, test_interval: iterations; epoch: iterations in an epoch, None where unknown.
        machine: where; started, ended: seconds since 1970.
        status, reason: one of ``STATUSES``, and why, unless it finished.
        measurements: the tests. top1_sd: standard deviation of Top-1 over repeats, for the paper's
            means.
        start: what it began with.
        layers: the CPU layers that trained: "stock", "fast", or, where a resumed run changed them,
            "stock, then fast" or "fast, then stock"; None where unknown.
        head: the scores blob that Top-1 is measured on; None where unknown or the net does not
            classify.
        contribution: from whom it comes; None for one that was never uploaded to a platform.
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
    start: Start = SCRATCH
    layers: str | None = None
    head: str | None = None
    contribution: Contribution | None = None

    def to_json(self) -> dict[str, Any]:
        """The exchange form, with its schema version and content digest."""
        record = {"schema": SCHEMA, **asdict(self)}
        return {**record, "digest": digest(record)}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> RunRecord:
        """The record of an exchange form, of this schema or an older one, that has been validated.

        Raises:
            KeyError, TypeError: a field is missing or unknown.
        """
        record = of_this_schema(record)
        parts: dict[str, Any] = {
            "framework": Framework,
            "dataset": Dataset,
            "network": Network,
            "policy": PolicyRecord,
            "solver": SolverSettings,
            "start": Start,
        }
        values = {f.name: record[f.name] for f in fields(cls)}
        values.update({name: make(**record[name]) for name, make in parts.items()})
        sent = record["contribution"]
        values["contribution"] = None if sent is None else Contribution(**sent)
        values["measurements"] = [Measurement.from_json(row) for row in record["measurements"]]
        return cls(**values)


# What schema 1 wrote behind an origin: of runs that did not begin from scratch, and of the layers.
_BEGAN = re.compile(r" \((?:finetuned )?from .*\)$", re.DOTALL)
_LAYERS = re.compile(r"[(,] ?((?:stock|fast)(?:, then (?:stock|fast))?) layers\)$")


def of_this_schema(record: Mapping[str, Any]) -> dict[str, Any]:
    """An exchange form brought up to ``SCHEMA``.

    Schema 2 had no contribution.
    Schema 1 had no outputs, and no start: its origin said "(from PATH)" or "(finetuned from PATH)".
    What the files held is not known any more, so such a run has an unknown start, and so has an
    imported one whose first test came when it was under way. Any other began from scratch. The
    migration 0002 has the same rules.
    """
    schema = record.get("schema", SCHEMA)
    if schema == 2:
        return {**record, "schema": SCHEMA, "contribution": None}
    if schema != 1:
        return dict(record)
    origin, seed = str(record.get("origin", "")), record.get("seed")
    measured = record.get("source") == "measured"
    layers = _LAYERS.search(origin)
    began_before = record.get("source") == "imported" and _is_tested_late(record)
    return {
        **record,
        "schema": SCHEMA,
        "seed": caffe_seed(seed) if isinstance(seed, int) else seed,
        "start": asdict(UNKNOWN_START if began_before or _BEGAN.search(origin) else SCRATCH),
        "layers": layers[1] if layers else "stock" if measured else None,
        "head": None,
        "contribution": None,
        "measurements": _with_outputs(record.get("measurements")),
    }


def _with_outputs(measurements: Any) -> Any:
    """The measurements of schema 1; what is not valid stays as it is."""
    if not isinstance(measurements, list):
        return measurements
    return [{"outputs": {}, **row} if isinstance(row, dict) else row for row in measurements]


def _is_tested_late(record: Mapping[str, Any]) -> bool:
    """True where the first test of a run of schema 1 came later than a training from scratch has one."""
    try:
        first = min((row["iteration"] for row in record["measurements"]), default=0)
        return first > (record["test_interval"] or first)
    except (KeyError, TypeError, AttributeError):  # not a valid record: that is for others to say
        return False


def caffe_seed(seed: int) -> int:
    """The seed that Caffe uses for a solver's random_seed: its low 32 bits."""
    return seed % 2**32 if seed >= 0 else seed


@dataclass(frozen=True)
class Task:
    """A task, within which runs are compared: data set, network and framework.

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
    """One policy on one task: its runs of one length and start, each reduced to its best measurement.

    The best measurement is the first with the highest Top-1 or, where the net does not classify,
    the first with the lowest test loss. Runs of equal seed and layers are one training and count
    once.

    Attributes:
        task_id: the task.
        policy: the policy.
        source: where its numbers come from, one of ``SOURCES``; runs of different sources are never
            mixed.
        max_iter: length of the trainings.
        epoch: iterations in an epoch, None where unknown.
        solver: the other settings of the trainings.
        runs: number of trainings that finished; repeats: trainings behind them (5 for a row of the
            paper).
        failed, diverged: numbers of trainings that did not finish, with the same settings.
        iterations: #Iterations of the best measurement.
        top1, top5, ac, cd, cdac, ld: the metrics there; None where no run has them.
        origin: of the newest run.
        id: the database's number for it; None for one that is not in a database.
        start: what the trainings began with; where it is not known, the summary is of one run
            alone.
        test_loss: Caffe's test loss at the best measurement.
        outputs: the scalar outputs of the first test net there, by name.
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
    start: Start = SCRATCH
    test_loss: Spread | None = None
    outputs: dict[str, Spread] = field(default_factory=dict)

    def trainings(self, spread: Spread | None = None) -> int:
        """The number of trainings behind a metric, by default Top-1."""
        known = spread or self.top1 or self.test_loss
        return self.repeats if known is None or known.n is None else known.n


def origin_parts(origin: str) -> tuple[str, str]:
    """An origin's files, and its remarks with the brackets and the space before them.

    >>> origin_parts("/home/ada (work)/a.log (the net is that of a.prototxt)")
    ('/home/ada (work)/a.log', ' (the net is that of a.prototxt)')
    >>> origin_parts("/home/ada (work)/a.log")
    ('/home/ada (work)/a.log', '')
    """
    depth = 0
    for place in reversed(range(len(origin))):
        depth += (origin[place] == ")") - (origin[place] == "(")
        if depth <= 0:
            break
    else:
        place = 0
    begins = origin.endswith(")") and origin[:place].endswith(" ")
    return (origin[: place - 1], origin[place - 1 :]) if begins else (origin, "")


def digest(value: Any) -> str:
    """SHA-256 over canonical JSON, 32 hexadecimal digits."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]
