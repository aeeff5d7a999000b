"""What the database recommends for a training: proposals and remarks, as lines of text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from lrbench_caffe.knowledge.evidence import Evidence, Proposal
from lrbench_caffe.lr import Policy
from lrbench_caffe.records import Task


@dataclass(frozen=True)
class Recommendation:
    """The database's recommendation for a training.

    Attributes:
        proposals: the best first.
        compared: number of policies with a result on the same task from the same start, up to 100.
        similar: the other tasks that were looked at, with their similarity, the nearest first.
        set_aside: why the results on the same task do not count as experience; empty where they do,
            or where there are none.
        diverged: number of policies more that only diverged on the same task.
        passed_over: policies that other tasks speak for and that are not proposed, each with the
            result here that speaks against it.
        idle: policies that are not proposed since no update improved anything there, each with its
            result.
        other_starts: whether there are results on the same task from other starts.
        missing: LR functions that were asked for and are not among the proposals, each with the
            reason.
        note: what policies are compared by, where that is not the Top-1 or the test loss.
    """

    proposals: tuple[Proposal, ...]
    compared: int
    similar: tuple[tuple[Task, float], ...]
    set_aside: tuple[str, ...] = ()
    diverged: int = 0
    passed_over: tuple[tuple[Policy, Evidence], ...] = ()
    idle: tuple[tuple[Policy, Evidence], ...] = ()
    other_starts: bool = False
    missing: tuple[tuple[str, str], ...] = ()
    note: str = ""

    @property
    def results(self) -> list[Evidence]:
        """The results that its words name."""
        proposed = [item for p in self.proposals for item in (p.main, *p.more)]
        return proposed + [item for _, item in self.passed_over]

    def attributed(self, contributions: Mapping[int, Mapping[str, int]]) -> Recommendation:
        """The same, with results that say from whom they are.

        Args:
            contributions: by the id of a summary, its runs by contributor.
        """

        def told(item: Evidence) -> Evidence:
            known = contributions.get(item.summary.id or 0)
            return replace(item, contributors=known) if known else item

        proposals = tuple(
            replace(p, main=told(p.main), more=tuple(map(told, p.more))) for p in self.proposals
        )
        passed_over = tuple((policy, told(item)) for policy, item in self.passed_over)
        return replace(self, proposals=proposals, passed_over=passed_over)

    @property
    def experienced(self) -> bool:
        """Whether the results on the same task are enough to choose from."""
        return self.compared > 0 and not self.set_aside

    @property
    def known(self) -> str:
        """How much is known of the task itself, in a line."""
        compared = self.compared
        diverged = f", and {self.diverged} that only diverged" * bool(self.diverged)
        if not compared:
            here = "from this start" if self.other_starts else "on this task"
            text = f"in the database: no result {here}{diverged}"
            if not self.proposals:
                return text
            first = self.proposals[0].main
            where = "another start" if first.same_task else "the most similar one"
            return f"{text}; proposals are from {where}"
        policies = "1 policy" if compared == 1 else f"{compared} policies"
        return f"in the database: {policies} on this task{diverged}"

    @property
    def remarks(self) -> tuple[str, ...]:
        """What was set aside, passed over and not found, as lines of text."""
        lines = [self.note] if self.note else []
        if self.set_aside:
            first = self.proposals[0].main if self.proposals else None
            only = (
                first is not None and first.same_task and first.same_start
            )  # there is nothing else to try
            fate = "are not yet enough to choose from" if only else "set aside"
            lines.append(f"results on this task {fate}: {'; '.join(self.set_aside)}")
        for policy, result in self.passed_over:
            lines.append(f"passed over: {policy:.7g}, since {against(result)}")
        if self.idle:
            names = ", ".join(f"{policy:.7g}" for policy, _ in self.idle)
            lines.append(
                f"not proposed, since no test there was better than before the first update: {names}"
            )
        lines += [f"{function} is not proposed: {reason}" for function, reason in self.missing]
        return tuple(lines)


def against(evidence: Evidence) -> str:
    """A result that speaks against a policy, in words."""
    return f"{evidence.result} on this task ({evidence.origin})"
