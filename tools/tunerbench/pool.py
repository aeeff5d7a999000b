"""The policies whose learning curves are recorded: what every optimiser chooses from."""

from __future__ import annotations

from lrbench_caffe.lr import Policy, parse

FIXED_K0 = (0.001, 0.003, 0.01, 0.03, 0.06, 0.1, 0.2)
DECAYING_K0 = (0.01, 0.03, 0.1)
CYCLIC_K1 = (0.02, 0.06, 0.2)
CYCLIC = ("TRI", "TRI2", "TRIEXP", "SIN", "SIN2", "SINEXP", "COS")
CYCLES = (20, 5)  # l is such a part of the training
RANGE = 10  # k1 / k0 of the cyclic policies
DECAY = 0.1  # what gamma^max_iter is


def pool(max_iter: int) -> list[Policy]:
    """64 policies for a training of `max_iter` iterations: all 13 functions, good and bad ranges of the LR.

    The good range is not the same for every task, and so neither is the share of policies that
    diverge.
    """
    return [
        parse(text).bind(max_iter) for text in [*_fixed(), *_decaying(max_iter), *_cyclic(max_iter)]
    ]


def _fixed() -> list[str]:
    return [f"FIX(k0={k0})" for k0 in FIXED_K0]


def _decaying(max_iter: int) -> list[str]:
    steps = [round(max_iter * part) for part in (0.5, 0.7, 0.8, 0.9, 0.95)]
    found = []
    for k0 in DECAYING_K0:
        found += [
            f"STEP(k0={k0}, gamma=0.85, l={max_iter // 10})",
            f"NSTEP(k0={k0}, gamma=0.6, l={steps})",
            f"EXP(k0={k0}, gamma={_gamma(max_iter)})",
            f"INV(k0={k0}, gamma={1 / max_iter:g}, p=0.75)",
            f"POLY(k0={k0}, p=1.2)",
        ]
    return found


def _cyclic(max_iter: int) -> list[str]:
    found = []
    for part in CYCLES:
        for k1 in CYCLIC_K1:
            for function in CYCLIC:
                gamma = f" gamma={_gamma(max_iter)}," if function.endswith("EXP") else ""
                found.append(f"{function}(k0={k1 / RANGE:g}, k1={k1},{gamma} l={max_iter // part})")
    return found


def _gamma(max_iter: int) -> float:
    return float(f"{DECAY ** (1 / max_iter):.7g}")
