"""The possible ranges of the numbers in a record.

``checks`` holds records against them, ``schema`` makes them constraints. The bounds leave room for
sums of squares over many runs. Those of metrics are declared with them.
"""

from __future__ import annotations

from lrbench_caffe.metrics import METRICS

INT32 = 2**31 - 1  # Caffe's own numbers of iterations
WHOLE = 10**15
LAST_ID = 2**53  # of a row: the last whole number that every reader of JSON can hold
LAYERS = REPEATS = 10**6
REAL = 1e100
YEAR_9999 = 253_402_300_799  # seconds since 1970

RANGES: dict[str, tuple[float, float]] = {
    **{f"dataset.{name}": (1, WHOLE) for name in ("channels", "height", "width", "classes")},
    **{f"dataset.{name}": (0, WHOLE) for name in ("train_samples", "test_samples")},
    "task_type.classes": (1, WHOLE),
    "network.parameters": (0, WHOLE),
    "network.depth": (0, LAYERS),
    "policy.num_params": (0, INT32),
    "solver.batch": (1, WHOLE),
    "solver.iter_size": (1, WHOLE),
    "solver.base_lr": (-REAL, REAL),
    "solver.momentum": (-REAL, REAL),
    "solver.weight_decay": (-REAL, REAL),
    "run.max_iter": (1, INT32),
    "run.test_interval": (0, INT32),
    "run.epoch": (1e-9, 1e9),
    "run.started": (0, YEAR_9999),
    "run.ended": (0, YEAR_9999),
    "run.repeats": (1, REPEATS),
    "run.top1_sd": (0, 100),
    "contribution.sent": (0, YEAR_9999),
    **{f"token.{name}": (0, YEAR_9999) for name in ("made", "expires", "revoked")},
    "start.filled": (0, LAYERS),
    "start.layers": (0, LAYERS),
    "start.iteration": (0, INT32),
    "measurement.iteration": (0, INT32),
    "measurement.lr": (-REAL, REAL),
    **{
        f"measurement.{metric.name}": (max(metric.low, -REAL), min(metric.high, REAL))
        for metric in METRICS.values()
    },
    "measurement.seconds": (-REAL, REAL),
    "measurement.samples": (0, WHOLE),
    "measurement.silent_classes": (0, WHOLE),
    "measurement.net": (0, INT32),
}
