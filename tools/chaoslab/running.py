"""Which trials are done, several at a time, and the table of what they came to."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from chaoslab.lab import Lab
from chaoslab.registry import Scenario
from chaoslab.trial import Ended, perform
from chaoslab.verdicts import EQUAL, HANG, LEFT, REFUSED, SKIPPED, TRACEBACK, WRONG

COLUMNS = (EQUAL, REFUSED, SKIPPED, WRONG, TRACEBACK, HANG, LEFT)
AGAIN = 1.0  # seconds between two looks for processes that must end
Todo = tuple[Scenario, int]


def by_name(scenarios: Sequence[Scenario], seed: int, trials: int) -> Iterator[Todo]:
    """``trials`` of each scenario, with seeds from ``seed`` on."""
    for number in range(trials):
        for scenario in scenarios:
            yield scenario, seed + number


def at_random(scenarios: Sequence[Scenario], seed: int, minutes: float) -> Iterator[Todo]:
    """Scenarios by their weights until the time is used, after each once; the seed decides which ones."""
    rng = random.Random(seed)
    end = time.monotonic() + 60 * minutes
    first = rng.sample(scenarios, len(scenarios))
    weights = [scenario.weight for scenario in scenarios]
    for number in itertools.count():
        chosen = first[number] if number < len(first) else rng.choices(scenarios, weights)[0]
        if time.monotonic() >= end:
            return
        yield chosen, trial_seed(seed, number)


def trial_seed(seed: int, number: int) -> int:
    """The seed of the n-th trial."""
    return int.from_bytes(hashlib.sha256(f"{seed} {number}".encode()).digest()[:4], "big")


@dataclass
class Tally:
    """What the trials came to.

    Attributes:
        seed: the main seed.
        ended: the trials so far.
    """

    seed: int
    ended: list[Ended] = field(default_factory=list)

    @property
    def bad(self) -> list[Ended]:
        return [one for one in self.ended if one.verdict.bad]

    def rows(self) -> list[list[str]]:
        """The table: a row for each scenario, and their sum."""
        counts: dict[str, Counter[str]] = {}
        for one in self.ended:
            counts.setdefault(one.scenario, Counter())[one.verdict.kind] += 1
        rows = [["scenario", "tried", *COLUMNS]]
        for name, count in sorted(counts.items()):
            rows.append([name, str(sum(count.values())), *(str(count[kind]) for kind in COLUMNS)])
        total = Counter(one.verdict.kind for one in self.ended)
        rows.append(["all", str(sum(total.values())), *(str(total[kind]) for kind in COLUMNS)])
        return rows

    def json(self) -> dict[str, Any]:
        heading, *rows = self.rows()
        return {
            "seed": self.seed,
            "scenarios": {row[0]: dict(zip(heading[1:], map(int, row[1:]))) for row in rows},
            "trials": [asdict(one) for one in self.ended],
        }

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(self.json(), indent=2) + "\n", encoding="utf-8")


def run(
    lab: Lab,
    todo: Iterator[Todo],
    jobs: int,
    tally: Tally,
    said: Callable[[Ended], None],
    keep: bool,
) -> None:
    """Do the trials, ``jobs`` at a time. On Ctrl-C what runs is given up, and the tally holds the rest."""
    pool = ThreadPoolExecutor(jobs)
    waiting: set[Future[Ended]] = set()
    try:
        while True:
            while len(waiting) < jobs and (new := next(todo, None)):
                waiting.add(pool.submit(perform, lab, *new, keep))
            if not waiting:
                return
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                tally.ended.append(future.result())
                said(tally.ended[-1])
    finally:
        for future in waiting:
            future.cancel()
        while waiting:
            lab.close(keep=True)  # ends their processes, so that the threads end
            # A thread may have been just about to start one.
            waiting = wait(waiting, timeout=AGAIN).not_done
        pool.shutdown()
