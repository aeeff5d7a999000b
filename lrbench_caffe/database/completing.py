"""Merges a log that is imported again: it has grown, or its data and net can be read this time."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from lrbench_caffe.metrics import METRICS, SCORES, Measurement
from lrbench_caffe.records import PARTIAL, RunRecord, Start, origin_parts

# What the data's and the net's files tell, and a log alone does not.
_OF_FILES = ("task_type", "dataset", "network", "solver", "epoch", "head")


def completed(stored: RunRecord, again: RunRecord) -> RunRecord:
    """The two records of a run, merged.

    The one that ends later tells how the run ended and its policy. The one that could read more
    files tells what was trained, and the one that knows more of the start tells that. Of the tests
    each has what the other one lacks.
    """
    later, earlier = (
        (stored, again) if (stored.ended or 0.0) > (again.ended or 0.0) else (again, stored)
    )
    informed = max(later, earlier, key=_informed)  # of equals the later
    return replace(
        later,
        **{name: getattr(informed, name) for name in _OF_FILES},
        start=_start(later, earlier),
        measurements=_tests(later, earlier, informed),
    )


def _tests(later: RunRecord, earlier: RunRecord, informed: RunRecord) -> list[Measurement]:
    tests = {(m.iteration, m.net): m for m in earlier.measurements}
    for test in later.measurements:
        known = tests.get((test.iteration, test.net))
        if known is not None and _other_value(known, test) is None:
            test = _merged(test, known, prefer_later=informed is later)
        tests[test.iteration, test.net] = test  # of a test that was repeated, the later one counts
    return [tests[place] for place in sorted(tests)]


def _merged(later: Measurement, earlier: Measurement, *, prefer_later: bool) -> Measurement:
    """A test that two records have: each metric of the preferred one, or else of the other one."""
    first, second = (later, earlier) if prefer_later else (earlier, later)
    metrics = {
        name: getattr(second if getattr(first, name) is None else first, name) for name in METRICS
    }
    outputs = {**second.outputs, **first.outputs}
    samples = first.samples or second.samples
    return replace(later, **metrics, samples=samples, outputs=outputs)


def _start(later: RunRecord, earlier: RunRecord) -> Start:
    """The later record's, unless the earlier one could read a file or the beginning of the log."""
    one, other = later.start, earlier.start
    if one.kind == "unknown" or (one.kind == other.kind and other.known):
        return other
    return one


def _informed(record: RunRecord) -> tuple[bool, bool]:
    return not record.network.name.endswith(PARTIAL), record.dataset.digest is not None


# -- what cannot be the same run -------------------------------------------------------------------

_NEAR = 5e-3  # relative; a policy that goes through printed LRs is only near them


def differing(stored: RunRecord, again: RunRecord) -> str | None:
    """A contradiction, which makes them different runs; None if one record completes the other.

    A training that was killed, and resumed at a snapshot, repeats what came after the snapshot: the
    tests at the end of the shorter record may differ where the other continues. Caffe repeats the
    tests at the snapshot, too, of which those of further test nets may see other images.
    """
    return next(_differences(stored, again), None)


def _differences(stored: RunRecord, again: RunRecord) -> Iterator[str]:
    longer, shorter = (stored, again) if _reached(stored) > _reached(again) else (again, stored)
    resumed = shorter.status != "finished" and _reached(longer) > _reached(shorter)
    yield from _of_settings(stored, again, resumed)
    theirs = {(m.iteration, m.net): m for m in longer.measurements}
    common = [
        (m, theirs[m.iteration, m.net])
        for m in shorter.measurements
        if (m.iteration, m.net) in theirs
    ]
    differing = [(one.iteration, _other_value(one, other)) for one, other in common]
    apart = {iteration for iteration, what in differing if what}
    agreed = [iteration for iteration, _ in differing if iteration not in apart]
    for iteration, what in differing:
        if what and not (resumed and agreed and iteration > max(agreed)):
            yield f"{what} at iteration {iteration}"
    if stored.policy.text != again.policy.text and not common:
        yield "policy"


def _of_settings(stored: RunRecord, again: RunRecord, resumed: bool) -> Iterator[str]:
    for name in ("type", "batch", "iter_size", "base_lr", "momentum", "weight_decay"):
        one, other = getattr(stored.solver, name), getattr(again.solver, name)
        # Only the net's file may tell the batch.
        if one != other and not (name == "batch" and _informed(stored) != _informed(again)):
            yield f"solver's {name}"
    partial = any(record.network.name.endswith(PARTIAL) for record in (stored, again))
    if not partial and stored.network.digest != again.network.digest:
        yield "network"
    if _other_start(stored.start, again.start):
        yield "start"
    longer = stored.max_iter != again.max_iter and stored.ended != again.ended  # it was resumed
    if not (resumed or longer):
        yield from (
            name for name in ("max_iter", "seed") if getattr(stored, name) != getattr(again, name)
        )
        if stored.policy.text != again.policy.text:
            yield "policy"


def _other_start(one: Start, other: Start) -> bool:
    if "unknown" in (one.kind, other.kind):
        return False
    if one.known and other.known:
        return not one.same(other)
    names = one.name and other.name and one.name != other.name
    return one.kind != other.kind or one.iteration != other.iteration or bool(names)


def _other_value(one: Measurement, other: Measurement) -> str | None:
    """A value that both have and that differs. Which output is Top-1 may be known better by one of them."""
    if not math.isclose(one.lr, other.lr, rel_tol=_NEAR):
        return "LR"
    common = one.outputs.keys() & other.outputs.keys()
    for output in sorted(common):
        if one.outputs[output] != other.outputs[output]:
            return output
    for name, metric in METRICS.items():
        if common and metric.of == SCORES:
            continue
        mine, theirs = getattr(one, name), getattr(other, name)
        if mine is not None and theirs is not None and mine != theirs:
            return name
    return None


def _reached(record: RunRecord) -> tuple[int, float]:
    return max((m.iteration for m in record.measurements), default=0), record.ended or 0.0


# -- what may be one run ---------------------------------------------------------------------------


def parts_of_one_training(
    imported: Sequence[RunRecord],
    stored: Iterable[RunRecord],
    measured: Callable[[str], RunRecord],
) -> list[str]:
    """Remarks about runs that were imported separately though one seems to continue the other.

    Args:
        imported: the runs that were imported now. They were read together, so what could be joined
            is one run.
        stored: those from logs in the database.
        measured: a stored one with its measurements, by its uid.
    """
    together = {record.uid: record for record in imported}
    separate = (one for one in stored if one.uid not in together) if imported else ()
    pairs = dict.fromkeys(
        (first.uid, second.uid)
        for one in separate
        for other in imported
        for first, second in ((one, other), (other, one))
        if _goes_on(first, second)
    )
    whole = ([together.get(uid) or measured(uid) for uid in pair] for pair in pairs)
    remarks = (_how_to_join(first, second) for first, second in whole)
    return [remark for remark in remarks if remark]


def _goes_on(first: RunRecord, second: RunRecord) -> bool:
    same = (
        first.uid != second.uid
        and first.solver == second.solver
        and first.policy.text == second.policy.text
        and first.network.digest == second.network.digest
        and first.dataset.name == second.dataset.name
    )
    iteration = second.start.iteration if second.start.kind == "snapshot" else None
    if not same or iteration is None or iteration > first.max_iter:
        return False
    return (first.started or 0.0) < (second.started or 0.0)


def _how_to_join(first: RunRecord, second: RunRecord) -> str | None:
    """A remark on two parts of a training; None where the first one would refuse what they are together."""
    one, other = (origin_parts(record.origin)[0] for record in (first, second))
    if (first.ended or 0.0) >= (second.ended or 0.0):
        return (
            f"run {second.uid} ({other}) is a part of run {first.uid}; "
            f"to delete it: db delete {second.uid}"
        )
    if differing(first, _joined(first, second)):
        return None
    files = " ".join(shlex.quote(path) for path in (*one.split(", "), *other.split(", ")))
    return (
        f"run {second.uid} ({other}) seems to continue run {first.uid} ({one}); to make them one run, "
        "if the rest of their solvers is the same: "
        f"db delete {second.uid}, then db import-log {files}"
    )


def _joined(first: RunRecord, second: RunRecord) -> RunRecord:
    """The run that the logs of both are together, as far as it is compared."""
    before = [m for m in first.measurements if m.iteration <= (second.start.iteration or 0)]
    tests = {(m.iteration, m.net): m for m in (*before, *second.measurements)}
    measurements = [tests[place] for place in sorted(tests)]
    return replace(second, start=first.start, measurements=measurements)
