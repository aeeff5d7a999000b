"""The policies whose learning curves are recorded: what every optimiser chooses from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lrbench_caffe.lr import Policy, parse

CYCLIC = ("TRI", "TRI2", "TRIEXP", "SIN", "SIN2", "SINEXP", "COS")
CYCLES = (20, 5)  # l is such a part of the training
RANGE = 10  # k1 / k0 of the cyclic policies
DECAY = 0.1  # what gamma^max_iter is


@dataclass(frozen=True)
class Ranges:
    """The highest LRs in a pool: good ones, and some that are too low or too high.

    Attributes:
        fixed: k0 of FIX.
        decaying: k0 of the five decays.
        cyclic: k1 of the seven cyclic functions, each with two cycle lengths.
    """

    fixed: Sequence[float]
    decaying: Sequence[float]
    cyclic: Sequence[float]


# 64 policies for LeNet; where it is fine-tuned, with a tenth of the LRs. CNN3 tolerates a tenth of
# them, too; 48 policies, since its trainings are long.
LENET = Ranges((0.001, 0.003, 0.01, 0.03, 0.06, 0.1, 0.2), (0.01, 0.03, 0.1), (0.02, 0.06, 0.2))
FINE_TUNED = Ranges(
    (0.0001, 0.0003, 0.001, 0.003, 0.006, 0.01, 0.02), (0.001, 0.003, 0.01), (0.002, 0.006, 0.02)
)
CNN3 = Ranges((0.0003, 0.001, 0.003, 0.006, 0.02), (0.001, 0.003, 0.01), (0.006, 0.02))


def pool(max_iter: int, ranges: Ranges = LENET) -> list[Policy]:
    """The policies for a training of `max_iter` iterations: all 13 functions, good and bad ranges of the LR.

    The good range is not the same for every task, and so neither is the share of policies that
    diverge.
    """
    fixed = [f"FIX(k0={k0})" for k0 in ranges.fixed]
    texts = [*fixed, *_decaying(max_iter, ranges.decaying), *_cyclic(max_iter, ranges.cyclic)]
    return [parse(text).bind(max_iter) for text in texts]


def _decaying(max_iter: int, highest: Sequence[float]) -> list[str]:
    steps = [round(max_iter * part) for part in (0.5, 0.7, 0.8, 0.9, 0.95)]
    found = []
    for k0 in highest:
        found += [
            f"STEP(k0={k0}, gamma=0.85, l={max_iter // 10})",
            f"NSTEP(k0={k0}, gamma=0.6, l={steps})",
            f"EXP(k0={k0}, gamma={_gamma(max_iter)})",
            f"INV(k0={k0}, gamma={1 / max_iter:g}, p=0.75)",
            f"POLY(k0={k0}, p=1.2)",
        ]
    return found


def _cyclic(max_iter: int, highest: Sequence[float]) -> list[str]:
    found = []
    for part in CYCLES:
        for k1 in highest:
            for function in CYCLIC:
                gamma = f" gamma={_gamma(max_iter)}," if function.endswith("EXP") else ""
                found.append(f"{function}(k0={k1 / RANGE:g}, k1={k1},{gamma} l={max_iter // part})")
    return found


def _gamma(max_iter: int) -> float:
    return float(f"{DECAY ** (1 / max_iter):.7g}")
