"""A run of a log that comes in again: the log has grown, or its data and net are at hand this time."""

from __future__ import annotations

from dataclasses import replace

from lrbench_caffe.records import PARTIAL, RunRecord, Start

# What the data's and the net's files tell, and a log alone does not.
_OF_FILES = ("task_type", "dataset", "network", "solver", "epoch", "head")


def completed(stored: RunRecord, again: RunRecord) -> RunRecord:
    """What both records of a run say together.

    The one that ends later tells how the run ended, its policy and its tests; of each test the other one has
    what the later one lacks. The one that had more files at hand tells what was trained, and the one that
    knows more of the start tells that.
    """
    later, earlier = (stored, again) if (stored.ended or 0.0) > (again.ended or 0.0) else (again, stored)
    informed = max(later, earlier, key=_informed)  # of equals the later
    tests = {(m.iteration, m.net): m for record in (earlier, later) for m in record.measurements}
    return replace(
        later,
        **{name: getattr(informed, name) for name in _OF_FILES},
        start=_start(later, earlier),
        measurements=[tests[place] for place in sorted(tests)],
    )


def _start(later: RunRecord, earlier: RunRecord) -> Start:
    """That of the later record, unless the earlier one had a file or the beginning of the log at hand."""
    one, other = later.start, earlier.start
    if one.kind == "unknown" or (one.kind == other.kind and other.known):
        return other
    return one


def _informed(record: RunRecord) -> tuple[bool, bool]:
    return not record.network.name.endswith(PARTIAL), record.dataset.digest is not None
