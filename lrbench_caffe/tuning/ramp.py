"""The LR range test of practitioners: one pass with an exponentially rising LR, and its loss.

Read off the smoothed loss: learning begins where it has fallen by ``BEGIN`` of its whole fall, and
the LR is too high where it is lowest, or at ``MARGIN`` of the LR at which it was above its
beginning or not finite. It costs a fraction of what a ladder costs, and says less: nothing of
Top-1, and nothing of what an LR does in the long run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lrbench_caffe.errors import TrainingError
from lrbench_caffe.files import replace_own
from lrbench_caffe.prototxt.messages import to_bytes
from lrbench_caffe.prototxt.solver import Solver
from lrbench_caffe.tuning.space import GoodRange
from lrbench_caffe.tuning.study import Study

LOWEST, HIGHEST = 1e-5, 10.0  # LRs at both ends of the pass
SMOOTHING = 0.05  # length of the smoothing window, as a share of the pass
BEGIN = 0.1
MARGIN = 0.3
NOISE = 5.0  # deviations of the smoothed loss by chance: what falls by less has not fallen
RULE = (
    f"where the smoothed loss has fallen by {BEGIN:.0%} of its whole fall, up to where it is lowest, "
    f"or to {MARGIN:g} of the LR at which it was above its beginning or not finite"
)
_UNUSED = (
    "power", "stepsize", "stepvalue", "snapshot",
    "test_iter", "test_interval", "test_net", "test_net_param", "test_state", "test_initialization",
)  # fmt: skip


@dataclass(frozen=True)
class Pass:
    """One pass.

    Attributes:
        lrs, losses: of each iteration that was trained, shape (n,); shorter where it diverged.
    """

    lrs: np.ndarray
    losses: np.ndarray


def rise(study: Study, solver: Solver, iterations: int, passes: int) -> list[Pass]:
    """Train the passes, each with its own seed: the same one would give the same losses.

    Returns:
        All passes; none where one was lost (see ``Study.lost``).
    """
    path = _write_solver(study.folder, solver, iterations)
    seeds = range(study.plan.seed, study.plan.seed + passes)
    # Not for the LR database: without tests a pass is not a policy's result.
    results = study.run(
        [study.training(str(path), f"ramp-{iterations}-seed{seed}", seed, db="") for seed in seeds]
    )
    if study.lost:
        return []
    tables = [result.training.run.iterations() for result in results]
    return [Pass(table[:, 1], table[:, 2]) for table in tables]


def _write_solver(folder: Path, solver: Solver, iterations: int) -> Path:
    """A copy of the solver whose LR rises, by Caffe's own exp policy with a gamma above 1, without tests."""
    message = type(solver.message)()
    message.CopyFrom(solver.message)
    for name in _UNUSED:
        if name in message.DESCRIPTOR.fields_by_name:
            message.ClearField(name)
    message.lr_policy, message.base_lr, message.gamma = "exp", LOWEST, gamma(iterations)
    message.max_iter, message.snapshot_after_train = iterations, False
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"ramp-{iterations}.prototxt"
    replace_own(path, to_bytes(message))
    return path


def gamma(iterations: int) -> float:
    """The factor of the LR at every iteration, which rises from ``LOWEST`` to ``HIGHEST``."""
    return float((HIGHEST / LOWEST) ** (1 / max(1, iterations - 1)))


def smoothed(passes: Sequence[Pass], iterations: int) -> tuple[np.ndarray, np.ndarray]:
    """LRs and the loss over them: the mean over passes, and over a window.

    It ends where the first pass ends, since the mean behind that would be over others.

    Raises:
        TrainingError: that is too early.
    """
    mean, window = _averaged(passes), _window(iterations)
    if len(mean) < 2 * window:
        raise TrainingError(
            f"the loss was not finite after {len(mean)} of {iterations} iterations: too few to read"
        )
    half = (window - 1) // 2
    values = np.convolve(mean, np.ones(window) / window, mode="valid")
    return passes[0].lrs[half : half + len(values)], values


def _averaged(passes: Sequence[Pass]) -> np.ndarray:
    """The mean loss over the passes, up to the end of the first that ends."""
    length = min(_whole(one.losses) for one in passes)
    return np.asarray(np.mean([one.losses[:length] for one in passes], axis=0))


def _window(iterations: int) -> int:
    """The iterations that are smoothed over."""
    return max(1, int(iterations * SMOOTHING))


def _whole(losses: np.ndarray) -> int:
    """The number of losses before the first that is not finite."""
    broken = np.flatnonzero(~np.isfinite(losses))
    return int(broken[0]) if len(broken) else len(losses)


def read(passes: Sequence[Pass], iterations: int) -> GoodRange:
    """The good range.

    Raises:
        TrainingError: the loss never fell: nothing can be read from it.
    """
    lrs, losses = smoothed(passes, iterations)
    bottom = int(np.argmin(losses))
    fall = float(losses[0] - losses[bottom])
    if fall <= NOISE * _noise(passes, losses, iterations):
        raise TrainingError(
            "the loss of the range test did not fall at any LR by more than its noise: it shows no range; "
            "more iterations or passes may show one"
        )
    begin = int(np.argmax(losses <= losses[0] - BEGIN * fall))
    high = min(float(lrs[bottom]), MARGIN * _limit(passes, lrs, losses, bottom))
    low = min(float(lrs[begin]), high)
    best = min(max(float(lrs[_steepest(losses[: bottom + 1])]), low), high)
    return GoodRange(*(float(f"{lr:.2g}") for lr in (low, high, best)))


def _noise(passes: Sequence[Pass], losses: np.ndarray, iterations: int) -> float:
    """The deviation of the smoothed loss by chance: from the changes between neighbours, which hardly
    change otherwise."""
    begin = np.diff(_averaged(passes)[: max(2, len(losses) // 4)])  # later it may explode
    return float(np.std(begin)) / math.sqrt(2 * _window(iterations)) if len(begin) else 0.0


def _steepest(losses: np.ndarray) -> int:
    """Where the loss falls fastest: the middle of the steepest tenth."""
    span = max(1, len(losses) // 10)
    falls = losses[:-span] - losses[span:] if len(losses) > span else np.zeros(1)
    return int(np.argmax(falls)) + span // 2


def _limit(passes: Sequence[Pass], lrs: np.ndarray, losses: np.ndarray, bottom: int) -> float:
    """The LR that was certainly too high: the loss was above its beginning, or not finite; else infinity."""
    above = np.flatnonzero(losses[bottom:] > losses[0])
    if len(above):
        return float(lrs[bottom + above[0]])
    ends = [float(one.lrs[n]) for one in passes if (n := _whole(one.losses)) < len(one.losses)]
    return min(ends, default=float("inf"))
