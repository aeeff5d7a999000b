"""Retries lost trainings within the same command, so that no loss changes a result.

A training is lost if it ended for a reason other than its policy: killed, crashed, hung, out of
memory, on a full disk. It continues from its last snapshot. A refusal by Caffe or the command would
only be repeated, so it ends the command. Divergence is a result.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from lrbench_caffe.errors import InputError, LRBenchError
from lrbench_caffe.jobs.pool import Pool
from lrbench_caffe.jobs.training import Job, JobResult
from lrbench_caffe.runtime.faults import is_of_full_disk

RETRIES = 6  # losses in a row without progress after which a training is begun again; one more is a failure
SAME = 3  # losses in a row at one iteration and for one reason, after which it will always be lost there
PAUSES = (
    1.0,
    1.0,
    2.0,
    2.0,
    4.0,
    8.0,
)  # seconds before it is begun again, after the first, second ... of them
POLL = 0.5  # seconds between two checks of what is due
SOON = 0.1  # the same, where there is room for what waits for another training


@dataclass
class _Retries:
    """The losses of one training in this command: how often, and where.

    Attributes:
        total: how often it was lost.
        in_a_row: losses none of which was at a later iteration than the one before.
        same: losses in a row that were the same.
        reached: the most iterations that it had at any of them.
        last: the iteration and the reason of the last one.
    """

    total: int = 0
    in_a_row: int = 0
    same: int = 0
    reached: int = -1
    last: tuple[int, str | None] = (0, None)

    def add(self, result: JobResult) -> None:
        count, this = result.losses or 1, (result.iteration, result.reason)
        reached = max(result.iteration, result.training.reached)
        self.total += count
        self.in_a_row = count if reached > self.reached else self.in_a_row + count
        # At the beginning a kill and the next one may well look the same.
        self.same = self.same + 1 if this == self.last and result.iteration else 1
        self.reached, self.last = max(self.reached, reached), this

    @property
    def hopeless(self) -> bool:
        return self.in_a_row > RETRIES or self.same >= SAME


@dataclass(frozen=True)
class _Again:
    """A training scheduled for a retry at a monotonic time, alone where memory may be short."""

    training: Job
    at: float
    alone: bool


class RetryingPool:
    """A pool that retries lost trainings.

    A training is given up when it was lost ``RETRIES`` + 1 times without progress in between, or
    ``SAME`` times in the same way, which suggests a permanent cause such as a damaged record. Where memory
    was the reason, and before the last attempt in any case, it is begun again when nothing else
    trains, and nothing else is begun before it has ended.

    Args:
        pool: where they are trained; closed by the caller.
        say: told of each loss, for a person to see.
        ready: whether a training may begin, or has to wait for another one that was submitted
            before it.
    """

    def __init__(
        self,
        pool: Pool,
        say: Callable[[str], None],
        ready: Callable[[Job], bool] = lambda training: True,
    ) -> None:
        self._pool = pool
        self._say = say
        self._ready = ready
        self._waiting: deque[Job] = deque()
        self._again: list[_Again] = []
        self._running = 0
        self._one_alone = False
        self._losses: dict[Job, _Retries] = {}

    @property
    def slots(self) -> int:
        return self._pool.slots

    @property
    def room(self) -> int:
        return self._pool.room

    def submit(self, training: Job) -> None:
        self._waiting.append(training)
        self._hand_over()

    def next(self, timeout: float | None = None) -> JobResult | None:
        """The next result; that of a lost training when it is given up.

        Raises:
            InputError: a training was refused, for what it was given.
            LRBenchError: one was given up for a full disk.
        """
        deadline = float("inf") if timeout is None else time.monotonic() + timeout
        while True:
            self._hand_over()
            poll = SOON if self._waiting and self._has_room else POLL
            result = self._pool.next(timeout=max(0.0, min(poll, deadline - time.monotonic())))
            if result is not None:
                self._running -= 1
                self._one_alone = False
                if result.refused:
                    raise InputError(str(result.reason))
                if not (result.lost and self._try_again(result)):
                    if result.lost:
                        _check_room(result)
                    return self._with_losses(result)
            elif time.monotonic() >= deadline:
                return None

    def close(self) -> None:
        self._pool.close()

    def _hand_over(self) -> None:
        """Begin what may begin now."""
        if self._one_alone:
            return
        due = [again for again in self._again if again.at <= time.monotonic()]
        alone = next((again for again in due if again.alone), None)
        if alone is not None:
            if self._running == 0:
                self._again.remove(alone)
                self._one_alone = True
                self._begin(alone.training)
            return
        for again in due:
            self._again.remove(again)
            self._begin(again.training)
        while self._has_room:
            training = next(filter(self._ready, self._waiting), None)
            if training is None:
                return
            self._waiting.remove(training)
            self._begin(training)

    @property
    def _has_room(self) -> bool:
        return self._running < self._pool.room

    def _begin(self, training: Job) -> None:
        self._running += 1
        self._pool.submit(training)

    def _try_again(self, result: JobResult) -> bool:
        """Whether a lost training will be begun again."""
        training = result.training
        losses = self._losses.setdefault(training, _Retries())
        losses.add(result)
        if losses.hopeless or result.losses:  # a cluster has tried it again already
            return False
        pause = PAUSES[min(losses.in_a_row, len(PAUSES)) - 1]
        alone = result.memory or losses.in_a_row == RETRIES
        self._again.append(_Again(training, time.monotonic() + pause, alone))
        what = training.policy or Path(training.solver).stem
        self._say(
            f"{what}  seed {training.seed}  lost at iteration {losses.reached}: {result.reason}; "
            f"it is tried again{', alone' * alone} ({losses.in_a_row} of at most {RETRIES} times)"
        )
        return True

    def _with_losses(self, result: JobResult) -> JobResult:
        losses = self._losses.pop(result.training, None)
        return result if losses is None else replace(result, losses=losses.total)


def _check_room(lost: JobResult) -> None:
    """Raise an LRBenchError where a full disk ended a training: no other could be recorded either."""
    if is_of_full_disk(lost.reason or ""):
        raise LRBenchError(
            f"{lost.training.out}: {lost.reason}; the same command continues when there is room"
        )
