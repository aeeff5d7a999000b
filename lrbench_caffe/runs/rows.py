"""The rows of a run directory's files: what a file and its journal hold, read, checked and compared."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lrbench_caffe.files import read_own
from lrbench_caffe.metrics import Measurement
from lrbench_caffe.records import digest
from lrbench_caffe.runs.journal import Journaled
from lrbench_caffe.runs.layout import (
    HEADING,
    ITERATIONS,
    LOSSES,
    MEASUREMENTS,
    RECORDS,
    SNAPSHOTS,
)

Place = tuple[Any, Any]  # iteration and test net


@dataclass(frozen=True)
class Rows:
    """The rows of a file, by place.

    Attributes:
        rows: the texts of the valid rows, in their order.
        bad: the numbers of lines that are damaged, from 1.
        problem: why the file cannot be read, None where it can.
    """

    rows: dict[Any, str]
    bad: list[int]
    problem: str | None = None

    @property
    def damage(self) -> str | None:
        """The damage in a few words, None for an intact file."""
        if self.problem:
            return self.problem
        if not self.bad:
            return None
        return f"line {self.bad[0]} is damaged" + (
            f" (and {len(self.bad) - 1} more)" * (len(self.bad) > 1)
        )


@dataclass(frozen=True)
class Recovered:
    """The merged rows of a file and its journal.

    Attributes:
        rows: by place: of the two, what is intact.
        damage: what is wrong, in a few words for each file.
        lost: whether some of it may be in neither.
        other: further readings of the two, where they contradict each other.
    """

    rows: dict[Any, str]
    damage: list[str]
    lost: bool = False
    other: tuple[dict[Any, str], ...] = ()


def together(
    name: str, file: Rows, journal: Journaled, own: Rows, last: int = 1, *, has_journal: bool
) -> Recovered:
    """The rows of a file and of its journal as one.

    Args:
        own: the rows of the journal; ``last``: how many of them were written at once at the end.

    A kill may leave a file without what its journal was given last: that is not damage.
    """
    log = LOSSES if name == ITERATIONS else RECORDS
    of_file = [f"{name}: {file.damage}"] if file.damage else []
    of_journal = [f"{log}: {journal.damage}"] if journal.damage else []
    if not has_journal:
        return Recovered(file.rows, of_file, bool(of_file))
    if not journal.whole:
        agreeing = {place: file.rows.get(place) for place in own.rows} == own.rows
        if agreeing and not of_file:
            return Recovered(file.rows, of_journal, other=(own.rows,))
        words = [*(of_file or [f"{name}: differs from what was written"]), *of_journal]
        both, reverse = {**file.rows, **own.rows}, {**own.rows, **file.rows}
        return Recovered(both, words, True, (file.rows, own.rows, reverse))
    missing = len(own.rows) - len(file.rows)
    if not of_file and missing >= 0 and _begins(own.rows, file.rows):
        words = [f"{name}: its last {missing} rows are missing"] if missing > last else []
        return Recovered(own.rows, words)
    if not of_file and _begins(file.rows, own.rows):
        return Recovered(file.rows, [f"{log}: its last rows are missing"], other=(own.rows,))
    words = of_file or [f"{name}: differs from what was written"]
    both, reverse = {**own.rows, **file.rows}, {**file.rows, **own.rows}
    return Recovered(own.rows, words, other=(file.rows, both, reverse))


def _begins(whole: Mapping[Any, str], part: Mapping[Any, str]) -> bool:
    """Whether the rows of one are the first ones of the other."""
    return len(part) <= len(whole) and all(
        one == other for one, other in zip(part.items(), whole.items())
    )


def fold(name: str, id: str | None, lines: Iterable[str], problem: str | None = None) -> Rows:
    """The last row of each place of a .jsonl file, in their order."""
    rows: dict[Place, str] = {}
    bad = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            place = place_of(row) if _is_row(name, id, row) else None
            if place is not None:
                rows.pop(place, None)
                rows[place] = line
        except (ValueError, TypeError, RecursionError):  # a net that is a list cannot be a key
            place = None
        if place is None:
            bad.append(number)
    return Rows(rows, bad, problem)


def _is_row(name: str, id: str | None, row: Any) -> bool:
    if not isinstance(row, dict) or not is_count(row.get("iteration")):
        return False
    if name == MEASUREMENTS:
        return measurement_of(row) is not None
    return name != SNAPSHOTS or id is None or row == sealed(row, id)


def sealed(row: dict[str, Any], id: str) -> dict[str, Any]:
    """A row of snapshots.jsonl with its checksum, which holds for this run alone."""
    bare = {name: value for name, value in row.items() if name != "check"}
    return {**bare, "check": digest([id, bare])[:16]}


def read_losses(path: Path) -> Rows:
    lines, problem = complete_lines(path)
    heading = bool(lines) and lines[0] + "\n" == HEADING
    rows = fold_losses(lines[heading:], problem)
    bad = [number + heading for number in rows.bad]
    return replace(rows, bad=[1, *bad] if lines and not heading and 1 not in bad else bad)


def fold_losses(lines: Iterable[str], problem: str | None = None) -> Rows:
    rows: dict[int, str] = {}
    bad = []
    for number, line in enumerate(lines, start=1):
        row = iteration_row(line)
        if row is None:
            bad.append(number)
        else:
            rows[int(row[0])] = line
    return Rows(rows, bad, problem)


def place_of(row: dict[str, Any]) -> Place:
    return row["iteration"], row.get("net")


def digest_before(rows: Mapping[Any, str], iteration: int) -> str:
    """SHA-256 of the rows before an iteration, by iteration (and test net)."""
    places = sorted(p for p in rows if (p if isinstance(p, int) else p[0]) < iteration)
    return hashlib.sha256(joined(rows[place] for place in places)).hexdigest()


def digest_at(rows: Mapping[Place, str], iteration: int) -> str | None:
    """SHA-256 of the rows of an iteration; None where there are none."""
    places = sorted(place for place in rows if place[0] == iteration)
    return hashlib.sha256(joined(rows[place] for place in places)).hexdigest() if places else None


def joined(texts: Iterable[str]) -> bytes:
    return "".join(f"{text}\n" for text in texts).encode("utf-8", "surrogatepass")


def csv_rows(iterations: np.ndarray, lrs: np.ndarray, losses: np.ndarray) -> str:
    """Rows of iterations.csv, to the last bit: a resumed run takes the mean of losses that it reads there."""
    rows = zip(iterations.tolist(), lrs.tolist(), losses.tolist())
    return "".join(f"{i},{lr!r},{loss!r}\n" for i, lr, loss in rows)


def complete_lines(path: Path) -> tuple[list[str], str | None]:
    """The lines of a file without a last one that a kill cut off, and why it cannot be read."""
    try:
        return read_own(path).decode("utf-8", "replace").split("\n")[:-1], None
    except FileNotFoundError:
        return [], None
    except OSError as error:
        return [], str(error.strerror)


def iteration_row(line: str) -> tuple[float, ...] | None:
    """Iteration, lr and loss of a line of iterations.csv; None for the heading and a damaged line."""
    try:
        row = tuple(map(float, line.split(",")))
    except ValueError:
        return None
    return row if len(row) == 3 and row[0].is_integer() and row[0] >= 0 else None


def measurement_of(row: dict[str, Any]) -> Measurement | None:
    """A measurement from a row of the file; None for a row of something else."""
    try:
        measurement = Measurement.from_json(row)
    except TypeError:  # a field is missing
        return None
    outputs: Any = measurement.outputs
    if not isinstance(outputs, dict):
        return None
    # A value that was not finite is null.
    measurement = replace(
        measurement, outputs={name: v for name, v in outputs.items() if v is not None}
    )
    own = {name: value for name, value in vars(measurement).items() if name != "outputs"}
    numbers = all(
        value is None or isinstance(value, (int, float))
        for value in (*own.values(), *measurement.outputs.values())
    )
    return measurement if numbers and is_count(measurement.net) else None


def finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
