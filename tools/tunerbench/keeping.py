"""Runs of peers that were made before: comparing all of them takes hours, and may be interrupted.

Each line of the file is one run as JSON. A run depends on the curves, the optimiser with its
setting, its package's version and its seed, and on nothing else. Those of this tuner are not kept:
it is what changes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .curves import CurveSet
from .peers import Optimiser, SearchOutcome
from .results import Run, Way, run_once


class KeptRuns:
    """The runs in a file; one that is not there yet is made, and added to it at once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._runs: dict[tuple[str, str, int, str], Any] = {}
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                self._read(line)

    def _read(self, line: str) -> None:
        try:
            run = json.loads(line)
        except ValueError:  # empty, or being written when the command was killed
            return
        self._runs[run["set"], run["optimiser"], run["seed"], run.get("curves", "")] = run

    def replay(
        self, task: CurveSet, name: str, optimiser: Optimiser, seeds: Iterable[int]
    ) -> Iterator[Run]:
        """As ``results.replay``, of an optimiser with this name (its version included)."""
        for seed in seeds:
            known = self._runs.get((task.name, name, seed, task.digest_of(seed)))
            yield self._make(task, name, optimiser, seed) if known is None else _run(task, known)

    def _make(self, task: CurveSet, name: str, optimiser: Optimiser, seed: int) -> Run:
        run = run_once(task, optimiser, seed)
        line = json.dumps(
            {
                "set": task.name,
                "optimiser": name,
                "seed": seed,
                "curves": task.digest_of(seed),
                "costs": run.costs.tolist(),
                "bests": run.bests.tolist(),
                "trials": run.outcome.trials,
                "repeats": run.outcome.repeats,
            }
        )
        # The line begins where it cannot be part of one that was cut off.
        with self._path.open("a", encoding="utf-8") as file:
            file.write(f"\n{line}\n")
        return run


def _run(task: CurveSet, known: dict[str, Any]) -> Run:
    way = Way.of(task.curves_of(known["seed"]))
    outcome = SearchOutcome(known["trials"], known["repeats"])
    return Run(np.array(known["costs"]), np.array(known["bests"]), way, outcome)
