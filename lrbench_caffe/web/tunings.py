"""Tunings and range tests on this machine, read from their folders.

As with runs (``live``), nothing is read unless somebody asks, and of a study whose files have not
changed nothing is read again. The files are anybody's: what cannot be read is said, and left out.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from lrbench_caffe.lr import Policy, PolicyError, parse
from lrbench_caffe.metrics import of_first_net
from lrbench_caffe.plaintext import visible
from lrbench_caffe.records import SCRATCH, Start
from lrbench_caffe.runs.directory import RunDirectory
from lrbench_caffe.runs.layout import LATEST, MEASUREMENTS, RUN, page_key
from lrbench_caffe.tuning import folder
from lrbench_caffe.tuning.also import with_settings, words_of
from lrbench_caffe.tuning.measure import Measure
from lrbench_caffe.tuning.trainings import (
    ALSO,
    FINAL,
    HELD_OUT,
    OWN,
    RANGE_TEST,
    SEARCH,
    settings_of,
)
from lrbench_caffe.tuning.tuner import RANGE_SHARE
from lrbench_caffe.web.foreign import (
    is_finite,
    is_iteration,
    name_of,
    object_of,
    read_object,
    reason,
    state,
    status_of,
)

DEPTH = 3  # folders below a folder of runs in which studies are looked for
MOST_STUDIES = 500  # that are listed, the newest ones
MOST_TRAININGS = 1000  # of a study that are read
MOST_KEPT = 20_000  # trainings whose content is kept in memory
TRAININGS, RESULT = "trainings", "result.json"
OTHER = "other settings"  # what a training was for
LOG = logging.getLogger("lrbench_caffe.web")


@dataclass(frozen=True)
class StudyTraining:
    """A training of a study.

    Attributes:
        key: of its page that follows it; name: its directory.
        policy: its text; parsed: None where it is no policy.
        tests: iteration and value of what the study compares by.
        higher: whether more of it is better.
        changed: when it was written to last, seconds since 1970.
        running: whether a process trains it.
        held_out: whether it was tested on held-out records.
        settings: the other settings that it was trained with, in words; empty for the solver's own.
    """

    key: str
    path: Path
    name: str
    policy: str
    parsed: Policy | None
    seed: int | None
    status: str
    reason: str
    iteration: int
    max_iter: int
    tests: tuple[tuple[int, float], ...]
    changed: float
    running: bool
    held_out: bool = False
    higher: bool = True
    settings: str = ""

    @property
    def title(self) -> str:
        """The policy, and the other settings."""
        return self.policy + with_settings(self.settings)

    @property
    def best(self) -> tuple[int, float] | None:
        """Iteration and value of the first best test; the one before the first update is not its own."""
        sign = 1 if self.higher else -1
        own = [test for test in self.tests if test[0] > 0]
        return max(own, key=lambda test: sign * test[1], default=None)


@dataclass(frozen=True)
class FoundStudy:
    """A tuning or range test.

    Attributes:
        key: names it in an address; name: its folder, from the folder of runs.
        plan: of study.json, as far as it is what it should be.
        known: policies that were given or that the LR database proposed, with the reason.
        knew_range: whether its range was given or known, so that it made no range test.
        range: as study.json has it: the lowest and the highest good LR; None where it has none.
        result: of result.json or range.json; None before it has ended.
        count: how many trainings it has.
        problem: what cannot be read of it; None where nothing.
        changed: when one of its files was written last, seconds since 1970.
    """

    key: str
    path: Path
    name: str
    plan: Mapping[str, Any]
    known: Mapping[str, str]
    knew_range: bool
    range: tuple[float, float] | None
    result: Mapping[str, Any] | None
    count: int
    problem: str | None
    changed: float

    @property
    def is_range(self) -> bool:
        """Whether it is a range test."""
        return self.form is not None

    @property
    def form(self) -> str | None:
        """The form of a range test, None for a tuning."""
        form = (self.result or {}).get("form") or self.plan.get("form")
        return form if isinstance(form, str) and form else None

    @property
    def kind(self) -> str:
        if self.is_range:
            return f"range test ({self.form})"
        return "tuning" if self.result is not None or "goal" in self.plan else "study"

    @property
    def start(self) -> str:
        """What its trainings begin with, in words; empty for random weights, or where unknown."""
        try:
            start = Start(**self.plan["start"])
            return "" if start == SCRATCH else str(start)
        except (KeyError, TypeError):
            return ""

    @property
    def measure(self) -> Measure:
        """What its trainings are compared by; Top-1 where the file does not say."""
        by, higher = self.plan.get("by"), self.plan.get("higher")
        chance = number_of(self.plan, "chance") or 0.0
        if not isinstance(by, str) or not isinstance(higher, bool):
            return Measure.of_top1(chance)
        return Measure.of(by, higher, chance)

    @property
    def verdict(self) -> str:
        """What came out, in words; empty before the end."""
        if self.result is None:
            return ""
        if self.is_range:
            good, best = self.good, number_of(self.result, "best")
            if good is None or best is None:
                failure = self.result.get("failure")
                return failure if isinstance(failure, str) else "no range of good LRs"
            return f"good LRs: {good[0]:g} to {good[1]:g}, best constant LR {best:g}"
        verdict = self.result.get("verdict")
        words = verdict.get("text") if isinstance(verdict, dict) else self.result.get("failure")
        return words if isinstance(words, str) else ""

    @property
    def good(self) -> tuple[float, float] | None:
        """The range of good LRs, where it is known."""
        if self.result is None:
            return self.range
        return _range_in(self.result if self.is_range else self.result.get("range"))

    @property
    def budget(self) -> int | None:
        """Iterations that it was meant to cost; None before that is known."""
        value = number_of(self.result or {}, "budget") or number_of(self.plan, "budget")
        return None if value is None or value < 1 else int(value)

    def scale(self, training: StudyTraining) -> float:
        """Iterations of the solver itself that read as many records as one of a training's: with other
        settings, trainings are as many epochs long."""
        own = number_of(self.plan, "max_iter") or 0
        known = training.settings and own > 0 and training.max_iter > 0
        return own / training.max_iter if known else 1.0

    @property
    def holdout(self) -> float:
        """The share of the training records that is held out; 0 for none."""
        return number_of(self.plan, "holdout") or 0.0

    @property
    def held_out(self) -> Mapping[str, Any]:
        """What result.json says of held-out records: its numbers and texts; empty before the end."""
        told = (self.result or {}).get("holdout")
        return told if isinstance(told, Mapping) else {}

    @property
    def choices(self) -> list[Choice]:
        """The finalists and the solver's own policy on held-out records and on the test set."""
        finalists = self.held_out.get("finalists")
        entries = [*(finalists if isinstance(finalists, list) else []), self.held_out.get("own")]
        return [
            Choice.of(entry) for entry in entries[:MOST_TRAININGS] if isinstance(entry, Mapping)
        ]

    @property
    def choice_lines(self) -> list[str]:
        """The same in words."""
        lines = self.held_out.get("text")
        return [visible(str(line)) for line in lines[:10]] if isinstance(lines, list) else []

    @property
    def trials(self) -> list[SettingsTrial]:
        """The combinations of other settings that were tried, the best first."""
        told = (self.result or {}).get("also")
        entries = told.get("trials") if isinstance(told, Mapping) else None
        listed = entries[:MOST_TRAININGS] if isinstance(entries, list) else []
        found = [SettingsTrial.of(entry) for entry in listed if isinstance(entry, Mapping)]
        worst, measure = float("inf"), self.measure
        return sorted(
            found,
            key=lambda one: (
                worst if one.value is None else -measure.goodness(one.value),
                worst if one.test_loss is None else one.test_loss,
            ),
        )

    @cached_property
    def _finalists(self) -> set[tuple[str, str]]:
        """The policies of the finalists, and their other settings in words; empty for the solver's own."""
        listed, also = (self.result or {}).get("finalists"), (self.result or {}).get("also")
        own = _settings_in(also.get("own")) if isinstance(also, Mapping) else ""
        entries = [e for e in listed if isinstance(e, Mapping)] if isinstance(listed, list) else []
        found = ((str(e.get("policy", "")), _settings_in(e.get("settings"))) for e in entries)
        return {(policy, "" if settings == own else settings) for policy, settings in found}

    def judges(self, training: StudyTraining) -> bool:
        """Whether a training's tests were to choose a policy, rather than to measure one."""
        return training.held_out or not self.holdout

    @property
    def judged_on(self) -> str:
        """The records that policies are chosen by, behind the name of a value; empty for the test set."""
        return " on held-out records" if self.holdout else ""

    def measures(self, training: StudyTraining) -> bool:
        """Whether a training's tests tell how good a policy is: those on held-out records do not."""
        return not (self.holdout and training.held_out)

    def stage(self, training: StudyTraining) -> str:
        """What a training was for, as far as the files tell."""
        result = self.result or {}
        if self.is_range:
            return RANGE_TEST
        if not training.settings and training.policy == _policy_of(result.get("own")):
            return OWN
        if (training.policy, training.settings) in self._finalists:
            return FINAL
        if training.seed != self.plan.get("seed") or not self.judges(training):
            return FINAL
        if training.settings:
            return OTHER
        length = number_of(self.plan, "max_iter") or 0
        interval = number_of(self.plan, "test_interval") or 1
        short = training.iteration <= max(2 * interval, RANGE_SHARE * length + interval)
        tried = self.knew_range or training.policy in self.known
        if training.policy.startswith("FIX(") and short and not tried:
            return RANGE_TEST
        return SEARCH


@dataclass(frozen=True)
class Choice:
    """A policy on held-out records and on the test set, as result.json has it; None where it has not.

    Attributes:
        policy: its text.
        iteration: where it counts; held_out, test: values there; best_test: the best of each
            training on all records.
    """

    policy: str
    iteration: float | None
    held_out: float | None
    test: float | None
    best_test: float | None

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> Choice:
        names = ("iteration", "held_out", "test", "best_test")
        settings = str(entry.get("settings") or "")
        told = f"{entry.get('policy', '')}{with_settings(settings)}"
        return cls(visible(told), *(number_of(entry, name) for name in names))


@dataclass(frozen=True)
class SettingsTrial:
    """A combination of other settings that was tried, as result.json has it.

    Attributes:
        settings: in words.
        policy: its text; status: how its training ended.
        value, test_loss: None where it has none.
    """

    settings: str
    policy: str
    status: str
    value: float | None
    test_loss: float | None

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> SettingsTrial:
        return cls(
            _settings_in(entry.get("settings")),
            visible(str(entry.get("policy", ""))),
            visible(str(entry.get("status", ""))),
            number_of(entry, "value"),
            number_of(entry, "test_loss"),
        )


class StudyFolders:
    """The studies in folders. Threads may share it."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = folders
        self._lock = threading.Lock()
        self._read: dict[Path, tuple[float, Measure, StudyTraining]] = {}

    def studies(self) -> list[FoundStudy]:
        """All studies, the newest first."""
        found = {path.resolve(): root for root in self._folders for path in study_paths(root)}
        read = (_readable(path, root) for path, root in found.items())
        studies = [study for study in read if study is not None]
        return sorted(studies, key=lambda study: -study.changed)[:MOST_STUDIES]

    def find(self, key: str) -> FoundStudy | None:
        """A study by its key; None where there is none in the folders."""
        for root in self._folders:
            for path in study_paths(root):
                if page_key(path) == key:
                    return _readable(path.resolve(), root)
        return None

    def of_training(self, path: Path) -> FoundStudy | None:
        """The study that a run directory is a training of; None where it is none's."""
        run = path.resolve()
        home = run.parent
        study = home.parents[2] if settings_of(run) else home.parent
        if home.name != TRAININGS or not (study / folder.FILE).is_file():
            return None
        return self.find(page_key(study))

    def trainings(self, study: FoundStudy) -> tuple[list[StudyTraining], list[str]]:
        """The trainings of a study in the order in which they were written to last.

        Returns:
            The trainings, and a line for each that cannot be read.
        """
        found, problems = [], []
        for path in _training_paths(study.path)[:MOST_TRAININGS]:
            try:
                found.append(self._training(path, study.measure))
            except Exception as error:  # whatever one folder holds, the others are shown
                problems.append(f"{visible(path.name)}: {reason(error)}")
        return sorted(found, key=lambda t: (t.changed, t.name)), problems

    def _training(self, path: Path, measure: Measure) -> StudyTraining:
        changed = max(state(path / name)[2] for name in (RUN, MEASUREMENTS))
        with self._lock:
            kept = self._read.get(path)
        if kept is not None and kept[:2] == (changed, measure) and not kept[2].running:
            return kept[2]
        training = _read_training(path, changed, measure)
        with self._lock:
            if len(self._read) >= MOST_KEPT:
                self._read.clear()
            self._read[path] = changed, measure, training
        return training


def study_paths(root: Path) -> Iterator[Path]:
    """The folders of studies in a folder of runs; links are not followed."""
    for path, names, files in os.walk(root):
        if folder.FILE in files:
            names.clear()
            yield Path(path)
        elif RUN in files or len(Path(path).relative_to(root).parts) >= DEPTH:
            names.clear()
        names[:] = [name for name in names if name != LATEST]


def number_of(values: Mapping[str, Any], name: str) -> float | None:
    """A finite number of a JSON object; None where there is none."""
    value = values.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value if is_finite(value) else None


def _range_in(ends: Any) -> tuple[float, float] | None:
    """The lowest and the highest LR of a range in JSON; None where it is none."""
    if isinstance(ends, list):  # what the study began with
        ends = dict(zip(("low", "high"), ends))
    if not isinstance(ends, Mapping):
        return None
    low, high = number_of(ends, "low"), number_of(ends, "high")
    return None if low is None or high is None or not 0 < low <= high else (low, high)


def _readable(path: Path, root: Path) -> FoundStudy | None:
    """A study; None where nothing can be said of its folder, whatever that holds."""
    try:
        return _study(path, root)
    except Exception as error:
        LOG.debug("%s is left out: %r", path, error)
        return None


def _study(path: Path, root: Path) -> FoundStudy:
    plan: Mapping[str, Any] = {}
    known: dict[str, str] = {}
    knew_range, good = False, None
    problems = []
    try:
        content = read_object(path / folder.FILE)
        plan = object_of(content["plan"])
        experience = content.get("experience", {})
        knew_range = experience.get("range") is not None
        good = _range_in(content.get("range")) or _range_in(experience.get("range"))
        known = {str(policy): str(why) for policy, why in experience.get("policies", [])}
    except Exception as error:
        problems.append(f"{folder.FILE}: {reason(error)}")
    result = None
    for name in (RESULT, folder.RANGE_FILE):
        try:
            if os.path.lexists(path / name):
                result = read_object(path / name)
                break
        except Exception as error:
            problems.append(f"{name}: {reason(error)}")
    trainings = _training_paths(path)
    files = [path / name for name in (folder.FILE, RESULT, folder.RANGE_FILE, TRAININGS)]
    files += [training / MEASUREMENTS for training in trainings]
    return FoundStudy(
        key=page_key(path),
        path=path,
        name=name_of(path, root),
        plan=plan,
        known=known,
        knew_range=knew_range,
        range=good,
        result=result,
        count=len(trainings),
        problem="; ".join(problems) or None,
        changed=max(state(file)[2] for file in files),
    )


def _training_paths(study: Path) -> list[Path]:
    """The run directories of a study, those with the solver's own settings first; no links."""
    homes = [study, *_entries(study / ALSO)]
    found = [path for home in homes for path in _entries(home / TRAININGS)]
    # Unlike that of a Path, it is False where one is not allowed to look.
    return [path for path in found if os.path.isfile(path / RUN)]


def _entries(home: Path) -> list[Path]:
    """What is in a folder, links left out; nothing where it is none."""
    try:
        if home.is_symlink():
            return []
        return sorted(path for path in home.iterdir() if not path.is_symlink())
    except OSError:
        return []


def _read_training(path: Path, changed: float, measure: Measure) -> StudyTraining:
    directory = RunDirectory(path)
    running = directory.running
    record = directory.read()
    running = running or directory.running  # it may have begun meanwhile
    text = visible(str(record.get("policy", "")))
    measured = [m for m in of_first_net(directory.measurements()) if is_iteration(m.iteration)]
    return StudyTraining(
        key=page_key(path),
        path=path,
        name=visible(path.name),
        policy=text,
        parsed=_parsed(text),
        seed=record["seed"] if isinstance(record.get("seed"), int) else None,
        status=status_of(record, running),
        reason=visible(str(record.get("reason") or "")),
        # While it is trained, and after a kill, the record has the end of an earlier part.
        iteration=max(
            int(number_of(record, "iteration") or 0),
            measured[-1].iteration if measured else 0,
        ),
        max_iter=int(number_of(record, "max_iter") or 0),
        tests=tuple((m.iteration, value) for m in measured for value in measure.values([m])),
        higher=measure.higher,
        changed=changed,
        running=running,
        held_out=path.name.endswith(HELD_OUT),
        settings=visible(words_of(settings_of(path))),
    )


def _parsed(text: str) -> Policy | None:
    try:
        return parse(text, strict=False)
    except (PolicyError, ValueError, OverflowError, RecursionError):
        return None


def _settings_in(value: Any) -> str:
    """Settings of a JSON object in words; empty where there are none."""
    pairs = value.items() if isinstance(value, Mapping) else ()
    return visible(", ".join(f"{name}={of_name}" for name, of_name in pairs))


def _policy_of(value: Any) -> str | None:
    return value.get("policy") if isinstance(value, dict) else None


def losses_of(training: StudyTraining, points: int) -> np.ndarray:
    """Iteration, LR and training loss of a training, thinned: shape (n, 3); empty where damaged."""
    try:
        rows = RunDirectory(training.path).iterations()
    except Exception:
        return np.zeros((0, 3))
    return rows[:: max(1, len(rows) // points)]
