"""The names of a run directory's files (``directory`` says what each holds)."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

HEADING = "iteration,lr,loss\n"  # of iterations.csv
LATEST = "latest"  # beside the runs: a symbolic link to the one that was begun or continued last
RUN = "run.json"
ITERATIONS = "iterations.csv"
MEASUREMENTS = "measurements.jsonl"
DECISIONS = "decisions.jsonl"
SNAPSHOTS = "snapshots.jsonl"
RECORDS, LOSSES = "records.log", "losses.log"
MARKS = (RUN, RECORDS)  # a folder with one of them is a run directory: each has what the run is
RUNS = Path("runs")  # where runs are that were given no directory


def page_key(folder: Path) -> str:
    """What names a run or study in the addresses of the web server."""
    return hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]
