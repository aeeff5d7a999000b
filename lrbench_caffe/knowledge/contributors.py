"""From whom results are: those of chosen contributors, and who stands behind a result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lrbench_caffe.errors import ParameterError, did_you_mean
from lrbench_caffe.records import OWN, PAPER, PolicySummary, Start, Task

if TYPE_CHECKING:
    from lrbench_caffe.database import Database
    from lrbench_caffe.knowledge.lookup import ResultSource

SHOWN = 5  # contributors of a result that are named


@dataclass(frozen=True)
class ChosenResults:
    """The results of chosen contributors, as a lookup asks for them.

    Attributes:
        database: where they are.
        contributors: their names; "own" for runs that were never uploaded, "paper" for the paper's.
    """

    database: Database
    contributors: tuple[str, ...]

    def tasks(self) -> list[Task]:
        return self.database.tasks(contributors=self.contributors)

    def summaries(
        self,
        task_id: int,
        *,
        functions: Sequence[str] | None = None,
        start: Start | None = None,
        order_by: str = "top1",
        limit: int | None = None,
    ) -> list[PolicySummary]:
        return self.database.summaries(
            task_id,
            functions=functions,
            start=start,
            order_by=order_by,
            limit=limit,
            contributors=self.contributors,
        )

    def starts(self, task_id: int) -> list[Start]:
        return self.database.starts(task_id, contributors=self.contributors)

    def untrained_loss(self, task_id: int, start: Start) -> float | None:
        return self.database.untrained_loss(task_id, start, contributors=self.contributors)

    def untrained_top1(self, task_id: int, start: Start) -> float | None:
        return self.database.untrained_top1(task_id, start, contributors=self.contributors)

    def contributions(self, among: Sequence[PolicySummary]) -> dict[int, dict[str, int]]:
        return self.database.contributions(among, contributors=self.contributors)


def results_of(database: Database, contributors: Sequence[str]) -> ResultSource:
    """The results of contributors, all without any.

    Raises:
        ParameterError: nobody of such a name has uploaded anything.
    """
    if not contributors:
        return database
    known = [OWN, PAPER, *database.contributors()]
    for name in contributors:
        if name not in known:
            hint = did_you_mean(name, known) or ";"
            raise ParameterError(
                "{contributors}: {0!r} has contributed nothing{1} allowed: {2}",
                name,
                hint,
                ", ".join(known),
            )
    return ChosenResults(database, tuple(dict.fromkeys(contributors)))


def told(contributors: Mapping[str, int], runs: int) -> str:
    """Who contributed to a result of so many runs, in words that follow their number.

    >>> told({"ada": 2}, 3)
    ', of these 2 from ada'
    >>> told({"ada": 3}, 3)
    ', from ada'
    >>> told({}, 3)
    ''
    """
    most_first = sorted(contributors.items(), key=lambda pair: (-pair[1], pair[0]))
    if not most_first:
        return ""
    if most_first[0][1] == runs:
        return f", from {most_first[0][0]}"
    shares = [f"{count} from {name}" for name, count in most_first[:SHOWN]]
    left = sum(count for _, count in most_first[SHOWN:])
    if left:
        shares.append(f"{left} from {len(most_first) - SHOWN} more")
    return f", of these {', '.join(shares)}"
